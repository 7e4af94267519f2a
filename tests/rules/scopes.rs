//! How all requests of a task, or of a layer, use the cache.

use std::time::Duration;

use http::Request;
use tower_response_cache::storage::MemoryStorage;
use tower_response_cache::{CacheMode, CacheOptions, NotStored, Stored, scope};

use super::support::{Fixture, Origin, ReqBody, not_modified, response};

const URI: &str = "http://example.com/a";
const SECOND: Duration = Duration::from_secs(1);

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
async fn in_a_disabled_scope_the_cache_is_neither_asked_nor_filled() {
    let fixture = fixture();
    scope::disabled(async {
        assert_eq!(fixture.get(URI).await.word(), "bypass");
        // An inner scope lifts nothing.
        assert_eq!(scope::read_only(fixture.get(URI)).await.word(), "bypass");
        assert_eq!(scope::disabled(fixture.get(URI)).await.word(), "bypass");
        assert_eq!(fixture.get(URI).await.word(), "bypass");
    })
    .await;
    assert_eq!(fixture.get(URI).await.word(), "miss");
    assert_eq!(scope::disabled(fixture.get(URI)).await.word(), "bypass");
    assert_eq!(fixture.get(URI).await.word(), "hit");
    scope::disabled(fixture.ask(post())).await;
    assert_eq!(fixture.get(URI).await.word(), "miss", "what was made doubtful is not served");
}

#[tokio::test(start_paused = true)]
async fn a_scope_ends_with_its_future_also_when_that_is_dropped() {
    let fixture = fixture();
    let mut disabled = Box::pin(scope::disabled(async {
        fixture.get(URI).await;
        std::future::pending::<()>().await;
    }));
    assert!(futures_util::poll!(disabled.as_mut()).is_pending());
    // Beside it, while it waits.
    assert_eq!(fixture.get(URI).await.word(), "miss");
    drop(disabled);
    assert_eq!(fixture.get(URI).await.word(), "hit");
    // A task of its own is outside.
    let service = fixture.service.clone();
    scope::disabled(async {
        let task = tokio::spawn(tower::ServiceExt::oneshot(service, super::support::get(URI)));
        assert!(task.await.unwrap().unwrap().body().status().unwrap().is_hit());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_layer_is_off_until_the_last_guard_is_dropped() {
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
async fn who_only_reads_stores_and_freshens_nothing_and_takes_nothing_away() {
    let storage = MemoryStorage::new();
    let filler = Fixture::with(origin(), storage.clone(), |builder| builder);
    let reader = Fixture::with(origin(), storage, |builder| {
        builder.read_only().stale_while_revalidate(60 * SECOND).strict()
    });
    let answer = reader.get(URI).await;
    assert_eq!((answer.word(), answer.status.stored()), ("miss", Stored::No(NotStored::ReadOnly)));
    assert_eq!(filler.get(URI).await.word(), "miss");
    assert_eq!(reader.get(URI).await.word(), "hit");
    reader.clock.advance(11 * SECOND);
    // Nobody could keep what a refresh beside would bring.
    for _ in 0..2 {
        assert_eq!(reader.get(URI).await.word(), "revalidated");
    }
    let reload = Request::get(URI).extension(CacheOptions::new().mode(CacheMode::Reload));
    assert_eq!(reader.ask(reload.body(ReqBody::default()).unwrap()).await.word(), "miss");
    assert_eq!(filler.get(URI).await.word(), "hit");
    reader.ask(post()).await;
    assert_eq!(filler.get(URI).await.word(), "miss", "what was made doubtful is not served");
}

#[tokio::test(start_paused = true)]
async fn a_scope_that_only_reads_is_like_a_layer_that_does() {
    let fixture = fixture();
    let answer = scope::read_only(fixture.get(URI)).await;
    assert_eq!(answer.status.stored(), Stored::No(NotStored::ReadOnly));
    assert_eq!(fixture.get(URI).await.word(), "miss");
    assert_eq!(scope::read_only(fixture.get(URI)).await.word(), "hit");
}

#[tokio::test(start_paused = true)]
async fn offline_only_what_is_stored_answers() {
    let storage = MemoryStorage::new();
    let online = Fixture::with(origin(), storage.clone(), |builder| builder);
    let offline = Fixture::with(origin(), storage, |builder| builder.only_if_cached());
    assert_eq!(offline.get(URI).await.code, 504);
    assert_eq!(scope::only_if_cached(online.get(URI)).await.code, 504);
    online.get(URI).await;
    assert_eq!(offline.get(URI).await.word(), "hit");
    assert_eq!(scope::only_if_cached(online.get(URI)).await.word(), "hit");
    offline.clock.advance(11 * SECOND);
    assert_eq!(offline.get(URI).await.code, 504, "it is stale");
    let forced = Request::get(URI).extension(CacheOptions::new().mode(CacheMode::ForceCache));
    assert_eq!(offline.ask(forced.body(ReqBody::default()).unwrap()).await.word(), "stale");
    assert_eq!((offline.origin.count(), online.origin.count()), (0, 1));
}

#[tokio::test]
async fn inner_scope_lifts_no_outer_one() {
    let fixture = fixture();
    // The arguments are made first, outside of any scope.
    let answer = scope::only_if_cached(scope::read_only(fixture.get(URI))).await;
    assert_eq!((answer.code.as_u16(), fixture.origin.count()), (504, 0));
    let answer = scope::read_only(scope::only_if_cached(fixture.get(URI))).await;
    assert_eq!((answer.code.as_u16(), fixture.origin.count()), (504, 0));
    let answer = scope::read_only(scope::disabled(scope::read_only(fixture.get(URI)))).await;
    assert_eq!(answer.word(), "bypass");
    let answer = scope::disabled(scope::read_only(fixture.get(URI))).await;
    assert_eq!(answer.word(), "bypass");
    assert_eq!(scope::read_only(fixture.get(URI)).await.word(), "miss");
    assert_eq!(fixture.get(URI).await.word(), "miss", "nothing was stored");
}

#[tokio::test]
async fn moved_future_is_in_the_scope_that_polls_it() {
    let fixture = fixture();
    let mut asking = Box::pin(scope::read_only(async {
        let first = fixture.get(URI).await.word();
        tokio::task::yield_now().await;
        (first, fixture.get(URI).await.word())
    }));
    // Begun in one scope, ended outside of it.
    scope::disabled(async { assert!(futures_util::poll!(asking.as_mut()).is_pending()) }).await;
    assert_eq!(asking.await, ("bypass", "miss"));
}
