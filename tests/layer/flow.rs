//! Single requests through the layer, with a memory storage and a scripted origin.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use tower::{Layer, Service};
use tower_response_cache::storage::MemoryStorage;
use tower_response_cache::{
    BypassReason, CacheLayer, CacheMode, CacheOptions, MissReason, NotStored, Outcome, Stored,
};

use crate::support::{Answer, Fixture, Origin, get, get_with, has_tag, not_modified, response};

const A: &str = "http://example.com/a";

fn post(uri: &str) -> Request<Full<Bytes>> {
    Request::post(uri).body(Full::from("x")).unwrap()
}

#[tokio::test]
async fn fresh_response_is_served_without_fetching() {
    let cache = Fixture::new(Origin::new(|_| response(&[("cache-control", "max-age=60")], "hello")));
    let first = cache.get(A).await;
    assert_eq!((first.word(), first.status.stored()), ("miss", Stored::Storing));
    assert_eq!(first.status.outcome(), Outcome::Miss(MissReason::Absent));
    cache.clock.advance(Duration::from_secs(42));
    let second = cache.get(A).await;
    assert_eq!((second.word(), &second.body[..]), ("hit", &b"hello"[..]));
    assert_eq!(second.header("age"), Some("42"));
    assert_eq!(second.status.ttl(), Some(18));
    assert_eq!(cache.origin.count(), 1);
    cache.clock.advance(Duration::from_secs(18));
    assert_eq!(cache.get(A).await.word(), "miss");
}

#[tokio::test]
async fn stale_response_is_revalidated_and_freshened() {
    let cache = Fixture::new(Origin::new(|request| {
        if has_tag(request, "\"v1\"") {
            return not_modified(&[("cache-control", "max-age=30"), ("x-new", "1"), ("etag", "\"v1\"")]);
        }
        response(&[("cache-control", "max-age=10"), ("etag", "\"v1\""), ("x-old", "1")], "body")
    }));
    cache.get(A).await;
    cache.clock.advance(Duration::from_secs(11));
    let again = cache.get(A).await;
    assert_eq!((again.word(), again.code, &again.body[..]), ("revalidated", StatusCode::OK, &b"body"[..]));
    assert_eq!(
        (again.header("x-new"), again.header("x-old"), again.header("age")),
        (Some("1"), Some("1"), Some("0"))
    );
    cache.clock.advance(Duration::from_secs(29));
    assert_eq!(cache.get(A).await.word(), "hit");
    assert_eq!(cache.origin.count(), 2);
}

#[tokio::test]
async fn changed_response_replaces_stored_one() {
    let mut version = 0;
    let cache = Fixture::new(Origin::new(move |_| {
        version += 1;
        let tag = format!("\"v{version}\"");
        response(&[("cache-control", "max-age=10"), ("etag", &tag)], format!("body {version}"))
    }));
    cache.get(A).await;
    cache.clock.advance(Duration::from_secs(11));
    assert_eq!(cache.get(A).await.word(), "miss");
    let third = cache.get(A).await;
    assert_eq!((third.word(), &third.body[..]), ("hit", &b"body 2"[..]));
}

#[tokio::test]
async fn variants_are_stored_separately() {
    let cache = Fixture::new(Origin::new(|request| {
        let language =
            request.headers().get("accept-language").map_or("none", |value| value.to_str().unwrap());
        response(&[("cache-control", "max-age=60"), ("vary", "Accept-Language")], language.to_owned())
    }));
    let ask = |language| get_with(A, &[("accept-language", language)]);
    for language in ["en", "de", "fr"] {
        assert_eq!(cache.ask(ask(language)).await.word(), "miss");
    }
    for language in ["en", "de", "fr", "de", "en"] {
        let answer = cache.ask(ask(language)).await;
        assert_eq!((answer.word(), &answer.body[..]), ("hit", language.as_bytes()));
    }
    assert_eq!(cache.get(A).await.body, "none");
    assert_eq!(cache.origin.count(), 4);
}

#[tokio::test]
async fn unsafe_request_invalidates_variants_and_named_uris() {
    let cache = Fixture::new(Origin::new(|request| {
        if request.method() == "POST" {
            return response(&[("location", "/b"), ("content-location", "http://other.example/c")], "");
        }
        response(&[("cache-control", "max-age=60"), ("vary", "x")], "v")
    }));
    let other = "http://other.example/c";
    for uri in [A, "http://example.com/b", other] {
        cache.ask(get_with(uri, &[("x", "1")])).await;
        cache.ask(get_with(uri, &[("x", "2")])).await;
    }
    cache.ask(post(A)).await;
    assert_eq!(
        cache.ask(get_with(A, &[("x", "1")])).await.status.outcome(),
        Outcome::Miss(MissReason::Invalidated)
    );
    assert_eq!(cache.ask(get_with(A, &[("x", "2")])).await.word(), "miss");
    assert_eq!(cache.ask(get_with("http://example.com/b", &[("x", "2")])).await.word(), "miss");
    assert_eq!(cache.ask(get_with(other, &[("x", "2")])).await.word(), "hit");
}

#[tokio::test]
async fn failed_unsafe_request_invalidates_nothing() {
    let cache = Fixture::new(Origin::new(|request| {
        let mut answer = response(&[("cache-control", "max-age=60")], "v");
        if request.method() == "POST" {
            *answer.status_mut() = StatusCode::BAD_REQUEST;
        }
        answer
    }));
    cache.get(A).await;
    cache.ask(post(A)).await;
    assert_eq!(cache.get(A).await.word(), "hit");
}

#[tokio::test]
async fn private_response_is_not_shared_between_users() {
    let cache = Fixture::new(Origin::new(|request| {
        let user = request.headers().get("authorization").map_or("nobody", |value| value.to_str().unwrap());
        response(&[("cache-control", "max-age=60")], user.to_owned())
    }));
    for user in ["a", "b", "a", "b"] {
        assert_eq!(cache.ask(get_with(A, &[("authorization", user)])).await.body, user);
    }
    assert_eq!(cache.get(A).await.body, "nobody");
    assert_eq!(cache.origin.count(), 3);
}

#[tokio::test]
async fn shared_cache_stores_only_shareable_responses() {
    let cache = Fixture::shared(Origin::new(|request| {
        let control = request.uri().path().trim_start_matches('/').replace('+', ", ").replace(':', "=");
        response(&[("cache-control", &control)], "v")
    }));
    for (path, with_authorization, stored) in [
        ("max-age:60", false, true),
        ("private+max-age:60", false, false),
        ("max-age:60+no-store", false, false),
        ("max-age:60", true, true), // already stored by the request without Authorization above
        ("max-age:61", true, false),
        ("s-maxage:60", true, true),
        ("public+max-age:60", true, true),
    ] {
        let uri = format!("http://example.com/{path}");
        let fields: &[_] = if with_authorization { &[("authorization", "a")] } else { &[] };
        cache.ask(get_with(&uri, fields)).await;
        assert_eq!(cache.ask(get_with(&uri, fields)).await.word() == "hit", stored, "{path}");
    }
}

#[tokio::test]
async fn only_if_cached_never_reaches_origin() {
    let cache = Fixture::new(Origin::new(|_| response(&[("cache-control", "max-age=60")], "v")));
    let only = || get_with(A, &[("cache-control", "only-if-cached")]);
    let refused = cache.ask(only()).await;
    assert_eq!((refused.code, refused.word()), (StatusCode::GATEWAY_TIMEOUT, "refused"));
    assert_eq!(cache.origin.count(), 0);
    cache.get(A).await;
    assert_eq!(cache.ask(only()).await.word(), "hit");
}

#[tokio::test]
async fn unstored_response_reports_reason() {
    let cache = Fixture::new(Origin::new(|request| match request.uri().path() {
        "/no-store" => response(&[("cache-control", "No-Store, max-age=60")], "v"),
        "/vary" => response(&[("cache-control", "max-age=60"), ("vary", "x, *")], "v"),
        _ => response(&[], "v"),
    }));
    for (path, reason) in [
        ("no-store", NotStored::ResponseNoStore),
        ("vary", NotStored::VaryAny),
        ("nothing", NotStored::NoFreshness),
    ] {
        let answer = cache.get(&format!("http://example.com/{path}")).await;
        assert_eq!(answer.status.stored(), Stored::No(reason));
    }
}

#[tokio::test]
async fn preconditions_and_ranges_are_answered_from_storage() {
    let cache = Fixture::new(Origin::new(|_| {
        response(
            &[("cache-control", "max-age=60"), ("etag", "\"t\""), ("content-length", "10")],
            "0123456789",
        )
    }));
    cache.get(A).await;
    let same = cache.ask(get_with(A, &[("if-none-match", "W/\"t\"")])).await;
    assert_eq!(
        (same.code, same.header("etag"), same.body.len()),
        (StatusCode::NOT_MODIFIED, Some("\"t\""), 0)
    );
    let part = cache.ask(get_with(A, &[("range", "bytes=2-4")])).await;
    assert_eq!((part.code, &part.body[..]), (StatusCode::PARTIAL_CONTENT, &b"234"[..]));
    assert_eq!(
        (part.header("content-range"), part.header("content-length")),
        (Some("bytes 2-4/10"), Some("3"))
    );
    let end = cache.ask(get_with(A, &[("range", "bytes=-2")])).await;
    assert_eq!(end.body, "89");
    let beyond = cache.ask(get_with(A, &[("range", "bytes=10-")])).await;
    assert_eq!(
        (beyond.code, beyond.header("content-range")),
        (StatusCode::RANGE_NOT_SATISFIABLE, Some("bytes */10"))
    );
    let head = cache.ask(Request::head(A).body(Full::default()).unwrap()).await;
    assert_eq!((head.word(), head.body.len(), head.header("content-length")), ("hit", 0, Some("10")));
    assert_eq!(cache.origin.count(), 1);
}

#[tokio::test]
async fn stale_while_revalidate_serves_stale_and_refreshes() {
    let mut version = 0;
    let cache = Fixture::new(Origin::new(move |_| {
        version += 1;
        response(&[("cache-control", "max-age=10, stale-while-revalidate=60")], format!("{version}"))
    }));
    cache.get(A).await;
    cache.clock.advance(Duration::from_secs(11));
    let stale = cache.get(A).await;
    assert_eq!((stale.word(), &stale.body[..]), ("stale", &b"1"[..]));
    cache.layer.idle().await;
    let fresh = cache.get(A).await;
    assert_eq!((fresh.word(), &fresh.body[..]), ("hit", &b"2"[..]));
    assert_eq!(cache.origin.count(), 2);
}

#[tokio::test]
async fn stale_if_error_serves_within_window() {
    let mut asked = 0;
    let cache = Fixture::new(Origin::new(move |_| {
        asked += 1;
        let mut answer = response(&[("cache-control", "max-age=10, stale-if-error=60")], "good");
        if asked > 1 {
            answer = response(&[], "bad");
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        answer
    }));
    cache.get(A).await;
    cache.clock.advance(Duration::from_secs(20));
    let stale = cache.get(A).await;
    assert_eq!((stale.word(), stale.code, &stale.body[..]), ("stale", StatusCode::OK, &b"good"[..]));
    cache.clock.advance(Duration::from_secs(60));
    assert_eq!(cache.get(A).await.code, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn repeated_and_non_ascii_fields_are_preserved() {
    let cache = Fixture::new(Origin::new(|_| {
        let mut answer =
            response(&[("cache-control", "max-age=60"), ("set-cookie", "a=1"), ("set-cookie", "b=2")], "v");
        answer.headers_mut().insert("x-name", http::HeaderValue::from_bytes(b"caf\xe9").unwrap());
        answer
    }));
    cache.get(A).await;
    let hit = cache.get(A).await;
    assert_eq!(hit.word(), "hit");
    let cookies: Vec<_> = hit.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    assert_eq!(hit.headers["x-name"].as_bytes(), b"caf\xe9");
}

#[tokio::test]
async fn equivalent_uris_share_one_entry() {
    let cache = Fixture::new(Origin::new(|_| response(&[("cache-control", "max-age=60")], "v")));
    cache.get("http://example.com/").await;
    for uri in ["HTTP://EXAMPLE.com", "http://example.com:80/", "http://Example.Com/"] {
        assert_eq!(cache.get(uri).await.word(), "hit", "{uri}");
    }
    assert_eq!(cache.ask(get_with("/", &[("host", "example.com")])).await.word(), "hit");
    for uri in
        ["https://example.com/", "http://example.com:81/", "http://example.com/?", "http://example.com//"]
    {
        assert_eq!(cache.get(uri).await.word(), "miss", "{uri}");
    }
}

#[tokio::test]
async fn unsupported_requests_bypass_the_cache() {
    let cache = Fixture::new(Origin::new(|_| response(&[("cache-control", "max-age=60")], "v")));
    cache.get(A).await;
    let with_content = || Request::get(A).body(Full::from("q")).unwrap();
    let no_store = CacheOptions::new().mode(CacheMode::NoStore);
    let unmodified = [("if-unmodified-since", "Thu, 01 Jan 2026 00:00:00 GMT")];
    for (request, reason) in [
        (with_content(), BypassReason::Content),
        (get_with(A, &[("content-length", "3")]), BypassReason::Content),
        (get_with(A, &[("upgrade", "websocket")]), BypassReason::Upgrade),
        (get_with(A, &[("if-match", "\"t\"")]), BypassReason::Condition),
        (get_with(A, &unmodified), BypassReason::Condition),
        (Request::options(A).body(Full::default()).unwrap(), BypassReason::Method),
        (get("/no-host"), BypassReason::NoHost),
        (get_with("/x", &[("host", "a b")]), BypassReason::MalformedHost),
        (get_with("*", &[("host", "example.com")]), BypassReason::NoResource),
        (Request::get(A).extension(no_store).body(Full::default()).unwrap(), BypassReason::Disabled),
    ] {
        assert_eq!(cache.ask(request).await.status.outcome(), Outcome::Bypass(reason));
    }
    let filtered = Fixture::with(cache.origin.clone(), MemoryStorage::new(), |b| b.filter_request(|_| false));
    assert_eq!(filtered.get(A).await.status.outcome(), Outcome::Bypass(BypassReason::Filtered));
    assert_eq!(cache.get(A).await.word(), "hit");
}

/// A hit is a ready future, and any other response comes from a boxed one.
///
/// Both panic rather than hang when they are polled again after completion.
#[tokio::test]
async fn future_polled_after_completion_panics() {
    let origin = Origin::new(|_| response(&[("cache-control", "max-age=60")], "hello"));
    let mut service = CacheLayer::new(MemoryStorage::new()).layer(origin);
    for word in ["miss", "hit"] {
        let mut future = service.call(get(A));
        let answer = Answer::read((&mut future).await.unwrap()).await;
        assert_eq!(answer.word(), word);
        let again = AssertUnwindSafe(future).catch_unwind().now_or_never();
        assert!(again.expect("the future is not pending").is_err(), "{word}");
    }
}

/// A stand-in for the extension that hyper adds to a message for an upgrade.
#[derive(Clone, Debug, PartialEq)]
struct OnUpgrade(u8);

/// `curl --http2` sends `Upgrade: h2c` with each request in clear text.
#[tokio::test]
async fn unsafe_upgrade_is_forwarded_unchanged_and_invalidates() {
    for code in [200, 101, 500] {
        let origin = Origin::new(move |request| {
            // Content-Location claims that the response is the one that a GET of `/a` would return.
            let location = ("content-location", "/a");
            let mut answer =
                response(&[("cache-control", "max-age=60"), location], request.method().as_str().to_owned());
            if request.method() != Method::GET {
                assert_eq!(request.extensions().get(), Some(&OnUpgrade(1)));
                assert_eq!(request.headers()["upgrade"], "h2c");
                *answer.status_mut() = StatusCode::from_u16(code).unwrap();
                answer.extensions_mut().insert(OnUpgrade(2));
            }
            answer
        });
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let cache = Fixture::new(origin.clone());
            cache.get(A).await;
            let request = Request::builder().method(method).uri(A).header("upgrade", "h2c");
            let sent = cache.send(request.extension(OnUpgrade(1)).body(Full::from("x")).unwrap()).await;
            assert_eq!(sent.status(), code);
            assert_eq!(sent.extensions().get(), Some(&OnUpgrade(2)));
            drop(sent);
            let next = cache.get(A).await;
            assert_eq!(
                (next.word(), &next.body[..]),
                (if code == 200 { "miss" } else { "hit" }, &b"GET"[..])
            );
        }
    }
}

/// The parameter `stored` states a fact (RFC 9211 §2.5).
///
/// A body may still fail after its head was sent.
#[tokio::test]
async fn status_field_says_stored_only_when_stored() {
    let origin = Origin::new(|request| {
        let fields = [("cache-control", "max-age=60"), ("etag", "\"t\"")];
        match has_tag(request, "\"t\"") {
            true => not_modified(&fields),
            false => response(&fields, "v"),
        }
    });
    let storage = MemoryStorage::new();
    let cache = Fixture::with(origin, storage, |builder| builder.status_field("ours"));
    let dropped = cache.send(get(A)).await;
    assert_eq!(dropped.headers()["cache-status"], "ours; fwd=uri-miss; fwd-status=200; ttl=60");
    drop(dropped);
    assert_eq!(cache.get(A).await.word(), "miss", "a body that was not read is not stored");
    cache.clock.advance(Duration::from_secs(61));
    let confirmed = cache.get(A).await;
    assert_eq!(confirmed.header("cache-status"), Some("ours; fwd=stale; fwd-status=304; ttl=60; stored"));
}

#[tokio::test]
async fn status_field_is_added_when_configured() {
    let cache = Fixture::with(
        Origin::new(|_| response(&[("cache-control", "max-age=60")], "v")),
        MemoryStorage::new(),
        |builder| builder.status_field("ours"),
    );
    assert_eq!(cache.get(A).await.header("cache-status"), Some("ours; fwd=uri-miss; fwd-status=200; ttl=60"));
    assert_eq!(cache.get(A).await.header("cache-status"), Some("ours; hit; ttl=60"));
    let origin = Origin::new(|_| response(&[("cache-control", "no-store")], "v"));
    let storage = MemoryStorage::new();
    let cache = Fixture::with(origin, storage, |builder| builder.status_field("my \"cache\" é"));
    let status = cache.get(A).await;
    let expected = "\"my \\\"cache\\\" ?\"; fwd=uri-miss; fwd-status=200; detail=no-store";
    assert_eq!(status.header("cache-status"), Some(expected));
}

#[tokio::test]
async fn reserve_on_miss_stores_only_over_live_placeholder() {
    for (strict, minutes, evicts, word) in [
        (true, 8, false, "hit"),
        (true, 11, false, "miss"),
        (true, 8, true, "miss"),
        (false, 8, true, "hit"),
        (false, 11, false, "miss"),
    ] {
        let cache = Fixture::with(
            Origin::new(|_| response(&[("cache-control", "max-age=3600")], "v")),
            MemoryStorage::new(),
            |builder| builder.reserve_on_miss(strict),
        );
        let under_way = cache.send(get(A)).await;
        cache.clock.advance(Duration::from_secs(60 * minutes));
        cache.layer.handle().delete_expired().await.unwrap();
        if evicts {
            cache.layer.handle().clear().await.unwrap();
        }
        assert_eq!(&Answer::read(under_way).await.body[..], b"v");
        cache.layer.idle().await;
        assert_eq!(cache.get(A).await.word(), word, "{strict}, {minutes}, {evicts}");
    }
}
