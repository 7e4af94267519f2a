//! The command line.

use std::time::Duration;

use http::Uri;

pub const USAGE: &str = "\
usage: reverse_proxy --origin URL [--listen ADDR] [--storage STORAGE] [--threads N] [--timeout SECONDS]
                     [--shared|--private]

Forwards requests to an origin, and answers them from the cache where RFC 9111 permits it.

  --origin URL       where requests are sent: http or https, a host, and a port if it is not the usual one
  --listen ADDR      the address to listen on; port 0 takes any free port; default: 127.0.0.1:8080
  --storage STORAGE  where responses are stored: memory, the path of a SQLite file, or an address such as
                     redis://localhost/0?cache_name=app (needs the feature redis); default: memory
  --threads N        the number of worker threads; default: one per core
  --timeout SECONDS  how long the origin may take to begin its response; default: 60
  --shared           a shared cache, for many users (the default)
  --private          a private cache, for one user";

pub struct Arguments {
    pub mode: Mode,
    pub listen: String,
    pub storage: String,
    pub threads: Option<usize>,
    pub timeout: Duration,
    pub shared: bool,
}

pub enum Mode {
    /// Proxies this origin.
    Proxy(Uri),
    /// Serves this many bytes without a proxy. For the bench, so `--bare BYTES` is not in the usage.
    Bare(usize),
}

impl Arguments {
    /// Parses the command line, or returns `None` if it asks for help.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let (mut origin, mut bare) = (None, None);
        let mut listen = "127.0.0.1:8080".to_owned();
        let mut storage = "memory".to_owned();
        let mut threads = None;
        let mut timeout = Duration::from_secs(60);
        let mut shared = true;
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
                "--storage" | "--store" => storage = value()?,
                "--threads" => threads = Some(parse_threads(&value()?)?),
                "--timeout" => timeout = parse_seconds(&value()?)?,
                "--bare" => {
                    let len = value()?;
                    bare = Some(len.parse().map_err(|_| format!("--bare {len} is not a number of bytes"))?);
                }
                _ => return Err(format!("unknown argument {word}; see --help")),
            }
        }
        let mode = match (origin, bare) {
            (_, Some(len)) => Mode::Bare(len),
            (Some(origin), None) => Mode::Proxy(origin),
            (None, None) => return Err("--origin URL is missing; see --help".to_owned()),
        };
        Ok(Some(Self { mode, listen, storage, threads, timeout, shared }))
    }
}

fn parse_origin(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|error| format!("--origin {text} is not a URL: {error}"))?;
    match (url.scheme_str(), url.authority()) {
        (Some("http" | "https"), Some(authority)) if !authority.as_str().contains('@') => {}
        _ => return Err(format!("--origin {text} is not an http or https URL of a host, without a user")),
    }
    match url.path_and_query().map_or("/", |path| path.as_str()) {
        "/" => Ok(url),
        _ => Err(format!("--origin {text} has a path: leave it out, since requests keep their own")),
    }
}

fn parse_threads(text: &str) -> Result<usize, String> {
    // A typing mistake must not ask the system for millions of threads.
    let threads = text.parse().ok().filter(|threads| (1..=1024).contains(threads));
    threads.ok_or_else(|| format!("--threads {text} is not a number from 1 to 1024"))
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0.0);
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let time = time.filter(|time| *time <= Duration::from_secs(86_400));
    time.ok_or_else(|| {
        format!("--timeout {text} is not a number of seconds above 0 and at most 86400 (a day)")
    })
}
