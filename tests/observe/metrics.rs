//! Metrics of a cache.
//!
//! The documentation lists all of them, and each counts what its description says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};
use tokio::sync::Semaphore;
use tower::{Layer, ServiceExt, service_fn};
use tower_response_cache::storage::{
    DirectoryStorage, Key, MemoryStorage, Record, SqliteStorage, Storage, TieredStorage, Usage,
};
use tower_response_cache::{CacheLayer, Clock, Timestamp, observe};

use crate::support::faulty::{Faulty, Mode};
use crate::support::forward::forward;
use crate::support::{Fixture, Origin, get, has_tag, not_modified, response};

const A: &str = "http://example.com/a";

fn recorder() -> PrometheusRecorder {
    let durations = Matcher::Suffix("duration_seconds".to_owned());
    PrometheusBuilder::new().set_buckets_for_metric(durations, &[0.01, 1.0]).unwrap().build_recorder()
}

/// Runs `test` with its own recorder. Returns the rendered metrics.
fn rendered(test: impl AsyncFnOnce()) -> String {
    rendered_by(tokio::runtime::Builder::new_current_thread().enable_all(), test)
}

fn rendered_by(runtime: &mut tokio::runtime::Builder, test: impl AsyncFnOnce()) -> String {
    let (recorder, runtime) = (recorder(), runtime.build());
    metrics::with_local_recorder(&recorder, || runtime.unwrap().block_on(test()));
    recorder.handle().render()
}

fn sample(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let line = text.lines().find(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'))
            && labels.iter().all(|label| line.contains(label))
    });
    line?.rsplit(' ').next()?.parse().ok()
}

/// Makes a cache emit every metric and label that it has.
async fn emit_everything() {
    let fields = [("cache-control", "max-age=10, stale-while-revalidate=9"), ("etag", "\"v1\"")];
    let origin = Origin::new(move |request| match has_tag(request, "\"v1\"") {
        true => not_modified(&fields),
        false if request.uri().path() == "/b" => response(&[("cache-control", "no-store")], "b"),
        false => response(&fields, "a"),
    });
    let storage = Faulty::new(Mode::Well);
    let cache = Fixture::with(origin, storage.clone(), |builder| builder.metrics_label("a day"));
    for (uri, later) in [(A, 0), (A, 12), (A, 30), (A, 0), ("http://example.com/b", 0)] {
        cache.clock.advance(Duration::from_secs(later));
        cache.get(uri).await;
        cache.layer.idle().await;
    }
    cache.ask(Request::put(A).body(Full::from("x")).unwrap()).await;
    storage.set(Mode::Failing);
    for _ in 0..5 {
        cache.get(A).await;
    }

    // A body that ends early, and is not continued, since the origin sends the whole again.
    let cut = service_fn(async |_: Request<Full<Bytes>>| {
        let frames = futures_util::stream::iter([Ok::<_, std::io::Error>(Frame::data(Bytes::from("abc")))]);
        let response = Response::builder().header("etag", "\"v1\"").header("content-length", "10");
        Ok::<_, std::convert::Infallible>(response.body(StreamBody::new(frames)).unwrap())
    });
    let layer = CacheLayer::builder(MemoryStorage::new()).resume(1).build().unwrap();
    let _ = layer.layer(cut).oneshot(get(A)).await.unwrap().into_body().collect().await;

    let far = Faulty::new(Mode::Well);
    let (clock, mock) = Clock::mock();
    let tiers = TieredStorage::builder(MemoryStorage::new(), far.clone());
    let tiers = tiers.serve_while_far_is_down(Duration::from_secs(60)).clock(clock).build();
    let origin = Origin::always(Response::builder().header("cache-control", "max-age=60"), "a");
    let cache = Fixture::with(origin, tiers, |builder| builder);
    for mode in [Mode::Well, Mode::Well, Mode::Failing] {
        far.set(mode);
        cache.get(A).await;
        mock.advance(Duration::from_secs(u64::from(mode == Mode::Well)));
    }

    let gate = Semaphore::new(0);
    let layer = CacheLayer::new(MemoryStorage::new());
    let gate = std::sync::Arc::new(gate);
    let waits = {
        let gate = std::sync::Arc::clone(&gate);
        service_fn(move |_: Request<Full<Bytes>>| {
            let gate = std::sync::Arc::clone(&gate);
            async move {
                let _turn = gate.acquire_owned().await;
                let response = Response::builder().header("cache-control", "max-age=60");
                Ok::<_, std::convert::Infallible>(response.body(Full::new(Bytes::from("abc"))).unwrap())
            }
        })
    };
    let service = layer.layer(waits);
    let ask = async || {
        let response = service.clone().oneshot(get(A)).await.unwrap();
        response.into_body().collect().await.unwrap()
    };
    tokio::join!(ask(), ask(), async { gate.add_permits(2) });
    let fails = service_fn(async |_: Request<Full<Bytes>>| {
        Err::<Response<Full<Bytes>>, _>(std::io::Error::other("down"))
    });
    assert!(layer.layer(fails).oneshot(get("http://example.com/c")).await.is_err());
}

/// Writes more records than the storage keeps, so that it evicts some.
async fn fill(storage: impl Storage) {
    for number in 0..64 {
        let record = Record::new(vec![0_u8; 4000], Timestamp::NEVER);
        storage.write(Key::head([number; 16]), record).await.unwrap();
    }
}

/// The type and the labels of each metric, by name.
type Metrics = BTreeMap<String, (String, BTreeSet<String>)>;

/// Returns the metrics of the table in `src/observe.md`.
fn page() -> Metrics {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/observe.md");
    let page = std::fs::read_to_string(path).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `http_cache_"));
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert!(cells.len() == 5 && cells.iter().all(|cell| !cell.is_empty()), "{row}");
        let labels = cells[3].split('`').skip(1).step_by(2).map(str::to_owned).collect();
        (cells[0].trim_matches('`').to_owned(), (cells[1].to_owned(), labels))
    })
    .filter(|(name, _)| name != "http_cache") // a span, not a metric
    .collect()
}

/// Returns the metrics that were emitted, and the values of each label.
fn emitted(text: &str) -> (Metrics, BTreeSet<(String, String)>) {
    let (mut all, mut values) = (BTreeMap::new(), BTreeSet::new());
    let mut current = String::new();
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').unwrap();
            current = name.to_owned();
            all.insert(current.clone(), (kind.to_owned(), BTreeSet::new()));
        } else if let Some((_, labels)) = line.split_once('{') {
            let labels = labels.split_once('}').unwrap().0;
            for (label, value) in labels.split(',').filter_map(|label| label.split_once('=')) {
                if label != "le" {
                    all.get_mut(&current).unwrap().1.insert(label.to_owned());
                    values.insert((label.to_owned(), value.trim_matches('"').to_owned()));
                }
            }
        }
    }
    (all, values)
}

#[test]
fn metrics_page_lists_every_emitted_metric() {
    // The recorder is global, because some storages have threads of their own.
    let recorder = recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).unwrap();
    observe::describe_metrics();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        emit_everything().await;
        fill(MemoryStorage::builder().max_bytes(64 * 1024).build()).await;
        fill(SqliteStorage::builder(":memory:").max_bytes(64 * 1024).open().await.unwrap()).await;
        let folder = tempfile::tempdir().unwrap();
        fill(DirectoryStorage::builder(folder.path()).max_bytes(64 * 1024).open().await.unwrap()).await;
        while !handle.render().contains("storage=\"directory\"") {
            tokio::task::yield_now().await;
        }
    });
    let text = handle.render();
    let (all, values) = emitted(&text);
    assert_eq!(page(), all);
    for name in all.keys() {
        assert!(text.contains(&format!("# HELP {name} ")), "{name} is not described");
    }
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/observe.md")).unwrap();
    for (label, value) in values.iter().filter(|(label, _)| label != "cache") {
        assert!(page.contains(&format!("`{value}`")), "{label}={value} is not on the page");
    }
}

#[test]
fn dropped_body_counts_only_bytes_read() {
    let text = rendered(async || {
        let layer = CacheLayer::builder(MemoryStorage::new()).metrics_label("bytes").build().unwrap();
        let frames = service_fn(async |_: Request<Full<Bytes>>| {
            let frames =
                ["abc", "de", "f"].map(|data| Ok::<_, std::io::Error>(Frame::data(Bytes::from(data))));
            let body = StreamBody::new(futures_util::stream::iter(frames));
            Ok::<_, std::io::Error>(
                Response::builder().header("cache-control", "max-age=60").body(body).unwrap(),
            )
        });
        let service = layer.layer(frames);
        let mut body = service.clone().oneshot(get(A)).await.unwrap().into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), 3);
        drop(body);
        for _ in 0..2 {
            service.clone().oneshot(get(A)).await.unwrap().into_body().collect().await.unwrap();
        }
        drop(service.oneshot(get(A)).await.unwrap()); // no byte of the body was read
    });
    let bytes = |source| sample(&text, "http_cache_body_bytes_total", &["cache=\"bytes\"", source]);
    assert_eq!((bytes("source=\"origin\""), bytes("source=\"storage\"")), (Some(9.0), Some(6.0)));
    let dropped = sample(&text, "http_cache_responses_not_stored_total", &["reason=\"incomplete\""]);
    assert_eq!(dropped, Some(1.0));
}

#[test]
fn bytes_of_a_body_in_parts_count_by_their_source() {
    let text = rendered(async || {
        let file = Bytes::from(vec![b'x'; 1000]);
        let origin = service_fn(move |request: Request<Full<Bytes>>| {
            // Each request is for one range, as this test and the cache send them.
            let range =
                request.headers()["range"].to_str().unwrap()["bytes=".len()..].split_once('-').unwrap();
            let (start, last): (usize, usize) = (range.0.parse().unwrap(), range.1.parse().unwrap());
            let response = Response::builder()
                .status(206)
                .header("content-range", format!("bytes {start}-{last}/1000"))
                .header("etag", "\"a\"")
                .header("cache-control", "max-age=60")
                .body(Full::new(file.slice(start..=last)));
            async move { Ok::<_, std::io::Error>(response.unwrap()) }
        });
        let builder = CacheLayer::builder(MemoryStorage::new()).store_parts(true);
        let service = builder.metrics_label("parts").build().unwrap().layer(origin);
        for (range, len) in [("bytes=100-199", 100), ("bytes=300-399", 100), ("bytes=150-449", 300)] {
            let mut request = get(A);
            request.headers_mut().insert("range", range.parse().unwrap());
            let body = service.clone().oneshot(request).await.unwrap().into_body();
            assert_eq!(body.collect().await.unwrap().to_bytes().len(), len);
        }
    });
    let bytes = |source| sample(&text, "http_cache_body_bytes_total", &["cache=\"parts\"", source]);
    assert_eq!((bytes("source=\"origin\""), bytes("source=\"storage\"")), (Some(350.0), Some(150.0)));
}

#[test]
fn late_recorder_receives_only_later_metrics() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let origin = Origin::always(Response::builder().header("cache-control", "max-age=60"), "a");
    let cache = Fixture::with(origin, MemoryStorage::new(), |builder| builder.metrics_label("later"));
    runtime.block_on(async { (cache.get(A).await, cache.get(A).await) });
    let recorder = recorder();
    metrics::with_local_recorder(&recorder, || runtime.block_on(cache.get(A)));
    let text = recorder.handle().render();
    let hits = ["cache=\"later\"", "outcome=\"hit\""];
    assert_eq!(sample(&text, "http_cache_requests_total", &hits), Some(1.0));
    assert_eq!(sample(&text, "http_cache_requests_total", &["outcome=\"miss\""]), None);
    assert_eq!(cache.layer.statistics().hits(), 2);
}

#[test]
fn gauges_return_to_zero() {
    let mut open = String::new();
    let (recorder, runtime) =
        (recorder(), tokio::runtime::Builder::new_current_thread().enable_all().build());
    metrics::with_local_recorder(&recorder, || {
        runtime.unwrap().block_on(async {
            let storage = Faulty::new(Mode::Failing);
            let origin = Origin::always(Response::builder(), "a");
            let cache = Fixture::with(origin, storage.clone(), |builder| builder);
            for _ in 0..5 {
                cache.get(A).await;
            }
            open = recorder.handle().render();
            storage.set(Mode::Well);
            cache.clock.advance(Duration::from_secs(3));
            cache.get(A).await;
        });
    });
    let closed = recorder.handle().render();
    let left_alone = |text| sample(text, "http_cache_storage_breaker_open", &["cache=\"default\""]);
    assert_eq!((left_alone(&open), left_alone(&closed)), (Some(1.0), Some(0.0)));
    let durations = "http_cache_storage_operation_duration_seconds_count";
    assert_eq!(sample(&closed, durations, &["operation=\"read\"", "result=\"error\""]), Some(5.0));
    assert_eq!(sample(&closed, "http_cache_origin_requests_in_flight", &[]), Some(0.0));
}

/// A storage that counts calls of `usage`.
#[derive(Clone)]
struct CountingUsage(MemoryStorage, std::sync::Arc<std::sync::atomic::AtomicU64>);

impl Storage for CountingUsage {
    forward!(0: read, write, delete, clear, keys);

    async fn usage(&self) -> tower_response_cache::Result<Usage> {
        let bytes = 100 + self.1.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok(Usage::new(bytes, Some(1000)))
    }
}

#[test]
fn storage_bytes_gauge_is_updated_occasionally() {
    let asked = std::sync::Arc::<std::sync::atomic::AtomicU64>::default();
    let storage = CountingUsage(MemoryStorage::new(), std::sync::Arc::clone(&asked));
    let asked = || asked.load(std::sync::atomic::Ordering::SeqCst);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let text = rendered_by(runtime.enable_all().start_paused(true), async || {
        let origin = Origin::always(Response::builder().header("cache-control", "max-age=600"), "a");
        let cache = Fixture::with(origin, storage, |builder| builder);
        for number in 0..100 {
            cache.get(&format!("http://example.com/{number}")).await;
            cache.get("http://example.com/0").await;
            cache.layer.idle().await;
        }
        assert_eq!(asked(), 1);
        // The responses that were stored since are reported once more, without a further request.
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(asked(), 2);
        cache.clock.advance(Duration::from_secs(6));
        for _ in 0..10 {
            cache.get("http://example.com/0").await; // hits do not call `usage`
        }
        cache.layer.idle().await;
        assert_eq!(asked(), 2);
        cache.get("http://example.com/new").await;
        cache.layer.idle().await;
    });
    assert_eq!(sample(&text, "http_cache_storage_bytes", &[]), Some(102.0));
    assert_eq!(sample(&text, "http_cache_storage_max_bytes", &[]), Some(1000.0));
}
