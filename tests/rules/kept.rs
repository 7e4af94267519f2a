//! Which responses are stored.
//!
//! The tests cover statuses, restrictions of the response, filters and sizes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower_response_cache::storage::{BoxStorage, MemoryStorage};
use tower_response_cache::{CacheLayerBuilder, Forbidden, NotStored, Rule, Rules, Stored, Ttl};

use crate::support::{Fixture, Origin, ReqBody, get, get_with, not_modified, response};

const URI: &str = "http://example.com/a";

type Settings = fn(CacheLayerBuilder<BoxStorage>) -> CacheLayerBuilder<BoxStorage>;

fn answering(status: u16, fields: &'static [(&'static str, &'static str)], settings: Settings) -> Fixture {
    let origin = Origin::new(move |_| {
        let mut response = response(fields, "body");
        *response.status_mut() = status.try_into().unwrap();
        response
    });
    Fixture::with(origin, MemoryStorage::new(), settings)
}

#[tokio::test(start_paused = true)]
async fn default_and_listed_statuses_are_stored() {
    let fresh: &[_] = &[("cache-control", "max-age=60")];
    let silent: &[_] = &[("x-nothing", "")];
    let minute = Duration::from_secs(60);
    let named: Settings =
        |builder| builder.rules(Rules::new().statuses([200, 500]).default_ttl(Duration::from_secs(60)));
    let by_rule: Settings = |builder| {
        builder.rules(
            Rules::new()
                .rule(Rule::new().statuses(500..=599).override_ttl(Duration::from_secs(60)))
                .statuses([200]),
        )
    };
    let all: Settings = |builder| builder.rules(Rules::new().override_ttl(Duration::from_secs(60)));
    for (settings, status, fields, expected) in [
        (named, 200, silent, true),
        (named, 500, silent, true),
        (named, 500, fresh, true),
        (named, 404, fresh, false), // 404 is not on the list
        (named, 503, fresh, false),
        (by_rule, 503, silent, true),
        (by_rule, 404, fresh, false),
        (by_rule, 200, fresh, true),
        (all, 200, silent, true),
        (all, 404, silent, true),
        (all, 302, silent, false), // no field permits it, and no rule names it
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
async fn store_despite_lifts_only_named_restriction() {
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
                builder
                    .shared(true)
                    .rules(Rules::new().store_despite(switch).override_ttl(Duration::from_secs(60)))
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
async fn authorized_response_serves_only_same_credentials() {
    let fixture = answering(200, &[("cache-control", "max-age=60")], |builder| {
        builder.shared(true).rules(Rules::new().store_despite(Forbidden::Authorization))
    });
    for (who, expected) in [("a", "miss"), ("b", "miss"), ("a", "hit"), ("b", "hit")] {
        assert_eq!(fixture.ask(get_with(URI, &[("authorization", who)])).await.word(), expected, "{who}");
    }
    assert_eq!(fixture.get(URI).await.word(), "miss");
}

#[tokio::test(start_paused = true)]
async fn filtered_requests_bypass_but_still_invalidate() {
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
async fn response_filters_accumulate_and_see_request() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let origin = Origin::new(|request| {
        let kind = request.uri().path().trim_start_matches('/').to_owned();
        response(&[("cache-control", "max-age=60"), ("x-kind", &kind)], "body")
    });
    let fixture = Fixture::with(origin, MemoryStorage::new(), move |builder| {
        builder.rules(
            Rules::new()
                .filter_response(|_, response| response.headers["x-kind"] != "a")
                .filter_response(|request, _| request.uri.path() != "/b")
                .filter_response_async(move |_, response| {
                    counter.fetch_add(1, Ordering::SeqCst);
                    let kind = response.headers["x-kind"].clone();
                    async move {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        kind != "c"
                    }
                }),
        )
    });
    for (kind, is_kept) in [("a", false), ("b", false), ("c", false), ("d", true)] {
        let uri = format!("http://example.com/{kind}");
        let stored = fixture.get(&uri).await.status.stored();
        let expected = if is_kept { Stored::Storing } else { Stored::No(NotStored::Filtered) };
        assert_eq!(stored, expected, "{kind}");
        assert_eq!(fixture.get(&uri).await.status.is_hit(), is_kept, "{kind}");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 3, "filters after a refusal are not called");
}

#[tokio::test(start_paused = true)]
async fn body_length_limits_apply_without_content_length() {
    for announces in [false, true] {
        let origin = Origin::new(move |request| {
            let len = request.uri().path()[1..].parse().unwrap();
            let builder = Response::builder().header("cache-control", "max-age=60");
            let builder = if announces { builder.header("content-length", len) } else { builder };
            builder.body(Full::from(Bytes::from(vec![b'x'; len]))).unwrap()
        });
        let fixture = Fixture::with(origin, MemoryStorage::new(), |builder| {
            builder.min_body_bytes(5).max_body_bytes(7).chunk_bytes(4)
        });
        for (len, expected) in [(0, false), (4, false), (5, true), (7, true), (8, false)] {
            let uri = format!("http://example.com/{len}");
            assert_eq!(fixture.get(&uri).await.body.len(), len);
            assert_eq!(fixture.get(&uri).await.status.is_hit(), expected, "{len} {announces}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn refused_response_removes_older_entry() {
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

#[tokio::test]
async fn all_matching_rules_contribute_statuses() {
    let minute = Duration::from_secs(60);
    let tagged = || Rule::new().statuses([404, 429, 503]).tag("errors");
    for (status, settings) in [
        // A rule that sets only a tag.
        (
            503,
            (|b| {
                b.rules(
                    Rules::new()
                        .rule(Rule::new().statuses([503]).tag("errors"))
                        .override_ttl(Duration::from_secs(60)),
                )
            }) as Settings,
        ),
        (404, |b| {
            b.rules(
                Rules::new()
                    .rule(Rule::new().statuses([404]).tag("errors"))
                    .statuses([200])
                    .override_ttl(Duration::from_secs(60)),
            )
        }),
        // A rule after the one that sets the lifetime.
        (503, |b| {
            let first = Rule::new().url("example.com/**").override_ttl(Duration::from_secs(60));
            b.rules(
                Rules::new()
                    .rule(first)
                    .rule(Rule::new().statuses(500..=599).override_ttl(Duration::from_secs(5))),
            )
        }),
        // Statuses that concern one request, but that the user names.
        (429, |b| {
            b.rules(Rules::new().rule(Rule::new().statuses([429]).override_ttl(Duration::from_secs(60))))
        }),
        (416, |b| b.rules(Rules::new().statuses([200, 416]).override_ttl(Duration::from_secs(60)))),
    ] {
        let fixture = answering(status, &[("x-nothing", "")], settings);
        fixture.get(URI).await;
        assert_eq!(fixture.get(URI).await.word(), "hit", "{status}");
    }
    // The statuses of a rule that does not match have no effect.
    let origin = Origin::new(|_| {
        let mut response = response(&[("content-type", "text/plain")], "body");
        *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        response
    });
    let fixture = Fixture::with(origin, MemoryStorage::new(), |builder| {
        builder.rules(Rules::new().rule(tagged().content_type("image/*")).override_ttl(minute))
    });
    fixture.get(URI).await;
    assert_eq!(fixture.get(URI).await.word(), "miss");
}

#[tokio::test]
async fn response_filters_see_freshened_responses() {
    let heads = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    let origin = Origin::new(|request| {
        let fields = [("cache-control", "max-age=60"), ("etag", "\"a\"")];
        match request.headers().contains_key("if-none-match") {
            true => not_modified(&[fields[0], fields[1], ("x-keep-out", "1")]),
            false => response(&[fields[0], fields[1], ("content-type", "text/plain")], "body"),
        }
    });
    let fixture = Fixture::with(origin, MemoryStorage::new(), |builder| {
        builder.rules(Rules::new().filter_response(move |_, response| {
            let kind = response.headers.get("content-type").cloned();
            seen.lock().unwrap().push((response.status.as_u16(), kind.is_some()));
            !response.headers.contains_key("x-keep-out")
        }))
    });
    fixture.get(URI).await;
    fixture.clock.advance(Duration::from_secs(61));
    let answer = fixture.get(URI).await;
    assert_eq!((answer.word(), answer.status.stored()), ("revalidated", Stored::No(NotStored::Filtered)));
    assert_eq!(&answer.body[..], b"body");
    assert_eq!(fixture.get(URI).await.word(), "miss", "the stored response is not freshened");
    // The filter sees the response as it would be stored.
    assert_eq!(*heads.lock().unwrap(), [(200, true); 3]);
}

#[tokio::test]
async fn response_filters_see_variants_selected_by_304() {
    let origin = |request: &Request<ReqBody>| {
        let fields = [("cache-control", "max-age=60"), ("etag", "\"a\""), ("vary", "x-kind")];
        match request.headers().contains_key("if-none-match") {
            true => not_modified(&fields),
            false => response(&fields, "body"),
        }
    };
    let fixture = Fixture::with(Origin::new(origin), MemoryStorage::new(), |builder| {
        builder.rules(Rules::new().filter_response_async(|request, _| {
            std::future::ready(request.headers.get("x-kind").is_none_or(|kind| kind != "secret"))
        }))
    });
    let of_kind = |kind| get_with(URI, &[("x-kind", kind)]);
    fixture.ask(of_kind("plain")).await;
    assert_eq!(fixture.ask(of_kind("secret")).await.status.stored(), Stored::No(NotStored::Filtered));
    assert!(!fixture.ask(of_kind("secret")).await.status.is_hit());
    assert!(fixture.ask(of_kind("plain")).await.status.is_hit(), "the variant of other requests stays");
}

#[tokio::test]
async fn response_filters_see_responses_freshened_by_head() {
    let origin = Origin::new(|request| {
        let fields = [("cache-control", "max-age=60"), ("etag", "\"a\""), ("content-length", "4")];
        match *request.method() {
            http::Method::HEAD => response(&[&fields[..], &[("x-keep-out", "1")]].concat(), ""),
            _ => response(&fields, "body"),
        }
    });
    let fixture = Fixture::with(origin, MemoryStorage::new(), |builder| {
        builder
            .rules(Rules::new().filter_response(|_, response| !response.headers.contains_key("x-keep-out")))
    });
    fixture.get(URI).await;
    fixture.clock.advance(Duration::from_secs(61));
    let head = Request::head(URI).body(ReqBody::default()).unwrap();
    assert_eq!(fixture.ask(head).await.status.stored(), Stored::No(NotStored::Filtered));
    assert!(!fixture.get(URI).await.status.is_hit());
}

#[tokio::test]
async fn restricted_fields_are_not_duplicated() {
    let many = ["x-user"; 5000].join(",");
    for control in [
        "max-age=60, no-cache=\"x-user\"".to_owned(),
        "max-age=60, no-cache=\"x-user\", private=\"x-user\"".to_owned(),
        format!("max-age=60, no-cache=\"{many}\""),
    ] {
        let origin = Origin::new(move |request| {
            let fields = [("cache-control", &*control), ("etag", "\"a\""), ("x-user", "alice")];
            match request.headers().contains_key("if-none-match") {
                true => not_modified(&fields),
                false => response(&fields, "body"),
            }
        });
        let fixture = Fixture::shared(origin);
        fixture.get(URI).await;
        fixture.clock.advance(Duration::from_secs(100));
        let answer = fixture.get(URI).await;
        assert_eq!((answer.word(), answer.headers.get_all("x-user").iter().count()), ("revalidated", 1));
        assert_eq!(fixture.get(URI).await.header("x-user"), None);
    }
}

/// A framework with sessions often sends a validator and Set-Cookie, and nothing else.
#[tokio::test]
async fn session_cookie_is_not_shared_between_users() {
    for validator in [("last-modified", "Mon, 01 Dec 2025 00:00:00 GMT"), ("etag", "\"page\"")] {
        let mut user = 0;
        let origin = Origin::new(move |request| {
            user += 1;
            if request.headers().contains_key("if-none-match") {
                return not_modified(&[validator]);
            }
            response(&[validator, ("set-cookie", &*format!("session=user{user}"))], "page")
        });
        let fixture = Fixture::with(origin, MemoryStorage::new(), |b| b.shared(true).store_set_cookie(true));
        let first = fixture.get(URI).await;
        assert_eq!(first.status.stored(), Stored::No(NotStored::SetCookie));
        let next = fixture.get(URI).await;
        assert_ne!(next.header("set-cookie"), first.header("set-cookie"), "{:?}", next.status);
    }
}

#[tokio::test]
async fn content_length_mismatch_is_not_reported_stored() {
    for (announced, body) in [("5", "four"), ("3", "four"), ("1", "")] {
        let fields = [("cache-control", "max-age=60"), ("content-length", announced)];
        let origin = Origin::new(move |_| response(&fields, body));
        let fixture = Fixture::with(origin, MemoryStorage::new(), |builder| builder.status_field("cache"));
        let response = fixture.send(get(URI)).await;
        assert_eq!(
            response.body().status().unwrap().stored(),
            Stored::No(NotStored::LengthMismatch),
            "{announced} {body}"
        );
        assert_eq!(response.headers()["cache-status"], "cache; fwd=uri-miss; fwd-status=200; detail=length");
    }
}
