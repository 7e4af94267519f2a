//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use crate::access_log::Format;
use crate::front::Ranges;
use crate::limits::Limits;
use crate::origin::Speaks;
use crate::pace::Slowest;

pub const USAGE: &str = "\
usage: reverse_proxy --origin URL [option …]

Forwards requests to an origin, and answers them from the cache where RFC 9111
permits it.

  --origin URL          where requests are sent: http or https, a host, and a
                        port if it is not the usual one
  --origin-http2        speaks HTTP/2 to an http origin, which has to know it;
                        an https origin chooses it in TLS, when the proxy
                        connects for the first time (102 and 103 are relayed
                        from HTTP/1 only)
  --origin-http1        never speaks HTTP/2 to the origin
  --origin-ca FILE      trusts the authorities in this file (PEM) for an https
                        origin, instead of the public ones that the proxy knows;
                        the system's are often in
                        /etc/ssl/certs/ca-certificates.crt; a self-signed
                        certificate is trusted itself if it says CA:FALSE
  --listen ADDR         the address to listen on, for HTTP/1 and HTTP/2; port 0
                        takes any free port; default: 127.0.0.1:8080
  --tls-cert FILE       listens for TLS instead, with this certificate and its
                        chain (PEM) …
  --tls-key FILE        … and its key (PEM); SIGHUP reads both anew, and keeps
                        the old ones if they cannot be used
  --threads N           the number of worker threads; default: one per core

The cache:
  --storage STORAGE     where responses are stored: memory, the path of a SQLite
                        file, or an address such as
                        redis://localhost/0?cache_name=app (needs the feature
                        redis); default: memory
  --shared              a shared cache, for many users (the default)
  --private             a private cache, for one user
  --fetch-whole         fetches and stores the whole response where a client
                        asks for a range of one that is not stored; without it,
                        such requests are forwarded and not stored
  --store-parts         stores the ranges that clients ask for, and asks the
                        origin only for bytes that are missing
  --slices SIZE         fetches long bodies in slices of this length, such as
                        4MiB, each once for all clients; it includes
                        --store-parts
  --max-body SIZE       the longest body that is stored, or the longest sum of its
                        parts; the storage has to have room for twice as much;
                        default: 512MiB
  --resume N            asks the origin at most this often for the rest of a body
                        that breaks off, by Range and If-Range, while clients
                        wait for it; default: 0
  --tag-fields NAMES    the response fields that hold tags, separated by commas,
                        such as surrogate-key,cache-tag,xkey; the administration
                        removes all responses with one tag; default: none, so
                        that purging a tag reaches nothing; give all proxies on
                        one storage the same fields

Limits (times in seconds):
  --max-connections N   how many connections of clients are open at most;
                        further ones wait to be accepted; default: 4096, or less
                        than half of the files that the process may open
  --head-timeout S      how long a client may take for the head of a request and
                        for TLS; default: 30
  --idle-timeout S      how long a connection may be without a request; default:
                        75
  --client-timeout S    how long a client may keep the proxy waiting for the
                        content of its request, or for taking the response,
                        unless it moves --min-rate on average; default: 60 (the
                        system takes 128 KiB of a response at once: a client
                        that reads less than that in this time is too slow as
                        well)
  --min-rate BYTES      the bytes per second that a client has to move while the
                        proxy waits for it; with 0 any byte within
                        --client-timeout is enough; default: 500
  --timeout S           how long the origin may take to begin its response, and
                        send nothing in the middle of it; default: 60
  --grace S             how long requests may go on after SIGTERM or SIGINT, and
                        then the storing of responses; default: 10

What it tells:
  --access-log FORMAT   writes a line for each request: combined (as Apache and
                        nginx do, then the field Cache-Status and the seconds
                        that it took) or json
  --access-log-file F   appends these lines to a file, which SIGHUP opens anew;
                        default: standard output
  --metrics ADDR        serves metrics for Prometheus at http://ADDR/metrics
                        (those of the cache need the feature metrics);
                        reverse_proxy_responses_total counts where responses
                        came from, so that this is the share that needed nothing
                        of the origin:
                          sum(rate(reverse_proxy_responses_total
                                   {from=\"cache\"}[5m]))
                          / sum(rate(reverse_proxy_responses_total[5m]))
  --admin ADDR          serves the administration of the cache at http://ADDR/:
                        a page for a browser, an API, PURGE and BAN (needs the
                        feature admin); it is without TLS: choose an address
                        that only this machine reaches; it demands a token of at
                        least 16 bytes, as a bearer or as the password of any
                        user …
  --admin-token FILE    … which is the first line of this file; without this
                        option it is the value of the variable ADMIN_TOKEN

The log goes to standard error. The variable RUST_LOG filters it: debug, or
warn,tower_response_cache=debug, and so on; default: info.";

pub struct Arguments {
    pub mode: Mode,
    /// The version of HTTP that is spoken to the origin.
    pub speaks: Speaks,
    /// The file with the authorities that an https origin's certificate may come from.
    pub authorities: Option<PathBuf>,
    pub listen: String,
    pub tls: Option<(PathBuf, PathBuf)>,
    pub storage: String,
    pub threads: Option<usize>,
    pub shared: bool,
    pub ranges: Ranges,
    pub tag_fields: Vec<String>,
    pub limits: Limits,
    pub access_log: Option<(Format, Option<PathBuf>)>,
    pub metrics: Option<String>,
    /// The address of the administration, and the file with its token.
    pub admin: Option<(String, Option<PathBuf>)>,
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
        let (mut http1, mut http2) = (false, false);
        let (mut certificate, mut key) = (None, None);
        let (mut format, mut log_file) = (None, None);
        let (mut admin, mut admin_token) = (None, None);
        let mut limits = Limits::default();
        let (mut client_timeout, mut min_rate) = (Duration::from_secs(60), 500);
        let mut arguments = Self {
            mode: Mode::Bare(0),
            speaks: Speaks::Http1,
            authorities: None,
            listen: "127.0.0.1:8080".to_owned(),
            tls: None,
            storage: "memory".to_owned(),
            threads: None,
            shared: true,
            ranges: Ranges::default(),
            tag_fields: Vec::new(),
            limits,
            access_log: None,
            metrics: None,
            admin: None,
        };
        while let Some(word) = words.next() {
            let (option, attached) = match word.split_once('=') {
                Some((option, value)) if option.starts_with("--") => (option, Some(value.to_owned())),
                _ => (word.as_str(), None),
            };
            let flags = [
                "--help",
                "-h",
                "--origin-http1",
                "--origin-http2",
                "--shared",
                "--private",
                "--fetch-whole",
                "--store-parts",
            ];
            let flag = flags.contains(&option);
            if flag && attached.is_some() {
                return Err(format!("{option} takes no value"));
            }
            let mut value = || {
                let value = attached.clone().or_else(|| words.next()).filter(|value| !value.is_empty());
                value.ok_or_else(|| format!("{option} needs a value; see --help"))
            };
            match option {
                "--help" | "-h" => return Ok(None),
                "--origin" => origin = Some(parse_origin(&value()?)?),
                "--origin-http1" => http1 = true,
                "--origin-http2" => http2 = true,
                "--origin-ca" => arguments.authorities = Some(value()?.into()),
                "--listen" => arguments.listen = value()?,
                "--tls-cert" => certificate = Some(value()?.into()),
                "--tls-key" => key = Some(value()?.into()),
                // A typing mistake must not ask the system for millions of threads.
                "--threads" => arguments.threads = Some(number(option, &value()?, 1, 1024)?),
                "--storage" | "--store" => arguments.storage = value()?,
                "--shared" => arguments.shared = true,
                "--private" => arguments.shared = false,
                "--fetch-whole" => arguments.ranges.fetches_whole = true,
                "--store-parts" => arguments.ranges.stores_parts = true,
                "--slices" => arguments.ranges.slices = size(option, &value()?, 1 << 30)?,
                "--max-body" => arguments.ranges.max_body = Some(size(option, &value()?, 1 << 50)?),
                "--resume" => arguments.ranges.resume = number(option, &value()?, 0, 1_000)? as u32,
                "--tag-fields" => {
                    arguments.tag_fields.extend(value()?.split(',').map(|name| name.trim().to_owned()));
                }
                "--max-connections" => limits.connections = number(option, &value()?, 1, 1_000_000)?,
                "--head-timeout" => limits.head = seconds(option, &value()?)?,
                "--idle-timeout" => limits.idle = seconds(option, &value()?)?,
                "--client-timeout" => client_timeout = seconds(option, &value()?)?,
                "--min-rate" => min_rate = number(option, &value()?, 0, 1_000_000_000)? as u64,
                "--timeout" => limits.origin = seconds(option, &value()?)?,
                "--grace" => limits.grace = seconds(option, &value()?)?,
                "--access-log" => format = Some(parse_format(&value()?)?),
                "--access-log-file" => log_file = Some(value()?.into()),
                "--metrics" => arguments.metrics = Some(value()?),
                "--admin" => admin = Some(value()?),
                "--admin-token" => admin_token = Some(value()?.into()),
                "--bare" => bare = Some(number(option, &value()?, 0, usize::MAX)?),
                _ => return Err(format!("unknown argument {word}; see --help")),
            }
        }
        limits.client = Slowest::new(client_timeout, min_rate);
        arguments.limits = limits;
        arguments.mode = match (origin, bare) {
            (_, Some(len)) => Mode::Bare(len),
            (Some(origin), None) => Mode::Proxy(origin),
            (None, None) => return Err("--origin URL is missing; see --help".to_owned()),
        };
        let is_https = matches!(&arguments.mode, Mode::Proxy(origin) if origin.scheme_str() == Some("https"));
        arguments.speaks = match (http1, http2, is_https) {
            (true, true, _) => return Err("--origin-http1 excludes --origin-http2; see --help".to_owned()),
            (false, true, true) => {
                return Err("--origin-http2 is for http: an https origin chooses it".to_owned());
            }
            (false, true, false) => Speaks::Http2,
            (false, false, true) => Speaks::Negotiated,
            (_, false, _) => Speaks::Http1,
        };
        if arguments.authorities.is_some() && !is_https {
            return Err("--origin-ca needs an https origin; see --help".to_owned());
        }
        arguments.tls = match (certificate, key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            _ => return Err("--tls-cert and --tls-key need each other; see --help".to_owned()),
        };
        arguments.access_log = match (format, log_file) {
            (None, Some(_)) => return Err("--access-log-file needs --access-log; see --help".to_owned()),
            (format, file) => format.map(|format| (format, file)),
        };
        arguments.admin = match (admin, admin_token) {
            (None, Some(_)) => return Err("--admin-token needs --admin; see --help".to_owned()),
            (Some(_), _) if matches!(arguments.mode, Mode::Bare(_)) => {
                return Err("--admin needs --origin; see --help".to_owned());
            }
            (Some(_), _) if cfg!(not(feature = "admin")) => {
                return Err("--admin needs a program that was built with the feature admin".to_owned());
            }
            (admin, token) => admin.map(|address| (address, token)),
        };
        Ok(Some(arguments))
    }
}

fn parse_origin(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|error| format!("--origin {text} is not a URL: {error}"))?;
    match (url.scheme_str(), url.authority()) {
        (Some("http" | "https"), Some(authority)) if !authority.as_str().contains('@') => {}
        _ => {
            return Err(format!(
                "--origin {text} must be an http or https URL with a host and without a user"
            ));
        }
    }
    match url.path_and_query().map_or("/", |path| path.as_str()) {
        "/" => Ok(url),
        _ => Err(format!("--origin {text} has a path: leave it out, since requests keep their own")),
    }
}

fn parse_format(text: &str) -> Result<Format, String> {
    match text {
        "combined" => Ok(Format::Combined),
        "json" => Ok(Format::Json),
        _ => Err(format!("--access-log {text} must be combined or json")),
    }
}

fn number(option: &str, text: &str, least: usize, most: usize) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("{option} {text} is not a number from {least} to {most}"))
}

fn size(option: &str, text: &str, most: u64) -> Result<u64, String> {
    let size = text.parse::<bytesize::ByteSize>().ok().map(|size| size.as_u64());
    let size = size.filter(|size| (1024..=most).contains(size));
    size.ok_or_else(|| format!("{option} {text} is not a size from 1KiB to {}GiB", most >> 30))
}

fn seconds(option: &str, text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0.0);
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let time = time.filter(|time| !time.is_zero() && *time <= Duration::from_secs(86_400));
    time.ok_or_else(|| {
        format!("{option} {text} is not a number of seconds above 0 and at most 86400 (a day)")
    })
}
