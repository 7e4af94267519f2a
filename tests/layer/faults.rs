//! Storages that fail, hang or return damaged records.
//!
//! No request fails or stalls because of them, and no invalidation is lost.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use http::{Request, StatusCode};
use http_body_util::Full;
use tokio::time::Instant;
use tower_response_cache::storage::{Key, Kind, MemoryStorage, Record, Stamp, Storage};
use tower_response_cache::{Clock, MissReason, NotStored, Outcome, Result, Stored, Timestamp};

use crate::support::faulty::{Faulty, Mode};
use crate::support::forward::forward;
use crate::support::{Fixture, Origin, get, not_modified, response};

const A: &str = "http://example.com/a";

fn fixture(mode: Mode) -> (Fixture, Faulty) {
    let storage = Faulty::new(mode);
    let mut version = 0;
    let origin = Origin::new(move |request| {
        if request.method() == "POST" {
            version += 1;
        }
        response(&[("cache-control", "max-age=6000")], format!("version {version}"))
    });
    (Fixture::with(origin, storage.clone(), |builder| builder), storage)
}

fn post() -> Request<Full<Bytes>> {
    Request::post(A).body(Full::default()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn failing_storage_is_reported_as_miss() {
    let (cache, _) = fixture(Mode::Failing);
    for _ in 0..20 {
        let answer = cache.get(A).await;
        assert_eq!((answer.code, &answer.body[..]), (StatusCode::OK, &b"version 0"[..]));
        assert_eq!(answer.status.outcome(), Outcome::Miss(MissReason::StorageFailed));
        assert_eq!(answer.status.stored(), Stored::No(NotStored::StorageFailed));
    }
    assert_eq!(cache.origin.count(), 20);
}

#[tokio::test(start_paused = true)]
async fn hung_storage_is_skipped_after_timeouts() {
    let (cache, storage) = fixture(Mode::Hung);
    let began = Instant::now();
    assert_eq!(cache.get(A).await.body, "version 0");
    assert!(began.elapsed() <= Duration::from_millis(600));
    for _ in 0..100 {
        assert_eq!(cache.get(A).await.body, "version 0");
    }
    // The breaker is open, so most requests neither call the storage nor wait for it.
    assert!(began.elapsed() <= Duration::from_secs(5));
    assert!(storage.operations() < 20, "{}", storage.operations());
}

#[tokio::test(start_paused = true)]
async fn recovered_storage_is_used_again() {
    let (cache, storage) = fixture(Mode::Failing);
    for _ in 0..10 {
        cache.get(A).await;
    }
    storage.set(Mode::Well);
    cache.clock.advance(Duration::from_secs(3));
    assert_eq!(cache.get(A).await.word(), "miss");
    assert_eq!(cache.get(A).await.word(), "hit");
}

#[tokio::test(start_paused = true)]
async fn read_only_storage_still_serves_hits() {
    let (cache, storage) = fixture(Mode::Well);
    cache.get(A).await;
    storage.set(Mode::ReadOnly);
    for _ in 0..20 {
        assert_eq!(cache.get(A).await.word(), "hit");
        assert_eq!(cache.get("http://example.com/b").await.word(), "miss");
    }
}

#[tokio::test(start_paused = true)]
async fn full_storage_serves_hits_and_deletes_invalidated_responses() {
    let (cache, storage) = fixture(Mode::Well);
    cache.get(A).await;
    storage.set(Mode::Full);
    for _ in 0..20 {
        assert_eq!(cache.get(A).await.word(), "hit");
        assert_eq!(cache.get("http://example.com/b").await.word(), "miss");
    }
    cache.ask(post()).await;
    assert_eq!(cache.get(A).await.body, "version 1");
    // There is no room for a tombstone, so the response is deleted. Other processes must not find it either.
    assert_eq!(storage.inner.size().await.unwrap(), 0);
    storage.set(Mode::Well);
    cache.clock.advance(Duration::from_secs(3));
    assert_eq!(cache.get(A).await.body, "version 1");
    assert_eq!(cache.get(A).await.word(), "hit");
}

#[tokio::test(start_paused = true)]
async fn missing_chunk_is_miss_only_when_needed() {
    let origin = Origin::new(|_| response(&[("cache-control", "max-age=60")], "0123456789abcdef"));
    let storage = Faulty::new(Mode::Well);
    let cache = Fixture::with(origin, storage.clone(), |builder| builder.chunk_bytes(4));
    for part in [0, 1, 3] {
        cache.get(A).await;
        assert_eq!(cache.get(A).await.word(), "hit");
        let keys: Vec<Key> = storage.inner.keys().try_collect().await.unwrap();
        let lost = keys.into_iter().find(|key| key.kind == Kind::Chunk && key.part == part).unwrap();
        storage.inner.delete(lost).await.unwrap();
        // The chunks of this range are still stored.
        let range = if part == 3 { "bytes=0-11" } else { "bytes=8-15" };
        let ranged = cache.ask(crate::support::get_with(A, &[("range", range)])).await;
        assert_eq!((ranged.word(), ranged.code), ("hit", StatusCode::PARTIAL_CONTENT));
        let answer = cache.get(A).await;
        assert_eq!((answer.word(), &answer.body[..]), ("miss", &b"0123456789abcdef"[..]), "part {part}");
        storage.inner.clear().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn fail_closed_answers_503_without_fetching() {
    let origin = Origin::new(|_| response(&[], "v"));
    let cache = Fixture::with(origin, Faulty::new(Mode::Failing), |builder| builder.fail_closed(true));
    let answer = cache.get(A).await;
    assert_eq!((answer.code, answer.word()), (StatusCode::SERVICE_UNAVAILABLE, "failed"));
    assert_eq!(cache.origin.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn failed_invalidation_stays_in_effect() {
    for mode in [Mode::Failing, Mode::Hung, Mode::HungWrites] {
        let (cache, storage) = fixture(Mode::Well);
        cache.get(A).await;
        assert_eq!(cache.get(A).await.word(), "hit");
        storage.set(mode);
        cache.ask(post()).await;
        // The old response is still stored. It must not be served, now or after the storage has recovered.
        assert_eq!(cache.get(A).await.body, "version 1");
        storage.set(Mode::Well);
        cache.clock.advance(Duration::from_secs(5));
        assert_eq!(cache.get(A).await.body, "version 1");
        let settled = cache.get(A).await;
        assert_eq!((settled.word(), &settled.body[..]), ("hit", &b"version 1"[..]), "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn pending_invalidation_is_written_without_request() {
    let (cache, storage) = fixture(Mode::Well);
    cache.get(A).await;
    storage.set(Mode::HungWrites);
    cache.ask(post()).await;
    storage.set(Mode::Well);
    cache.clock.advance(Duration::from_secs(5));
    tokio::time::sleep(Duration::from_secs(10)).await;
    // Another process, with its own cache on the same storage, finds the tombstone.
    let other = Fixture::with(cache.origin.clone(), storage, |builder| builder);
    other.clock.set(cache.clock.now());
    assert_eq!(other.get(A).await.status.outcome(), Outcome::Miss(MissReason::Invalidated));
}

/// An in-flight write is forgotten when its task is dropped with the runtime.
///
/// Otherwise its body would stay in memory and be served although the storage has no record of it.
#[test]
fn in_flight_writes_end_with_their_runtime() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (chunk_bytes, freshens) in [(4, false), (1024, false), (1024, true)] {
        let storage = Faulty::new(Mode::Well);
        let origin = Origin::new(|request| match crate::support::has_tag(request, "\"a\"") {
            true => not_modified(&[("cache-control", "max-age=60")]),
            false => response(&[("cache-control", "max-age=60"), ("etag", "\"a\"")], "0123456789"),
        });
        let cache = Fixture::with(origin, storage.clone(), |builder| builder.chunk_bytes(chunk_bytes));
        if freshens {
            runtime().block_on(cache.get(A));
            cache.clock.advance(Duration::from_secs(61));
        }
        storage.set(Mode::HungWrites);
        runtime().block_on(async {
            cache.get(A).await;
            assert_eq!(cache.get(A).await.word(), "hit", "its write is in flight");
        });
        storage.set(Mode::Well);
        runtime().block_on(async {
            cache.layer.idle().await;
            assert!(!cache.get(A).await.status.is_hit(), "{chunk_bytes} {freshens}");
            cache.layer.idle().await;
            assert!(cache.get(A).await.status.is_hit(), "{chunk_bytes} {freshens}");
        });
    }
}

/// A synchronous program may create a runtime for each call.
///
/// A later request writes the pending invalidation in its own runtime.
#[test]
fn pending_invalidation_outlives_its_runtime() {
    const B: &str = "http://example.com/b";
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    for next in [get(B), Request::post(B).body(Full::default()).unwrap()] {
        let (cache, storage) = fixture(Mode::Well);
        runtime().block_on(async {
            cache.get(A).await;
            storage.set(Mode::ReadOnly);
            cache.ask(post()).await;
        });
        runtime().block_on(async {
            cache.ask(next).await;
            storage.set(Mode::Well);
            cache.clock.advance(Duration::from_secs(5));
            tokio::time::sleep(Duration::from_secs(10)).await;
            let other = Fixture::with(cache.origin.clone(), storage, |builder| builder);
            other.clock.set(cache.clock.now());
            assert_eq!(other.get(A).await.status.outcome(), Outcome::Miss(MissReason::Invalidated));
        });
    }
}

#[tokio::test(start_paused = true)]
async fn pending_invalidation_prevents_storing() {
    let (cache, storage) = fixture(Mode::HungWrites);
    cache.ask(post()).await;
    assert_eq!(cache.get(A).await.status.stored(), Stored::No(NotStored::StorageFailed));
    storage.set(Mode::Well);
}

#[tokio::test(start_paused = true)]
async fn overflowing_invalidations_prevent_storing_earlier_fetch() {
    let storage = Faulty::new(Mode::Well);
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let origin = {
        let gate = Arc::clone(&gate);
        tower::service_fn(move |request: Request<Full<Bytes>>| {
            let gate = Arc::clone(&gate);
            async move {
                if request.method() == "GET" {
                    gate.acquire().await.unwrap().forget();
                }
                Ok::<_, std::convert::Infallible>(response(&[("cache-control", "max-age=6000")], "x"))
            }
        })
    };
    let (clock, mock) = Clock::mock();
    let layer = tower_response_cache::CacheLayer::builder(storage.clone()).clock(clock).build().unwrap();
    let service = tower::Layer::layer(&layer, origin);
    let ask = |request: Request<Full<Bytes>>| {
        let service = service.clone();
        async move {
            crate::support::Answer::read(tower::ServiceExt::oneshot(service, request).await.unwrap()).await
        }
    };
    let fetch = tokio::spawn(ask(get(A)));
    tokio::time::sleep(Duration::from_millis(1)).await;
    storage.set(Mode::FailingWrites);
    mock.advance(Duration::from_secs(1));
    ask(post()).await;
    // This is one more than the limit. All pending invalidations of this origin are dropped, including the one above.
    for number in 0..10_000 {
        let uri = format!("http://example.com/{number}");
        ask(Request::post(uri).body(Full::default()).unwrap()).await;
    }
    storage.set(Mode::Well);
    mock.advance(Duration::from_secs(5));
    gate.add_permits(2);
    assert_eq!(fetch.await.unwrap().word(), "miss");
    assert_eq!(ask(get(A)).await.word(), "miss", "the first fetch began before the invalidation");
    assert_eq!(ask(get(A)).await.word(), "hit");
}

#[tokio::test]
async fn damaged_record_is_a_miss() {
    let storage = MemoryStorage::new();
    let cache = Fixture::with(
        Origin::new(|_| response(&[("cache-control", "max-age=60")], "0123456789")),
        storage.clone(),
        |builder| builder,
    );
    cache.get(A).await;
    let (key, record) = storage.values().try_next().await.unwrap().unwrap();
    let good = record.payload();
    let until = record.retain_until();
    // Truncated at every length, and replaced by other bytes.
    let cut = (0..good.len()).map(|len| good.slice(..len));
    let others = [Bytes::new(), Bytes::from_static(b"\x01\xff\xff\xff\xff"), Bytes::from(vec![0xff; 500])];
    for bytes in cut.chain(others) {
        let len = bytes.len();
        storage.write(key, Record::new(bytes, until)).await.unwrap();
        let answer = cache.get(A).await;
        assert_eq!((answer.word(), &answer.body[..]), ("miss", &b"0123456789"[..]), "cut at {len}");
    }
    // A record with any byte changed fails to decode.
    let whole = record.to_bytes();
    for at in 0..whole.len() {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 0x55;
        assert!(Record::from_bytes(bytes).is_err(), "changed at {at}");
    }
    storage.write(key, Record::new(good.slice(..good.len() / 2), until)).await.unwrap();
    assert_eq!(cache.get(A).await.word(), "miss");
    assert_eq!(cache.get(A).await.word(), "hit");
}

/// Stores a body in sixteen chunks, of which a hit reads eight in one operation.
///
/// Returns the cache, its storage and the keys of the chunks.
async fn chunked() -> (Fixture, MemoryStorage, Vec<Key>) {
    let storage = MemoryStorage::new();
    let origin = Origin::new(|_| response(&[("cache-control", "max-age=60")], "0123456789abcdef"));
    let cache = Fixture::with(origin, storage.clone(), |builder| builder.chunk_bytes(1));
    cache.get(A).await;
    cache.layer.idle().await;
    let keys: Vec<Key> = storage.keys().try_collect().await.unwrap();
    let mut chunks: Vec<Key> = keys.into_iter().filter(|key| key.kind == Kind::Chunk).collect();
    chunks.sort();
    assert_eq!(chunks.len(), 16);
    assert_eq!(cache.get(A).await.word(), "hit");
    (cache, storage, chunks)
}

#[tokio::test]
async fn body_with_missing_chunk_is_fetched_again() {
    for part in 0..16 {
        let (cache, storage, chunks) = chunked().await;
        storage.delete(chunks[part]).await.unwrap();
        let answer = cache.get(A).await;
        assert_eq!(answer.status.outcome(), Outcome::Miss(MissReason::BodyGone));
        assert_eq!(answer.body, "0123456789abcdef");
        assert_eq!(cache.get(A).await.word(), "hit");
    }
}

#[tokio::test]
async fn damaged_later_chunk_fails_body_and_discards_entry() {
    use http_body_util::BodyExt;
    let damages =
        [(10, None), (10, Some("ab")), (10, Some("too long")), (2, Some("ab")), (2, Some("too long"))];
    for (part, damage) in damages {
        let (cache, storage, chunks) = chunked().await;
        if let Some(text) = damage {
            let later = Timestamp::from_secs(4_000_000_000);
            storage.write(chunks[part], Record::new(text, later)).await.unwrap();
        }
        let mut body = cache.send(get(A)).await.into_body();
        if damage.is_none() {
            assert!(storage.delete(chunks[part]).await.unwrap());
        }
        for before in "0123456789abcdef".bytes().take(part) {
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), vec![before]);
        }
        assert!(
            body.frame().await.unwrap().is_err(),
            "the body must not end early or continue with another body"
        );
        assert!(body.frame().await.is_none());
        cache.layer.idle().await;
        let again = cache.get(A).await;
        assert_eq!((again.word(), &again.body[..]), ("miss", &b"0123456789abcdef"[..]));
        assert_eq!(cache.get(A).await.word(), "hit");
    }
}

#[tokio::test]
async fn reader_keeps_chunks_that_it_has_read() {
    let (cache, storage, chunks) = chunked().await;
    let body = cache.send(get(A)).await.into_body();
    for chunk in &chunks[..8] {
        assert!(storage.delete(*chunk).await.unwrap());
    }
    let body = http_body_util::BodyExt::collect(body).await.unwrap();
    assert_eq!(body.to_bytes(), "0123456789abcdef");
}

#[tokio::test]
async fn revalidated_missing_body_is_fetched_unconditionally() {
    let storage = MemoryStorage::new();
    let origin = Origin::new(|request| {
        if request.headers().contains_key("if-none-match") {
            return not_modified(&[("etag", "\"t\"")]);
        }
        response(&[("cache-control", "max-age=60"), ("etag", "\"t\"")], "0123456789abcdef")
    });
    let cache = Fixture::with(origin, storage.clone(), |builder| builder.chunk_bytes(4));
    cache.get(A).await;
    cache.layer.idle().await;
    cache.clock.advance(Duration::from_secs(100));
    let keys: Vec<Key> = storage.keys().try_collect().await.unwrap();
    storage.delete(*keys.iter().rfind(|key| key.kind == Kind::Chunk).unwrap()).await.unwrap();
    let answer = cache.get(A).await;
    assert_eq!((answer.code, &answer.body[..]), (StatusCode::OK, &b"0123456789abcdef"[..]));
    assert_eq!(cache.origin.count(), 3);
}

/// A memory storage whose writes run one after another and each take a while. Reads answer at once.
#[derive(Clone)]
struct Slow {
    inner: MemoryStorage,
    turn: Arc<tokio::sync::Mutex<()>>,
    takes: Duration,
    waiting: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Slow {
    fn new(takes: Duration) -> Self {
        let (turn, waiting, most) = Default::default();
        Self { inner: MemoryStorage::new(), turn, takes, waiting, most }
    }

    async fn wait(&self) {
        use std::sync::atomic::Ordering::SeqCst;
        struct Waits<'a>(&'a Slow);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.waiting.fetch_sub(1, SeqCst);
            }
        }
        self.most.fetch_max(self.waiting.fetch_add(1, SeqCst) + 1, SeqCst);
        let _waits = Waits(self);
        let _turn = self.turn.lock().await;
        tokio::time::sleep(self.takes).await;
    }
}

impl Storage for Slow {
    forward!(inner: read, clear, keys);

    async fn write(&self, key: Key, record: Record) -> Result<()> {
        self.wait().await;
        self.inner.write(key, record).await
    }
    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        self.wait().await;
        self.inner.write_if(key, seen, record).await
    }
    async fn delete(&self, key: Key) -> Result<bool> {
        self.wait().await;
        self.inner.delete(key).await
    }
}

#[tokio::test(start_paused = true)]
async fn burst_of_misses_keeps_hits_working() {
    for takes in [Duration::from_millis(1), Duration::from_millis(50), Duration::from_secs(3600)] {
        let storage = Slow::new(takes);
        let origin = Origin::new(|_| response(&[("cache-control", "max-age=6000")], "x".repeat(1000)));
        let cache = Fixture::with(origin, storage.clone(), |builder| builder);
        let stored = Fixture::with(cache.origin.clone(), storage.inner.clone(), |builder| builder);
        stored.get(A).await;
        stored.layer.idle().await;
        for burst in 0..10 {
            let misses = (0..2000).map(|number| {
                let uri = format!("http://example.com/{burst}/{number}");
                let service = cache.service.clone();
                tokio::spawn(async move {
                    let response = tower::ServiceExt::oneshot(service, get(&uri)).await.unwrap();
                    crate::support::Answer::read(response).await.word()
                })
            });
            let misses: Vec<_> = misses.collect();
            for _ in 0..50 {
                assert_eq!(cache.get(A).await.word(), "hit", "during writes of {takes:?}");
                tokio::time::advance(Duration::from_millis(7)).await;
                cache.clock.advance(Duration::from_millis(7));
            }
            for miss in misses {
                assert_eq!(miss.await.unwrap(), "miss");
            }
        }
        // The number of waiting writes is bounded, and requests do not wait for late writes.
        let most = storage.most.load(Ordering::SeqCst);
        assert!(most <= 520, "{most} writes of {takes:?} waited at once");
        let statistics = cache.layer.statistics();
        assert_eq!(statistics.superseded(), 0);
        if takes < Duration::from_secs(1) {
            // The breaker for writes is open for two seconds of the test.
            assert!(statistics.stored() > 5, "{statistics}");
        }
        if takes == Duration::from_millis(1) {
            // One burst comes while the breaker is open. Of the others, only the writes that waited are late.
            assert!(statistics.storage_failures() < 2000 + 2 * 512, "{statistics}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn hung_writes_keep_invalidations_and_hits() {
    let (cache, storage) = fixture(Mode::Well);
    cache.get(A).await;
    cache.get("http://example.com/b").await;
    storage.set(Mode::HungWrites);
    for number in 0..20 {
        cache.get(&format!("http://example.com/{number}")).await;
        assert_eq!(cache.get("http://example.com/b").await.word(), "hit");
    }
    // The breaker for writes is open, so the invalidation stays pending.
    cache.ask(post()).await;
    assert_eq!(cache.get(A).await.body, "version 1");
    assert_eq!(cache.get("http://example.com/b").await.word(), "hit");
    storage.set(Mode::Well);
    cache.clock.advance(Duration::from_secs(3));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(cache.get(A).await.body, "version 1");
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn close_waits_for_in_flight_writes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cache.sqlite");
    let storage = tower_response_cache::storage::SqliteStorage::open(&path).await.unwrap();
    let origin = Origin::new(|_| response(&[("cache-control", "max-age=6000")], "x".repeat(300_000)));
    let cache = Fixture::with(origin, storage, |builder| builder);
    cache.layer.check().await.unwrap();
    for number in 0..20 {
        cache.get(&format!("http://example.com/{number}")).await;
    }
    assert!(cache.layer.usage().await.unwrap().max_bytes.is_some());
    cache.layer.close().await.unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() > 20 * 300_000);
    // Requests continue without the storage.
    assert_eq!(cache.get(A).await.word(), "miss");
    let storage = tower_response_cache::storage::SqliteStorage::open(&path).await.unwrap();
    assert_eq!(storage.size().await.unwrap(), 20);
}

#[tokio::test(start_paused = true)]
async fn concurrent_misses_bound_waiting_writes() {
    use std::sync::atomic::Ordering::SeqCst;
    let storage = Slow::new(Duration::from_millis(50));
    let origin = Origin::new(|_| response(&[("cache-control", "max-age=6000")], "x".repeat(1000)));
    let cache = Fixture::with(origin, storage.clone(), |builder| builder);
    let stored = Fixture::with(cache.origin.clone(), storage.inner.clone(), |builder| builder);
    stored.get(A).await;
    let misses = (0..10_000).map(|number| {
        let (service, uri) = (cache.service.clone(), format!("http://example.com/{number}"));
        tokio::spawn(async move {
            let response = tower::ServiceExt::oneshot(service, get(&uri)).await.unwrap();
            crate::support::Answer::read(response).await
        })
    });
    let misses: Vec<_> = misses.collect();
    let mut shed = 0;
    for miss in misses {
        let answer = miss.await.unwrap();
        assert_eq!(answer.word(), "miss");
        shed += usize::from(answer.status.stored() == Stored::No(NotStored::StorageBusy));
        assert_eq!(cache.get(A).await.word(), "hit");
    }
    cache.layer.idle().await;
    assert!(shed > 9000, "{shed} responses were not stored because the storage was busy");
    assert!(storage.most.load(SeqCst) <= 520, "{} writes waited", storage.most.load(SeqCst));
    assert_eq!(cache.origin.count(), 10_001);
    // Afterwards the cache stores responses again.
    tokio::time::sleep(Duration::from_secs(60)).await;
    cache.clock.advance(Duration::from_secs(60));
    cache.get("http://example.com/later").await;
    assert_eq!(cache.get("http://example.com/later").await.word(), "hit");
}

#[tokio::test(start_paused = true)]
async fn busy_storage_does_not_prevent_coalescing() {
    let storage = Slow::new(Duration::from_secs(3600));
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let fetched = Arc::<AtomicUsize>::default();
    let origin = {
        let (gate, fetched) = (Arc::clone(&gate), Arc::clone(&fetched));
        tower::service_fn(move |request: Request<Full<Bytes>>| {
            let (gate, fetched) = (Arc::clone(&gate), Arc::clone(&fetched));
            async move {
                if request.uri().path() == "/shared" {
                    fetched.fetch_add(1, Ordering::SeqCst);
                    gate.acquire().await.unwrap().forget();
                }
                Ok::<_, std::convert::Infallible>(response(&[("cache-control", "max-age=6000")], "shared"))
            }
        })
    };
    let layer = tower_response_cache::CacheLayer::new(storage);
    let service = tower::Layer::layer(&layer, origin);
    let ask = |uri: &str| {
        let (service, request) = (service.clone(), get(uri));
        tokio::spawn(async move {
            crate::support::Answer::read(tower::ServiceExt::oneshot(service, request).await.unwrap()).await
        })
    };
    let herd: Vec<_> = (0..100).map(|_| ask("http://example.com/shared")).collect();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let burst: Vec<_> = (0..600).map(|number| ask(&format!("http://example.com/{number}"))).collect();
    let mut shed = 0;
    for miss in burst {
        shed += usize::from(miss.await.unwrap().status.stored() == Stored::No(NotStored::StorageBusy));
    }
    assert!(shed > 50, "{shed}");
    gate.add_permits(1000);
    for one in herd {
        assert_eq!(one.await.unwrap().body, "shared");
    }
    assert_eq!(fetched.load(Ordering::SeqCst), 1, "fetches");
}

#[tokio::test(start_paused = true)]
async fn hung_reads_do_not_prevent_writes() {
    let (cache, storage) = fixture(Mode::Well);
    cache.get(A).await;
    storage.set(Mode::HungReads);
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(cache.get(A).await.body, "version 0");
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    cache.ask(post()).await;
    storage.set(Mode::Well);
    cache.clock.advance(Duration::from_secs(3));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(cache.get(A).await.body, "version 1");
    assert_eq!(cache.get(A).await.word(), "hit");
}

#[tokio::test(start_paused = true)]
async fn alternating_failures_never_serve_outdated_response() {
    let (cache, storage) = fixture(Mode::Alternating);
    for round in 0..200 {
        if round % 7 == 0 {
            cache.ask(post()).await;
        }
        let version = round / 7 + 1;
        assert_eq!(cache.get(A).await.body, format!("version {version}"), "round {round}");
        cache.clock.advance(Duration::from_millis(300));
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    storage.set(Mode::Well);
    cache.clock.advance(Duration::from_secs(3));
    tokio::time::sleep(Duration::from_secs(5)).await;
    cache.get(A).await;
    assert_eq!(cache.get(A).await.word(), "hit");
}

/// A memory storage that fails or panics at each write of a chunk.
#[derive(Clone)]
struct NoChunks {
    inner: MemoryStorage,
    panics: bool,
}

impl Storage for NoChunks {
    forward!(inner: read, delete, clear, keys);

    async fn write(&self, key: Key, record: Record) -> Result<()> {
        if key.kind == Kind::Chunk {
            assert!(!self.panics, "scripted");
            return Err(tower_response_cache::Error::new(tower_response_cache::ErrorKind::Other, "scripted"));
        }
        self.inner.write(key, record).await
    }
}

#[tokio::test(start_paused = true)]
async fn failing_chunk_writes_leave_small_bodies_storable() {
    for panics in [false, true] {
        let storage = NoChunks { inner: MemoryStorage::new(), panics };
        let origin = Origin::new(|request| {
            let len = if request.uri().path().starts_with("/long") { 400_000 } else { 10 };
            response(&[("cache-control", "max-age=6000")], "x".repeat(len))
        });
        let cache = Fixture::with(origin, storage, |builder| builder);
        cache.get(A).await;
        for number in 0..20 {
            let answer = cache.get(&format!("http://example.com/long/{number}")).await;
            assert_eq!((answer.word(), answer.body.len()), ("miss", 400_000));
            assert_eq!(cache.get(A).await.word(), "hit");
            cache.layer.idle().await;
            cache.clock.advance(Duration::from_secs(1));
            cache.get(&format!("http://example.com/short/{number}")).await;
        }
        let statistics = cache.layer.statistics();
        assert_eq!(statistics.superseded(), 0, "{statistics}");
        assert!(statistics.storage_failures() >= 20, "{statistics}");
        // Responses fetched while the breaker is open are not stored. Most others are.
        assert!(statistics.stored() >= 10, "{statistics}");
    }
}

/// A memory storage whose writes hang for all entries but `entry`, once `entry` is set.
///
/// It has a comparison of its own. The provided one takes locks that all tests of the process share, and the paused clock would
/// pass over the time in which another thread holds one.
#[derive(Clone)]
struct OneEntry {
    inner: MemoryStorage,
    entry: Arc<OnceLock<[u8; 16]>>,
}

impl OneEntry {
    async fn hang_unless_kept(&self, key: Key) {
        if self.entry.get().is_some_and(|entry| *entry != key.entry) {
            std::future::pending::<()>().await;
        }
    }
}

impl Storage for OneEntry {
    forward!(inner: read, delete, clear, keys, retain);

    async fn write(&self, key: Key, record: Record) -> Result<()> {
        self.hang_unless_kept(key).await;
        self.inner.write(key, record).await
    }

    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        self.hang_unless_kept(key).await;
        self.inner.write_if(key, seen, record).await
    }
}

#[tokio::test(start_paused = true)]
async fn missing_body_is_not_freshened_during_writes() {
    // After 100 seconds the chunks are kept long enough. After three days their expiry has to be extended.
    for seconds in [100, 3 * 24 * 60 * 60] {
        let storage = OneEntry { inner: MemoryStorage::new(), entry: Arc::default() };
        let origin = Origin::new(|request| match request.headers().contains_key("if-none-match") {
            true => not_modified(&[("etag", "\"a\"")]),
            false => response(&[("cache-control", "max-age=60"), ("etag", "\"a\"")], "0123456789"),
        });
        let cache = Fixture::with(origin, storage.clone(), |builder| builder.chunk_bytes(4));
        cache.get(A).await;
        cache.layer.idle().await;
        let keys: Vec<Key> = storage.keys().try_collect().await.unwrap();
        let chunk = keys.into_iter().find(|key| key.kind == Kind::Chunk).unwrap();
        storage.delete(chunk).await.unwrap();
        storage.entry.set(chunk.entry).unwrap();
        cache.clock.advance(Duration::from_secs(seconds));
        cache.get("http://example.com/other").await; // its write is in flight
        let answer = cache.get(A).await;
        assert_eq!((answer.word(), &answer.body[..]), ("miss", &b"0123456789"[..]), "{seconds}");
        cache.layer.idle().await;
        let statistics = cache.layer.statistics();
        assert_eq!(statistics.freshened(), 0, "{seconds}: {statistics}");
        assert_eq!(cache.get(A).await.word(), "hit", "{seconds}");
    }
}

/// A memory storage that fails all writes while `refuses` is set, and cannot read `key`.
#[derive(Clone)]
struct Unreadable {
    inner: MemoryStorage,
    key: Arc<OnceLock<Key>>,
    refuses: Arc<std::sync::atomic::AtomicBool>,
}

impl Storage for Unreadable {
    forward!(inner: delete, clear, keys);

    async fn read(&self, key: Key) -> Result<Option<Record>> {
        if self.key.get() == Some(&key) {
            return Err(tower_response_cache::Error::new(
                tower_response_cache::ErrorKind::Corrupt,
                "scripted",
            ));
        }
        self.inner.read(key).await
    }
    async fn write(&self, key: Key, record: Record) -> Result<()> {
        if self.refuses.load(Ordering::SeqCst) {
            return Err(tower_response_cache::Error::new(tower_response_cache::ErrorKind::Other, "scripted"));
        }
        self.inner.write(key, record).await
    }
}

#[tokio::test(start_paused = true)]
async fn unreadable_entry_does_not_block_invalidations() {
    let storage = Unreadable { inner: MemoryStorage::new(), key: Arc::default(), refuses: Arc::default() };
    let origin = Origin::new(|_| response(&[("cache-control", "max-age=6000")], "x"));
    let cache = Fixture::with(origin, storage.clone(), |builder| builder);
    cache.get(A).await;
    let keys: Vec<Key> = storage.keys().try_collect().await.unwrap();
    let uris: Vec<_> = (0..20).map(|number| format!("http://example.com/{number}")).collect();
    for uri in &uris {
        cache.get(uri).await;
    }
    storage.refuses.store(true, Ordering::SeqCst);
    storage.key.set(keys[0]).unwrap();
    for uri in uris.iter().map(|uri| &uri[..]).chain([A]) {
        cache.ask(Request::post(uri).body(Full::default()).unwrap()).await;
    }
    storage.refuses.store(false, Ordering::SeqCst);
    for _ in 0..60 {
        cache.clock.advance(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let other = Fixture::with(cache.origin.clone(), storage.inner, |builder| builder);
    other.clock.set(cache.clock.now());
    for uri in &uris {
        assert_eq!(other.get(uri).await.status.outcome(), Outcome::Miss(MissReason::Invalidated), "{uri}");
    }
}

/// A memory storage that panics when an operation is called or polled.
#[derive(Clone)]
struct Panicking {
    inner: MemoryStorage,
    /// The number of operations that succeed first.
    left: Arc<AtomicUsize>,
    when_called: bool,
}

impl Panicking {
    /// Panics at once, or returns a future that panics if the operation has to fail.
    fn panic_when_due(&self) -> impl Future<Output = ()> + Send + use<> {
        let one_less = |left: usize| left.checked_sub(1);
        let panics = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_err();
        assert!(!(panics && self.when_called), "scripted");
        async move {
            tokio::task::yield_now().await;
            assert!(!panics, "scripted");
        }
    }
}

impl Storage for Panicking {
    forward!(inner: delete, clear, keys);

    fn read(&self, key: Key) -> impl Future<Output = Result<Option<Record>>> + Send {
        let panic = self.panic_when_due();
        async move {
            panic.await;
            self.inner.read(key).await
        }
    }
    fn write(&self, key: Key, record: Record) -> impl Future<Output = Result<()>> + Send {
        let panic = self.panic_when_due();
        async move {
            panic.await;
            self.inner.write(key, record).await
        }
    }
    fn write_if(
        &self,
        key: Key,
        seen: Option<Stamp>,
        record: Record,
    ) -> impl Future<Output = Result<bool>> + Send {
        let panic = self.panic_when_due();
        async move {
            panic.await;
            self.inner.write_if(key, seen, record).await
        }
    }
}

/// A memory storage whose `read_now` panics.
#[derive(Clone)]
struct PanickingNow(MemoryStorage);

impl Storage for PanickingNow {
    forward!(0: read, write, delete, clear, keys);

    fn read_now(&self, _: Key) -> Option<Result<Option<Record>>> {
        panic!("scripted");
    }
}

#[tokio::test]
async fn panicking_read_now_fails_no_request() {
    let origin = Origin::new(|_| response(&[("cache-control", "max-age=60")], "x"));
    let cache = Fixture::with(origin, PanickingNow(MemoryStorage::new()), |builder| builder);
    assert_eq!(cache.get(A).await.word(), "miss");
    assert_eq!(cache.get(A).await.word(), "hit");
}

#[tokio::test(start_paused = true)]
async fn panicking_storage_leaves_no_in_flight_writes() {
    const WELL: usize = usize::MAX / 2;
    for (when_called, chunk_bytes) in [(false, 4), (false, 1024), (true, 4), (true, 1024)] {
        for good in 0..8 {
            let storage = Panicking { inner: MemoryStorage::new(), left: Arc::default(), when_called };
            let origin = Origin::new(|_| response(&[("cache-control", "max-age=60")], "0123456789"));
            let cache = Fixture::with(origin, storage.clone(), |builder| builder.chunk_bytes(chunk_bytes));
            storage.left.store(good, Ordering::SeqCst);
            assert_eq!(cache.get(A).await.body, "0123456789");
            cache.layer.idle().await;
            storage.left.store(WELL, Ordering::SeqCst);
            cache.clock.advance(Duration::from_secs(3));
            let is_stored = storage.inner.size().await.unwrap() > 0;
            // Hits come only from the storage, so a hit means that a record was written.
            let answer = cache.get(A).await;
            assert!(is_stored || !answer.status.is_hit(), "{when_called} {chunk_bytes} {good}: {answer:?}");
            assert_eq!(answer.body, "0123456789");
            cache.layer.idle().await;
            assert!(cache.get(A).await.status.is_hit());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn close_does_not_wait_for_hung_storage() {
    let (cache, storage) = fixture(Mode::HungWrites);
    cache.get(A).await;
    let began = Instant::now();
    let handle = cache.layer.handle();
    handle.check().await.unwrap();
    handle.usage().await.unwrap();
    handle.close().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    drop(storage);
}

/// A storage that reads at once, and whose writes need a task that is polled more than once.
#[derive(Clone)]
struct PolledWrites(MemoryStorage);

impl Storage for PolledWrites {
    forward!(0: read, write, delete, clear, keys, max_record_len);

    fn read_now(&self, key: Key) -> Option<Result<Option<Record>>> {
        self.0.read_now(key)
    }

    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        self.0.write_if(key, seen, record).await
    }
}

#[tokio::test]
async fn misses_in_a_row_let_their_writes_go_on() {
    let origin = Origin::new(|_| response(&[("cache-control", "max-age=60")], "body"));
    let storage = PolledWrites(MemoryStorage::new());
    // Neither the origin nor the storage's reads suspend this task, and the writes have no other thread.
    // A write is not late because the machine is busy.
    let cache =
        Fixture::with(origin, storage.clone(), |builder| builder.operation_timeout(Duration::from_secs(60)));
    let mut stored = 0;
    for number in 0..2000 {
        let answer = cache.get(&format!("{A}/{number}")).await;
        stored += usize::from(answer.status.stored() == Stored::Storing);
    }
    assert_eq!(stored, 2000, "responses were shed");
    cache.layer.idle().await;
    assert_eq!(storage.size().await.unwrap(), 2000);
}
