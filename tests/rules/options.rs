//! Options of one request.

use std::time::Duration;

use http::{Request, Response};
use tower_response_cache::storage::MemoryStorage;
use tower_response_cache::{CacheMode, CacheOptions};

use crate::support::{Answer, Fixture, Origin, ReqBody, get, not_modified, response};

const URI: &str = "http://example.com/a";
const SECOND: Duration = Duration::from_secs(1);

fn with(options: CacheOptions) -> Request<ReqBody> {
    Request::get(URI).extension(options).body(ReqBody::default()).unwrap()
}

/// Returns a cache over an origin that counts its full responses in the body.
///
/// The origin answers every request with If-None-Match by 304.
fn fixture(control: &'static str) -> Fixture {
    let mut version = 0;
    let origin = Origin::new(move |request| {
        if request.headers().contains_key("if-none-match") {
            return not_modified(&[("etag", "\"a\""), ("cache-control", control)]);
        }
        version += 1;
        response(&[("etag", "\"a\""), ("cache-control", control)], format!("{version}"))
    });
    Fixture::with(origin, MemoryStorage::new(), |builder| builder)
}

fn summary(answer: &Answer) -> (&'static str, &str) {
    (answer.word(), std::str::from_utf8(&answer.body).unwrap())
}

#[tokio::test(start_paused = true)]
async fn fetch_modes_handle_absent_fresh_and_stale() {
    use CacheMode::*;
    // The outcome of each mode when no response, a fresh one or a stale one is stored, and the outcome of a plain GET after
    // the stale case.
    for (mode, absent, fresh, stale, afterwards) in [
        (Default, ("miss", "1"), ("hit", "1"), ("revalidated", "1"), "hit"),
        (NoStore, ("bypass", "1"), ("bypass", "2"), ("bypass", "2"), "revalidated"),
        (Reload, ("miss", "1"), ("miss", "2"), ("miss", "2"), "hit"),
        (NoCache, ("miss", "1"), ("revalidated", "1"), ("revalidated", "1"), "hit"),
        (ForceCache, ("miss", "1"), ("hit", "1"), ("stale", "1"), "revalidated"),
        (OnlyIfCached, ("refused", ""), ("hit", "1"), ("stale", "1"), "revalidated"),
    ] {
        let options = || CacheOptions::new().mode(mode);
        let empty = fixture("max-age=10");
        assert_eq!(summary(&empty.ask(with(options())).await), absent, "{mode:?}");
        let is_stored = !matches!(mode, NoStore | OnlyIfCached);
        assert_eq!(empty.get(URI).await.word() == "hit", is_stored, "{mode:?}");
        for (age, expected) in [(5, fresh), (15, stale)] {
            let fixture = fixture("max-age=10");
            fixture.get(URI).await;
            fixture.clock.advance(age * SECOND);
            assert_eq!(summary(&fixture.ask(with(options())).await), expected, "{mode:?} {age}");
            let after = fixture.get(URI).await.word();
            assert_eq!(after, if age == 5 { "hit" } else { afterwards }, "{mode:?} {age}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn fetch_modes_set_upstream_cache_control() {
    for (mode, control, pragma) in [
        (CacheMode::Default, None, None),
        (CacheMode::NoStore, Some("no-cache"), Some("no-cache")),
        (CacheMode::Reload, Some("no-cache"), Some("no-cache")),
        (CacheMode::NoCache, Some("max-age=0"), None),
        (CacheMode::ForceCache, None, None),
    ] {
        let fixture = fixture("max-age=10");
        fixture.ask(with(CacheOptions::new().mode(mode))).await;
        let asked = fixture.origin.last();
        let field = |name| asked.get(name).map(|value| value.to_str().unwrap());
        assert_eq!((field("cache-control"), field("pragma")), (control, pragma), "{mode:?}");
    }
    // The caller's own Cache-Control is kept.
    let fixture = fixture("max-age=10");
    let mut request = with(CacheOptions::new().mode(CacheMode::Reload));
    request.headers_mut().insert("cache-control", "x=1".parse().unwrap());
    fixture.ask(request).await;
    assert_eq!(fixture.origin.last()["cache-control"], "x=1");
}

#[tokio::test(start_paused = true)]
async fn force_cache_serves_must_revalidate_response() {
    for control in ["no-cache", "max-age=0, must-revalidate"] {
        let fixture = fixture(control);
        fixture.get(URI).await;
        fixture.clock.advance(60 * SECOND);
        let forced = fixture.ask(with(CacheOptions::new().mode(CacheMode::ForceCache))).await;
        assert_eq!(summary(&forced), ("stale", "1"), "{control}");
        assert!(forced.status.to_string().contains("detail=force-cache"));
    }
}

#[tokio::test(start_paused = true)]
async fn no_store_option_keeps_response_unstored() {
    let fixture = fixture("max-age=10");
    assert_eq!(fixture.ask(with(CacheOptions::new().no_store(true))).await.word(), "miss");
    assert_eq!(fixture.get(URI).await.word(), "miss");
    assert_eq!(fixture.ask(with(CacheOptions::new().no_store(true))).await.word(), "hit");
}

#[tokio::test(start_paused = true)]
async fn request_key_applies_to_lookup_and_invalidation() {
    let fixture = fixture("max-age=10");
    let keyed = |method: &str, uri: &str, key: &str| {
        let request = Request::builder().method(method).uri(uri).extension(CacheOptions::new().key(key));
        request.body(ReqBody::default()).unwrap()
    };
    let other = "http://example.com/other";
    assert_eq!(fixture.ask(keyed("GET", URI, "one")).await.word(), "miss");
    assert_eq!(summary(&fixture.ask(keyed("GET", other, "one")).await), ("hit", "1"));
    assert_eq!(fixture.get(URI).await.word(), "miss");
    assert_eq!(fixture.ask(keyed("GET", URI, "two")).await.word(), "miss");
    // A key of the user is not a URI, even if it looks like one.
    assert_eq!(fixture.ask(keyed("GET", other, URI)).await.word(), "miss");
    fixture.ask(keyed("POST", URI, "one")).await;
    assert_eq!(fixture.ask(keyed("GET", other, "one")).await.word(), "miss");
    assert_eq!(fixture.ask(keyed("GET", other, "two")).await.word(), "hit");
    assert_eq!(fixture.get(URI).await.word(), "hit");
}

#[tokio::test(start_paused = true)]
async fn request_stale_limits_override_layer_settings() {
    let fails = |stale| {
        let mut calls = 0;
        let origin = Origin::new(move |_| {
            calls += 1;
            match calls {
                1 => response(&[("cache-control", "max-age=10")], "body"),
                _ => Response::builder().status(503).body(Default::default()).unwrap(),
            }
        });
        let fixture =
            Fixture::with(origin, MemoryStorage::new(), |builder| builder.stale_if_error(stale * SECOND));
        async move {
            fixture.get(URI).await;
            fixture.clock.advance(15 * SECOND);
            fixture
        }
    };
    let most = |options| async move {
        let fixture = fails(1).await;
        let layer_keeps = fails(60).await; // with a short limit, the storage may have dropped it
        assert_eq!(fixture.get(URI).await.code, 503);
        layer_keeps.ask(with(options)).await
    };
    let options = CacheOptions::new;
    assert_eq!(most(options().max_stale(5 * SECOND)).await.word(), "stale");
    assert_eq!(most(options().max_stale(4 * SECOND).mode(CacheMode::NoCache)).await.code, 503);
    let stale = most(options().stale_while_revalidate(5 * SECOND)).await;
    assert_eq!((stale.word(), stale.status.to_string().contains("stale-while-revalidate")), ("stale", true));
    let shorter = most(options().stale_while_revalidate(4 * SECOND)).await;
    assert!(shorter.status.to_string().contains("stale-if-error"));
}

#[tokio::test(start_paused = true)]
async fn ignored_request_directives_leave_options_in_force() {
    let origin = Origin::new(|_| response(&[("cache-control", "max-age=10")], "body"));
    let fixture =
        Fixture::with(origin, MemoryStorage::new(), |builder| builder.ignore_request_directives(true));
    let says =
        |name: &str, value: &str| Request::get(URI).header(name, value).body(ReqBody::default()).unwrap();
    assert_eq!(fixture.ask(says("cache-control", "no-store")).await.word(), "miss");
    for value in ["no-cache", "max-age=0", "no-store", "min-fresh=100"] {
        assert_eq!(fixture.ask(says("cache-control", value)).await.word(), "hit", "{value}");
    }
    assert_eq!(fixture.ask(says("pragma", "no-cache")).await.word(), "hit");
    assert_eq!(fixture.ask(with(CacheOptions::new().mode(CacheMode::Reload))).await.word(), "miss");
    fixture.clock.advance(15 * SECOND);
    assert_eq!(fixture.ask(says("cache-control", "only-if-cached, max-stale")).await.word(), "miss");
    assert_eq!(fixture.origin.last()["cache-control"], "only-if-cached, max-stale");
}

#[tokio::test(start_paused = true)]
async fn concurrent_requests_keep_their_own_options() {
    let fixture = fixture("max-age=10");
    let (one, other, plain) = tokio::join!(
        fixture.ask(with(CacheOptions::new().mode(CacheMode::Reload))),
        fixture.ask(with(CacheOptions::new().mode(CacheMode::Reload))),
        fixture.ask(get(URI)),
    );
    assert!([&one, &other, &plain].iter().all(|answer| answer.word() == "miss" || answer.word() == "hit"));
    assert!(!one.status.is_collapsed() && !other.status.is_collapsed());
}
