//! The services that the cache is compared with.
//!
//! Their response is ready at once, and has the usual fields.
#![allow(dead_code, unreachable_pub, clippy::future_not_send)]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Uri, header};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Full};
use quick_cache::sync::Cache;
use std::sync::Arc;
use tower::Service;

pub type Ask = Request<Empty<Bytes>>;

/// The URI of every request, of usual length.
pub const URI: &str = "http://example.com/a/usual/path?with=a&query=1";

/// Returns the fields of the response.
///
/// They do not include Date. A fixed date would make the response old, whereas the cache adds the current one.
pub fn fields() -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in [
        (header::SERVER, "origin/1.0"),
        (header::CONTENT_TYPE, "application/json; charset=utf-8"),
        (header::CACHE_CONTROL, "max-age=31536000, public"),
        (header::ETAG, "\"0123456789abcdef\""),
        (header::LAST_MODIFIED, "Wed, 31 Dec 2025 00:00:00 GMT"),
        (header::ACCEPT_RANGES, "bytes"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::STRICT_TRANSPORT_SECURITY, "max-age=63072000"),
        (header::CONTENT_LANGUAGE, "en"),
    ] {
        fields.insert(name, HeaderValue::from_static(value));
    }
    fields
}

/// An inner service that clones its response, the minimum of all figures.
#[derive(Clone)]
pub struct Bare {
    fields: Arc<HeaderMap>,
    body: Bytes,
}

impl Bare {
    pub fn new(len: usize) -> Self {
        Self { fields: Arc::new(fields()), body: vec![7; len].into() }
    }
}

impl Service<Ask> for Bare {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Ask) -> Self::Future {
        let mut response = Response::new(Full::new(self.body.clone()));
        *response.headers_mut() = (*self.fields).clone();
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        ready(Ok(response))
    }
}

/// The lower bound of any cache in memory.
///
/// It looks up a map by path and query, clones the fields and sets Age.
#[derive(Clone)]
pub struct LowerBound {
    map: Arc<Cache<String, Arc<(HeaderMap, Bytes)>>>,
}

impl LowerBound {
    pub fn new(uri: &str, len: usize) -> Self {
        let map = Cache::new(1000);
        let mut fields = fields();
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
        // Every cache has to add these fields. They are created at run time as in a cache, because cloning a static
        // value would cost less.
        let date = HeaderValue::from_bytes(b"Thu, 01 Jan 2026 00:00:00 GMT");
        fields.insert(header::DATE, date.unwrap_or(HeaderValue::from_static("")));
        fields.insert(header::AGE, HeaderValue::from_static("0"));
        let Ok(uri) = uri.parse::<Uri>() else { panic!("the URI is invalid") };
        map.insert(path(&uri).to_owned(), Arc::new((fields, vec![7; len].into())));
        Self { map: Arc::new(map) }
    }
}

impl Service<Ask> for LowerBound {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Ask) -> Self::Future {
        let Some(stored) = self.map.get(path(request.uri())) else { panic!("the map lacks the URI") };
        let mut response = Response::new(Full::new(stored.1.clone()));
        *response.headers_mut() = stored.0.clone();
        if let Some(age) = response.headers_mut().get_mut(header::AGE) {
            *age = HeaderValue::from(42);
        }
        ready(Ok(response))
    }
}

fn path(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |path| path.as_str())
}

pub fn request(uri: &str) -> Ask {
    let request = Request::get(uri).header(header::ACCEPT, "*/*").header(header::USER_AGENT, "bench");
    match request.body(Empty::new()) {
        Ok(request) => request,
        Err(error) => panic!("{error}"),
    }
}

/// Sends a request, reads the body to its end, and returns its length.
pub async fn read<S, B>(service: &mut S, uri: &str) -> usize
where
    S: Service<Ask, Response = Response<B>, Error: std::fmt::Debug>,
    B: Body<Data = Bytes, Error: std::fmt::Debug> + Unpin,
{
    read_held(service, uri, false).await
}

/// As [`read`], but lets other tasks run while it holds the response.
///
/// A task that reads and frees a response at once profits from the processor's cache more than a server does.
pub async fn read_held<S, B>(service: &mut S, uri: &str, held: bool) -> usize
where
    S: Service<Ask, Response = Response<B>, Error: std::fmt::Debug>,
    B: Body<Data = Bytes, Error: std::fmt::Debug> + Unpin,
{
    let Ok(response) = service.call(request(uri)).await else { panic!("the service fails") };
    if held {
        tokio::task::yield_now().await;
    }
    let mut body = response.into_body();
    let mut len = 0;
    while let Some(Ok(frame)) = body.frame().await {
        len += frame.data_ref().map_or(0, Bytes::len);
    }
    len
}
