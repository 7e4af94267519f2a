//! The layer on every storage, from a request to the stored bytes and back.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::TryStreamExt;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use libtest_mimic::Trial;
use tower_response_cache::storage::{BoxStorage, Kind as Record, MemoryStorage, Storage};
use tower_response_cache::testing::Harness;
use tower_response_cache::{CacheLayer, CacheLayerBuilder, Clock, EntryFilter};

use crate::places::{Kind, Place};
use crate::support::{self, Fixture, Origin, get, get_with, not_modified, response};
use crate::{OPERATION_TIMEOUT, trial};

const A: &str = "http://example.com/a";

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub fn trials(kind: &Kind) -> Vec<Trial> {
            vec![$(trial("layer", kind, stringify!($name), |place| Box::pin($name(place)))),*]
        }
    };
}

cases![
    response_is_stored_served_and_revalidated,
    changed_response_replaces_stored_one,
    variants_are_stored_side_by_side,
    chunked_body_serves_whole_and_ranges,
    head_is_answered_from_stored_get,
    incomplete_body_leaves_no_records,
    unsafe_request_invalidates_for_every_cache,
    invalidated_fetch_is_not_stored,
    reader_finishes_the_replaced_body,
    responses_are_listed_and_cleared,
    handle_lists_changes_copies_and_verifies,
    stale_if_error_serves_within_window,
    concurrent_requests_get_right_bodies,
    credentials_get_separate_responses,
    group_is_invalidated_for_every_cache,
    expired_responses_are_validated_by_every_cache,
    idle_responses_are_dropped_and_used_ones_kept,
    made_entity_tags_are_stored_with_responses,
    parts_of_two_caches_are_combined,
];

type Cache = Fixture;

/// Returns a cache whose clock starts at the present time.
///
/// A server deletes expired records by its own clock.
async fn cache_with(
    place: &Place,
    origin: Origin,
    settings: impl FnOnce(CacheLayerBuilder<BoxStorage>) -> CacheLayerBuilder<BoxStorage>,
) -> Cache {
    let storage = place.open("store").await.unwrap();
    let cache =
        Fixture::with(origin, storage, |builder| settings(builder.operation_timeout(OPERATION_TIMEOUT)));
    cache.clock.set(SystemTime::now().into());
    cache
}

async fn cache(place: &Place, origin: Origin) -> Cache {
    cache_with(place, origin, |builder| builder).await
}

fn post(uri: &str) -> Request<Full<Bytes>> {
    Request::post(uri).body(Full::default()).unwrap()
}

/// Waits until the storage has acknowledged all writes.
async fn settled(cache: &Cache) {
    cache.layer.idle().await;
}

async fn response_is_stored_served_and_revalidated(place: &Place) {
    let origin = Origin::new(|request| match support::has_tag(request, "\"1\"") {
        true => not_modified(&[("cache-control", "max-age=60"), ("etag", "\"1\"")]),
        false => response(&[("cache-control", "max-age=60"), ("etag", "\"1\"")], "body"),
    });
    let cache = cache(place, origin).await;
    assert_eq!(cache.get(A).await.word(), "miss");
    settled(&cache).await;
    for _ in 0..3 {
        let hit = cache.get(A).await;
        assert_eq!((hit.word(), &hit.body[..]), ("hit", &b"body"[..]));
    }
    let same = cache.ask(get_with(A, &[("if-none-match", "\"1\"")])).await;
    assert_eq!((same.word(), same.code), ("hit", StatusCode::NOT_MODIFIED));
    cache.clock.advance(Duration::from_secs(61));
    let confirmed = cache.get(A).await;
    assert_eq!((confirmed.word(), &confirmed.body[..]), ("revalidated", &b"body"[..]));
    settled(&cache).await;
    assert_eq!(cache.get(A).await.word(), "hit");
    assert_eq!(cache.origin.count(), 2);
}

async fn changed_response_replaces_stored_one(place: &Place) {
    let mut version = 0;
    let cache = cache(
        place,
        Origin::new(move |_| {
            version += 1;
            response(&[("cache-control", "max-age=60")], format!("version {version}"))
        }),
    )
    .await;
    for expected in ["version 1", "version 2", "version 3"] {
        assert_eq!(cache.get(A).await.body, expected);
        settled(&cache).await;
        assert_eq!(cache.get(A).await.body, expected);
        cache.clock.advance(Duration::from_secs(61));
    }
}

async fn variants_are_stored_side_by_side(place: &Place) {
    let origin = Origin::new(|request| {
        let language =
            request.headers().get("accept-language").map_or("none", |value| value.to_str().unwrap());
        response(&[("cache-control", "max-age=60"), ("vary", "accept-language")], format!("in {language}"))
    });
    let cache = cache(place, origin).await;
    for expected in ["miss", "hit", "hit"] {
        for language in ["en", "de", "fr"] {
            let answer = cache.ask(get_with(A, &[("accept-language", language)])).await;
            assert_eq!((answer.word(), answer.body), (expected, format!("in {language}").into()));
            settled(&cache).await;
        }
    }
    cache.ask(post(A)).await;
    assert_eq!(cache.ask(get_with(A, &[("accept-language", "de")])).await.word(), "miss");
}

/// Returns `len` bytes that depend on their position and on the seed.
fn counted(len: usize, seed: u8) -> Bytes {
    (0..len).map(|at| (at / 251) as u8 ^ at as u8 ^ seed).collect::<Vec<u8>>().into()
}

async fn chunked_body_serves_whole_and_ranges(place: &Place) {
    let whole = counted(5_000_000, 1);
    let body = whole.clone();
    let cache =
        cache(place, Origin::new(move |_| response(&[("cache-control", "max-age=60")], body.clone()))).await;
    assert_eq!(cache.get(A).await.word(), "miss");
    settled(&cache).await;
    let hit = cache.get(A).await;
    assert!(hit.word() == "hit" && hit.body == whole);
    for (range, from, to) in
        [("bytes=0-9", 0, 10), ("bytes=131071-131073", 131_071, 131_074), ("bytes=-5", 4_999_995, 5_000_000)]
    {
        let part = cache.ask(get_with(A, &[("range", range)])).await;
        assert_eq!((part.word(), part.code), ("hit", StatusCode::PARTIAL_CONTENT), "{range}");
        assert_eq!(part.body, whole.slice(from..to), "{range}");
    }
    assert_eq!(cache.origin.count(), 1);
    if !place.kind.is_shared() {
        return; // opening it again would give another storage
    }
    let keys: Vec<_> = place.open("store").await.unwrap().keys().try_collect().await.unwrap();
    assert_eq!(
        keys.iter().filter(|key| key.kind == Record::Chunk).count(),
        5_000_000_usize.div_ceil(128 * 1024)
    );
}

async fn head_is_answered_from_stored_get(place: &Place) {
    let cache =
        cache(place, Origin::new(|_| response(&[("cache-control", "max-age=60")], "0123456789"))).await;
    cache.get(A).await;
    settled(&cache).await;
    let head = cache.ask(Request::builder().method(Method::HEAD).uri(A).body(Full::default()).unwrap()).await;
    assert_eq!((head.word(), head.header("content-length"), head.body.len()), ("hit", Some("10"), 0));
}

async fn incomplete_body_leaves_no_records(place: &Place) {
    let body = counted(1_000_000, 2);
    let cache =
        cache(place, Origin::new(move |_| response(&[("cache-control", "max-age=60")], body.clone()))).await;
    let longer = counted(1_000_000, 3);
    let lying = Origin::new(move |_| {
        response(&[("cache-control", "max-age=60"), ("content-length", "2000000")], longer.clone())
    });
    let liar = cache_with(place, lying, |builder| builder).await;
    drop(cache.send(get(A)).await);
    let _ = liar.send(get("http://example.com/b")).await.into_body().collect().await;
    settled(&cache).await;
    settled(&liar).await;
    assert_eq!(place.open("store").await.unwrap().size().await.unwrap(), 0);
    assert_eq!(cache.get(A).await.word(), "miss");
}

async fn unsafe_request_invalidates_for_every_cache(place: &Place) {
    if !place.kind.is_shared() {
        return;
    }
    let origin = || Origin::new(|_| response(&[("cache-control", "max-age=60")], "body"));
    let (one, other) = (cache(place, origin()).await, cache(place, origin()).await);
    for uri in [A, "http://example.com/b"] {
        one.get(uri).await;
        settled(&one).await;
        assert_eq!(other.get(uri).await.word(), "hit");
        one.ask(post(uri)).await;
        assert_eq!(other.get(uri).await.word(), "miss");
        settled(&other).await;
        assert_eq!(one.get(uri).await.word(), "hit");
    }
}

async fn invalidated_fetch_is_not_stored(place: &Place) {
    for len in [10, 500_000] {
        let uri = format!("http://example.com/{len}");
        let body = counted(len, 4);
        let cache =
            cache(place, Origin::new(move |_| response(&[("cache-control", "max-age=60")], body.clone())))
                .await;
        let under_way = cache.send(get(&uri)).await;
        cache.ask(post(&uri)).await;
        assert_eq!(under_way.into_body().collect().await.unwrap().to_bytes().len(), len);
        settled(&cache).await;
        assert_eq!(cache.get(&uri).await.word(), "miss", "{len} bytes");
        settled(&cache).await;
        assert_eq!(cache.get(&uri).await.word(), "hit", "{len} bytes: the next response was not stored");
    }
}

async fn reader_finishes_the_replaced_body(place: &Place) {
    let mut seed = 0;
    let cache = cache(
        place,
        Origin::new(move |_| {
            seed += 1;
            response(&[("cache-control", "max-age=60")], counted(1_500_000, seed))
        }),
    )
    .await;
    cache.get(A).await;
    settled(&cache).await;
    let mut old = cache.send(get(A)).await.into_body();
    let mut read = old.frame().await.unwrap().unwrap().into_data().unwrap().to_vec();
    cache.clock.advance(Duration::from_secs(61));
    assert_eq!(cache.get(A).await.body, counted(1_500_000, 2));
    settled(&cache).await;
    cache.ask(post(A)).await;
    read.extend_from_slice(&old.collect().await.unwrap().to_bytes());
    assert!(read == counted(1_500_000, 1), "the body is not the one that the reader began");
}

async fn responses_are_listed_and_cleared(place: &Place) {
    let origin = Origin::new(|_| response(&[("cache-control", "max-age=60")], counted(300_000, 5)));
    let cache = cache(place, origin).await;
    for number in 0..5 {
        cache.get(&format!("http://example.com/{number}")).await;
    }
    settled(&cache).await;
    let storage = place.open("store").await.unwrap();
    // A storage that is not shared cannot be opened again: the same name gives another one.
    if place.kind.is_shared() {
        assert_eq!(storage.size().await.unwrap(), 5);
        let values: Vec<_> = storage.values().try_collect().await.unwrap();
        assert!(values.len() == 5 && values.iter().all(|(key, _)| key.kind == Record::Head));
        storage.clear().await.unwrap();
        let keys: Vec<_> = storage.keys().try_collect().await.unwrap();
        assert_eq!(keys, []);
        assert_eq!(cache.get("http://example.com/1").await.word(), "miss");
    }
}

async fn handle_lists_changes_copies_and_verifies(place: &Place) {
    let origin = Origin::new(|request| {
        let (language, path) = (request.headers().get("accept-language"), request.uri().path());
        let language = language.map_or("none", |value| value.to_str().unwrap());
        let len = if path == "/large" { 300_000 } else { 10 };
        let tag = format!("\"{language}\"");
        let fields = [("cache-control", "max-age=600"), ("vary", "accept-language"), ("etag", &tag)];
        response(&fields, counted(len, 5))
    });
    let cache = cache(place, origin).await;
    const LARGE: &str = "http://example.com/large";
    for uri in [A, LARGE] {
        cache.get(uri).await;
        settled(&cache).await;
    }
    for language in ["en", "de"] {
        cache.ask(get_with(A, &[("accept-language", language)])).await;
        settled(&cache).await;
    }
    let (handle, everything) = (cache.layer.handle(), EntryFilter::new());
    let size = handle.size().await.unwrap();
    assert_eq!((size.entries, size.responses), (2, 4));
    let mut urls: Vec<_> = handle.urls(&everything).try_collect().await.unwrap();
    urls.sort();
    assert_eq!(urls, [A, LARGE]);
    let large = handle.read(&get(LARGE)).await.unwrap().unwrap().into_body();
    assert_eq!(large.collect().await.unwrap().to_bytes(), counted(300_000, 5));
    assert_eq!(handle.reset_expiry(&everything.clone().url(A), Duration::from_secs(5)).await.unwrap(), 3);
    assert_eq!(handle.get_url(A).await.unwrap().unwrap().ttl(), 5);
    let found = handle.verify(|_| {}).await.unwrap();
    assert!(found.is_sound() && found.orphans == 0 && found.responses == 4, "{found:?}");
    assert_eq!(handle.prune().await.unwrap(), 0);
    // Copies the responses to memory, and from there to another storage of this kind.
    let memory = MemoryStorage::new();
    assert_eq!(handle.copy_to(&memory, &everything, |_| {}).await.unwrap().responses, 4);
    let back = Box::pin(place.open("copy")).await.unwrap();
    let (clock, time) = Clock::mock();
    time.set(cache.clock.now());
    let between = CacheLayer::builder(memory).clock(clock).build().unwrap();
    assert_eq!(between.handle().copy_to(&back, &everything, |_| {}).await.unwrap().responses, 4);
    let copy = Fixture::with(Origin::new(|_| unreachable!("the copy has a miss")), back, |builder| builder);
    copy.clock.set(cache.clock.now());
    assert_eq!(copy.get(LARGE).await.body, counted(300_000, 5));
    for language in ["en", "de"] {
        let answer = copy.ask(get_with(A, &[("accept-language", language)])).await;
        assert_eq!(answer.header("etag").unwrap(), format!("\"{language}\""));
    }
    let german = everything.clone().matching(|entry| entry.headers()["etag"] == "\"de\"");
    assert_eq!(handle.delete_matching(&german).await.unwrap(), 1);
    assert_eq!(handle.size().await.unwrap().responses, 3);
    assert_eq!(handle.delete_url(A).await.unwrap(), 1);
    assert_eq!(handle.clear().await.unwrap(), 1);
    assert_eq!(cache.layer.storage().keys().try_collect::<Vec<_>>().await.unwrap(), []);
}

async fn stale_if_error_serves_within_window(place: &Place) {
    let mut asked = 0;
    let origin = Origin::new(move |_| {
        asked += 1;
        let mut answer = response(&[("cache-control", "max-age=10, stale-if-error=600")], "body");
        if asked > 1 {
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        answer
    });
    let cache = cache(place, origin).await;
    cache.get(A).await;
    settled(&cache).await;
    cache.clock.advance(Duration::from_secs(60));
    let stale = cache.get(A).await;
    assert_eq!((stale.code, &stale.body[..]), (StatusCode::OK, &b"body"[..]));
    cache.clock.advance(Duration::from_secs(3600));
    assert_eq!(cache.get(A).await.code, StatusCode::SERVICE_UNAVAILABLE);
}

async fn concurrent_requests_get_right_bodies(place: &Place) {
    // Computed once, because computing megabytes in every task would leave the storage no processor time.
    let bodies: Arc<[Bytes]> = (0..10).map(|number| counted(number * 40_000, number as u8)).collect();
    let own = Arc::clone(&bodies);
    let origin = Origin::new(move |request| {
        let number: usize = request.uri().path()[1..].parse().unwrap();
        response(&[("cache-control", "max-age=60")], own[number].clone())
    });
    let cache = cache(place, origin).await;
    for _ in 0..3 {
        let asked = (0..200_usize).map(|number| {
            let (service, bodies, number) = (cache.service.clone(), Arc::clone(&bodies), number % 10);
            tokio::spawn(async move {
                let request = get(&format!("http://example.com/{number}"));
                let answer = tower::ServiceExt::oneshot(service, request).await.unwrap();
                let body = answer.into_body().collect().await.unwrap().to_bytes();
                assert!(body == bodies[number], "wrong body for {number}");
            })
        });
        for task in asked.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        settled(&cache).await;
    }
    assert_eq!(cache.get("http://example.com/9").await.word(), "hit");
}

async fn credentials_get_separate_responses(place: &Place) {
    let origin = Origin::new(|request| {
        let who = request.headers().get("authorization").map_or("nobody", |value| value.to_str().unwrap());
        response(&[("cache-control", "max-age=60")], format!("for {who}"))
    });
    let cache = cache(place, origin).await;
    for _ in 0..2 {
        for who in ["one", "other"] {
            let answer = cache.ask(get_with(A, &[("authorization", who)])).await;
            assert_eq!(answer.body, format!("for {who}"));
            settled(&cache).await;
        }
        assert_eq!(cache.get(A).await.body, "for nobody");
        settled(&cache).await;
    }
    assert_eq!(cache.origin.count(), 3);
}

async fn group_is_invalidated_for_every_cache(place: &Place) {
    let fields = [("cache-control", "max-age=60"), ("cache-groups", "\"g\"")];
    let origin = || Origin::new(move |_| response(&fields, "body"));
    let one = cache(place, origin()).await;
    // Another handle of the same storage. One that is not shared by its name is cloned.
    let other = match place.kind.is_shared() {
        true => cache(place, origin()).await,
        false => Fixture::with(origin(), one.layer.storage().clone(), |builder| builder),
    };
    other.clock.set(one.clock.now());
    one.get(A).await;
    settled(&one).await;
    assert_eq!(other.get(A).await.word(), "hit");
    one.layer.invalidate_group("http://example.com", "g").await.unwrap();
    assert_eq!(other.get(A).await.word(), "miss");
    assert_eq!(one.get(A).await.word(), "miss");
    settled(&one).await;
    for cache in [&one, &other] {
        assert_eq!(cache.get(A).await.word(), "hit");
    }
}

async fn expired_responses_are_validated_by_every_cache(place: &Place) {
    let fields = [
        ("cache-control", "max-age=60"),
        ("cache-groups", "\"g\""),
        ("vary", "accept-language"),
        ("etag", "\"1\""),
    ];
    let origin = || {
        Origin::new(move |request| match support::has_tag(request, "\"1\"") {
            true => not_modified(&fields),
            false => response(&fields, "body"),
        })
    };
    let one = cache(place, origin()).await;
    // As above: another handle of the same storage.
    let other = match place.kind.is_shared() {
        true => cache(place, origin()).await,
        false => Fixture::with(origin(), one.layer.storage().clone(), |builder| builder),
    };
    let languages = ["en", "de"];
    let ask = async |cache: &Cache, language| {
        let answer = cache.ask(get_with(A, &[("accept-language", language)])).await;
        settled(cache).await;
        answer
    };
    other.clock.set(one.clock.now());
    for language in languages {
        ask(&one, language).await;
        assert_eq!(ask(&other, language).await.word(), "hit");
    }
    for by in ["url", "filter", "group"] {
        for cache in [&one, &other] {
            cache.clock.advance(Duration::from_secs(6));
        }
        let handle = one.layer.handle();
        match by {
            "url" => assert_eq!(handle.expire_url(A).await.unwrap(), 1),
            "filter" => assert_eq!(handle.expire_matching(&EntryFilter::new()).await.unwrap(), 2),
            _ => handle.expire_group("http://example.com", "g").await.unwrap(),
        }
        // What the other cache fetches within the tolerance for clocks is stale still.
        if by == "group" {
            assert_eq!(ask(&other, "en").await.word(), "revalidated");
            other.clock.advance(Duration::from_secs(6));
            one.clock.advance(Duration::from_secs(6));
        }
        for language in languages {
            let confirmed = ask(&other, language).await;
            assert_eq!((confirmed.word(), &confirmed.body[..]), ("revalidated", &b"body"[..]), "{by}");
            for cache in [&one, &other] {
                assert_eq!(ask(cache, language).await.word(), "hit", "{by} {language}");
            }
        }
    }
}

async fn idle_responses_are_dropped_and_used_ones_kept(place: &Place) {
    const IDLE: Duration = Duration::from_secs(4000);
    let origin = || {
        Origin::new(|request| {
            let len = if request.uri().path() == "/long" { 5000 } else { 10 };
            response(&[("cache-control", "max-age=8640000"), ("vary", "x-v")], vec![7; len])
        })
    };
    let settings = |builder: CacheLayerBuilder<BoxStorage>| {
        builder.default_tti(IDLE).chunk_bytes(1000).inline_bytes(100)
    };
    let one = cache_with(place, origin(), settings).await;
    let other = if place.kind.is_shared() { Some(cache_with(place, origin(), settings).await) } else { None };
    let other = other.as_ref().unwrap_or(&one);
    let (long, short) = ("http://example.com/long", "http://example.com/short");
    let all = [(long, "1"), (long, "2"), (long, "3"), (short, "1"), (short, "2"), (short, "3")];
    let ask = async |cache: &Cache, (uri, value)| {
        let answer = cache.ask(get_with(uri, &[("x-v", value)])).await;
        assert_eq!(answer.body.len(), if uri == long { 5000 } else { 10 });
        settled(cache).await;
        answer.word()
    };
    for which in all {
        assert_eq!(ask(&one, which).await, "miss", "{which:?}");
    }
    // Each use is of another cache, and the second variants are used alone.
    for round in 0..6 {
        one.clock.advance(IDLE - Duration::from_secs(10));
        other.clock.set(one.clock.now());
        let cache = if round % 2 == 0 { &one } else { other };
        for uri in [long, short] {
            assert_eq!(ask(cache, (uri, "2")).await, "hit", "{round} {uri}");
        }
    }
    for uri in [long, short] {
        // The first variant is a part of the head, which the second one needs.
        assert_eq!(ask(&one, (uri, "1")).await, "hit");
        assert_eq!(ask(&one, (uri, "3")).await, "miss");
    }
    one.clock.advance(IDLE + IDLE / 4 + Duration::from_secs(1));
    other.clock.set(one.clock.now());
    for cache in [&one, other] {
        let listed: Vec<_> = cache.layer.handle().entries(&EntryFilter::new()).try_collect().await.unwrap();
        assert_eq!(listed.len(), 0);
    }
    for which in all {
        assert_eq!(ask(other, which).await, "miss", "{which:?}");
    }
}

async fn made_entity_tags_are_stored_with_responses(place: &Place) {
    let mut tags = Vec::new();
    for (chunk, len) in [(1000, 5500), (100_000, 5500), (1000, 10)] {
        let origin = || Origin::new(move |_| response(&[("cache-control", "max-age=60")], counted(len, 1)));
        let settings = |builder: CacheLayerBuilder<BoxStorage>| {
            builder.make_etags(true).chunk_bytes(chunk).inline_bytes(chunk)
        };
        let uri = format!("http://example.com/{chunk}/{len}");
        let one = cache_with(place, origin(), settings).await;
        assert_eq!(one.get(&uri).await.header("etag"), None);
        settled(&one).await;
        let other =
            if place.kind.is_shared() { Some(cache_with(place, origin(), settings).await) } else { None };
        let other = other.as_ref().unwrap_or(&one);
        let hit = other.get(&uri).await;
        let tag = hit.header("etag").unwrap();
        assert_eq!((hit.word(), hit.body.len()), ("hit", len));
        let same = other.ask(get_with(&uri, &[("if-none-match", tag)])).await;
        assert_eq!((same.word(), same.code), ("hit", StatusCode::NOT_MODIFIED));
        let part = other.ask(get_with(&uri, &[("if-range", tag), ("range", "bytes=3-")])).await;
        assert_eq!((part.word(), part.code), ("hit", StatusCode::PARTIAL_CONTENT));
        assert_eq!(part.body, counted(len, 1).slice(3..));
        tags.push(tag.to_owned());
    }
    assert!(tags[0] == tags[1] && tags[0] != tags[2], "{tags:?}");
}

/// An origin of one file of this length, which answers requests for ranges.
fn file(len: usize) -> (Bytes, Origin) {
    let bytes: Bytes = (0..len).map(|at| (at % 251) as u8 ^ (at / 251) as u8).collect::<Vec<_>>().into();
    let of_origin = bytes.clone();
    let origin = Origin::new(move |request| {
        let response =
            http::Response::builder().header("etag", "\"a\"").header("cache-control", "max-age=3600");
        let Some(range) = request.headers().get("range") else {
            return response.body(Full::from(of_origin.clone())).unwrap();
        };
        let (first, last) = range.to_str().unwrap().strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
        let last = last.min(len - 1);
        let response = response.status(206).header("content-range", format!("bytes {first}-{last}/{len}"));
        response.body(Full::from(of_origin.slice(first..=last))).unwrap()
    });
    (bytes, origin)
}

async fn parts_of_two_caches_are_combined(place: &Place) {
    let (bytes, origin) = file(300_000);
    let settings = |builder: CacheLayerBuilder<BoxStorage>| builder.store_parts(true).chunk_bytes(20_000);
    let one = cache_with(place, origin.clone(), settings).await;
    let other = match place.kind.is_shared() {
        true => cache_with(place, origin.clone(), settings).await,
        false => Fixture::with(origin.clone(), one.layer.storage().clone(), settings),
    };
    other.clock.set(one.clock.now());
    let range = |range: &str| get_with(A, &[("range", &format!("bytes={range}"))]);
    let (first, last) = tokio::join!(one.ask(range("0-99999")), other.ask(range("200000-299999")));
    assert_eq!((&first.body[..], &last.body[..]), (&bytes[..100_000], &bytes[200_000..]));
    one.layer.idle().await;
    other.layer.idle().await;
    // Of two parts at the same time, one is added to the other.
    let asked = origin.count();
    let whole = one.ask(get(A)).await;
    assert_eq!((whole.code, whole.body.len()), (StatusCode::OK, 300_000));
    assert!(whole.body == bytes, "the bytes of the file");
    assert_eq!(origin.last()["range"], "bytes=100000-199999");
    assert_eq!((origin.last()["if-range"].to_str().unwrap(), origin.count()), ("\"a\"", asked + 1));
    one.layer.idle().await;
    let again = other.ask(range("50000-249999")).await;
    assert!(again.word() == "hit" && again.body == bytes[50_000..250_000]);
    let entries: Vec<_> = one.layer.handle().entries(&EntryFilter::new()).try_collect().await.unwrap();
    assert_eq!(
        entries
            .iter()
            .map(|entry| (entry.body_len(), entry.partial().map(|of| (of.stored(), of.parts()))))
            .collect::<Vec<_>>(),
        [(300_000, Some((300_000, 1)))]
    );
    assert!(one.layer.handle().verify(|_| {}).await.unwrap().is_sound());
    assert_eq!(one.layer.handle().delete_url(A).await.unwrap(), 1);
    let asked = origin.count();
    assert_eq!(other.ask(range("0-9")).await.word(), "miss");
    assert_eq!(origin.count(), asked + 1);
}
