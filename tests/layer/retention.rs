//! How long the records of an entry are kept, and what keeping them costs.
//!
//! A body that the origin confirms is not written again, and no chunk expires before the record that names it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use tower_response_cache::storage::{Kind, Storage};
use tower_response_cache::{CacheMode, CacheOptions, Outcome, Stored, ValidateReason};

use crate::support::counting::Counting;
use crate::support::{Answer, Fixture, Origin, ReqBody, get, get_with, has_tag, not_modified, response};

const A: &str = "http://example.com/a";
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Returns an origin with a body of this length, which confirms its entity tag.
fn confirming(len: usize, fields: &'static [(&'static str, &'static str)]) -> Origin {
    Origin::new(move |request| match has_tag(request, "\"1\"") {
        true => not_modified(fields),
        false => response(fields, vec![7; len]),
    })
}

fn head(uri: &str) -> Request<ReqBody> {
    let mut request = get(uri);
    *request.method_mut() = Method::HEAD;
    request
}

async fn written_and_moved(cache: &Fixture, storage: &Counting) -> (Vec<(Kind, usize)>, usize) {
    cache.layer.idle().await;
    (storage.written(), storage.moved())
}

#[tokio::test]
async fn not_modified_writes_only_the_head() {
    for len in [500, 20_000, 100_000, 1_000_000] {
        let storage = Counting::new(4096);
        let origin = confirming(len, &[("cache-control", "no-cache"), ("etag", "\"1\"")]);
        let cache = Fixture::with(origin, storage.clone(), |builder| builder);
        cache.get(A).await;
        let (written, _) = written_and_moved(&cache, &storage).await;
        let chunks = written.iter().filter(|(kind, _)| *kind == Kind::Chunk).count();
        assert_eq!(chunks, if len > 4096 { len.div_ceil(128 * 1024) } else { 0 });
        for again in 0..20 {
            cache.clock.advance(Duration::from_secs(60));
            let answer = match again % 3 {
                0 => cache.get(A).await,
                1 => cache.ask(get_with(A, &[("range", "bytes=100-199")])).await,
                _ => cache.ask(head(A)).await,
            };
            assert_eq!(answer.status.stored(), Stored::Freshened, "{answer:?}");
            let (written, moved) = written_and_moved(&cache, &storage).await;
            assert!(matches!(written[..], [(Kind::Head, ..1000)]), "{len}: {written:?}");
            assert_eq!(moved, 0, "{len}");
        }
    }
}

#[tokio::test]
async fn background_refresh_writes_only_the_head() {
    let storage = Counting::new(4096);
    let fields = &[("cache-control", "max-age=1, stale-while-revalidate=999"), ("etag", "\"1\"")];
    let cache = Fixture::with(confirming(300_000, fields), storage.clone(), |builder| builder);
    cache.get(A).await;
    written_and_moved(&cache, &storage).await;
    for _ in 0..5 {
        cache.clock.advance(Duration::from_secs(60));
        assert_eq!(cache.get(A).await.word(), "stale");
        let (written, moved) = written_and_moved(&cache, &storage).await;
        assert!(matches!(written[..], [(Kind::Head, ..1000)]) && moved == 0, "{written:?}, {moved} moved");
    }
}

#[tokio::test]
async fn freshened_variant_rarely_extends_other_records() {
    let storage = Counting::new(4096);
    let fields =
        &[("cache-control", "no-cache"), ("etag", "\"1\""), ("vary", "x-a"), ("cache-groups", "\"g\"")];
    let cache = Fixture::with(confirming(20_000, fields), storage.clone(), |builder| builder);
    let variant = || async { cache.ask(get_with(A, &[("x-a", "2")])).await };
    cache.get(A).await;
    variant().await;
    written_and_moved(&cache, &storage).await;
    let mut moves = 0;
    for _ in 0..100 {
        cache.clock.advance(HOUR);
        assert_eq!(variant().await.status.stored(), Stored::Freshened);
        let (written, moved) = written_and_moved(&cache, &storage).await;
        assert!(matches!(written[..], [(Kind::Variant, ..1000)]), "{written:?}");
        moves += moved;
    }
    assert!(moves <= 16, "{moves}"); // the head, the index, the group and the chunk, over four days
}

#[tokio::test]
async fn inline_bytes_stores_body_in_head_record() {
    let storage = Counting::new(4096);
    let origin = confirming(20_000, &[("cache-control", "no-cache"), ("etag", "\"1\"")]);
    let cache = Fixture::with(origin, storage.clone(), |builder| builder.inline_bytes(20_000));
    cache.get(A).await;
    let (written, _) = written_and_moved(&cache, &storage).await;
    assert!(matches!(written[..], [(Kind::Head, 20_000..)]), "{written:?}");
}

#[tokio::test]
async fn freshened_inline_body_moves_to_chunk() {
    let storage = Counting::new(4096);
    let origin = confirming(20_000, &[("cache-control", "no-cache"), ("etag", "\"1\"")]);
    let before = Fixture::with(origin.clone(), storage.clone(), |builder| builder.inline_bytes(20_000));
    before.get(A).await;
    written_and_moved(&before, &storage).await;
    let cache = Fixture::with(origin, storage.clone(), |builder| builder);
    for kinds in [&[Kind::Chunk, Kind::Head][..], &[Kind::Head]] {
        assert_eq!(cache.get(A).await.body, vec![7; 20_000]);
        let (written, _) = written_and_moved(&cache, &storage).await;
        assert_eq!(written.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), kinds);
    }
}

#[tokio::test]
async fn revalidated_variant_gets_its_own_chunk() {
    let storage = Counting::new(4096);
    let fields = &[("cache-control", "max-age=99"), ("etag", "\"1\""), ("vary", "x-a")];
    let cache = Fixture::with(confirming(20_000, fields), storage.clone(), |builder| builder);
    cache.get(A).await;
    let other = || async { cache.ask(get_with(A, &[("x-a", "2")])).await };
    let named = other().await;
    assert_eq!(named.status.outcome(), Outcome::Revalidated(ValidateReason::Vary));
    assert_eq!((named.status.stored(), named.body.len()), (Stored::Freshened, 20_000));
    let (written, _) = written_and_moved(&cache, &storage).await;
    let kinds: Vec<_> = written.iter().map(|(kind, _)| *kind).collect();
    assert!(kinds.ends_with(&[Kind::Chunk, Kind::Variant, Kind::Index]), "{kinds:?}");
    let hit = other().await;
    assert_eq!((hit.word(), hit.body.len()), ("hit", 20_000));
}

/// The origin's current version and lifetime, and how often it sent the whole body.
#[derive(Default)]
struct Truth {
    version: u64,
    lifetime: u64,
    sent: u64,
}

#[tokio::test]
async fn chunks_outlive_records_that_name_them() {
    let mut moves = 0;
    for seed in 0..30 {
        fastrand::seed(seed);
        let storage = Counting::new(100);
        let truth = Arc::new(Mutex::new(Truth::default()));
        let origin = Origin::new({
            let truth = Arc::clone(&truth);
            move |request| {
                let mut truth = truth.lock().unwrap();
                let tag = format!("\"{}\"", truth.version);
                let control = format!("max-age={}", truth.lifetime);
                let fields = [("cache-control", &*control), ("etag", &*tag)];
                if has_tag(request, &tag) {
                    return not_modified(&fields);
                }
                truth.sent += 1;
                response(&fields, Bytes::from(vec![truth.version as u8; 1000]))
            }
        });
        let cache = Fixture::with(origin, storage.clone(), |builder| builder.chunk_bytes(300));
        let mut expected = 0;
        let mut changed = true;
        for step in 0..150 {
            storage.delete_expired(cache.clock.now()).await.unwrap();
            {
                let mut truth = truth.lock().unwrap();
                truth.lifetime = fastrand::u64(0..100_000);
                if fastrand::u8(..) < 10 {
                    truth.version += 1;
                    changed = true;
                }
            }
            let options = match changed {
                // Without `no-cache`, the old version would be served while it is fresh.
                true => CacheOptions::new().mode(CacheMode::NoCache),
                false => CacheOptions::new(),
            };
            let asks = changed;
            expected += u64::from(changed);
            changed = false;
            let mut request = match fastrand::u8(..3) {
                0 => get_with(A, &[("range", "bytes=290-310")]),
                1 if step > 0 && !asks => head(A),
                _ => get(A),
            };
            let is_whole = request.method() == Method::GET && request.headers().is_empty();
            if expected > truth.lock().unwrap().sent {
                request = get(A); // a request for a part of an unstored body would store nothing
            }
            request.extensions_mut().insert(options);
            let answer = cache.ask(request).await;
            cache.layer.idle().await;
            let truth = truth.lock().unwrap();
            assert_eq!(truth.sent, expected, "seed {seed}, step {step}: {:?}", answer.status);
            if is_whole {
                assert_eq!(answer.body, vec![truth.version as u8; 1000], "seed {seed}, step {step}");
            }
            drop(truth);
            let wait = [HOUR / 60, HOUR, DAY, 6 * DAY][fastrand::usize(..4)];
            cache.clock.advance(Duration::from_secs(fastrand::u64(0..wait.as_secs())));
        }
        moves += storage.moved();
    }
    // These are 4,500 requests in 18 years for a body of four chunks.
    assert!(moves < 4 * 2000, "{moves}");
}

#[tokio::test]
async fn repeated_not_modified_rarely_extends_chunks() {
    let storage = Counting::new(4096);
    let origin = confirming(100_000, &[("cache-control", "no-cache"), ("etag", "\"1\"")]);
    let cache = Fixture::with(origin, storage.clone(), |builder| builder);
    cache.get(A).await;
    for _ in 0..10 * 24 * 6 {
        cache.clock.advance(HOUR / 6);
        storage.delete_expired(cache.clock.now()).await.unwrap();
        assert_eq!(cache.get(A).await.word(), "revalidated");
    }
    let moved = storage.moved();
    assert!((4..=7).contains(&moved), "{moved}");
}

#[tokio::test]
async fn replaced_body_stays_readable_for_an_hour() {
    let storage = Counting::new(100);
    let mut version = 0;
    let origin = Origin::new(move |_| {
        version += 1;
        response(&[("cache-control", "max-age=600"), ("etag", "\"1\"")], vec![version; 3000])
    });
    let cache = Fixture::with(origin, storage.clone(), |builder| builder.chunk_bytes(100));
    cache.get(A).await;
    cache.layer.idle().await;
    let slow = cache.send(get(A)).await;
    let mut request = get(A);
    request.extensions_mut().insert(CacheOptions::new().mode(CacheMode::Reload));
    assert_eq!(cache.ask(request).await.body, vec![2; 3000]);
    cache.layer.idle().await;
    cache.clock.advance(HOUR - Duration::from_secs(1));
    storage.delete_expired(cache.clock.now()).await.unwrap();
    assert_eq!(slow.into_body().collect().await.unwrap().to_bytes(), vec![1; 3000]);
    cache.clock.advance(Duration::from_secs(1));
    assert!(storage.delete_expired(cache.clock.now()).await.unwrap() >= 30);
}

#[tokio::test]
async fn record_expires_with_unextended_chunks() {
    let storage = Counting::new(100);
    let origin = confirming(1000, &[("cache-control", "max-age=60"), ("etag", "\"1\"")]);
    let cache = Fixture::with(origin, storage.clone(), |builder| builder);
    cache.get(A).await;
    cache.layer.idle().await;
    cache.clock.advance(5 * DAY);
    storage.moves_fail.store(true, Ordering::SeqCst);
    assert_eq!(cache.get(A).await.status.stored(), Stored::Freshened);
    cache.layer.idle().await;
    cache.clock.advance(3 * DAY);
    storage.delete_expired(cache.clock.now()).await.unwrap();
    let answer: Answer = cache.get(A).await;
    assert_eq!((answer.word(), answer.code), ("miss", StatusCode::OK));
}
