//! An origin with one file, which answers requests for ranges, lies and breaks off.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tower::Service;

use crate::support::ReqBody;

/// How the origin answers the next request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// The body fails after this many bytes.
    BreaksAfter(u64),
    /// It answers with 503.
    Fails,
    /// It ignores Range.
    IgnoresRange,
    /// It sends fewer bytes than were asked for, and says so.
    SendsLess,
    /// Content-Range names the bytes after those that it sends.
    NamesOthers,
    /// Content-Range says another complete length.
    OtherLength,
    /// It ignores If-Range.
    IgnoresIfRange,
    /// It sends this many bytes more than it announces.
    SendsMore(u64),
}

/// How the versions of the file are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validator {
    Strong,
    Weak,
    None,
}

/// An answer of the origin, and the request for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub status: u16,
    pub range: Option<String>,
    pub if_range: Option<String>,
}

#[derive(Debug)]
pub struct File {
    /// The versions of the file, of which the last one is current.
    pub versions: Vec<Bytes>,
    pub validator: Validator,
    pub fault: Fault,
    pub frame: usize,
    pub sent: Vec<Sent>,
    /// How often each byte of the current version was sent.
    pub counts: Vec<u32>,
    pub fields: Vec<(&'static str, &'static str)>,
}

#[derive(Clone, Debug)]
pub struct FileOrigin(pub Arc<Mutex<File>>);

impl FileOrigin {
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let file = File {
            counts: vec![0; bytes.len()],
            versions: vec![bytes],
            validator: Validator::Strong,
            fault: Fault::None,
            frame: 7,
            sent: Vec::new(),
            fields: vec![("cache-control", "max-age=3600"), ("content-type", "text/plain")],
        };
        Self(Arc::new(Mutex::new(file)))
    }

    pub fn change(&self, change: impl FnOnce(&mut File)) {
        change(&mut self.0.lock().unwrap());
    }

    pub fn replace(&self, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        self.change(|file| {
            file.counts = vec![0; bytes.len()];
            file.versions.push(bytes);
        });
    }

    pub fn takes(&self) -> Vec<Sent> {
        std::mem::take(&mut self.0.lock().unwrap().sent)
    }

    /// Returns the Range fields of the requests since the last call.
    pub fn ranges(&self) -> Vec<String> {
        self.takes().into_iter().map(|sent| sent.range.unwrap_or_else(|| "whole".to_owned())).collect()
    }
}

impl File {
    fn answer(&mut self, request: &Request<ReqBody>) -> Response<FileBody> {
        let field = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let fault = std::mem::take(&mut self.fault);
        let bytes = self.versions.last().unwrap().clone();
        let (len, tag) = (bytes.len() as u64, format!("\"v{}\"", self.versions.len()));
        let mut response = Response::builder();
        // An error is not to be stored.
        for (name, value) in self.fields.iter().filter(|_| fault != Fault::Fails) {
            response = response.header(*name, *value);
        }
        match self.validator {
            Validator::Strong => response = response.header("etag", &tag),
            Validator::Weak => response = response.header("etag", format!("W/{tag}")),
            Validator::None => {}
        }
        let (range, if_range) = (field("range"), field("if-range"));
        let mut sent = Sent { status: 200, range: range.clone(), if_range: if_range.clone() };
        let is_confirmed =
            self.validator != Validator::None && field("if-none-match").is_some_and(|of| of.contains(&tag));
        let holds = if_range.is_none_or(|of| of == tag) || fault == Fault::IgnoresIfRange;
        let range =
            range.filter(|_| fault != Fault::IgnoresRange && holds && request.method() == Method::GET);
        let resolved = range.as_deref().and_then(|range| resolve(range, len));
        let (status, mut part) = match (&range, resolved) {
            _ if fault == Fault::Fails => (503, 0..0),
            _ if is_confirmed => (304, 0..0),
            (None, _) => (200, 0..len),
            (Some(_), None) => {
                response = response.header("content-range", format!("bytes */{len}"));
                (416, 0..0)
            }
            (Some(_), Some(part)) => (206, part),
        };
        if status == 206 {
            if fault == Fault::SendsLess {
                part.end = part.start + (part.end - part.start).div_ceil(2);
            }
            let (shift, longer) = match fault {
                Fault::NamesOthers => (1, 0),
                Fault::OtherLength => (0, 1),
                _ => (0, 0),
            };
            let (first, last) = (part.start + shift, part.end - 1 + shift);
            response = response.header("content-range", format!("bytes {first}-{last}/{}", len + longer));
        }
        sent.status = status;
        self.sent.push(sent);
        let breaks = match fault {
            Fault::BreaksAfter(bytes) => Some(bytes),
            _ => None,
        };
        if request.method() == Method::HEAD {
            response = response.header("content-length", len);
            part = 0..0;
        } else if status != 304 {
            response = response.header("content-length", part.end - part.start);
        }
        if let Fault::SendsMore(bytes) = fault {
            part.end = part.end.saturating_add(bytes).min(len);
        }
        let most = breaks.map_or(u64::MAX, |after| part.start.saturating_add(after));
        for at in part.start..part.end.min(most) {
            self.counts[at as usize] += 1;
        }
        let body = FileBody { bytes, part, frame: self.frame, breaks };
        response.status(StatusCode::from_u16(status).unwrap()).body(body).unwrap()
    }
}

/// Resolves a range of bytes in a file of a length (RFC 9110 §14.1.2).
pub fn resolve(range: &str, len: u64) -> Option<Range<u64>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (first, last) {
        ("", count) => len.saturating_sub(count.parse().ok()?)..len,
        (first, "") => first.parse().ok()?..len,
        (first, last) => first.parse().ok()?..last.parse::<u64>().ok()?.saturating_add(1).min(len),
    };
    (range.start < range.end).then_some(range)
}

pub struct FileBody {
    bytes: Bytes,
    part: Range<u64>,
    frame: usize,
    breaks: Option<u64>,
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let len =
            (self.part.end - self.part.start).min(self.frame as u64).min(self.breaks.unwrap_or(u64::MAX));
        if len == 0 {
            let is_over = self.part.is_empty();
            return Poll::Ready((!is_over).then(|| Err(io::ErrorKind::ConnectionReset.into())));
        }
        let (start, len) = (self.part.start as usize, len as usize);
        self.part.start += len as u64;
        self.breaks = self.breaks.map(|left| left - len as u64);
        Poll::Ready(Some(Ok(Frame::data(self.bytes.slice(start..start + len)))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Service<Request<ReqBody>> for FileOrigin {
    type Response = Response<FileBody>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        ready(Ok(self.0.lock().unwrap().answer(&request)))
    }
}

/// Returns a field as text.
pub fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}
