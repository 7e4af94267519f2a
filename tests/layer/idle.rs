//! Responses that were not used for a while are dropped, and used ones are kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::TryStreamExt;
use http::{Method, Request, StatusCode};
use tokio::sync::Semaphore;
use tower_response_cache::storage::{Key, Kind, MemoryStorage, Record, Retain, Stamp, Storage};
use tower_response_cache::{CacheMode, CacheOptions, EntryFilter, Result, StoredEntry, Timestamp, scope};

use crate::support::counting::Counting;
use crate::support::forward::forward;
use crate::support::{Answer, Fixture, Origin, ReqBody, get, get_with, has_tag, not_modified, response};

const A: &str = "http://example.com/a";
const SECOND: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_secs(100);

const DAY: &[(&str, &str)] = &[("cache-control", "max-age=86400")];

/// Returns a cache with a time to idle of 100 s, over an origin with a body of this length.
fn cache(storage: impl Storage, len: usize, fields: &'static [(&'static str, &'static str)]) -> Fixture {
    let origin = Origin::new(move |request| match has_tag(request, "\"1\"") {
        true => not_modified(fields),
        false => response(fields, vec![7; len]),
    });
    Fixture::with(origin, storage, |builder| builder.default_tti(IDLE))
}

/// Returns a cache whose responses take chunks of their own.
fn in_chunks() -> (Fixture, MemoryStorage) {
    let storage = MemoryStorage::new();
    let cache = Fixture::with(Origin::new(|_| response(DAY, vec![7; 5000])), storage.clone(), |builder| {
        builder.default_tti(IDLE).chunk_bytes(1000).inline_bytes(100)
    });
    (cache, storage)
}

async fn records(storage: &MemoryStorage) -> Vec<(Kind, Timestamp)> {
    let keys: Vec<Key> = storage.keys().try_collect().await.unwrap();
    let mut found = Vec::new();
    for key in keys {
        found.push((key.kind, storage.read(key).await.unwrap().unwrap().retain_until()));
    }
    found
}

async fn listed(cache: &Fixture) -> Vec<StoredEntry> {
    cache.layer.handle().entries(&EntryFilter::new()).try_collect().await.unwrap()
}

#[tokio::test]
async fn unused_response_is_dropped_and_used_one_kept() {
    let cache = cache(MemoryStorage::new(), 10, DAY);
    assert_eq!(cache.get(A).await.word(), "miss");
    for _ in 0..20 {
        cache.clock.advance(IDLE - SECOND);
        assert_eq!(cache.get(A).await.word(), "hit");
    }
    cache.clock.advance(IDLE + IDLE / 4);
    assert_eq!(cache.get(A).await.word(), "miss");
}

#[tokio::test]
async fn idleness_is_exact_to_a_quarter() {
    // Steps of a generator by Knuth, so that uses come at any distance.
    let mut random = 1_u64;
    let cache = cache(MemoryStorage::new(), 10, DAY);
    cache.get(A).await;
    let (mut early, mut late) = (0, 0);
    for _ in 0..2000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Most steps are short, so that most uses move nothing.
        let pause = Duration::from_millis((random >> 33) % if random >> 63 == 0 { 30_000 } else { 140_000 });
        cache.clock.advance(pause);
        let word = cache.get(A).await.word();
        match pause {
            pause if pause <= IDLE => assert_eq!(word, "hit", "{pause:?}"),
            pause if pause >= IDLE + IDLE / 4 => assert_eq!(word, "miss", "{pause:?}"),
            _ if word == "hit" => late += 1,
            _ => early += 1,
        }
    }
    assert!(early > 0 && late > 0, "{early} {late}");
}

#[tokio::test]
async fn lifetime_is_not_extended_by_use() {
    let cache = cache(MemoryStorage::new(), 10, &[("cache-control", "max-age=250")]);
    cache.get(A).await;
    for expected in ["hit", "hit", "miss"] {
        cache.clock.advance(90 * SECOND);
        assert_eq!(cache.get(A).await.word(), expected);
    }
}

#[tokio::test]
async fn every_way_to_use_a_response_counts() {
    let fields: &[_] = &[("cache-control", "max-age=86400, stale-while-revalidate=99999"), ("etag", "\"1\"")];
    let head = || Request::builder().method(Method::HEAD).uri(A).body(ReqBody::default()).unwrap();
    let forced = || {
        let options = CacheOptions::new().mode(CacheMode::OnlyIfCached);
        Request::get(A).extension(options).body(ReqBody::default()).unwrap()
    };
    type Use = Box<dyn Fn() -> Request<ReqBody>>;
    let uses: [(Use, &str); 5] = [
        (Box::new(|| get(A)), "plain"),
        (Box::new(head), "head"),
        (Box::new(|| get_with(A, &[("range", "bytes=1-2")])), "range"),
        (Box::new(|| get_with(A, &[("if-none-match", "\"1\"")])), "conditional"),
        (Box::new(forced), "only if cached"),
    ];
    for (make, name) in uses {
        let cache = cache(MemoryStorage::new(), 10, fields);
        cache.get(A).await;
        for _ in 0..5 {
            cache.clock.advance(90 * SECOND);
            assert_eq!(cache.ask(make()).await.word(), "hit", "{name}");
        }
        // Without the last use it would be idle.
        cache.clock.advance(90 * SECOND);
        assert_eq!(cache.get(A).await.word(), "hit", "{name}");
        assert_eq!(cache.origin.count(), 1);
    }
}

#[tokio::test]
async fn stale_and_confirmed_responses_are_used() {
    let fields: &[_] = &[("cache-control", "max-age=1"), ("etag", "\"1\"")];
    let cache = cache(MemoryStorage::new(), 10, fields);
    cache.get(A).await;
    for _ in 0..5 {
        cache.clock.advance(90 * SECOND);
        assert_eq!(cache.get(A).await.word(), "revalidated");
    }
    cache.clock.advance(126 * SECOND);
    assert_eq!(cache.get(A).await.word(), "miss");
}

#[tokio::test]
async fn chunks_keep_step_with_their_head() {
    let (cache, storage) = in_chunks();
    cache.get(A).await;
    for _ in 0..60 {
        // Together much longer than chunks outlive their head by themselves.
        cache.clock.advance(99 * SECOND);
        assert_eq!(cache.get(A).await.word(), "hit");
        let (now, records) = (cache.clock.now(), records(&storage).await);
        let until = |of: Kind| records.iter().filter(move |(kind, _)| *kind == of).map(|(_, time)| *time);
        let head = until(Kind::Head).next().unwrap();
        assert_eq!(until(Kind::Chunk).count(), 5);
        assert!(until(Kind::Chunk).min().unwrap() > head, "{records:?}");
        assert!((100..=125).contains(&head.since(now).as_secs()), "{:?}", head.since(now));
    }
    cache.clock.advance(126 * SECOND);
    assert_eq!(listed(&cache).await.len(), 0);
    // An hour later nothing is left.
    cache.clock.advance(3601 * SECOND);
    cache.layer.handle().delete_expired().await.unwrap();
    assert_eq!(records(&storage).await, []);
}

#[tokio::test]
async fn used_variant_keeps_its_head_and_unused_one_is_dropped() {
    let fields: &[_] = &[("cache-control", "max-age=86400"), ("vary", "x-v")];
    let storage = MemoryStorage::new();
    let origin = Origin::new(move |_| response(fields, vec![7; 5000]));
    let cache = Fixture::with(origin, storage.clone(), |builder| {
        builder.default_tti(IDLE).chunk_bytes(1000).inline_bytes(100)
    });
    let ask = async |value| cache.ask(get_with(A, &[("x-v", value)])).await.word();
    for value in ["1", "2", "3"] {
        assert_eq!(ask(value).await, "miss");
    }
    for _ in 0..60 {
        cache.clock.advance(90 * SECOND);
        assert_eq!(ask("2").await, "hit");
        let (now, records) = (cache.clock.now(), records(&storage).await);
        let head = records.iter().find(|(kind, _)| *kind == Kind::Head).unwrap().1;
        // The first variant is a part of the head, so that its chunks stay too.
        let chunks = records.iter().filter(|(kind, time)| *kind == Kind::Chunk && *time > head);
        assert!(head.since(now) >= IDLE && chunks.count() >= 10, "{records:?}");
    }
    assert_eq!(ask("1").await, "hit");
    assert_eq!(ask("3").await, "miss");
}

#[tokio::test]
async fn few_uses_move_a_time() {
    let storage = Counting::new(4096);
    let cache = cache(storage.clone(), 10, DAY);
    cache.get(A).await;
    for _ in 0..25 {
        cache.clock.advance(SECOND);
        cache.get(A).await;
    }
    cache.layer.idle().await;
    assert_eq!(storage.moved(), 0);
    for _ in 0..1000 {
        cache.clock.advance(SECOND);
        assert_eq!(cache.get(A).await.word(), "hit");
    }
    cache.layer.idle().await;
    // Every 26 s, since the first of them is at the end of a second.
    assert_eq!(storage.moved(), 1000 / 26 + 1);
}

#[tokio::test]
async fn cache_without_the_setting_moves_nothing() {
    let storage = Counting::new(4096);
    let origin = Origin::new(|_| response(DAY, "body"));
    let cache = Fixture::with(origin, storage.clone(), |builder| builder);
    cache.get(A).await;
    cache.clock.advance(80_000 * SECOND);
    assert_eq!(cache.get(A).await.word(), "hit");
    cache.layer.idle().await;
    assert_eq!(storage.moved(), 0);
}

#[tokio::test]
async fn reading_only_is_no_use() {
    let storage = Counting::new(4096);
    let cache = cache(storage.clone(), 10, DAY);
    cache.get(A).await;
    cache.clock.advance(90 * SECOND);
    assert_eq!(scope::read_only(cache.get(A)).await.word(), "hit");
    assert!(cache.layer.handle().has_url(A).await.unwrap());
    let reader = Fixture::with(cache.origin.clone(), storage.clone(), |builder| {
        builder.read_only(true).default_tti(IDLE)
    });
    reader.clock.set(cache.clock.now());
    assert_eq!(reader.get(A).await.word(), "hit");
    reader.layer.idle().await;
    cache.layer.idle().await;
    assert_eq!(storage.moved(), 0);
    cache.clock.advance(36 * SECOND);
    assert!(!cache.layer.handle().has_url(A).await.unwrap());
    assert_eq!(cache.get(A).await.word(), "miss");
}

#[tokio::test]
async fn failed_move_is_tried_again_by_the_next_use() {
    let storage = Counting::new(4096);
    let cache = cache(storage.clone(), 10, DAY);
    cache.get(A).await;
    storage.moves_fail.store(true, Ordering::SeqCst);
    cache.clock.advance(90 * SECOND);
    assert_eq!(cache.get(A).await.word(), "hit");
    cache.layer.idle().await;
    storage.moves_fail.store(false, Ordering::SeqCst);
    cache.clock.advance(10 * SECOND);
    assert_eq!(cache.get(A).await.word(), "hit");
    cache.layer.idle().await;
    cache.clock.advance(99 * SECOND);
    assert_eq!(cache.get(A).await.word(), "hit");
}

#[tokio::test]
async fn new_lifetime_counts_as_use() {
    let (cache, _) = in_chunks();
    cache.get(A).await;
    cache.clock.advance(90 * SECOND);
    let handle = cache.layer.handle();
    assert_eq!(handle.reset_expiry(&EntryFilter::new(), 1_000_000 * SECOND).await.unwrap(), 1);
    cache.clock.advance(99 * SECOND);
    let entry = listed(&cache).await.remove(0);
    assert!(entry.retain_until() <= cache.clock.now() + IDLE);
    assert_eq!(cache.get(A).await.word(), "hit");
    cache.clock.advance(126 * SECOND);
    assert_eq!(cache.get(A).await.word(), "miss");
}

#[tokio::test]
async fn idle_response_is_not_served_behind_a_fence() {
    let cache = cache(MemoryStorage::new(), 10, DAY);
    cache.get(A).await;
    cache.ask(Request::post(A).body(ReqBody::default()).unwrap()).await;
    assert_eq!(cache.get(A).await.word(), "miss");
    cache.clock.advance(99 * SECOND);
    assert_eq!(cache.get(A).await.word(), "hit");
    cache.clock.advance(27 * SECOND);
    assert_eq!(cache.get(A).await.word(), "miss");
    // After the ten minutes uses count again.
    for _ in 0..20 {
        cache.clock.advance(99 * SECOND);
        cache.get(A).await;
    }
    let asked = cache.origin.count();
    cache.clock.advance(99 * SECOND);
    assert_eq!((cache.get(A).await.word(), cache.origin.count()), ("hit", asked));
}

/// A storage in memory whose `retain` waits for the test.
#[derive(Clone)]
struct Waiting {
    inner: MemoryStorage,
    permits: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

impl Storage for Waiting {
    forward!(inner: read, write, delete, clear, keys);

    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        self.inner.write_if(key, seen, record).await
    }
    async fn retain(&self, keys: &[Key], retain: Retain) -> Result<u64> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.permits.acquire().await.unwrap().forget();
        self.inner.retain(keys, retain).await
    }
}

#[tokio::test]
async fn hits_never_wait_for_a_move() {
    let waiting = Arc::new(AtomicUsize::new(0));
    let storage = Waiting { inner: MemoryStorage::new(), permits: Arc::new(Semaphore::new(0)), waiting };
    let cache = cache(storage.clone(), 10, DAY);
    for number in 0..300 {
        cache.get(&format!("{A}{number}")).await;
    }
    cache.clock.advance(90 * SECOND);
    for _ in 0..3 {
        for number in 0..300 {
            assert_eq!(cache.get(&format!("{A}{number}")).await.word(), "hit");
        }
    }
    // One for each response, and no more than the bound.
    assert_eq!(storage.waiting.load(Ordering::SeqCst), 256);
    storage.permits.add_permits(10_000);
    cache.layer.idle().await;
    for number in 0..300 {
        cache.get(&format!("{A}{number}")).await;
    }
    cache.layer.idle().await;
    assert_eq!(storage.waiting.load(Ordering::SeqCst), 300);
}

#[tokio::test]
async fn reader_of_an_idle_body_gets_all_of_it() {
    let (cache, _) = in_chunks();
    cache.get(A).await;
    let response = cache.send(get(A)).await;
    cache.clock.advance(200 * SECOND);
    cache.layer.handle().delete_expired().await.unwrap();
    let answer = Answer::read(response).await;
    assert_eq!((answer.code, answer.word(), answer.body.len()), (StatusCode::OK, "hit", 5000));
}
