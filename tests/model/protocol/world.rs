//! Processes that share a storage and an origin, and a record of what each observed.
//!
//! Each process has one cache.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service, ServiceExt};
use tower_response_cache::storage::{Key, MemoryStorage, Storage};
use tower_response_cache::{Cache, CacheLayer, CacheStatus, Clock, MockClock};

use super::gate::{Fate, GatedStorage, Gates};

pub const URI: &str = "http://example.com/a";
const OTHER: &str = "http://example.com/other";
const CHUNK: usize = 24;

/// The behaviour of the origin and the caches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kind {
    /// Bodies are longer than a chunk.
    pub large: bool,
    /// Responses depend on the field `x`.
    pub vary: bool,
    /// Every second response names another field as well.
    pub names_change: bool,
    /// Caches reserve the key before a fetch (`reserve_on_miss`).
    pub reserves: bool,
    /// Responses belong to a group, which a request for another URI invalidates by name.
    pub grouped: bool,
    /// Responses answer all queries (`No-Vary-Search: params`).
    ///
    /// Without it, the caches do not look for such responses, since that would multiply the orders of a scenario.
    pub shares: bool,
}

/// Returns the URI with a number in its query.
fn uri(query: usize) -> String {
    format!("{URI}?{query}")
}

/// One fetch that reached the origin.
#[derive(Clone, Debug)]
struct Fetch {
    began: u64,
}

/// An invalidation that its process completed.
#[derive(Clone, Debug)]
struct Invalidation {
    /// The number in the query of its URI.
    query: usize,
    began: u64,
    completed: u64,
}

#[derive(Clone)]
pub struct World {
    pub gates: Gates,
    pub store: MemoryStorage,
    pub clock: MockClock,
    pub kind: Kind,
    caches: Arc<Vec<Cache<Origin, GatedStorage>>>,
    layers: Arc<Vec<CacheLayer<GatedStorage>>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    step: AtomicU64,
    /// The version at the origin, which an unsafe request increments.
    version: AtomicU64,
    fetches: Mutex<Vec<Fetch>>,
    invalidations: Mutex<Vec<Invalidation>>,
    violations: Mutex<Vec<String>>,
    /// The number of faults of each process. An invalidation during a fault may not be complete.
    faults: Mutex<Vec<u64>>,
    running: AtomicU64,
}

impl World {
    pub fn new(processes: usize, kind: Kind) -> Self {
        let (clock, mock) = Clock::mock();
        let (gates, store) = (Gates::default(), MemoryStorage::new());
        let shared = Arc::new(Shared { faults: Mutex::new(vec![0; processes]), ..Shared::default() });
        let layers: Vec<_> = (0..processes)
            .map(|process| {
                let storage = GatedStorage { inner: store.clone(), gates: gates.clone(), process };
                let builder = CacheLayer::builder(storage).clock(clock.clone()).chunk_bytes(CHUNK);
                let builder = builder
                    .operation_timeout(Duration::from_secs(3600))
                    .body_timeout(Duration::from_secs(3600));
                builder.reserve_on_miss(kind.reserves).no_vary_search(kind.shares).build().unwrap()
            })
            .collect();
        let caches = layers.iter().enumerate().map(|(process, layer)| {
            layer.layer(Origin { process, gates: gates.clone(), shared: Arc::clone(&shared), kind })
        });
        let caches = Arc::new(caches.collect());
        Self { gates, store, clock: mock, kind, caches, layers: Arc::new(layers), shared }
    }

    fn now(&self) -> u64 {
        self.shared.step.fetch_add(1, Ordering::SeqCst)
    }

    /// Sends a GET from a process, and checks the response when it arrives.
    pub fn get(&self, process: usize, x: &'static str) {
        self.get_query(process, x, 0);
    }

    /// Sends a GET with a number in its query.
    pub fn get_query(&self, process: usize, x: &'static str, query: usize) {
        let world = self.clone();
        self.spawn(async move {
            let began = world.now();
            let request = Request::get(uri(query)).header("x", x).body(Full::default()).unwrap();
            let response = world.caches[process].clone().oneshot(request).await.unwrap();
            let status = *response.extensions().get::<CacheStatus>().unwrap();
            if let Ok(body) = response.into_body().collect().await {
                world.check(began, x, query, status, &body.to_bytes());
            }
        });
    }

    /// Sends an unsafe request from a process.
    pub fn post(&self, process: usize) {
        self.post_query(process, 0);
    }

    /// Sends an unsafe request with a number in its query.
    pub fn post_query(&self, process: usize, query: usize) {
        let world = self.clone();
        self.spawn(async move {
            let faults = world.shared.faults.lock().unwrap()[process];
            let uri = if world.kind.grouped { OTHER.to_owned() } else { uri(query) };
            let request = Request::post(uri).body(Full::default()).unwrap();
            let began = world.now();
            world.caches[process].clone().oneshot(request).await.unwrap();
            if world.shared.faults.lock().unwrap()[process] == faults {
                let completed = world.now();
                world.shared.invalidations.lock().unwrap().push(Invalidation { query, began, completed });
            }
        });
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            work.await;
            shared.running.fetch_sub(1, Ordering::SeqCst);
        });
    }

    fn check(&self, began: u64, x: &str, query: usize, status: CacheStatus, body: &[u8]) {
        let violation = |what: String| self.shared.violations.lock().unwrap().push(what);
        let text = String::from_utf8_lossy(body).into_owned();
        // A body repeats the number of its fetch and the value of `x`.
        let unit = text.split(';').next().unwrap_or_default().to_owned();
        let length = if self.kind.large { 10 } else { 1 };
        if text != format!("{unit};").repeat(length) {
            return violation(format!("I2: a mixed or short body {text:?}"));
        }
        let (number, value) = unit.split_once('=').unwrap();
        if self.kind.vary && value != x {
            violation(format!("I3: {x} was served the variant of {value}"));
        }
        let fetch = self.shared.fetches.lock().unwrap()[number.parse::<usize>().unwrap()].clone();
        if status.is_hit() || status.is_revalidated() {
            for gone in self.shared.invalidations.lock().unwrap().iter() {
                // The origin confirmed a revalidated response after the request began.
                let is_late = gone.completed < began && fetch.began < gone.began && !status.is_revalidated();
                // The first invalidations may come before it is known which URIs are equivalent.
                if is_late && (gone.query == query || self.kind.grouped) {
                    violation(format!("I1: fetch {number} was served after an invalidation"));
                }
            }
        }
    }

    /// Runs all tasks until each of them waits.
    pub async fn settle(&self) {
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
    }

    pub fn release(&self, index: usize, fate: Fate) {
        if fate != Fate::Done {
            let process = self.gates.choices()[index].0;
            self.shared.faults.lock().unwrap()[process] += 1;
        }
        self.gates.release(index, fate);
    }

    pub fn crash(&self, process: usize) {
        self.shared.faults.lock().unwrap()[process] += 1;
        self.gates.crash(process);
    }

    /// Releases all waiting steps, one after another, until none is left.
    pub async fn drain(&self) {
        self.settle().await;
        for step in 0.. {
            if self.gates.choices().is_empty() {
                return;
            }
            assert!(step < 10_000, "10,000 steps do not bring the processes to rest");
            self.gates.release(0, Fate::Done);
            self.settle().await;
        }
    }

    /// Checks the final invariants once all is idle. `alive` are the processes that have not crashed.
    pub async fn conclude(&self, alive: &[usize]) -> Result<(), String> {
        if self.kind.grouped {
            // After a group invalidation, other processes store nothing for 5 s, since their clocks may differ.
            self.clock.advance(Duration::from_secs(6));
        }
        for &process in alive {
            for x in ["1", "2"] {
                self.get(process, x);
                self.drain().await;
            }
        }
        // I7: the next fetch can store.
        for &process in alive {
            let request = Request::get(uri(0)).header("x", "1").body(Full::default()).unwrap();
            let answer = tokio::spawn(self.caches[process].clone().oneshot(request));
            self.drain().await;
            if !answer.is_finished() {
                return Err(format!("process {process} waits for something that never comes"));
            }
            let response = answer.await.unwrap().unwrap();
            let status = *response.extensions().get::<CacheStatus>().unwrap();
            drop(response);
            if !status.is_hit() && !self.kind.names_change {
                return Err(format!("I7: process {process} was not served: {status:?}"));
            }
        }
        // I4, I5: no record stays for ever.
        self.drain().await;
        self.clock.advance(Duration::from_secs(60 * 24 * 3600));
        self.store.delete_expired(self.clock.now()).await.unwrap();
        let left: Vec<Key> = self.store.keys().try_collect().await.unwrap();
        if !left.is_empty() {
            return Err(format!("I5: {} records stay for ever", left.len()));
        }
        for &process in alive {
            if tokio::time::timeout(Duration::ZERO, self.layers[process].idle()).await.is_err() {
                return Err(format!("process {process} is not idle when all is quiet"));
            }
        }
        match self.shared.violations.lock().unwrap().first() {
            Some(violation) => Err(violation.clone()),
            None => Ok(()),
        }
    }

    /// Removes all records, as a storage that evicts may.
    pub async fn evict(&self) {
        let keys: Vec<Key> = self.store.keys().try_collect().await.unwrap();
        for key in keys {
            self.store.delete(key).await.unwrap();
        }
    }
}

/// The origin as one process reaches it.
///
/// Each request and each response waits until it is released.
#[derive(Clone)]
struct Origin {
    process: usize,
    gates: Gates,
    shared: Arc<Shared>,
    kind: Kind,
}

impl Service<Request<Full<Bytes>>> for Origin {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let origin = self.clone();
        Box::pin(async move {
            let began = origin.shared.step.fetch_add(1, Ordering::SeqCst);
            origin.gates.pass(origin.process, false).await;
            let response = origin.answer(&request, began);
            origin.gates.pass(origin.process, false).await;
            Ok(response)
        })
    }
}

impl Origin {
    fn answer(&self, request: &Request<Full<Bytes>>, began: u64) -> Response<Full<Bytes>> {
        if request.method() == "POST" {
            self.shared.version.fetch_add(1, Ordering::SeqCst);
            let mut response = Response::new(Full::default());
            if self.kind.grouped {
                response.headers_mut().insert("cache-group-invalidation", "\"g\"".parse().unwrap());
            }
            return response;
        }
        let x = if self.kind.vary { request.headers()["x"].to_str().unwrap() } else { "" };
        // Each representation has a tag of its own (RFC 9110 §8.8.3).
        let tag = format!("\"{}={x}\"", self.shared.version.load(Ordering::SeqCst));
        let mut response = Response::builder().header("cache-control", "max-age=60").header("etag", &tag);
        let number = {
            let mut fetches = self.shared.fetches.lock().unwrap();
            fetches.push(Fetch { began });
            fetches.len() - 1
        };
        if self.kind.grouped {
            response = response.header("cache-groups", "\"g\"");
        }
        if self.kind.shares {
            response = response.header("no-vary-search", "params");
        }
        if self.kind.vary {
            let vary = if self.kind.names_change && number % 2 == 1 { "x, y" } else { "x" };
            response = response.header("vary", vary);
        }
        if request
            .headers()
            .get(header::IF_NONE_MATCH)
            .is_some_and(|asked| asked.to_str().unwrap().split(", ").any(|asked| asked == tag))
        {
            return response.status(StatusCode::NOT_MODIFIED).body(Full::default()).unwrap();
        }
        let length = if self.kind.large { 10 } else { 1 };
        response.body(Full::from(format!("{number}={x};").repeat(length))).unwrap()
    }
}
