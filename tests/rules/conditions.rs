//! Rules that depend on the request, and on fields and the length of the response.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use tower::{Layer, ServiceExt, service_fn};
use tower_response_cache::storage::MemoryStorage;
use tower_response_cache::{CacheLayer, Clock, EntryFilter, ErrorKind, Rule, Rules, Ttl};

use crate::support::{Answer, Fixture, Origin, ReqBody, get, get_with, response};

const SECOND: Duration = Duration::from_secs(1);
const URI: &str = "http://example.com/a";

/// Returns a cache in which what matches a rule is fresh for 10 s, and all else for 100 s.
fn with(rule: Rule, fields: &'static [(&'static str, &'static str)]) -> Fixture {
    Fixture::with(Origin::new(move |_| response(fields, "0123456789")), MemoryStorage::new(), |builder| {
        builder.rules(short(rule)).methods([Method::GET, Method::HEAD, Method::POST, query()])
    })
}

fn short(rule: Rule) -> Rules {
    Rules::new().rule(rule.override_ttl(10 * SECOND)).override_ttl(100 * SECOND)
}

fn query() -> Method {
    Method::from_bytes(b"QUERY").unwrap()
}

/// Returns whether the rule applied to the response to a request.
async fn applies(fixture: &Fixture, request: impl Fn() -> Request<ReqBody>) -> bool {
    let first = fixture.ask(request()).await;
    first.status.ttl() == Some(10)
}

#[tokio::test(start_paused = true)]
async fn rule_applies_to_matching_query() {
    for (name, value, matching, other) in [
        (
            "lang",
            "de",
            &["?lang=de", "?a=1&lang=de", "?lang=en&lang=de", "?l%61ng=%64e"][..],
            &["", "?lang=en"][..],
        ),
        ("lang", "de", &[], &["?lang", "?xlang=de", "?lang=dee", "?Lang=de", "?a=lang=de", "?lang=DE"]),
        ("q", "*", &["?q=a", "?q=", "?q"], &["", "?", "?a=q", "?qq=1"]),
        ("q", "a b*", &["?q=a+b", "?q=a%20bc"], &["?q=a%2Bb", "?q=ab"]),
        ("a[]", "1", &["?a[]=1", "?a%5B%5D=1"], &["?a=1"]),
    ] {
        for (query, expected) in matching.iter().map(|q| (q, true)).chain(other.iter().map(|q| (q, false))) {
            let fixture = with(Rule::new().query_param(name, value), &[]);
            let request = || get(&format!("{URI}{query}"));
            assert_eq!(applies(&fixture, request).await, expected, "{name}={value} {query}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_applies_to_matching_cookie_and_fields() {
    let cookie = || Rule::new().cookie("theme", "dark*");
    let field = || Rule::new().request_header("Accept-Language", "*de*");
    for (rule, request, expected) in [
        (cookie(), ("cookie", "theme=dark"), true),
        (cookie(), ("cookie", "a=b; theme=dark-blue;c=d"), true),
        (cookie(), ("cookie", "theme=light"), false),
        (cookie(), ("cookie", "xtheme=dark; a=theme=dark"), false),
        (cookie(), ("x-cookie", "theme=dark"), false),
        (field(), ("accept-language", "en, de;q=0.5"), true),
        (field(), ("accept-language", "en"), false),
        (field(), ("x-language", "de"), false),
        (Rule::new().request_header("x-a", ""), ("x-a", ""), true),
        (Rule::new().request_header("x-a", ""), ("x-b", ""), false),
    ] {
        let text = format!("{rule:?} {request:?}");
        let fixture = with(rule, &[]);
        assert_eq!(applies(&fixture, || get_with(URI, &[request])).await, expected, "{text}");
    }
    let kind = || Rule::new().response_header("X-Kind", "static*");
    for (fields, expected) in [
        (&[("x-kind", "static-1")][..], true),
        (&[("x-kind", "dynamic"), ("x-kind", "static")], true),
        (&[("x-kind", "dynamic")], false),
        (&[], false),
    ] {
        assert_eq!(applies(&with(kind(), fields), || get(URI)).await, expected, "{fields:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn all_conditions_of_a_rule_hold_together() {
    let rule = || Rule::new().query_param("a", "*").query_param("b", "2").cookie("c", "*").larger_than(9);
    for (query, fields, expected) in [
        ("?a=1&b=2", &[("cookie", "c=")][..], true),
        ("?b=2", &[("cookie", "c=")], false),
        ("?a=1&b=3", &[("cookie", "c=")], false),
        ("?a=1&b=2", &[], false),
    ] {
        let fixture = with(rule(), &[]);
        assert_eq!(
            applies(&fixture, || get_with(&format!("{URI}{query}"), fields)).await,
            expected,
            "{query}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn ignored_query_param_chooses_no_rule() {
    let rules = short(Rule::new().query_param("utm", "*"));
    let origin = Origin::new(|_| response(&[], "body"));
    let fixture = Fixture::with(origin, MemoryStorage::new(), |builder| {
        builder.rules(rules).ignore_query_params(["utm"])
    });
    assert!(!applies(&fixture, || get(&format!("{URI}?utm=1"))).await);
}

#[tokio::test(start_paused = true)]
async fn rule_applies_to_get_and_to_head_alike() {
    let tagged: &[_] = &[("etag", "\"a\"")];
    for (method, expected) in [(Method::GET, true), (Method::HEAD, true), (Method::PUT, false)] {
        let fixture = with(Rule::new().methods([method.clone()]), tagged);
        assert_eq!(applies(&fixture, || get(URI)).await, expected, "{method}");
    }
    // The 200 to a HEAD confirms the stored response, and counts its lifetime anew.
    for (method, expected) in [(Method::GET, "miss"), (Method::PUT, "hit")] {
        let fixture = with(Rule::new().methods([method.clone()]), tagged);
        fixture.get(URI).await;
        fixture.clock.advance(101 * SECOND);
        fixture.ask(Request::head(URI).body(ReqBody::default()).unwrap()).await;
        fixture.clock.advance(50 * SECOND);
        let asked = fixture.origin.count();
        let word = fixture.get(URI).await.word();
        assert_eq!(word == "hit", expected == "hit", "{method}: {word}");
        assert_eq!(fixture.origin.count() - asked, usize::from(expected != "hit"));
    }
}

#[tokio::test(start_paused = true)]
async fn rule_applies_to_methods_with_content() {
    for rule in [Method::GET, Method::POST, query()] {
        for asked in [Method::GET, Method::POST, query()] {
            let fixture = with(Rule::new().methods([rule.clone(), Method::DELETE]), &[]);
            let content = if asked == Method::GET { "" } else { "{}" };
            let request =
                || Request::builder().method(asked.clone()).uri(URI).body(ReqBody::from(content)).unwrap();
            assert_eq!(applies(&fixture, request).await, rule == asked, "{rule} {asked}");
            assert_eq!(fixture.ask(request()).await.word(), "hit");
            fixture.clock.advance(50 * SECOND);
            assert_eq!(fixture.ask(request()).await.word() == "hit", rule != asked, "{rule} {asked}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn length_is_of_the_body() {
    for (rule, expected) in [
        (Rule::new().larger_than(9), true),
        (Rule::new().larger_than(10), false),
        (Rule::new().smaller_than(11), true),
        (Rule::new().smaller_than(10), false),
        (Rule::new().larger_than(9).smaller_than(11), true),
    ] {
        let text = format!("{rule:?}");
        for fields in [&[][..], &[("content-length", "10")]] {
            assert_eq!(
                applies(&with(rule.clone(), fields), || get(URI)).await,
                expected,
                "{text} {fields:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_length_matches_once_confirmed() {
    for rule in [Rule::new().larger_than(3), Rule::new().smaller_than(1000)] {
        let (clock, mock) = Clock::mock();
        let layer =
            CacheLayer::builder(MemoryStorage::new()).clock(clock).rules(short(rule)).build().unwrap();
        let origin = service_fn(async |request: Request<Empty<Bytes>>| {
            let confirms = request.headers().contains_key("if-none-match");
            let frames = ["01234", "56789"].map(|text| Ok(http_body::Frame::data(Bytes::from(text))));
            let body: UnsyncBoxBody<Bytes, std::convert::Infallible> = match confirms {
                true => Full::default().boxed_unsync(),
                false => StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync(),
            };
            let code = if confirms { 304 } else { 200 };
            Ok::<_, std::convert::Infallible>(
                Response::builder().status(code).header("etag", "\"a\"").body(body).unwrap(),
            )
        });
        let service = layer.layer(origin);
        let ask = async || {
            let request = Request::get(URI).body(Empty::new()).unwrap();
            Answer::read(service.clone().oneshot(request).await.unwrap()).await
        };
        assert_eq!(ask().await.status.ttl(), Some(100));
        mock.advance(101 * SECOND);
        let confirmed = ask().await;
        assert_eq!((confirmed.word(), confirmed.status.ttl()), ("revalidated", Some(10)));
    }
}

#[tokio::test(start_paused = true)]
async fn tag_of_a_rule_depends_on_the_request() {
    let rules =
        || Rules::new().rule(Rule::new().request_header("x-tenant", "a").tag("a")).override_ttl(100 * SECOND);
    let origin = Origin::new(|_| response(&[], "body"));
    let fixture = Fixture::with(origin, MemoryStorage::new(), |builder| builder.rules(rules()));
    let [of_a, of_b] = ["http://example.com/a", "http://example.com/b"];
    fixture.ask(get_with(of_a, &[("x-tenant", "a")])).await;
    fixture.ask(get_with(of_b, &[("x-tenant", "b")])).await;
    fixture.layer.invalidate_tag("a").await.unwrap();
    assert_eq!(fixture.get(of_a).await.word(), "miss");
    assert_eq!(fixture.get(of_b).await.word(), "hit");
}

#[tokio::test(start_paused = true)]
async fn fetching_request_decides_for_all() {
    let fixture = with(Rule::new().request_header("x-fast", "1"), &[]);
    fixture.ask(get_with(URI, &[("x-fast", "1")])).await;
    fixture.clock.advance(9 * SECOND);
    let other = fixture.get(URI).await;
    assert_eq!((other.word(), &*other.body), ("hit", &b"0123456789"[..]));
    fixture.clock.advance(2 * SECOND);
    assert_eq!(fixture.get(URI).await.word(), "miss");
    // This response was fetched without the field.
    fixture.clock.advance(50 * SECOND);
    assert_eq!(fixture.ask(get_with(URI, &[("x-fast", "1")])).await.word(), "hit");
}

#[tokio::test(start_paused = true)]
async fn keyed_field_has_a_lifetime_for_each_value() {
    let origin = Origin::new(|_| response(&[], "body"));
    let rules = short(Rule::new().request_header("x-fast", "1"));
    let fixture = Fixture::with(origin, MemoryStorage::new(), |builder| {
        builder.rules(rules).key_headers([http::HeaderName::from_static("x-fast")])
    });
    for value in ["1", "2"] {
        assert_eq!(fixture.ask(get_with(URI, &[("x-fast", value)])).await.word(), "miss");
    }
    fixture.clock.advance(50 * SECOND);
    assert_eq!(fixture.ask(get_with(URI, &[("x-fast", "1")])).await.word(), "miss");
    assert_eq!(fixture.ask(get_with(URI, &[("x-fast", "2")])).await.word(), "hit");
}

#[tokio::test(start_paused = true)]
async fn confirming_request_decides_anew() {
    let fixture = with(Rule::new().request_header("x-fast", "1"), &[("etag", "\"a\"")]);
    assert!(applies(&fixture, || get_with(URI, &[("x-fast", "1")])).await);
    fixture.clock.advance(11 * SECOND);
    assert_eq!(fixture.get(URI).await.status.ttl(), Some(100));
    // Rules that are replaced apply from the next confirmation on.
    fixture.layer.set_rules(short(Rule::new().request_header("x-slow", "1"))).unwrap();
    fixture.clock.advance(50 * SECOND);
    assert_eq!(fixture.ask(get_with(URI, &[("x-slow", "1")])).await.word(), "hit");
    fixture.clock.advance(51 * SECOND);
    assert_eq!(fixture.ask(get_with(URI, &[("x-slow", "1")])).await.status.ttl(), Some(10));
}

#[tokio::test(start_paused = true)]
async fn background_refresh_has_the_fields_of_its_request() {
    let origin = Origin::new(|_| response(&[], "body"));
    let rules = short(Rule::new().cookie("fast", "1")).default_ttl(100 * SECOND);
    let fixture = Fixture::with(origin, MemoryStorage::new(), |builder| {
        builder.rules(rules).stale_while_revalidate(1000 * SECOND).ignore_cookie(true)
    });
    fixture.get(URI).await;
    fixture.clock.advance(101 * SECOND);
    assert_eq!(fixture.ask(get_with(URI, &[("cookie", "fast=1")])).await.word(), "stale");
    fixture.layer.idle().await;
    assert_eq!(fixture.get(URI).await.status.ttl(), Some(10));
}

#[tokio::test(start_paused = true)]
async fn reset_and_copied_lifetimes_ask_no_rule() {
    let fixture = with(Rule::new().request_header("x-fast", "1"), &[]);
    fixture.ask(get_with(URI, &[("x-fast", "1")])).await;
    let (handle, other) = (fixture.layer.handle(), MemoryStorage::new());
    handle.copy_to(&other, &EntryFilter::new(), |_| {}).await.unwrap();
    let copied = Fixture::with(fixture.origin.clone(), other, |builder| builder);
    assert_eq!(copied.get(URI).await.status.ttl(), Some(10));
    handle.reset_expiry(&EntryFilter::new(), 50 * SECOND).await.unwrap();
    assert_eq!(fixture.get(URI).await.status.ttl(), Some(50));
}

#[test]
fn malformed_conditions_are_refused_without_their_text() {
    const SECRET: &str = "s3cret";
    let secret = |text: &str| text.replace('$', SECRET);
    for (rule, setter) in [
        (Rule::new().query_param("", secret("$")), "query_param"),
        (Rule::new().cookie("", secret("$")), "cookie"),
        (Rule::new().cookie(secret("$="), "*"), "cookie"),
        (Rule::new().cookie(secret("$ a"), "*"), "cookie"),
        (Rule::new().cookie("a", secret("$;")), "cookie"),
        (Rule::new().request_header(secret("$ a"), "*"), "request_header"),
        (Rule::new().request_header("", secret("$")), "request_header"),
        (Rule::new().request_header("a", secret("$\n")), "request_header"),
        (Rule::new().request_header("a", secret(" $")), "request_header"),
        (Rule::new().response_header(secret("$:"), "*"), "response_header"),
        (Rule::new().response_header("a", secret("$\0")), "response_header"),
        (Rule::new().methods([]), "methods"),
        (Rule::new().methods([Method::OPTIONS, Method::TRACE]), "methods"),
        (Rule::new().larger_than(5).smaller_than(6), "larger_than"),
        (Rule::new().smaller_than(0), "smaller_than"),
        (Rule::new().larger_than(u64::MAX), "larger_than"),
    ] {
        assert!(!format!("{rule:?}").contains(SECRET));
        let rules = Rules::new().rule(rule.override_ttl(Ttl::Forever));
        let error = CacheLayer::builder(MemoryStorage::new()).rules(rules).build().expect_err(setter);
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(text.contains(setter) && !text.contains(SECRET), "{text}");
    }
}
