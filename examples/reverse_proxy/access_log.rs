//! The access log: one line for each request, in a format that log tools read.
//!
//! # Invariants
//! - A request never waits for the log. Lines go into a buffer, and a thread of their own writes them.
//! - The buffer has a bound. Lines that do not fit are dropped, counted and reported.
//! - Lines are whole: a file is replaced between two of them only.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use http::header::{HOST, HeaderName, HeaderValue, REFERER, USER_AGENT};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};

use crate::report::{Kind, report};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// How many bytes wait to be written at most: some seconds of a busy proxy.
const MAX_WAITING_BYTES: usize = 4 * 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The combined log format of Apache and nginx, and after it the cache's status and the duration in seconds.
    Combined,
    /// One JSON object on each line.
    Json,
}

pub struct AccessLog {
    format: Format,
    state: Mutex<State>,
    /// Wakes the thread that writes, and the thread that waits for it to finish.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    is_writing: bool,
    reopens: bool,
    dropped: u64,
}

/// The part of a line that is known before the request ends.
pub struct Entry {
    time: SystemTime,
    client: SocketAddr,
    method: Method,
    uri: Uri,
    version: Version,
    host: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    cache: Option<HeaderValue>,
}

impl Entry {
    pub fn of<B>(request: &Request<B>, client: SocketAddr) -> Self {
        let field = |name| request.headers().get(name).cloned();
        Self {
            time: SystemTime::now(),
            client,
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            // HTTP/2 names the host in the target.
            host: field(HOST).or_else(|| request.uri().authority()?.as_str().parse().ok()),
            referer: field(REFERER),
            user_agent: field(USER_AGENT),
            cache: None,
        }
    }

    pub fn answered<B>(&mut self, response: &Response<B>) {
        self.cache = last(response.headers());
    }
}

/// Returns the Cache-Status of this proxy, which follows those of the caches nearer to the origin.
fn last(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get_all(CACHE_STATUS).iter().next_back().cloned()
}

impl AccessLog {
    /// Starts the thread that writes to a file, or to standard output.
    ///
    /// # Errors
    /// Returns the error if the file cannot be opened or the thread not started.
    pub fn start(format: Format, path: Option<PathBuf>) -> io::Result<Arc<Self>> {
        let file = path.as_ref().map(open).transpose()?;
        let log = Arc::new(Self { format, state: Mutex::default(), changed: Condvar::new() });
        let writer = Arc::clone(&log);
        thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.write(path, file))?;
        Ok(log)
    }

    /// Adds the line of a request.
    pub fn add(&self, entry: &Entry, status: StatusCode, bytes: u64, took: Duration, is_complete: bool) {
        // A client chooses most of the line's length, which is bounded by that of a head.
        let line = match self.format {
            Format::Combined => combined(entry, status, bytes, took),
            Format::Json => json(entry, status, bytes, took, is_complete),
        };
        let mut state = self.lock();
        if state.lines.len() + line.len() > MAX_WAITING_BYTES {
            state.dropped += 1;
            drop(state);
            metrics::counter!("reverse_proxy_access_log_dropped_total").increment(1);
            report(Kind::AccessLogDropped, String::new);
            return;
        }
        let was_empty = state.lines.is_empty();
        state.lines.extend_from_slice(line.as_bytes());
        drop(state);
        if was_empty {
            self.changed.notify_all();
        }
    }

    /// Opens the file anew before the next line, after it was moved away.
    pub fn reopen(&self) {
        self.lock().reopens = true;
        self.changed.notify_all();
    }

    /// Waits until everything is written, at most this long. Returns how many lines were dropped since the start.
    pub fn finish(&self, longest: Duration) -> u64 {
        let deadline = Instant::now() + longest;
        let mut state = self.lock();
        while !state.lines.is_empty() || state.is_writing {
            let Some(rest) = deadline.checked_duration_since(Instant::now()) else { break };
            (state, _) = self.changed.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner);
        }
        state.dropped
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes lines for ever.
    fn write(&self, path: Option<PathBuf>, mut file: Option<File>) {
        let mut lines = Vec::new();
        loop {
            let mut state = self.lock();
            state.is_writing = false;
            if state.lines.is_empty() {
                self.changed.notify_all();
            }
            while state.lines.is_empty() && !state.reopens {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut state.lines, &mut lines);
            state.is_writing = true;
            let reopens = std::mem::take(&mut state.reopens);
            drop(state);
            if reopens && let Some(path) = &path {
                match open(path) {
                    Ok(opened) => file = Some(opened),
                    Err(error) => failed(&error), // the old file is still there
                }
            }
            let written = match &mut file {
                Some(file) => file.write_all(&lines),
                None => {
                    let mut out = io::stdout().lock();
                    out.write_all(&lines).and_then(|()| out.flush())
                }
            };
            if let Err(error) = written {
                failed(&error);
            }
            lines.clear();
            lines.shrink_to(64 * 1024); // a burst needs no memory afterwards
        }
    }
}

fn failed(error: &io::Error) {
    report(Kind::AccessLogFailed, || error.to_string());
}

fn open(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// Formats `client - - [time] "request" status bytes "referer" "user agent" "cache" seconds`.
fn combined(entry: &Entry, status: StatusCode, bytes: u64, took: Duration) -> String {
    let mut line = String::with_capacity(256);
    let date = httpdate::fmt_http_date(entry.time); // Sun, 29 Nov 2026 04:10:08 GMT
    let part = |range: std::ops::Range<usize>| date.get(range).unwrap_or("-");
    let _ = write!(line, "{} - - [", entry.client.ip());
    let _ = write!(line, "{}/{}/{}:{} +0000] ", part(5..7), part(8..11), part(12..16), part(17..25));
    let _ = write!(line, "\"{} ", entry.method);
    escape(&mut line, target(&entry.uri).as_bytes());
    let _ = write!(line, " {:?}\" {} {bytes}", entry.version, status.as_str());
    for field in [&entry.referer, &entry.user_agent, &entry.cache] {
        line.push_str(" \"");
        escape(&mut line, field.as_ref().map_or(b"-", HeaderValue::as_bytes));
        line.push('"');
    }
    let _ = writeln!(line, " {:.6}", took.as_secs_f64());
    line
}

/// Escapes quotes, backslashes and everything that is not printable ASCII, as Apache and nginx do.
fn escape(line: &mut String, text: &[u8]) {
    for byte in text {
        match byte {
            b' '..=b'~' if !matches!(byte, b'"' | b'\\') => line.push(char::from(*byte)),
            _ => {
                let _ = write!(line, "\\x{byte:02X}");
            }
        }
    }
}

fn json(entry: &Entry, status: StatusCode, bytes: u64, took: Duration, is_complete: bool) -> String {
    let text = |field: &Option<HeaderValue>| {
        field.as_ref().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let line = serde_json::json!({
        "time": humantime::format_rfc3339_millis(entry.time).to_string(),
        "client": entry.client.ip().to_string(),
        "method": entry.method.as_str(),
        "host": text(&entry.host),
        "target": target(&entry.uri),
        "version": format!("{:?}", entry.version),
        "status": status.as_u16(),
        "bytes": bytes,
        "seconds": took.as_secs_f64(),
        "complete": is_complete,
        "cache": text(&entry.cache),
        "referer": text(&entry.referer),
        "user_agent": text(&entry.user_agent),
    });
    format!("{line}\n")
}

/// Returns the path and the query. The host is a field of its own.
fn target(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |path| path.as_str())
}
