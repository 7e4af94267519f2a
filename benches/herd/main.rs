//! Many callers at once: how often the origin is asked, how much longer than the origin the last caller waits, and how
//! much memory it takes; and a long body that many read while it comes.
//!
//! The origin takes 50 ms for the head, and sends 1 KiB at once; "bare" is the same herd without a cache.
//! `cargo bench --features sqlite --bench herd`
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

const TAKES: Duration = Duration::from_millis(50);
type Ask = Request<Empty<Bytes>>;

#[derive(Clone)]
struct Origin {
    fields: &'static [(&'static str, &'static str)],
    asked: Arc<AtomicUsize>,
}

impl Service<Ask> for Origin {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Ask) -> Self::Future {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let fields = self.fields;
        Box::pin(async move {
            tokio::time::sleep(TAKES).await;
            let mut response = Response::builder();
            let confirms = request.headers().contains_key("if-none-match");
            for (name, value) in fields {
                response = response.header(*name, *value);
            }
            let body = if confirms { Full::default() } else { Full::from(vec![7; 1024]) };
            Ok(response.status(if confirms { 304 } else { 200 }).body(body).unwrap())
        })
    }
}

/// What one herd cost.
struct Cost {
    asked: usize,
    /// Beyond what the origin takes.
    over: Duration,
    memory: u64,
}

async fn herd<T, B>(service: T, asked: &AtomicUsize, many: usize) -> Cost
where
    T: Service<Ask, Response = Response<B>, Error: std::fmt::Debug, Future: Send> + Clone + Send + 'static,
    B: http_body::Body<Data: Send, Error: std::fmt::Debug> + Send + 'static,
{
    let before = asked.load(Ordering::SeqCst);
    let start = Arc::new(Barrier::new(many + 1));
    let mut callers = JoinSet::new();
    for _ in 0..many {
        let (service, start) = (service.clone(), Arc::clone(&start));
        callers.spawn(async move {
            start.wait().await;
            let response = service.oneshot(Request::get("http://example.com/").body(Empty::new()).unwrap());
            assert!(response.await.unwrap().into_body().collect().await.is_ok());
        });
    }
    let memory = memory::Peak::begin();
    start.wait().await;
    let begun = Instant::now();
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }
    let over = begun.elapsed().saturating_sub(TAKES);
    Cost { asked: asked.load(Ordering::SeqCst) - before, over, memory: memory.end() }
}

fn show(store: &str, name: &str, many: usize, cost: &Cost) {
    let over = cost.over.as_secs_f64() * 1000.0;
    let memory = cost.memory as f64 / 1048576.0;
    println!("{store:8} {name:24} {many:>6} {:>8} {over:>10.1} ms {memory:>8.1} MiB", cost.asked);
}

async fn storage(name: &str, folder: &std::path::Path, number: usize) -> BoxStorage {
    match name {
        "memory" => BoxStorage::new(MemoryStorage::new()),
        _ => BoxStorage::new(SqliteStorage::open(folder.join(number.to_string())).await.unwrap()),
    }
}

async fn measure(store: &str, many: usize, folder: &std::path::Path) {
    let fresh = [("cache-control", "max-age=60"), ("etag", "\"a\"")].as_slice();
    for (number, (name, fields)) in
        [("cold, then stale", fresh), ("uncacheable", &[("cache-control", "no-store")])]
            .into_iter()
            .enumerate()
    {
        let asked = Arc::new(AtomicUsize::new(0));
        let origin = Origin { fields, asked: Arc::clone(&asked) };
        if store == "bare" {
            show(store, "bare", many, &herd(origin, &asked, many).await);
            return;
        }
        let (clock, mock): (Clock, MockClock) = Clock::mock();
        let storage = storage(store, folder, many * 2 + number).await;
        let layer = CacheLayer::builder(storage).clock(clock).build().unwrap();
        let service = layer.layer(origin);
        let first = herd(service.clone(), &asked, many).await;
        layer.idle().await;
        mock.advance(Duration::from_secs(100));
        let second = herd(service, &asked, many).await;
        let (one, other) = match name {
            "uncacheable" => ("uncacheable, first herd", "uncacheable, later herds"),
            _ => ("cold", "stale"),
        };
        show(store, one, many, &first);
        show(store, other, many, &second);
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let is_long = std::env::args().any(|word| word == "--bench");
    let folder = tempfile::tempdir().unwrap();
    println!("{:8} {:24} {:>6} {:>8} {:>13} {:>12}", "", "", "herd", "fetches", "over origin", "memory");
    let herds: &[usize] = if is_long { &[10, 300, 1000, 10_000] } else { &[10] };
    for store in ["bare", "memory", "sqlite"] {
        for many in herds {
            measure(store, *many, folder.path()).await;
        }
    }
    transfer::measure(if is_long { 64 } else { 1 }, folder.path()).await;
}
