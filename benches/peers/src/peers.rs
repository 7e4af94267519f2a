//! The services that are compared, each over an origin that counts its fetches.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use http_cache::{MokaCache, MokaManager, RedbManager, StreamingManager};
use http_cache_tower::{
    HttpCacheLayer, HttpCacheService, HttpCacheStreamingLayer, HttpCacheStreamingService,
};
use tower::{Layer, Service};
use tower_http_cache::backend::memory::InMemoryBackend;
use tower_http_cache::backend::redis::RedisBackend;
use tower_http_cache::layer::CacheService;
use tower_response_cache::storage::redis::redis::aio::ConnectionManagerConfig;
use tower_response_cache::storage::redis::redis::{self, Client};
use tower_response_cache::storage::{MemoryStorage, Storage};
use tower_response_cache::{Cache, CacheLayer};

use crate::origin::{Ask, Bare};

/// The bodies that each cache in memory holds at most, in bytes. This crate's default.
const MEMORY: usize = 64 << 20;

/// An inner service that counts what it is asked.
#[derive(Clone)]
pub struct Origin {
    bare: Bare,
    fetches: Arc<AtomicUsize>,
    /// How long it takes for a response.
    delay: Duration,
}

impl Origin {
    pub fn new(len: usize) -> Self {
        Self::slow(len, Duration::ZERO)
    }

    pub fn slow(len: usize, delay: Duration) -> Self {
        Self { bare: Bare::new(len), fetches: Arc::default(), delay }
    }

    pub fn fetches(&self) -> usize {
        self.fetches.load(Ordering::Relaxed)
    }
}

type Answered = Result<Response<Full<Bytes>>, Infallible>;

/// The origin's future, which boxes only if it has to wait.
pub enum Answer {
    Ready(std::future::Ready<Answered>),
    Slow(Pin<Box<dyn Future<Output = Answered> + Send>>),
}

impl Future for Answer {
    type Output = Answered;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Ready(ready) => Pin::new(ready).poll(cx),
            Self::Slow(slow) => slow.as_mut().poll(cx),
        }
    }
}

impl Service<Ask> for Origin {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Ask) -> Answer {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        let answer = self.bare.call(request);
        if self.delay.is_zero() {
            return Answer::Ready(answer);
        }
        let delay = self.delay;
        Answer::Slow(Box::pin(async move {
            tokio::time::sleep(delay).await;
            answer.await
        }))
    }
}

/// This crate, with a storage.
pub fn ours<S: Storage>(storage: S) -> CacheLayer<S> {
    // The timeout is long. If a storage exceeded the usual one, the cache would stop using it for a while, and every
    // request would look fast.
    let timeout = Duration::from_secs(60);
    CacheLayer::builder(storage).operation_timeout(timeout).build().unwrap()
}

pub fn ours_in_memory(origin: Origin) -> Cache<Origin, MemoryStorage> {
    ours(MemoryStorage::builder().max_bytes(MEMORY as u64).build()).layer(origin)
}

/// The number of entries that have as much memory as this crate's storage. The peers bound their number.
fn entries(len: usize) -> u64 {
    (MEMORY / (len + 2048)) as u64
}

/// http-cache-tower with its cache in memory.
pub fn http_cache_moka(origin: Origin, len: usize) -> HttpCacheService<Origin, MokaManager> {
    HttpCacheLayer::new(MokaManager::new(MokaCache::new(entries(len)))).layer(origin)
}

/// http-cache-tower with its default storage, a redb file.
pub fn http_cache_redb(origin: Origin, path: &std::path::Path) -> HttpCacheService<Origin, RedbManager> {
    HttpCacheLayer::new(RedbManager::new(path).unwrap()).layer(origin)
}

/// The streaming variant of http-cache-tower, which keeps bodies in files.
pub async fn http_cache_streaming(
    origin: Origin,
    folder: &std::path::Path,
) -> HttpCacheStreamingService<Origin, StreamingManager> {
    let manager = StreamingManager::new(folder.to_owned(), 10_000).await.unwrap();
    HttpCacheStreamingLayer::new(manager).layer(origin)
}

/// tower-http-cache with its cache in memory.
pub fn tower_http_cache(origin: Origin, len: usize) -> CacheService<Origin, InMemoryBackend> {
    let builder = tower_http_cache::CacheLayer::builder(InMemoryBackend::new(entries(len)));
    builder.ttl(Duration::from_secs(3600)).build().layer(origin)
}

/// tower-http-cache on Redis.
pub async fn tower_http_cache_redis(origin: Origin, url: &str) -> CacheService<Origin, RedisBackend> {
    // As its documentation advises.
    let config = ConnectionManagerConfig::new().set_response_timeout(Some(Duration::from_secs(60)));
    let manager = Client::open(url).unwrap().get_connection_manager_with_config(config).await;
    let manager: redis::aio::ConnectionManager = manager.unwrap();
    let builder = tower_http_cache::CacheLayer::builder(RedisBackend::new(manager));
    builder.ttl(Duration::from_secs(3600)).build().layer(origin)
}
