//! Requests and responses that are made from arbitrary bytes.
//!
//! Their fields consist mostly of words that mean something to a cache, in any order, with any bytes in between.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use http_body_util::Full;

const REQUEST_FIELDS: [HeaderName; 10] = [
    header::CACHE_CONTROL,
    header::PRAGMA,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::RANGE,
    header::IF_RANGE,
    header::AUTHORIZATION,
    header::COOKIE,
    header::ACCEPT_LANGUAGE,
    header::ACCEPT_ENCODING,
];

const RESPONSE_FIELDS: [HeaderName; 16] = [
    header::CACHE_CONTROL,
    header::CACHE_CONTROL,
    header::EXPIRES,
    header::DATE,
    header::AGE,
    header::VARY,
    header::ETAG,
    header::LAST_MODIFIED,
    header::CONNECTION,
    header::LOCATION,
    header::CONTENT_LOCATION,
    header::CONTENT_ENCODING,
    header::SET_COOKIE,
    header::PRAGMA,
    HeaderName::from_static("cdn-cache-control"),
    HeaderName::from_static("x-as-sent"),
];

const WORDS: [&str; 52] = [
    "max-age=60",
    "max-age=60",
    "max-age=1",
    "max-age",
    "=",
    ",",
    ", ",
    "\"",
    "\\",
    ";q=0.5",
    ";",
    " ",
    "\t",
    "*",
    "-",
    "/",
    "..",
    "?",
    "//",
    "0",
    "-1",
    "99999999999999999999",
    "no-store",
    "no-cache",
    "private",
    "public",
    "s-maxage=1",
    "must-revalidate",
    "proxy-revalidate",
    "must-understand",
    "immutable",
    "stale-while-revalidate=9",
    "stale-if-error=9",
    "max-stale",
    "max-stale=9",
    "min-fresh=9",
    "only-if-cached",
    "=\"x-as-sent\"",
    "bytes=0-1",
    "bytes=-2",
    "\"1\"",
    "\"2\"",
    "W/\"1\"",
    "W/",
    "accept-language",
    "accept-encoding",
    "cookie",
    "de",
    "gzip",
    "Thu, 01 Jan 2026 00:00:00 GMT",
    "Thursday, 01-Jan-26 00:01:00 GMT",
    "Wed Dec 31 23:59:59 2025",
];

pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the next byte, or zero after the last one.
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    pub fn flag(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    pub fn one_in(&mut self, many: u8) -> bool {
        self.byte() % many == 1
    }

    pub fn seconds(&mut self) -> u64 {
        match self.byte() {
            few @ 0..100 => u64::from(few / 10),
            some @ 100..200 => u64::from(some),
            many => u64::from(many) * 10_000,
        }
    }

    fn choose<'b, T>(&mut self, among: &'b [T]) -> &'b T {
        &among[usize::from(self.byte()) % among.len()]
    }

    fn value(&mut self) -> Option<HeaderValue> {
        let mut value = Vec::new();
        for _ in 0..self.byte() % 5 {
            if self.one_in(8) {
                value.push(self.byte());
            } else {
                value.extend_from_slice(self.choose(&WORDS).as_bytes());
            }
        }
        HeaderValue::from_bytes(&value).ok()
    }

    fn fields(&mut self, names: &[HeaderName]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for _ in 0..self.byte() % 6 {
            let name = self.choose(names).clone();
            if let Some(value) = self.value() {
                fields.append(name, value);
            }
        }
        fields
    }

    pub fn request(&mut self) -> Option<Request<Full<Bytes>>> {
        let methods = [Method::GET, Method::GET, Method::GET, Method::HEAD, Method::POST, Method::PUT];
        let mut request = Request::new(Full::default());
        *request.method_mut() = self.choose(&methods).clone();
        *request.uri_mut() = self.choose(&["http://a/", "http://a/1", "http://b/"]).parse().ok()?;
        *request.headers_mut() = self.fields(&REQUEST_FIELDS);
        Some(request)
    }

    /// Returns a response whose body contains `number`, so that no other response has it.
    pub fn response(&mut self, number: u32) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(format!("answer {number}")));
        let code = *self.choose(&[200, 200, 200, 200, 200, 304, 203, 206, 301, 404, 500, 503, 599]);
        *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
        *response.headers_mut() = self.fields(&RESPONSE_FIELDS);
        if code == 304 {
            response.headers_mut().remove("x-as-sent");
        }
        response
    }
}
