//! A cache over a scripted origin, and the requests and responses of tests.
#![allow(dead_code, unreachable_pub)] // each test binary uses only some items

pub mod byteranges;
pub mod counting;
pub mod faulty;
pub mod forward;
pub mod task;
pub mod upstream;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceExt};
use tower_response_cache::storage::{BoxStorage, MemoryStorage, Storage};
use tower_response_cache::{CacheBody, CacheLayer, CacheLayerBuilder, CacheStatus, Clock, MockClock};

pub type ReqBody = Full<Bytes>;
type Script = dyn FnMut(&Request<ReqBody>) -> Response<Full<Bytes>> + Send;

/// An origin that answers from a closure and records its requests.
#[derive(Clone)]
pub struct Origin {
    script: Arc<Mutex<Box<Script>>>,
    asked: Arc<Mutex<Vec<(http::Method, String, HeaderMap)>>>,
}

impl Origin {
    pub fn new(script: impl FnMut(&Request<ReqBody>) -> Response<Full<Bytes>> + Send + 'static) -> Self {
        Self { script: Arc::new(Mutex::new(Box::new(script))), asked: Arc::default() }
    }

    /// Answers every request with the same response.
    pub fn always(response: http::response::Builder, body: &'static str) -> Self {
        let response = response.body(Full::from(body)).unwrap();
        Self::new(move |_| response.clone())
    }

    /// Returns the number of requests that have arrived.
    pub fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// Returns the header fields of the last request.
    pub fn last(&self) -> HeaderMap {
        self.asked.lock().unwrap().last().unwrap().2.clone()
    }
}

impl Service<Request<ReqBody>> for Origin {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let asked = (request.method().clone(), request.uri().to_string(), request.headers().clone());
        self.asked.lock().unwrap().push(asked);
        let response = (self.script.lock().unwrap())(&request);
        Box::pin(async move { Ok(response) })
    }
}

pub type Boxed = BoxCloneSyncService<Request<ReqBody>, Response<CacheBody<Full<Bytes>>>, Infallible>;

/// A cache over an [`Origin`], with a clock that the test advances.
///
/// The storage is boxed, because otherwise the compiler would build the whole cache again for each type of storage.
pub struct Fixture {
    pub layer: CacheLayer<BoxStorage>,
    pub origin: Origin,
    pub clock: MockClock,
    pub service: Boxed,
}

impl Fixture {
    pub fn new(origin: Origin) -> Self {
        Self::with(origin, MemoryStorage::new(), |builder| builder)
    }

    pub fn shared(origin: Origin) -> Self {
        Self::with(origin, MemoryStorage::new(), |builder| builder.shared(true))
    }

    pub fn with(
        origin: Origin,
        storage: impl Storage,
        settings: impl FnOnce(CacheLayerBuilder<BoxStorage>) -> CacheLayerBuilder<BoxStorage>,
    ) -> Self {
        let (clock, mock) = Clock::mock();
        let builder = CacheLayer::builder(BoxStorage::new(storage)).clock(clock);
        let layer = settings(builder).build().unwrap();
        let service = BoxCloneSyncService::new(layer.layer(origin.clone()));
        Self { layer, origin, clock: mock, service }
    }

    /// Sends a request, and leaves the body of the response unread.
    pub async fn send(&self, request: Request<ReqBody>) -> Response<CacheBody<Full<Bytes>>> {
        self.service.clone().oneshot(request).await.unwrap()
    }

    /// Sends a request, and reads the whole response.
    pub async fn ask(&self, request: Request<ReqBody>) -> Answer {
        Answer::read(self.send(request).await).await
    }

    pub async fn get(&self, uri: &str) -> Answer {
        self.ask(get(uri)).await
    }
}

/// A response that was read to its end.
#[derive(Debug)]
pub struct Answer {
    pub code: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
    pub status: CacheStatus,
}

impl Answer {
    pub async fn read<B>(response: Response<CacheBody<B>>) -> Self
    where
        CacheBody<B>: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
    {
        let (head, body) = response.into_parts();
        let status = *head.extensions.get::<CacheStatus>().expect("every response has a status");
        assert_eq!(body.status(), Some(&status));
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().cloned();
        Self { code: head.status, headers: head.headers, body: body.to_bytes(), trailers, status }
    }

    /// Returns what the cache did, such as `hit` or `miss`.
    pub fn word(&self) -> &'static str {
        self.status.word()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

pub fn get(uri: &str) -> Request<ReqBody> {
    Request::get(uri).body(Full::default()).unwrap()
}

pub fn get_with(uri: &str, fields: &[(&str, &str)]) -> Request<ReqBody> {
    let mut request = Request::get(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Full::default()).unwrap()
}

pub fn response(fields: &[(&str, &str)], body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::builder();
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(Full::new(body.into())).unwrap()
}

pub fn not_modified(fields: &[(&str, &str)]) -> Response<Full<Bytes>> {
    let mut response = response(fields, "");
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response
}

/// Returns whether the request has this entity tag in If-None-Match.
pub fn has_tag(request: &Request<ReqBody>, tag: &str) -> bool {
    request.headers().get(header::IF_NONE_MATCH).is_some_and(|value| value.to_str().unwrap() == tag)
}

/// Returns all that an error and its causes print, in both of Debug's forms and in Display's.
pub fn full_text(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        text.push_str(&format!("{error} {error:?} {error:#?} "));
        next = error.source();
    }
    text
}
