//! Spans and events, and the secrets that they never contain.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::sync::Semaphore;
use tower_response_cache::storage::{Key, MemoryStorage, Record, Storage};
use tower_response_cache::{CacheLayer, EntryFilter, Timestamp};

use crate::listener::Listener;
use crate::support::faulty::{Faulty, Mode};
use crate::support::{Fixture, Origin, get, get_with, has_tag, not_modified, response};

const A: &str = "http://example.com/a";

fn post(uri: &str) -> Request<Full<Bytes>> {
    Request::post(uri).body(Full::from("x")).unwrap()
}

#[tokio::test]
async fn answered_event_reports_outcome_and_reason() {
    let (listener, _guard) = Listener::new();
    let cache = Fixture::new(Origin::new(|request| match request.uri().path() {
        "/a" => response(&[("cache-control", "max-age=60")], "a"),
        _ => response(&[("cache-control", "no-store")], "b"),
    }));
    cache.get(A).await;
    let miss = listener.last("answered");
    let words = |recorded: &crate::listener::Recorded| {
        ["outcome", "reason", "stored"].map(|name| recorded.field(name).unwrap().to_owned())
    };
    assert_eq!(words(&miss), ["miss", "absent", "storing"]);
    assert_eq!((miss.field("ttl"), miss.field("collapsed")), (Some("60"), Some("false")));
    let span = listener.last("http_cache");
    assert_eq!(words(&span), ["miss", "absent", "storing"]);
    let place = ["method", "host", "path", "background"].map(|name| span.field(name).unwrap());
    assert_eq!(place, ["GET", "example.com", "/a", "false"]);
    assert!(miss.within.is_some());

    cache.clock.advance(Duration::from_secs(7));
    cache.get(A).await;
    let hit = listener.last("answered");
    assert_eq!(words(&hit), ["hit", "none", "unchanged"]);
    assert_eq!((hit.field("age"), hit.field("ttl"), hit.within), (Some("7"), Some("53"), None));
    assert_eq!(listener.all("http_cache").len(), 1, "a hit has no span");

    cache.get("http://example.com/b").await;
    assert_eq!(words(&listener.last("answered")), ["miss", "absent", "no-store"]);
    assert_eq!(words(&listener.last("http_cache"))[2], "no-store");
}

#[tokio::test]
async fn invalidated_event_reports_cause_and_uri() {
    let (listener, _guard) = Listener::new();
    let cache = Fixture::new(Origin::new(|request| match *request.method() {
        http::Method::POST => response(&[("location", "/b?token=1")], ""),
        _ => response(&[("cache-control", "max-age=60")], "a"),
    }));
    cache.get(A).await;
    cache.ask(post(A)).await;
    let recorded = listener.all("invalidated");
    let places: Vec<_> = recorded
        .iter()
        .map(|recorded| ["cause", "host", "path"].map(|name| recorded.field(name).unwrap()))
        .collect();
    assert_eq!(places, [["method", "example.com", "/a"], ["method", "example.com", "/b"]]);
    assert_eq!(listener.last("answered").field("reason"), Some("method"));
}

#[tokio::test]
async fn dropped_body_emits_not_stored_event() {
    let (listener, _guard) = Listener::new();
    let cache =
        Fixture::new(Origin::always(http::Response::builder().header("cache-control", "max-age=9"), "a"));
    drop(cache.send(get(A)).await);
    assert_eq!(listener.last("not stored").field("reason"), Some("incomplete"));
}

#[tokio::test]
async fn refresh_emits_begin_and_end_events() {
    let (listener, _guard) = Listener::new();
    let fields = [("cache-control", "max-age=10, stale-while-revalidate=60"), ("etag", "\"v1\"")];
    let cache = Fixture::new(Origin::new(move |request| match has_tag(request, "\"v1\"") {
        true => not_modified(&fields),
        false => response(&fields, "a"),
    }));
    cache.get(A).await;
    cache.clock.advance(Duration::from_secs(11));
    assert_eq!(cache.get(A).await.word(), "stale");
    cache.layer.idle().await;
    assert_eq!(listener.all("a background refresh began").len(), 1);
    assert_eq!(listener.last("a background refresh ended").field("result"), Some("done"));
    let span = listener.last("http_cache");
    assert_eq!(span.field("background"), Some("true"));
    assert_eq!(span.field("outcome"), Some("revalidated"));
}

#[tokio::test]
async fn fetch_driven_by_follower_keeps_leader_span() {
    let (listener, _guard) = Listener::new();
    let gate = Arc::new(Semaphore::new(0));
    let origin = {
        let gate = Arc::clone(&gate);
        tower::service_fn(move |_: Request<Full<Bytes>>| {
            let gate = Arc::clone(&gate);
            async move {
                let _turn = gate.acquire_owned().await;
                tracing::debug!(target: "tower_response_cache_test", "the origin answers");
                Ok::<_, std::io::Error>(response(&[("cache-control", "max-age=60")], "a"))
            }
        })
    };
    let service = tower::Layer::layer(&CacheLayer::new(MemoryStorage::new()), origin);
    let mut leader = std::pin::pin!(tower::ServiceExt::oneshot(service.clone(), get(A)));
    assert!(futures_util::poll!(leader.as_mut()).is_pending());
    let mut follower = std::pin::pin!(tower::ServiceExt::oneshot(service, get(A)));
    assert!(futures_util::poll!(follower.as_mut()).is_pending());
    gate.add_permits(1);
    follower.await.unwrap(); // the leader is not polled
    let spans = listener.all("http_cache");
    assert_eq!((spans.len(), listener.last("the origin answers").within), (2, spans[0].span));
    assert_eq!(spans[0].field("outcome"), None, "the leader was not polled yet");
    leader.await.unwrap();
    assert_eq!(listener.all("http_cache")[0].field("outcome"), Some("miss"));
}

#[tokio::test]
async fn breaker_and_evictions_emit_events() {
    let (listener, _guard) = Listener::new();
    let storage = Faulty::new(Mode::Failing);
    let origin = Origin::always(http::Response::builder(), "a");
    let cache = Fixture::with(origin, storage.clone(), |builder| builder);
    for _ in 0..5 {
        cache.get(A).await;
    }
    listener.last("the storage keeps failing: requests go on without it");
    storage.set(Mode::Well);
    cache.clock.advance(Duration::from_secs(3));
    cache.get(A).await;
    listener.last("the storage answers again");

    let bounded = MemoryStorage::builder().max_bytes(64 * 1024).build();
    for number in 0..64 {
        let record = Record::new(vec![0_u8; 4096], Timestamp::NEVER);
        bounded.write(Key::head([number; 16]), record).await.unwrap();
    }
    let entries: u64 = listener
        .all("evicted")
        .iter()
        .map(|recorded| recorded.field("entries").unwrap().parse::<u64>().unwrap())
        .sum();
    assert_eq!(
        (64 - bounded.size().await.unwrap(), listener.last("evicted").field("storage")),
        (entries, Some("memory"))
    );
}

#[tokio::test]
async fn spans_and_events_contain_no_secrets() {
    let (listener, _guard) = Listener::new();
    let storage = Faulty::new(Mode::Well);
    let origin = Origin::new(|request| match request.method().as_str() {
        "POST" => response(&[("content-location", "http://s3cret:s3cret@example.com/c?s3cret")], ""),
        _ if request.uri().path() == "/b" => response(&[("cache-control", "no-store")], "b"),
        _ => response(
            &[("cache-control", "max-age=9"), ("set-cookie", "s3cret"), ("etag", "\"s3cret\"")],
            "s3cret",
        ),
    });
    let cache = Fixture::with(origin.clone(), storage.clone(), |builder| builder);
    let fields = [("authorization", "Bearer s3cret"), ("cookie", "id=s3cret"), ("x-key", "s3cret")];
    let ask = async |path: &str| {
        cache.ask(get_with(&format!("http://user:s3cret@example.com{path}?q=s3cret#s3cret"), &fields)).await;
    };
    for path in ["/a", "/a", "/b", ""] {
        ask(path).await;
    }
    cache.clock.advance(Duration::from_secs(20));
    ask("/a").await;
    cache.ask(post("http://user:s3cret@example.com/a?s3cret")).await;
    drop(cache.send(get("http://example.com/d?s3cret")).await);
    cache.ask(Request::options("http://example.com/o?s3cret").body(Full::default()).unwrap()).await;
    storage.set(Mode::Failing);
    for _ in 0..6 {
        ask("/a").await;
    }
    cache.layer.idle().await;

    let replay = CacheLayer::builder(MemoryStorage::new()).replay(true).build().unwrap();
    let service = tower::Layer::layer(&replay, origin);
    tower::ServiceExt::oneshot(service, get("http://user:s3cret@example.com/a?s3cret")).await.unwrap();
    listener.last("not among the recorded responses: the answer names it");

    for name in ["http_cache", "answered", "invalidated", "not stored", "a storage operation failed"] {
        assert!(!listener.all(name).is_empty(), "{name}");
    }
    assert!(!listener.text().contains("s3cret"), "{}", listener.text());
}

/// A key from `key_fn` may be a secret, and is not a path.
#[tokio::test]
async fn events_never_contain_custom_keys() {
    let (listener, _guard) = Listener::new();
    let cache = Fixture::with(
        Origin::new(|_| response(&[("cache-control", "max-age=60")], "a")),
        MemoryStorage::new(),
        |builder| builder.key_fn(|request| request.uri.query().map(str::to_owned)),
    );
    for _ in 0..2 {
        cache.get("http://example.com/a?s3cret").await;
        cache.layer.handle().delete_matching(&EntryFilter::new()).await.unwrap();
        cache.layer.handle().delete_url("cache-key:///s3cret").await.unwrap();
    }
    assert_eq!(listener.all("invalidated").len(), 4);
    assert!(!listener.text().contains("s3cret"), "{}", listener.text());
}

#[tokio::test]
async fn excess_groups_emit_one_event_per_field() {
    let (listener, _guard) = Listener::new();
    let names = (0..200).map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(", ");
    let cache = Fixture::new(Origin::new(move |request| match request.method().as_str() {
        "POST" => response(&[("cache-group-invalidation", &names)], ""),
        _ => response(&[("cache-control", "max-age=60"), ("cache-groups", &names)], "a"),
    }));
    cache.get(A).await;
    cache.ask(post(A)).await;
    let recorded = listener.all("too many groups are named");
    let fields: Vec<_> = recorded
        .iter()
        .map(|recorded| ["field", "used", "ignored"].map(|name| recorded.field(name).unwrap()))
        .collect();
    assert_eq!(fields, [["cache-groups", "128", "72"], ["cache-group-invalidation", "128", "72"]]);
}

#[tokio::test]
async fn failed_operation_event_reports_name_and_error() {
    let (listener, _guard) = Listener::new();
    let storage = Faulty::new(Mode::Well);
    let origin = Origin::always(http::Response::builder().header("cache-control", "max-age=60"), "a");
    let cache = Fixture::with(origin, storage.clone(), |builder| builder);
    storage.set(Mode::FailingWrites);
    cache.get(A).await;
    for name in ["a storage operation failed", "not stored"] {
        let recorded = listener.last(name);
        assert_eq!(
            (recorded.field("operation"), recorded.field("error")),
            (Some("write_if"), Some("scripted")),
            "{name}"
        );
    }
    assert_eq!(listener.last("not stored").field("reason"), Some("storage-failed"));
    assert_eq!(cache.layer.statistics().storage_failures(), 1);
}

#[tokio::test]
async fn repeated_storage_failures_are_logged_rarely() {
    let (listener, _guard) = Listener::new();
    let storage = Faulty::new(Mode::Well);
    let origin = Origin::always(http::Response::builder().header("cache-control", "max-age=60"), "a");
    let cache = Fixture::with(origin, storage.clone(), |builder| builder);
    for round in 0..100 {
        storage.set(Mode::FailingWrites);
        for number in 0..6 {
            cache.get(&format!("http://example.com/{round}/{number}")).await;
        }
        storage.set(Mode::Well);
        cache.clock.advance(Duration::from_secs(3));
        cache.get(&format!("http://example.com/{round}/well")).await;
    }
    let recorded = listener.all("the storage keeps failing: requests go on without it");
    assert!((9..=11).contains(&recorded.len()), "{} in 300 seconds", recorded.len());
    assert_eq!(listener.all("the storage answers again").len(), recorded.len());
    let unreported: u64 =
        recorded.iter().map(|recorded| recorded.field("unreported").unwrap().parse::<u64>().unwrap()).sum();
    assert!((75..=91).contains(&unreported), "{unreported}");
    assert_eq!(
        (recorded[0].field("what"), recorded[0].field("operation")),
        (Some("writes"), Some("write_if"))
    );
}

#[tokio::test]
async fn misconfigured_bypass_warns_once_per_layer_and_reason() {
    use http_body_util::BodyExt;
    use http_body_util::combinators::UnsyncBoxBody;
    use tower::{Layer, ServiceExt};
    type Body = UnsyncBoxBody<Bytes, std::io::Error>;

    let (listener, _guard) = Listener::new();
    let origin = tower::service_fn(|_: Request<Body>| async {
        Ok::<_, std::io::Error>(response(&[("cache-control", "max-age=60")], "a"))
    });
    let empty = || Body::new(Full::default().map_err(|never: std::convert::Infallible| match never {}));
    let stream = || {
        let frames = futures_util::stream::iter([Ok(http_body::Frame::data(Bytes::new()))]);
        Body::new(http_body_util::StreamBody::new(frames))
    };
    for layers in 1..=2 {
        let layer = CacheLayer::builder(MemoryStorage::new()).status_field("c").build().unwrap();
        let service = layer.layer(origin);
        for (uri, body, word) in [
            ("/x", empty(), "no-host"),
            ("/y", empty(), "no-host"),
            (A, stream(), "unknown-body"),
            (A, stream(), "unknown-body"),
        ] {
            let answer = service.clone().oneshot(Request::get(uri).body(body).unwrap()).await.unwrap();
            let expected = format!("c; fwd=bypass; fwd-status=200; detail={word}");
            assert_eq!(answer.headers()["cache-status"], expected);
            assert_eq!(listener.last("answered").field("reason"), Some(word));
        }
        // An upgrade is the client's choice, not a misconfiguration.
        let upgrade = Request::get(A).header("upgrade", "h2c").body(empty()).unwrap();
        service.clone().oneshot(upgrade).await.unwrap();
        let warned = listener.all("requests pass the cache by");
        let recorded: Vec<_> = warned
            .iter()
            .map(|recorded| (recorded.field("reason").unwrap(), recorded.field("advice").is_some()))
            .collect();
        let once = ["no-host", "unknown-body"].map(|word| (word, true));
        assert_eq!(recorded, once.repeat(layers));
        assert_eq!(layer.statistics().bypassed(), 5);
        assert_eq!(layer.statistics().bypassed_by(tower_response_cache::BypassReason::NoHost), 2);
    }
}

#[tokio::test]
async fn permanent_storage_failure_is_logged_again() {
    let (listener, _guard) = Listener::new();
    let storage = Faulty::new(Mode::Well);
    let origin = Origin::always(http::Response::builder().header("cache-control", "max-age=60"), "a");
    let cache = Fixture::with(origin, storage.clone(), |builder| builder);
    let fail = async |round: u32| {
        storage.set(Mode::FailingWrites);
        for number in 0..6 {
            cache.get(&format!("http://example.com/{round}/{number}")).await;
        }
    };
    fail(0).await;
    storage.set(Mode::Well);
    cache.clock.advance(Duration::from_secs(3));
    cache.get(A).await;
    // The storage fails again too soon for another event, and this time permanently.
    let name = "the storage keeps failing: requests go on without it";
    for round in 1..20 {
        fail(round).await;
        cache.clock.advance(Duration::from_secs(3));
    }
    let recorded = listener.all(name);
    assert_eq!(recorded.len(), 2, "the last event says that the storage fails");
    assert_eq!(recorded[1].field("unreported"), Some("0"));
    assert_eq!(listener.all("the storage answers again").len(), 1);
}

#[tokio::test]
async fn superseded_write_is_not_a_failure() {
    let (listener, _guard) = Listener::new();
    let origin = Origin::always(http::Response::builder().header("cache-control", "max-age=60"), "a");
    let cache = Fixture::with(origin.clone(), MemoryStorage::new(), |builder| builder);
    let other = Fixture::with(origin, cache.layer.storage().clone(), |builder| builder);
    let begun = tower::ServiceExt::oneshot(cache.service.clone(), get(A)).await.unwrap();
    other.get(A).await;
    crate::support::Answer::read(begun).await;
    assert_eq!(listener.last("not stored").field("reason"), Some("superseded"));
    assert!(listener.all("a storage operation failed").is_empty());
    let statistics = cache.layer.statistics();
    assert_eq!((statistics.superseded(), statistics.storage_failures()), (1, 0));
}
