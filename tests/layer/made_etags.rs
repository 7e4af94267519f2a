//! Entity tags that the cache makes for responses whose origin sends none.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use tower::{Layer, ServiceExt, service_fn};
use tower_response_cache::storage::{MemoryStorage, Storage};
use tower_response_cache::{CacheLayer, EntryFilter, StoredEntry};

use crate::support::{Answer, Fixture, Origin, ReqBody, get, get_with, not_modified, response};

const A: &str = "http://example.com/a";
const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=60")];
const OURS: &str = "\"trc:00112233445566778899aabbccddeeff\"";

fn making(origin: Origin, storage: impl Storage) -> Fixture {
    Fixture::with(origin, storage, |builder| builder.make_etags(true).chunk_bytes(1000).inline_bytes(100))
}

fn cache(len: usize, fields: &'static [(&'static str, &'static str)]) -> Fixture {
    making(Origin::new(move |_| response(fields, body(len))), MemoryStorage::new())
}

fn body(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

fn request(method: Method, fields: &[(&str, &str)]) -> Request<ReqBody> {
    let mut request = get_with(A, fields);
    *request.method_mut() = method;
    request
}

/// Fetches a response, and returns the entity tag of the hit that follows.
async fn made(cache: &Fixture, fields: &[(&str, &str)]) -> Option<String> {
    cache.ask(get_with(A, fields)).await;
    let hit = cache.ask(get_with(A, fields)).await;
    assert_eq!(hit.word(), "hit");
    hit.header("etag").map(str::to_owned)
}

async fn listed(cache: &Fixture) -> Vec<StoredEntry> {
    cache.layer.handle().entries(&EntryFilter::new()).try_collect().await.unwrap()
}

#[tokio::test]
async fn hits_have_a_strong_tag() {
    for len in [0, 50, 999, 5500] {
        let cache = cache(len, FRESH);
        assert_eq!(cache.get(A).await.header("etag"), None, "the body was not known yet");
        let hit = cache.get(A).await;
        let tag = hit.header("etag").unwrap();
        assert!(tag.starts_with("\"trc:") && tag.len() == OURS.len(), "{tag}");
        assert_eq!((hit.word(), hit.body.to_vec()), ("hit", body(len)));
        let head = cache.ask(request(Method::HEAD, &[])).await;
        assert_eq!((head.word(), head.header("etag"), head.body.len()), ("hit", Some(tag), 0));
        for value in [tag.to_owned(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
            let same = cache.ask(get_with(A, &[("if-none-match", &value)])).await;
            assert_eq!(
                (same.code, same.header("etag"), same.word()),
                (StatusCode::NOT_MODIFIED, Some(tag), "hit")
            );
        }
        for value in [OURS, "\"x\"", &tag.replace("trc:", "")] {
            let other = cache.ask(get_with(A, &[("if-none-match", value)])).await;
            assert_eq!((other.code, other.word()), (StatusCode::OK, "hit"));
        }
        assert_eq!(cache.origin.count(), 1);
    }
}

#[tokio::test]
async fn ranges_continue_by_made_tag() {
    for len in [50, 5500] {
        let cache = cache(len, FRESH);
        let tag = made(&cache, &[]).await.unwrap();
        let ask = async |condition: &str| {
            cache.ask(get_with(A, &[("range", "bytes=10-"), ("if-range", condition)])).await
        };
        let part = ask(&tag).await;
        assert_eq!((part.code, part.header("etag")), (StatusCode::PARTIAL_CONTENT, Some(&*tag)));
        assert_eq!(part.body, body(len)[10..]);
        // If-Range compares strongly, so that a weak tag never holds.
        for other in [OURS, &format!("W/{tag}"), "\"x\""] {
            let whole = ask(other).await;
            assert_eq!((whole.code, whole.body.len()), (StatusCode::OK, len), "{other}");
        }
        let outside = cache.ask(get_with(A, &[("range", "bytes=9999-")])).await;
        assert_eq!((outside.code, outside.header("etag")), (StatusCode::RANGE_NOT_SATISFIABLE, None));
        assert_eq!(cache.origin.count(), 1);
    }
}

#[tokio::test]
async fn equal_tags_stand_for_equal_bytes() {
    let mut fetches = 0;
    let bodies = ["one", "one", "two", "one"];
    let origin = Origin::new(move |_| {
        fetches += 1;
        response(FRESH, bodies[(fetches - 1) % bodies.len()])
    });
    let cache = making(origin, MemoryStorage::new());
    let mut tags = Vec::new();
    for _ in bodies {
        tags.push(made(&cache, &[]).await.unwrap());
        cache.clock.advance(Duration::from_secs(61));
    }
    assert!(tags[0] == tags[1] && tags[0] == tags[3] && tags[0] != tags[2], "{tags:?}");
    // The client of the first response gets 304 for the same bytes that were fetched since.
    cache.get(A).await;
    let same = cache.ask(get_with(A, &[("if-none-match", &tags[0])])).await;
    assert_eq!((same.code, same.word()), (StatusCode::NOT_MODIFIED, "hit"));
}

#[tokio::test]
async fn codings_and_variants_have_tags_of_their_own() {
    let origin = Origin::new(|request| {
        let coding = request.headers().get("x-coding").map_or("", |value| value.to_str().unwrap());
        let fields: &[_] = match coding {
            "" => &[("cache-control", "max-age=60"), ("vary", "x-coding, x-v")],
            coding => {
                &[("cache-control", "max-age=60"), ("vary", "x-coding, x-v"), ("content-encoding", coding)]
            }
        };
        response(fields, "body")
    });
    let cache = making(origin, MemoryStorage::new());
    let mut tags = Vec::new();
    for fields in [&[][..], &[("x-coding", "gzip")], &[("x-coding", "br")], &[("x-v", "1")], &[("x-v", "2")]]
    {
        tags.push(made(&cache, fields).await.unwrap());
    }
    let mut distinct = tags.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), tags.len(), "{tags:?}");
    // A tag of one variant says nothing about another.
    let other = cache.ask(get_with(A, &[("x-v", "1"), ("if-none-match", &tags[4])])).await;
    assert_eq!((other.code, other.word()), (StatusCode::OK, "hit"));

    // The coding counts by itself too, where Vary does not name it.
    let mut tags = Vec::new();
    for coding in ["gzip", "br"] {
        let origin = Origin::always(
            Response::builder().header("cache-control", "max-age=60").header("content-encoding", coding),
            "body",
        );
        tags.push(made(&making(origin, MemoryStorage::new()), &[]).await.unwrap());
    }
    assert_ne!(tags[0], tags[1]);
}

#[tokio::test]
async fn frames_and_chunks_do_not_matter() {
    let mut tags = Vec::new();
    for (frame, chunk, trailer) in [(1, 1000, false), (7, 10, false), (3000, 500, false), (100, 100, true)] {
        let layer = CacheLayer::builder(MemoryStorage::new())
            .make_etags(true)
            .chunk_bytes(chunk)
            .inline_bytes(if chunk == 1000 { 100_000 } else { 0 })
            .build()
            .unwrap();
        let origin = service_fn(move |_: Request<Empty<Bytes>>| async move {
            let mut frames: Vec<_> =
                body(2000).chunks(frame).map(|data| Frame::data(Bytes::copy_from_slice(data))).collect();
            if trailer {
                let mut trailers = HeaderMap::new();
                trailers.insert("x-sum", HeaderValue::from_static("1"));
                frames.push(Frame::trailers(trailers));
            }
            let frames = futures_util::stream::iter(frames.into_iter().map(Ok::<_, Infallible>));
            let body: UnsyncBoxBody<Bytes, Infallible> = StreamBody::new(frames).boxed_unsync();
            Ok::<_, Infallible>(Response::builder().header("cache-control", "max-age=60").body(body).unwrap())
        });
        let service = layer.layer(origin);
        let ask = async || {
            let request = Request::get(A).body(Empty::new()).unwrap();
            Answer::read(service.clone().oneshot(request).await.unwrap()).await
        };
        ask().await;
        let hit = ask().await;
        assert_eq!((hit.word(), hit.trailers.is_some()), ("hit", trailer));
        tags.push(hit.header("etag").unwrap().to_owned());
    }
    assert!(tags.iter().all(|tag| *tag == tags[0]), "{tags:?}");
}

#[tokio::test]
async fn origin_never_gets_made_tags() {
    let list = format!("{OURS}, \"x\", W/{OURS}, W/\"y\"");
    let weak = format!("W/{OURS}");
    for (method, sent, received) in [
        (Method::GET, &[("if-none-match", OURS)][..], &[][..]),
        (Method::GET, &[("if-none-match", &weak)], &[]),
        (Method::GET, &[("if-none-match", &list)], &[("if-none-match", "\"x\", W/\"y\"")]),
        (Method::GET, &[("if-none-match", "\"x\", \"y\"")], &[("if-none-match", "\"x\", \"y\"")]),
        (Method::GET, &[("if-none-match", "*")], &[("if-none-match", "*")]),
        (Method::GET, &[("if-range", OURS), ("range", "bytes=1-")], &[]),
        (
            Method::GET,
            &[("if-range", "\"x\""), ("range", "bytes=1-")],
            &[("if-range", "\"x\""), ("range", "bytes=1-")],
        ),
        (Method::HEAD, &[("if-none-match", OURS)], &[]),
        (Method::PUT, &[("if-none-match", OURS)], &[]),
        (Method::PUT, &[("if-match", &list)], &[("if-match", "\"x\", W/\"y\"")]),
        // Without the field, the request would change any version.
        (Method::PUT, &[("if-match", OURS)], &[("if-match", OURS)]),
        (Method::GET, &[("if-match", &list)], &[("if-match", "\"x\", W/\"y\"")]),
        (Method::GET, &[("if-none-match", "\"trc:0011\"")], &[("if-none-match", "\"trc:0011\"")]),
        (
            Method::GET,
            &[("if-none-match", OURS), ("if-modified-since", "Wed, 31 Dec 2025 00:00:00 GMT")],
            &[("if-modified-since", "Wed, 31 Dec 2025 00:00:00 GMT")],
        ),
    ] {
        let cache = cache(10, FRESH);
        cache.ask(request(method.clone(), sent)).await;
        let seen: Vec<(String, String)> = cache
            .origin
            .last()
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        let received: Vec<_> =
            received.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(seen, received, "{method} {sent:?}");
    }
}

#[tokio::test]
async fn whole_response_answers_a_range_of_made_tag() {
    // The stored response is stale, and has no validator of the origin.
    let cache = cache(50, FRESH);
    let tag = made(&cache, &[]).await.unwrap();
    cache.clock.advance(Duration::from_secs(61));
    let whole = cache.ask(get_with(A, &[("range", "bytes=10-"), ("if-range", &tag)])).await;
    assert_eq!((whole.code, whole.body.len()), (StatusCode::OK, 50));
    let hit = cache.ask(get_with(A, &[("range", "bytes=10-"), ("if-range", &tag)])).await;
    assert_eq!((hit.code, hit.word()), (StatusCode::PARTIAL_CONTENT, "hit"));
}

#[tokio::test]
async fn validation_uses_the_validators_of_the_origin() {
    const DATED: &[(&str, &str)] =
        &[("cache-control", "max-age=60"), ("last-modified", "Wed, 31 Dec 2025 00:00:00 GMT")];
    let mut asked = 0;
    let origin = Origin::new(move |request| {
        asked += 1;
        assert!(!request.headers().contains_key("if-none-match"));
        match (request.headers().contains_key("if-modified-since"), asked) {
            (false, ..4) => response(DATED, "body"),
            (true, ..4) => not_modified(DATED),
            // From now on the origin has entity tags, so that its 304 is about another response than the stored one.
            (true, _) => not_modified(&[("etag", "\"of-origin\"")]),
            (false, _) => response(&[("cache-control", "max-age=60"), ("etag", "\"of-origin\"")], "body"),
        }
    });
    let cache = making(origin, MemoryStorage::new());
    let tag = made(&cache, &[]).await.unwrap();
    for _ in 0..2 {
        cache.clock.advance(Duration::from_secs(61));
        let same = cache.ask(get_with(A, &[("if-none-match", &tag)])).await;
        let expected = (StatusCode::NOT_MODIFIED, "revalidated", Some(&*tag));
        assert_eq!((same.code, same.word(), same.header("etag")), expected);
        assert_eq!(cache.get(A).await.header("etag"), Some(&*tag));
    }
    cache.clock.advance(Duration::from_secs(61));
    let replaced = cache.get(A).await;
    assert_eq!((replaced.word(), replaced.header("etag")), ("miss", Some("\"of-origin\"")));
    let hit = cache.ask(get_with(A, &[("if-none-match", &tag)])).await;
    assert_eq!((hit.code, hit.header("etag")), (StatusCode::OK, Some("\"of-origin\"")));
    assert_eq!(hit.headers.get_all("etag").iter().count(), 1);
    assert_eq!(listed(&cache).await[0].made_etag(), None);
}

#[tokio::test]
async fn only_responses_without_etag_get_one() {
    for (code, fields, expected) in [
        (200, &[("cache-control", "max-age=60"), ("etag", "\"a\"")][..], Some("\"a\"")),
        (200, &[("cache-control", "max-age=60"), ("etag", "W/\"a\"")], Some("W/\"a\"")),
        (200, &[("cache-control", "max-age=60"), ("etag", "malformed")], Some("malformed")),
        (404, FRESH, None),
        (203, FRESH, None),
    ] {
        let origin = Origin::new(move |_| {
            let mut response = response(fields, "body");
            *response.status_mut() = StatusCode::from_u16(code).unwrap();
            response
        });
        let cache = making(origin, MemoryStorage::new());
        assert_eq!(made(&cache, &[]).await.as_deref(), expected, "{code} {fields:?}");
        assert_eq!(listed(&cache).await[0].made_etag(), None);
    }
}

#[tokio::test]
async fn cache_without_the_setting_ignores_made_tags() {
    let storage = MemoryStorage::new();
    let origin = Origin::new(|_| response(FRESH, "body"));
    let with = making(origin.clone(), storage.clone());
    let without = Fixture::with(origin, storage, |builder| builder);
    let tag = made(&with, &[]).await.unwrap();
    let hit = without.ask(get_with(A, &[("if-none-match", &tag)])).await;
    assert_eq!((hit.word(), hit.code, hit.header("etag")), ("hit", StatusCode::OK, None));
    // What that one stores has no tag, and the other serves it as it is.
    without.clock.advance(Duration::from_secs(61));
    with.clock.advance(Duration::from_secs(61));
    assert_eq!(without.get(A).await.word(), "miss");
    let hit = with.get(A).await;
    assert_eq!((hit.word(), hit.header("etag")), ("hit", None));
}

#[tokio::test]
async fn tag_stays_with_changed_and_copied_responses() {
    let cache = cache(5500, FRESH);
    let tag = made(&cache, &[]).await.unwrap();
    let handle = cache.layer.handle();
    handle.reset_expiry(&EntryFilter::new(), Duration::from_secs(600)).await.unwrap();
    assert_eq!(cache.get(A).await.header("etag"), Some(&*tag));
    let other = MemoryStorage::new();
    handle.copy_to(&other, &EntryFilter::new(), |_| {}).await.unwrap();
    let copied = making(cache.origin.clone(), other);
    assert_eq!(copied.get(A).await.header("etag"), Some(&*tag));
    let entry = listed(&copied).await.remove(0);
    assert_eq!(entry.made_etag().unwrap(), tag);
    assert!(!entry.headers().contains_key("etag"));
    handle.expire(&get(A)).await.unwrap();
    assert_eq!(listed(&cache).await[0].made_etag().unwrap(), tag);
}

#[tokio::test]
async fn tag_is_not_made_by_default() {
    let cache = Fixture::new(Origin::new(|_| response(FRESH, "body")));
    assert_eq!(made(&cache, &[]).await, None);
    cache.clock.advance(Duration::from_secs(61));
    cache.ask(get_with(A, &[("if-none-match", OURS)])).await;
    assert_eq!(cache.origin.last().get("if-none-match").unwrap(), OURS);
}
