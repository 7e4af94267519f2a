//! The command line.

use std::time::Duration;

use http::Uri;

pub const USAGE: &str = "\
usage: reverse_proxy --origin URL [--listen ADDR] [--store STORE] [--threads N] [--timeout SECONDS]
                     [--shared|--private]

  --origin URL       where requests go: http or https, a host and perhaps a port
  --listen ADDR      where clients come; port 0: any free one; default: 127.0.0.1:8080
  --store STORE      where responses are kept: memory, the path of a SQLite file, or an address such as
                     redis://localhost/0?cache_name=app (needs the feature redis); default: memory
  --threads N        worker threads; default: as many as there are cores
  --timeout SECONDS  how long the origin may take to begin its response; default: 60
  --shared           a cache for many users (the default)
  --private          a cache for one user";

pub struct Arguments {
    pub mode: Mode,
    pub listen: String,
    pub store: String,
    pub threads: Option<usize>,
    pub timeout: Duration,
    pub shared: bool,
}

pub enum Mode {
    /// A proxy before this origin.
    Proxy(Uri),
    /// For benches: no proxy but a server of so many bytes (`--bare BYTES`), to measure the proxy against.
    Bare(usize),
}

impl Arguments {
    /// `None`: help was asked for.
    pub fn parse(words: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let (mut origin, mut bare) = (None, None);
        let mut listen = "127.0.0.1:8080".to_owned();
        let mut store = "memory".to_owned();
        let mut threads = None;
        let mut timeout = Duration::from_secs(60);
        let mut shared = true;
        let mut words = words;
        while let Some(word) = words.next() {
            let (option, attached) = match word.split_once('=') {
                Some((option, value)) if option.starts_with("--") => (option, Some(value.to_owned())),
                _ => (word.as_str(), None),
            };
            let flag = matches!(option, "--help" | "-h" | "--shared" | "--private");
            if flag && attached.is_some() {
                return Err(format!("{option} takes no value"));
            }
            let mut value = || {
                let value = attached.clone().or_else(|| words.next()).filter(|value| !value.is_empty());
                value.ok_or_else(|| format!("{option} needs a value; see --help"))
            };
            match option {
                "--help" | "-h" => return Ok(None),
                "--shared" => shared = true,
                "--private" => shared = false,
                "--listen" => listen = value()?,
                "--origin" => origin = Some(parse_origin(&value()?)?),
                "--store" => store = value()?,
                "--threads" => threads = Some(parse_threads(&value()?)?),
                "--timeout" => timeout = parse_seconds(&value()?)?,
                "--bare" => {
                    let len = value()?;
                    bare = Some(len.parse().map_err(|_| format!("--bare {len} is no number of bytes"))?);
                }
                _ => return Err(format!("unknown argument {word}; see --help")),
            }
        }
        let mode = match (origin, bare) {
            (_, Some(len)) => Mode::Bare(len),
            (Some(origin), None) => Mode::Proxy(origin),
            (None, None) => return Err("--origin URL is missing; see --help".to_owned()),
        };
        Ok(Some(Self { mode, listen, store, threads, timeout, shared }))
    }
}

fn parse_origin(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|error| format!("--origin {text} is not a URL: {error}"))?;
    match (url.scheme_str(), url.authority()) {
        (Some("http" | "https"), Some(authority)) if !authority.as_str().contains('@') => {}
        _ => return Err(format!("--origin {text} is not an http or https URL of a host")),
    }
    match url.path_and_query().map_or("/", |path| path.as_str()) {
        "/" => Ok(url),
        _ => Err(format!("--origin {text} has a path: requests keep their own")),
    }
}

fn parse_threads(text: &str) -> Result<usize, String> {
    let threads = text.parse().ok().filter(|threads| (1..=1024).contains(threads));
    threads.ok_or_else(|| format!("--threads {text} is not a number from 1 to 1024"))
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0.0);
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let time = time.filter(|time| *time <= Duration::from_secs(86_400));
    time.ok_or_else(|| format!("--timeout {text} is not a number of seconds, at most a day"))
}
