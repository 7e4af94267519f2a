//! What is kept: statuses, what a response forbids, filters, sizes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower_response_cache::storage::MemoryStorage;
use tower_response_cache::{CacheLayerBuilder, Forbidden, NotStored, Rule, Stored, Ttl};

use super::support::{Fixture, Origin, ReqBody, get, get_with, response};

const URI: &str = "http://example.com/a";

type Settings = fn(CacheLayerBuilder<MemoryStorage>) -> CacheLayerBuilder<MemoryStorage>;

fn answering(status: u16, fields: &'static [(&'static str, &'static str)], settings: Settings) -> Fixture {
    let origin = Origin::new(move |_| {
        let mut response = response(fields, "body");
        *response.status_mut() = status.try_into().unwrap();
        response
    });
    Fixture::with(origin, MemoryStorage::new(), settings)
}

#[tokio::test(start_paused = true)]
async fn statuses_are_stored_by_themselves_or_because_they_are_named() {
    let fresh: &[_] = &[("cache-control", "max-age=60")];
    let silent: &[_] = &[("x-nothing", "")];
    let minute = Duration::from_secs(60);
    let named: Settings = |builder| builder.statuses([200, 500]).default_ttl(Duration::from_secs(60));
    let by_rule: Settings = |builder| {
        builder.rule(Rule::new().statuses(500..=599).override_ttl(Duration::from_secs(60))).statuses([200])
    };
    let all: Settings = |builder| builder.override_ttl(Duration::from_secs(60));
    for (settings, status, fields, expected) in [
        (named, 200, silent, true),
        (named, 500, silent, true),
        (named, 500, fresh, true),
        (named, 404, fresh, false), // it is not on the list
        (named, 503, fresh, false),
        (by_rule, 503, silent, true),
        (by_rule, 404, fresh, false),
        (by_rule, 200, fresh, true),
        (all, 200, silent, true),
        (all, 404, silent, true),
        (all, 302, silent, false), // nothing says that it may be
        (all, 302, fresh, true),
        (all, 500, silent, false),
        (all, 206, fresh, false),
        (by_rule, 206, fresh, false),
    ] {
        let fixture = answering(status, fields, settings);
        let stored = fixture.get(URI).await.status.stored() == Stored::Storing;
        assert_eq!(stored, expected, "{status} {fields:?}");
        assert_eq!(fixture.get(URI).await.status.is_hit(), expected, "{status} {fields:?}");
        fixture.clock.advance(minute);
        assert!(!fixture.get(URI).await.status.is_hit());
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_response_forbids_is_stored_by_its_own_switch_alone() {
    let switches = [Forbidden::NoStore, Forbidden::Private, Forbidden::Authorization, Forbidden::VaryAny];
    let cases: [(Forbidden, &[_], &[_], NotStored); 4] = [
        (Forbidden::NoStore, &[("cache-control", "no-store")], &[], NotStored::ResponseNoStore),
        (Forbidden::Private, &[("cache-control", "private, max-age=60")], &[], NotStored::Private),
        (
            Forbidden::Authorization,
            &[("cache-control", "max-age=60")],
            &[("authorization", "a")],
            NotStored::Authorization,
        ),
        (Forbidden::VaryAny, &[("vary", "*"), ("cache-control", "max-age=60")], &[], NotStored::VaryAny),
    ];
    for (forbidden, fields, asked, reason) in cases {
        for switch in switches {
            let origin = Origin::new(move |_| response(fields, "body"));
            let fixture = Fixture::with(origin, MemoryStorage::new(), |builder| {
                builder.shared().store_despite(switch).override_ttl(Duration::from_secs(60))
            });
            let stored = fixture.ask(get_with(URI, asked)).await.status.stored();
            let expected = if switch == forbidden { Stored::Storing } else { Stored::No(reason) };
            assert_eq!(stored, expected, "{switch:?}");
            let word = fixture.ask(get_with(URI, asked)).await.word();
            assert_eq!(word, if switch == forbidden { "hit" } else { "miss" }, "{switch:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_despite_authorization_is_for_the_same_credentials_only() {
    let fixture = answering(200, &[("cache-control", "max-age=60")], |builder| {
        builder.shared().store_despite(Forbidden::Authorization)
    });
    for (who, expected) in [("a", "miss"), ("b", "miss"), ("a", "hit"), ("b", "hit")] {
        assert_eq!(fixture.ask(get_with(URI, &[("authorization", who)])).await.word(), expected, "{who}");
    }
    assert_eq!(fixture.get(URI).await.word(), "miss");
}

#[tokio::test(start_paused = true)]
async fn a_request_filter_keeps_requests_from_the_cache_and_invalidation_goes_on() {
    for waits in [false, true] {
        let origin = Origin::new(|_| response(&[("cache-control", "max-age=60")], "body"));
        let fixture = Fixture::with(origin, MemoryStorage::new(), |builder| match waits {
            false => builder.filter_request(|request| !request.headers.contains_key("x-live")),
            true => builder.filter_request_async(|request| {
                let is_live = request.headers.contains_key("x-live");
                async move {
                    tokio::task::yield_now().await;
                    !is_live
                }
            }),
        });
        let live = || get_with(URI, &[("x-live", "1")]);
        let words = [
            fixture.ask(live()).await,
            fixture.get(URI).await,
            fixture.ask(live()).await,
            fixture.get(URI).await,
        ];
        assert_eq!(words[0].status.stored(), Stored::No(NotStored::Bypassed));
        assert_eq!(words.map(|answer| answer.word()), ["bypass", "miss", "bypass", "hit"]);
        let post = Request::post(URI).header("x-live", "1").body(ReqBody::default()).unwrap();
        fixture.ask(post).await;
        assert_eq!(fixture.get(URI).await.word(), "miss");
    }
}

#[tokio::test(start_paused = true)]
async fn response_filters_add_up_and_see_the_request_too() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let origin = Origin::new(|request| {
        let kind = request.uri().path().trim_start_matches('/').to_owned();
        response(&[("cache-control", "max-age=60"), ("x-kind", &kind)], "body")
    });
    let fixture = Fixture::with(origin, MemoryStorage::new(), move |builder| {
        builder
            .filter_response(|_, response| response.headers["x-kind"] != "a")
            .filter_response(|request, _| request.uri.path() != "/b")
            .filter_response_async(move |_, response| {
                counter.fetch_add(1, Ordering::SeqCst);
                let kind = response.headers["x-kind"].clone();
                async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    kind != "c"
                }
            })
    });
    for (kind, is_kept) in [("a", false), ("b", false), ("c", false), ("d", true)] {
        let uri = format!("http://example.com/{kind}");
        let stored = fixture.get(&uri).await.status.stored();
        let expected = if is_kept { Stored::Storing } else { Stored::No(NotStored::Filtered) };
        assert_eq!(stored, expected, "{kind}");
        assert_eq!(fixture.get(&uri).await.status.is_hit(), is_kept, "{kind}");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 3, "who is refused already is not asked about");
}

#[tokio::test(start_paused = true)]
async fn short_bodies_pass_through_whether_they_announce_their_length_or_not() {
    for announces in [false, true] {
        let origin = Origin::new(move |request| {
            let len = request.uri().path()[1..].parse().unwrap();
            let builder = Response::builder().header("cache-control", "max-age=60");
            let builder = if announces { builder.header("content-length", len) } else { builder };
            builder.body(Full::from(Bytes::from(vec![b'x'; len]))).unwrap()
        });
        let fixture = Fixture::with(origin, MemoryStorage::new(), |builder| {
            builder.min_entry_bytes(5).max_entry_bytes(7).chunk_bytes(4)
        });
        for (len, expected) in [(0, false), (4, false), (5, true), (7, true), (8, false)] {
            let uri = format!("http://example.com/{len}");
            assert_eq!(fixture.get(&uri).await.body.len(), len);
            assert_eq!(fixture.get(&uri).await.status.is_hit(), expected, "{len} {announces}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_older_response_goes_when_a_newer_one_is_refused_and_stays_when_the_cache_only_reads() {
    let mut version = 0;
    let origin = Origin::new(move |_| {
        version += 1;
        response(&[("cache-control", "max-age=60"), ("etag", &format!("\"{version}\""))], "body")
    });
    let fixture = Fixture::with(origin, MemoryStorage::new(), |builder| builder);
    fixture.get(URI).await;
    fixture.layer.set_rules(fixture.layer.rules().override_ttl(Ttl::DoNotStore)).unwrap();
    let again = || get_with(URI, &[("cache-control", "no-cache")]);
    assert_eq!(fixture.ask(again()).await.status.stored(), Stored::No(NotStored::Rule));
    assert_eq!(fixture.ask(get(URI)).await.word(), "miss");
}
