//! Measures many requests for one URL at once.
//!
//! `cargo bench --features sqlite --bench herd`
//!
//! It prints the number of fetches from the origin, how much longer than the origin the last request takes, and how
//! much memory the herd needs. The origin takes 50 ms for the head, and sends 1 KiB at once. "bare" is the same herd
//! without a cache. Then it measures a long body that many requests follow while it arrives.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod memory;
mod transfer;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tower::{Layer, Service, ServiceExt};
use tower_response_cache::storage::{BoxStorage, MemoryStorage, SqliteStorage};
use tower_response_cache::{CacheLayer, Clock, MockClock};

/// The time that the origin takes for the head.
///
/// It is long enough that a whole herd arrives meanwhile.
const ORIGIN_TIME: Duration = Duration::from_millis(50);
type Ask = Request<Empty<Bytes>>;

#[derive(Clone)]
struct Origin {
    fields: &'static [(&'static str, &'static str)],
    fetches: Arc<AtomicUsize>,
}

impl Service<Ask> for Origin {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Ask) -> Self::Future {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        let fields = self.fields;
        Box::pin(async move {
            tokio::time::sleep(ORIGIN_TIME).await;
            let mut response = Response::builder();
            let not_modified = request.headers().contains_key("if-none-match");
            for (name, value) in fields {
                response = response.header(*name, *value);
            }
            let body = if not_modified { Full::default() } else { Full::from(vec![7; 1024]) };
            Ok(response.status(if not_modified { 304 } else { 200 }).body(body).unwrap())
        })
    }
}

/// The cost of one herd.
struct Cost {
    fetches: usize,
    /// The time until the last response, less the time of the origin.
    overhead: Duration,
    /// The peak memory in bytes.
    memory: u64,
}

async fn herd<T, B>(service: T, fetches: &AtomicUsize, size: usize) -> Cost
where
    T: Service<Ask, Response = Response<B>, Error: std::fmt::Debug, Future: Send> + Clone + Send + 'static,
    B: http_body::Body<Data: Send, Error: std::fmt::Debug> + Send + 'static,
{
    let before = fetches.load(Ordering::SeqCst);
    let start = Arc::new(Barrier::new(size + 1));
    let mut callers = JoinSet::new();
    for _ in 0..size {
        let (service, start) = (service.clone(), Arc::clone(&start));
        callers.spawn(async move {
            start.wait().await;
            let response = service.oneshot(Request::get("http://example.com/").body(Empty::new()).unwrap());
            assert!(response.await.unwrap().into_body().collect().await.is_ok());
        });
    }
    // All tasks are spawned before the measurement begins, so that it covers only the requests. The barrier releases
    // them together.
    let memory = memory::Peak::begin();
    start.wait().await;
    let begun = Instant::now();
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }
    let overhead = begun.elapsed().saturating_sub(ORIGIN_TIME);
    Cost { fetches: fetches.load(Ordering::SeqCst) - before, overhead, memory: memory.end() }
}

fn print_row(storage: &str, name: &str, size: usize, cost: &Cost) {
    let overhead = cost.overhead.as_secs_f64() * 1000.0;
    let memory = cost.memory as f64 / 1048576.0;
    println!("{storage:8} {name:24} {size:>6} {:>8} {overhead:>10.1} ms {memory:>8.1} MiB", cost.fetches);
}

async fn open(name: &str, folder: &std::path::Path, number: usize) -> BoxStorage {
    match name {
        "memory" => BoxStorage::new(MemoryStorage::new()),
        _ => BoxStorage::new(SqliteStorage::open(folder.join(number.to_string())).await.unwrap()),
    }
}

async fn measure(storage_name: &str, size: usize, folder: &std::path::Path) {
    let fresh = [("cache-control", "max-age=60"), ("etag", "\"a\"")].as_slice();
    for (number, (name, fields)) in
        [("cold, then stale", fresh), ("uncacheable", &[("cache-control", "no-store")])]
            .into_iter()
            .enumerate()
    {
        let fetches = Arc::new(AtomicUsize::new(0));
        let origin = Origin { fields, fetches: Arc::clone(&fetches) };
        if storage_name == "bare" {
            print_row(storage_name, "no cache", size, &herd(origin, &fetches, size).await);
            return;
        }
        let (clock, mock): (Clock, MockClock) = Clock::mock();
        let storage = open(storage_name, folder, size * 2 + number).await;
        let layer = CacheLayer::builder(storage).clock(clock).build().unwrap();
        let service = layer.layer(origin);
        let first = herd(service.clone(), &fetches, size).await;
        layer.idle().await;
        mock.advance(Duration::from_secs(100)); // past the max-age
        let second = herd(service, &fetches, size).await;
        let (first_name, second_name) = match name {
            // The first herd waits for its leader. The second does not, because the cache remembers such URLs.
            "uncacheable" => ("uncacheable, first herd", "uncacheable, later herds"),
            _ => ("cold", "stale"),
        };
        print_row(storage_name, first_name, size, &first);
        print_row(storage_name, second_name, size, &second);
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let is_long = std::env::args().any(|word| word == "--bench");
    let folder = tempfile::tempdir().unwrap();
    println!(
        "{:8} {:24} {:>6} {:>8} {:>13} {:>12}",
        "storage", "case", "herd", "fetches", "over origin", "memory"
    );
    let herds: &[usize] = if is_long { &[10, 300, 1000, 10_000] } else { &[10] };
    for storage in ["bare", "memory", "sqlite"] {
        for size in herds {
            measure(storage, *size, folder.path()).await;
        }
    }
    transfer::measure(if is_long { 64 } else { 1 }, folder.path()).await;
}
