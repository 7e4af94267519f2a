//! A cache over an origin whose responses the test gives one by one.

use std::io;
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use tower::{Layer, ServiceExt};
use tower_response_cache::storage::{MemoryStorage, Storage};
use tower_response_cache::{
    BodyError, Cache, CacheBody, CacheLayer, CacheLayerBuilder, CacheStatus, Clock, MockClock,
};

use crate::support::task::{Task, settle};
pub use crate::support::upstream::{Call, Given, Sender, Upstream};
use crate::support::{ReqBody, get_with};

pub type Answered = io::Result<Response<CacheBody<Given>>>;

/// The response that one request received.
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

    /// Sends a request and reads the whole response.
    pub fn ask(&self, fields: &[(&str, &str)]) -> Task<io::Result<Got>> {
        let request = get_with("http://example.com/", fields);
        let response = self.service.clone().oneshot(request);
        Task::new(async move { Ok(read(response.await?).await) })
    }

    pub fn herd(&self, many: usize, fields: &[(&str, &str)]) -> Vec<Task<io::Result<Got>>> {
        (0..many).map(|_| self.ask(fields)).collect()
    }

    /// Stores a response through a first request, and advances the clock by `then`.
    pub async fn store(&self, fields: &[(&str, &str)], body: &'static str, then: Duration) {
        let mut first = [self.ask(&[])];
        settle(&mut first).await;
        self.upstream.call().answer(200, fields, body);
        settle(&mut first).await;
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

/// Returns the response of each task.
pub fn got(tasks: &mut [Task<io::Result<Got>>]) -> Vec<Got> {
    tasks
        .iter_mut()
        .map(|task| task.run().expect("the request is answered").expect("the request succeeds"))
        .collect()
}
