//! Scopes and settings for all requests of a task or of a layer.

use std::time::Duration;

use futures_util::TryStreamExt;
use http::Request;
use tower_response_cache::storage::{BoxStorage, Key, MemoryStorage, Storage};
use tower_response_cache::{CacheLayerBuilder, CacheMode, CacheOptions, NotStored, Stored, scope};

use crate::support::{Fixture, Origin, ReqBody, not_modified, response};

const URI: &str = "http://example.com/a";
const SECOND: Duration = Duration::from_secs(1);

type Builder = CacheLayerBuilder<BoxStorage>;

fn origin() -> Origin {
    Origin::new(|request| {
        let fields = [("cache-control", "max-age=10"), ("etag", "\"a\"")];
        match request.headers().contains_key("if-none-match") {
            true => not_modified(&fields),
            false => response(&fields, "body"),
        }
    })
}

fn fixture() -> Fixture {
    Fixture::new(origin())
}

fn post() -> Request<ReqBody> {
    Request::post(URI).body(ReqBody::default()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn disabled_scope_bypasses_cache() {
    let fixture = fixture();
    scope::disabled(async {
        assert_eq!(fixture.get(URI).await.word(), "bypass");
        // An inner scope does not lift the outer one.
        assert_eq!(scope::read_only(fixture.get(URI)).await.word(), "bypass");
        assert_eq!(scope::disabled(fixture.get(URI)).await.word(), "bypass");
        assert_eq!(fixture.get(URI).await.word(), "bypass");
    })
    .await;
    assert_eq!(fixture.get(URI).await.word(), "miss");
    assert_eq!(scope::disabled(fixture.get(URI)).await.word(), "bypass");
    assert_eq!(fixture.get(URI).await.word(), "hit");
    scope::disabled(fixture.ask(post())).await;
    assert_eq!(fixture.get(URI).await.word(), "miss", "an invalidated response is not served");
}

#[tokio::test(start_paused = true)]
async fn scope_ends_with_its_future() {
    let fixture = fixture();
    let mut disabled = Box::pin(scope::disabled(async {
        fixture.get(URI).await;
        std::future::pending::<()>().await;
    }));
    assert!(futures_util::poll!(disabled.as_mut()).is_pending());
    // Outside the scope, while it is pending.
    assert_eq!(fixture.get(URI).await.word(), "miss");
    drop(disabled);
    assert_eq!(fixture.get(URI).await.word(), "hit");
    // A spawned task is outside the scope.
    let service = fixture.service.clone();
    scope::disabled(async {
        let task = tokio::spawn(tower::ServiceExt::oneshot(service, crate::support::get(URI)));
        assert!(task.await.unwrap().unwrap().body().status().unwrap().is_hit());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn layer_stays_disabled_until_last_guard_drops() {
    let fixture = fixture();
    let (one, other) = (fixture.layer.disable(), fixture.layer.clone().disable());
    assert_eq!(fixture.get(URI).await.word(), "bypass");
    drop(one);
    assert_eq!(fixture.get(URI).await.word(), "bypass");
    drop(other);
    assert_eq!(fixture.get(URI).await.word(), "miss");
    assert_eq!(fixture.get(URI).await.word(), "hit");
    let guarded = async {
        let _guard = fixture.layer.disable();
        std::future::pending::<()>().await;
    };
    assert!(tokio::time::timeout(SECOND, guarded).await.is_err());
    assert_eq!(fixture.get(URI).await.word(), "hit");
}

#[tokio::test(start_paused = true)]
async fn read_only_layer_leaves_storage_unchanged() {
    let storage = MemoryStorage::new();
    let filler = Fixture::with(origin(), storage.clone(), |builder| builder);
    let reader = Fixture::with(origin(), storage, |builder| {
        builder.read_only(true).stale_while_revalidate(60 * SECOND).reserve_on_miss(true)
    });
    let answer = reader.get(URI).await;
    assert_eq!((answer.word(), answer.status.stored()), ("miss", Stored::No(NotStored::ReadOnly)));
    assert_eq!(filler.get(URI).await.word(), "miss");
    assert_eq!(reader.get(URI).await.word(), "hit");
    reader.clock.advance(11 * SECOND);
    // A background refresh would be useless: its response cannot be stored.
    for _ in 0..2 {
        assert_eq!(reader.get(URI).await.word(), "revalidated");
    }
    let reload = Request::get(URI).extension(CacheOptions::new().mode(CacheMode::Reload));
    assert_eq!(reader.ask(reload.body(ReqBody::default()).unwrap()).await.word(), "miss");
    assert_eq!(filler.get(URI).await.word(), "hit");
    reader.ask(post()).await;
    assert_eq!(filler.get(URI).await.word(), "miss", "an invalidated response is not served");
}

#[tokio::test(start_paused = true)]
async fn read_only_scope_matches_read_only_layer() {
    let fixture = fixture();
    let answer = scope::read_only(fixture.get(URI)).await;
    assert_eq!(answer.status.stored(), Stored::No(NotStored::ReadOnly));
    assert_eq!(fixture.get(URI).await.word(), "miss");
    assert_eq!(scope::read_only(fixture.get(URI)).await.word(), "hit");
}

#[tokio::test(start_paused = true)]
async fn only_if_cached_serves_only_fresh_entries() {
    let storage = MemoryStorage::new();
    let online = Fixture::with(origin(), storage.clone(), |builder| builder);
    let offline = Fixture::with(origin(), storage, |builder| builder.only_if_cached(true));
    assert_eq!(offline.get(URI).await.code, 504);
    assert_eq!(scope::only_if_cached(online.get(URI)).await.code, 504);
    online.get(URI).await;
    assert_eq!(offline.get(URI).await.word(), "hit");
    assert_eq!(scope::only_if_cached(online.get(URI)).await.word(), "hit");
    offline.clock.advance(11 * SECOND);
    assert_eq!(offline.get(URI).await.code, 504, "a stale response is not served");
    let forced = Request::get(URI).extension(CacheOptions::new().mode(CacheMode::ForceCache));
    assert_eq!(offline.ask(forced.body(ReqBody::default()).unwrap()).await.word(), "stale");
    assert_eq!((offline.origin.count(), online.origin.count()), (0, 1));
}

/// A read-only cache changes no record, and serves no response known to be outdated.
///
/// Another cache fills the storage.
#[tokio::test]
async fn read_only_cache_serves_no_outdated_response() {
    let origin = Origin::new(|request| {
        let tag = if request.method() == "HEAD" { "\"b\"" } else { "\"a\"" };
        response(&[("cache-control", "max-age=60"), ("etag", tag), ("cache-groups", "\"g\"")], "body")
    });
    let store = MemoryStorage::new();
    let reading =
        Fixture::with(origin.clone(), store.clone(), |builder| builder.read_only(true).reserve_on_miss(true));
    reading.get(URI).await;
    let keys: Vec<Key> = store.keys().try_collect().await.unwrap();
    assert_eq!(keys, [], "a miss stores nothing");
    let filling = Fixture::with(origin, store.clone(), |builder| builder);
    filling.get(URI).await;
    assert_eq!(reading.get(URI).await.word(), "hit");
    let head = Request::head(URI).header("cache-control", "no-cache").body(ReqBody::default()).unwrap();
    reading.ask(head).await;
    assert_eq!(filling.get(URI).await.word(), "hit", "the record stays for other caches");
    assert_eq!(reading.get(URI).await.word(), "miss", "the origin has another version by now");
    filling.clock.advance(61 * SECOND);
    reading.clock.advance(61 * SECOND);
    filling.get(URI).await;
    assert_eq!(reading.get(URI).await.word(), "hit", "the other cache has stored a new response");
}

#[tokio::test]
async fn inner_scope_does_not_lift_outer_scope() {
    let fixture = fixture();
    // The inner scope is created first, outside of the outer scope.
    let answer = scope::only_if_cached(scope::read_only(fixture.get(URI))).await;
    assert_eq!((answer.code.as_u16(), fixture.origin.count()), (504, 0));
    let answer = scope::read_only(scope::only_if_cached(fixture.get(URI))).await;
    assert_eq!((answer.code.as_u16(), fixture.origin.count()), (504, 0));
    let answer = scope::read_only(scope::disabled(scope::read_only(fixture.get(URI)))).await;
    assert_eq!(answer.word(), "bypass");
    let answer = scope::disabled(scope::read_only(fixture.get(URI))).await;
    assert_eq!(answer.word(), "bypass");
    let answer = scope::disabled(scope::only_if_cached(fixture.get(URI))).await;
    assert_eq!(answer.word(), "bypass");
    let asked = fixture.origin.count();
    let answer = scope::only_if_cached(scope::disabled(fixture.get(URI))).await;
    assert_eq!((answer.code.as_u16(), fixture.origin.count()), (504, asked));
    assert_eq!(scope::read_only(fixture.get(URI)).await.word(), "miss");
    assert_eq!(fixture.get(URI).await.word(), "miss", "nothing was stored");
}

#[tokio::test]
async fn moved_future_uses_scope_of_poller() {
    let fixture = fixture();
    let mut asking = Box::pin(scope::read_only(async {
        let first = fixture.get(URI).await.word();
        tokio::task::yield_now().await;
        (first, fixture.get(URI).await.word())
    }));
    // The future is first polled inside a scope, and then outside of it.
    scope::disabled(async { assert!(futures_util::poll!(asking.as_mut()).is_pending()) }).await;
    assert_eq!(asking.await, ("bypass", "miss"));
}

/// Returns a cache over an origin whose POST responses may answer later GETs.
///
/// Their Content-Location is the URI of the request (RFC 9110 §9.3.3).
fn of_posts(settings: impl FnOnce(Builder) -> Builder) -> Fixture {
    let fields = [("cache-control", "max-age=60"), ("content-location", "/a")];
    Fixture::with(Origin::new(move |_| response(&fields, "of the post")), MemoryStorage::new(), settings)
}

#[tokio::test]
async fn bypassed_post_is_not_stored() {
    let no_store = || {
        Request::post(URI).extension(CacheOptions::new().mode(CacheMode::NoStore)).body(ReqBody::default())
    };
    let plain = of_posts(|builder| builder);
    scope::disabled(plain.ask(post())).await;
    assert_eq!(plain.get(URI).await.word(), "miss");
    let plain = of_posts(|builder| builder);
    plain.ask(no_store().unwrap()).await;
    assert_eq!(plain.get(URI).await.word(), "miss");
    let plain = of_posts(|builder| builder);
    let guard = plain.layer.disable();
    plain.ask(post()).await;
    drop(guard);
    assert_eq!(plain.get(URI).await.word(), "miss");
    let is_get = |request: &http::request::Parts| request.method == http::Method::GET;
    let filtered = of_posts(|builder| builder.filter_request(is_get));
    filtered.ask(post()).await;
    assert_eq!(filtered.get(URI).await.word(), "miss");
    let filtered =
        of_posts(|builder| builder.filter_request_async(move |request| std::future::ready(is_get(request))));
    filtered.ask(post()).await;
    assert_eq!(filtered.get(URI).await.word(), "miss");
    // The user made POST cacheable, but the filter excludes it.
    #[cfg(feature = "content-keys")]
    {
        let methods = [http::Method::GET, http::Method::POST];
        let filtered = of_posts(|builder| {
            let builder = builder.methods(methods);
            builder.filter_request_async(move |request| std::future::ready(is_get(request)))
        });
        filtered.ask(post()).await;
        assert_eq!(filtered.get(URI).await.word(), "miss");
    }
    let plain = of_posts(|builder| builder);
    plain.ask(post()).await;
    assert_eq!(plain.get(URI).await.word(), "hit");
}

#[tokio::test]
async fn only_if_cached_refuses_bypassing_requests() {
    let passes = |uri: &str, name: &str, value: &str| {
        Request::get(uri).header(name, value).body(ReqBody::default()).unwrap()
    };
    let requests = || {
        let mode = |mode| CacheOptions::new().mode(mode);
        vec![
            passes(URI, "if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT"),
            passes(URI, "if-match", "\"a\""),
            passes(URI, "upgrade", "websocket"),
            passes(URI, "content-length", "1"),
            passes("/without-a-host", "accept", "*/*"),
            passes("http://example.com/left-out", "accept", "*/*"),
            passes("http://example.com/left-out-later", "accept", "*/*"),
            Request::get(URI).extension(mode(CacheMode::NoStore)).body(ReqBody::default()).unwrap(),
            Request::get(URI).body(ReqBody::from("content")).unwrap(),
            Request::options(URI).body(ReqBody::default()).unwrap(),
        ]
    };
    let settings = |builder: Builder| {
        let builder = builder.filter_request(|request| request.uri.path() != "/left-out");
        builder.filter_request_async(|request| std::future::ready(request.uri.path() != "/left-out-later"))
    };
    let layer =
        Fixture::with(origin(), MemoryStorage::new(), |builder| settings(builder).only_if_cached(true));
    let plain = Fixture::with(origin(), MemoryStorage::new(), settings);
    for request in requests() {
        let shown = format!("{request:?}");
        assert_eq!(layer.ask(request.clone()).await.code, 504, "{shown}");
        let answer = scope::only_if_cached(plain.ask(request)).await;
        assert_eq!((answer.code.as_u16(), answer.word()), (504, "refused"), "{shown}");
    }
    for mut request in requests() {
        let mode = request.extensions_mut().remove::<CacheOptions>().unwrap_or_default();
        request.extensions_mut().insert(mode.mode(CacheMode::OnlyIfCached));
        assert_eq!(plain.ask(request).await.code, 504);
    }
    assert_eq!((layer.origin.count(), plain.origin.count()), (0, 0));
    // An unsafe request reaches the origin nevertheless.
    assert_eq!(layer.ask(post()).await.code, 200);
    assert_eq!(scope::only_if_cached(plain.ask(post())).await.code, 200);
}

#[tokio::test(start_paused = true)]
async fn only_if_cached_makes_no_refresh() {
    let origin =
        || Origin::new(|_| response(&[("cache-control", "max-age=100, stale-while-revalidate=600")], "body"));
    let storage = MemoryStorage::new();
    let online = Fixture::with(origin(), storage.clone(), |builder| builder.refresh_early(SECOND));
    let offline =
        Fixture::with(origin(), storage, |builder| builder.refresh_early(50 * SECOND).only_if_cached(true));
    online.get(URI).await;
    for passed in [99, 1, 20] {
        offline.clock.advance(passed * SECOND);
        online.clock.advance(passed * SECOND);
        for _ in 0..20 {
            assert!(offline.get(URI).await.status.is_hit());
            assert!(scope::only_if_cached(online.get(URI)).await.status.is_hit());
        }
    }
    offline.layer.idle().await;
    online.layer.idle().await;
    assert_eq!((offline.origin.count(), online.origin.count()), (0, 1));
}
