//! An origin whose every answer the test gives, when it wants to.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::sync::{mpsc, oneshot};
use tower::{Layer, Service, ServiceExt};
use tower_response_cache::storage::{MemoryStorage, Storage};
use tower_response_cache::{
    BodyError, Cache, CacheBody, CacheLayer, CacheLayerBuilder, CacheStatus, Clock, MockClock,
};

use super::support::{ReqBody, get_with};
use super::task::Task;

/// A body whose frames the test gives.
pub struct Given(mpsc::UnboundedReceiver<io::Result<Frame<Bytes>>>);

impl Body for Given {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(cx)
    }
}

/// The other end of a [`Given`]; the body ends when it is dropped.
pub struct Sender(mpsc::UnboundedSender<io::Result<Frame<Bytes>>>);

impl Sender {
    pub fn data(&self, data: impl Into<Bytes>) {
        let _ = self.0.send(Ok(Frame::data(data.into()))); // nobody reads it any more
    }

    pub fn trailers(&self, trailers: HeaderMap) {
        let _ = self.0.send(Ok(Frame::trailers(trailers)));
    }

    pub fn fail(self) {
        let _ = self.0.send(Err(io::Error::other("scripted")));
    }

    /// Whether the cache has let go of the body.
    pub fn is_dropped(&self) -> bool {
        self.0.is_closed()
    }
}

type Reply = io::Result<Response<Given>>;

/// A request that waits for its answer.
pub struct Call {
    pub headers: HeaderMap,
    reply: oneshot::Sender<Reply>,
}

impl Call {
    /// Answers with the head; the body comes by what this gives.
    pub fn head(self, status: u16, fields: &[(&str, &str)]) -> Sender {
        let (sender, frames) = mpsc::unbounded_channel();
        let mut response = Response::new(Given(frames));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in fields {
            let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            response.headers_mut().append(name, value.parse().unwrap());
        }
        let _ = self.reply.send(Ok(response)); // nobody waits any more
        Sender(sender)
    }

    /// A whole response.
    pub fn answer(self, status: u16, fields: &[(&str, &str)], body: &'static str) {
        let sender = self.head(status, fields);
        if !body.is_empty() {
            sender.data(body);
        }
    }

    pub fn fail(self) {
        let _ = self.reply.send(Err(io::Error::other("scripted")));
    }

    /// Whether nobody waits for the answer any more.
    pub fn is_dropped(&self) -> bool {
        self.reply.is_closed()
    }
}

#[derive(Clone, Default)]
pub struct Upstream(Arc<Mutex<(VecDeque<Call>, usize)>>);

impl Upstream {
    /// How many requests have come, all in all.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap().1
    }

    /// The oldest request that was not taken yet.
    pub fn call(&self) -> Call {
        self.0.lock().unwrap().0.pop_front().expect("a request has come")
    }

    /// Those that were not taken yet.
    pub fn waiting(&self) -> usize {
        self.0.lock().unwrap().0.len()
    }
}

impl Service<Request<ReqBody>> for Upstream {
    type Response = Response<Given>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Reply> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let (reply, answer) = oneshot::channel();
        let mut calls = self.0.lock().unwrap();
        calls.0.push_back(Call { headers: request.into_parts().0.headers, reply });
        calls.1 += 1;
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(io::Error::other("given up"))) })
    }
}

pub type Answered = io::Result<Response<CacheBody<Given>>>;

/// What one caller got.
#[derive(Debug)]
pub struct Got {
    pub code: u16,
    pub headers: HeaderMap,
    pub status: CacheStatus,
    pub body: Result<String, BodyError>,
}

pub struct World<S: Storage = MemoryStorage> {
    pub upstream: Upstream,
    pub layer: CacheLayer<S>,
    pub service: Cache<Upstream, S>,
    pub clock: MockClock,
}

impl World {
    pub fn new() -> Self {
        Self::with(|builder| builder)
    }

    pub fn with(
        settings: impl FnOnce(CacheLayerBuilder<MemoryStorage>) -> CacheLayerBuilder<MemoryStorage>,
    ) -> Self {
        Self::on(MemoryStorage::new(), settings)
    }
}

impl<S: Storage> World<S> {
    pub fn on(storage: S, settings: impl FnOnce(CacheLayerBuilder<S>) -> CacheLayerBuilder<S>) -> Self {
        let (clock, mock) = Clock::mock();
        let upstream = Upstream::default();
        let layer = settings(CacheLayer::builder(storage).clock(clock)).build().unwrap();
        let service = layer.layer(upstream.clone());
        Self { upstream, layer, service, clock: mock }
    }

    pub fn send(&self, request: Request<ReqBody>) -> Task<Answered> {
        Task::new(self.service.clone().oneshot(request))
    }

    /// Sends a request, and reads the whole answer.
    pub fn ask(&self, fields: &[(&str, &str)]) -> Task<io::Result<Got>> {
        let request = get_with("http://example.com/", fields);
        let response = self.service.clone().oneshot(request);
        Task::new(async move { Ok(read(response.await?).await) })
    }

    pub fn herd(&self, many: usize, fields: &[(&str, &str)]) -> Vec<Task<io::Result<Got>>> {
        (0..many).map(|_| self.ask(fields)).collect()
    }

    /// Stores a response by a first request, and lets some time pass.
    pub async fn store(&self, fields: &[(&str, &str)], body: &'static str, then: Duration) {
        let mut first = [self.ask(&[])];
        super::task::settle(&mut first).await;
        self.upstream.call().answer(200, fields, body);
        super::task::settle(&mut first).await;
        assert_eq!(first[0].run().unwrap().unwrap().body.unwrap(), body);
        self.layer.idle().await;
        self.clock.advance(then);
    }
}

pub async fn read(response: Response<CacheBody<Given>>) -> Got {
    let (head, body) = response.into_parts();
    let status = *body.status().unwrap();
    let body = body.collect().await.map(|body| String::from_utf8(body.to_bytes().to_vec()).unwrap());
    Got { code: head.status.as_u16(), headers: head.headers, status, body }
}

/// What each of them got.
pub fn got(tasks: &mut [Task<io::Result<Got>>]) -> Vec<Got> {
    tasks.iter_mut().map(|task| task.run().expect("it is answered").expect("without an error")).collect()
}
