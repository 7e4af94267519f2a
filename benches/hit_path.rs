//! Measures the time of a hit and of a miss.
//!
//! `cargo bench --features sqlite --bench hit_path`
//!
//! The same run measures the bare inner service and the lower bound. Only the ratios to these can be compared between
//! machines.
#![allow(missing_docs)]

mod origin;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use criterion::{Criterion, criterion_group};
use http::Response;
use http_body::Body;
use tokio::runtime::Runtime;
use tower::{Layer, Service};
use tower_response_cache::CacheLayer;
use tower_response_cache::storage::{MemoryStorage, SqliteStorage};

use origin::{Ask, Bare, LowerBound, URI, read, read_held};

const SIZES: [(usize, &str); 3] = [(1024, "1KiB"), (64 * 1024, "64KiB"), (1024 * 1024, "1MiB")];
/// The number of URLs that are requested in turn.
///
/// It is large enough that a row has left the processor's cache when it is requested again.
const ROWS: usize = 200;

/// Which URLs are requested.
#[derive(Clone)]
enum Urls {
    /// Always the same one.
    Hot,
    /// These in turn. Each response is held while other tasks run.
    Rows(Arc<[String]>),
    /// A new one each time. Formatting its number is a small part of a miss.
    Cold(Arc<AtomicU64>),
}

impl Urls {
    async fn read<S, B>(&self, service: &mut S, number: usize)
    where
        S: Service<Ask, Response = Response<B>, Error: std::fmt::Debug, Future: Send> + Send,
        B: Body<Data = Bytes, Error: std::fmt::Debug> + Unpin + Send,
    {
        match self {
            Self::Hot => read(service, URI).await,
            Self::Rows(rows) => read_held(service, &rows[number % rows.len()], true).await,
            Self::Cold(next) => {
                let number = next.fetch_add(1, Ordering::Relaxed);
                read(service, &format!("{URI}&miss={number}")).await
            }
        };
    }
}

fn measure<S, B>(
    criterion: &mut Criterion,
    runtime: &Runtime,
    name: &str,
    size: &str,
    urls: &Urls,
    service: &S,
) where
    S: Service<Ask, Response = Response<B>, Error: std::fmt::Debug, Future: Send> + Clone + Send + 'static,
    B: Body<Data = Bytes, Error: std::fmt::Debug> + Unpin + Send + 'static,
{
    let mut group = criterion.benchmark_group(format!("{name}/{size}"));
    // criterion's defaults (8 seconds each) would take 10 minutes for the 72 benchmarks.
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.bench_function("1 task", |bench| {
        bench.to_async(runtime).iter_custom(|count| {
            let (mut service, urls) = (service.clone(), urls.clone());
            async move {
                let began = Instant::now();
                for number in 0..count as usize {
                    urls.read(&mut service, number).await;
                }
                began.elapsed()
            }
        });
    });
    group.bench_function("64 tasks", |bench| {
        bench.to_async(runtime).iter_custom(|count| {
            let (service, urls) = (service.clone(), urls.clone());
            async move {
                let each = count.div_ceil(64).max(1);
                let began = Instant::now();
                let tasks: Vec<_> = (0..64)
                    .map(|task| {
                        let (mut service, urls) = (service.clone(), urls.clone());
                        tokio::spawn(async move {
                            for number in 0..each as usize {
                                // Each task begins at another row, so that no two tasks read the same row together.
                                urls.read(&mut service, number + task * 7).await;
                            }
                        })
                    })
                    .collect();
                for task in tasks {
                    let _ = task.await;
                }
                // Together the tasks may have sent a few more requests than criterion asked for.
                began.elapsed().mul_f64(count as f64 / (each * 64) as f64)
            }
        });
    });
    group.finish();
}

fn hits(criterion: &mut Criterion) {
    let Ok(runtime) = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
    else {
        panic!("a runtime can be built")
    };
    let rows: Arc<[String]> = (0..ROWS).map(|number| format!("{URI}&row={number}")).collect();
    for (len, size) in SIZES {
        let bare = Bare::new(len);
        let hot = &Urls::Hot;
        measure(criterion, &runtime, "bare", size, hot, &bare);
        measure(criterion, &runtime, "lower bound", size, hot, &LowerBound::new(URI, len));

        // The chunk is longer than any body, so that each body is one record, as in the lower bound.
        let builder = || CacheLayer::builder(MemoryStorage::new()).chunk_bytes(2 * 1024 * 1024);
        for (name, layer) in [
            ("memory", builder().build().expect("settings")),
            ("memory, no extensions", builder().status_in_extensions(false).build().expect("settings")),
            ("memory, in chunks of 128 KiB", CacheLayer::new(MemoryStorage::new())),
            ("memory, shared", builder().shared(true).build().expect("settings")),
            (
                "memory, shared, status field",
                builder().shared(true).status_field("proxy.example").build().expect("settings"),
            ),
        ] {
            let mut service = layer.layer(bare.clone());
            runtime.block_on(read(&mut service, URI));
            measure(criterion, &runtime, name, size, hot, &service);
        }

        for (name, in_task) in
            [("sqlite", None), ("sqlite, read in task", Some(true)), ("sqlite, on threads", Some(false))]
        {
            let Ok(folder) = tempfile::tempdir() else { panic!("there is a temporary folder") };
            let open = SqliteStorage::builder(folder.path().join("s")).read_in_task(in_task).open();
            let Ok(storage) = runtime.block_on(open) else { panic!("the storage opens") };
            let layer = CacheLayer::new(storage);
            let mut service = layer.layer(bare.clone());
            runtime.block_on(async {
                for uri in rows.iter() {
                    read(&mut service, uri).await;
                }
                layer.idle().await;
            });
            measure(criterion, &runtime, name, size, &Urls::Rows(Arc::clone(&rows)), &service);
        }

        // A miss is fetched from the origin, and then stored or not.
        let cold = &Urls::Cold(Arc::default());
        let layer = CacheLayer::new(MemoryStorage::new());
        measure(
            criterion,
            &runtime,
            "miss, not storable",
            size,
            cold,
            &layer.layer(NoStore { bare: bare.clone() }),
        );
        let layer =
            CacheLayer::builder(MemoryStorage::new()).chunk_bytes(2 * 1024 * 1024).build().expect("settings");
        measure(criterion, &runtime, "miss, stored", size, cold, &layer.layer(bare.clone()));
    }
}

/// A service whose responses may not be stored, so that every request is a miss.
#[derive(Clone)]
struct NoStore {
    bare: Bare,
}

impl Service<Ask> for NoStore {
    type Response = <Bare as Service<Ask>>::Response;
    type Error = <Bare as Service<Ask>>::Error;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        self.bare.poll_ready(cx)
    }

    fn call(&mut self, request: Ask) -> Self::Future {
        let mut result = self.bare.call(request).into_inner();
        if let Ok(response) = &mut result {
            response.headers_mut().insert("cache-control", http::HeaderValue::from_static("no-store"));
        }
        std::future::ready(result)
    }
}

criterion_group!(benches, hits);

fn main() {
    let began = SystemTime::now();
    benches();
    Criterion::default().configure_from_args().final_summary();
    print_table(began);
}

/// Prints the ratios, from the estimates that criterion has written since `began`.
fn print_table(began: SystemTime) {
    let root = std::env::var("CARGO_TARGET_DIR")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/target").into());
    let median = |name: &str, size: &str, tasks: &str| -> Option<f64> {
        let group = format!("{name}/{size}").replace('/', "_");
        let path = format!("{root}/criterion/{group}/{tasks}/new/estimates.json");
        let written = std::fs::metadata(&path).and_then(|about| about.modified()).ok()?;
        let text = std::fs::read_to_string(path).ok().filter(|_| written >= began)?;
        let rest = text.split_once("\"median\"")?.1.split_once("\"point_estimate\":")?.1;
        rest.split([',', '}']).next()?.parse().ok()
    };
    println!("\n{:32} {:>6} {:>9} {:>12} {:>8} {:>8}", "", "size", "tasks", "median µs", "× bare", "× bound");
    for name in [
        "bare",
        "lower bound",
        "memory",
        "memory, no extensions",
        "memory, in chunks of 128 KiB",
        "memory, shared",
        "memory, shared, status field",
        "sqlite",
        "sqlite, read in task",
        "sqlite, on threads",
        "miss, not storable",
        "miss, stored",
    ] {
        for (_, size) in SIZES {
            for tasks in ["1 task", "64 tasks"] {
                let Some(time) = median(name, size, tasks) else { continue };
                let ratio =
                    |of| median(of, size, tasks).map_or("-".into(), |base| format!("{:.2}", time / base));
                let (bare, bound) = (ratio("bare"), ratio("lower bound"));
                println!("{name:32} {size:>6} {tasks:>9} {:>12.3} {bare:>8} {bound:>8}", time / 1000.0);
            }
        }
    }
}
