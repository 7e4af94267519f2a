//! How long a response is fresh, and which source of the lifetime takes precedence.

use std::time::Duration;

use http::{Request, Response};
use tower_response_cache::storage::MemoryStorage;
use tower_response_cache::{CacheOptions, Rule, Rules, Timestamp, Ttl};

use crate::support::{Answer, Fixture, Origin, ReqBody, get, response};

const SECOND: Duration = Duration::from_secs(1);
const URI: &str = "http://example.com/a";

fn with(rules: Rules, fields: &'static [(&'static str, &'static str)]) -> Fixture {
    let origin = Origin::new(move |_| response(fields, "body"));
    Fixture::with(origin, MemoryStorage::new(), |builder| builder.rules(rules))
}

/// Sends a request and returns after how many milliseconds the stored response becomes stale.
///
/// The time is found by bisection. `None` means that the response is not stored, and `Some(0)` that it is revalidated
/// at once.
async fn fresh_for(fixture: &Fixture, request: impl Fn() -> Request<ReqBody>) -> Option<u64> {
    fixture.ask(request()).await;
    let asked = fixture.origin.count();
    if fixture.get(URI).await.word() != "hit" {
        return if fixture.origin.last().contains_key("if-none-match") { Some(0) } else { None };
    }
    let (mut fresh, mut stale) = (0, 1 << 40);
    let begin = fixture.clock.now();
    while stale - fresh > 1 {
        let middle = (fresh + stale) / 2;
        fixture.clock.set(begin + Duration::from_millis(middle));
        let only =
            Request::get(URI).header("cache-control", "only-if-cached").body(ReqBody::default()).unwrap();
        match fixture.ask(only).await.word() {
            "hit" => fresh = middle,
            _ => stale = middle,
        }
    }
    assert_eq!(fixture.origin.count(), asked);
    Some(stale)
}

#[tokio::test(start_paused = true)]
async fn ttl_sources_follow_precedence() {
    // Each bit enables a source: the request, a rule's override, the layer's override, the response, a rule's default,
    // the layer's default, the heuristic.
    let seconds = [10_u64, 20, 30, 40, 50, 60, 70];
    for said in 0..1 << seconds.len() {
        let says = |who: usize| said & (1 << who) != 0;
        let ttl = |who: usize| Ttl::For(Duration::from_secs(seconds[who]));
        let mut rules = Rules::new();
        if says(1) || says(4) {
            let mut rule = Rule::new().url("example.com/a");
            rule = if says(1) { rule.override_ttl(ttl(1)) } else { rule };
            rule = if says(4) { rule.default_ttl(ttl(4)) } else { rule };
            rules = rules.rule(rule);
        }
        rules = if says(2) { rules.override_ttl(ttl(2)) } else { rules };
        rules = if says(5) { rules.default_ttl(ttl(5)) } else { rules };
        // The mock clock begins with 2026. This is 700 s before, and the heuristic takes a tenth of it.
        let modified = ("last-modified", "Wed, 31 Dec 2025 23:48:20 GMT");
        let fields: &[_] = match (says(3), says(6)) {
            (true, true) => {
                &[("cache-control", "max-age=40"), ("last-modified", "Wed, 31 Dec 2025 23:48:20 GMT")]
            }
            (true, false) => &[("cache-control", "max-age=40")],
            (false, true) => &[("last-modified", "Wed, 31 Dec 2025 23:48:20 GMT")],
            (false, false) => &[("x-nothing", "")],
        };
        assert!(!says(6) || fields.contains(&modified));
        let fixture = with(rules, fields);
        let request = || match says(0) {
            true => with_options(CacheOptions::new().ttl(ttl(0))),
            false => get(URI),
        };
        let expected = (0..seconds.len()).find(|who| says(*who)).map(|who| seconds[who] * 1000);
        assert_eq!(fresh_for(&fixture, request).await, expected, "{said:#09b}");
    }
}

fn with_options(options: CacheOptions) -> Request<ReqBody> {
    Request::get(URI).extension(options).body(ReqBody::default()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn rule_ttl_accepts_every_kind() {
    let begin = 1_767_225_600;
    let tagged: &[_] = &[("etag", "\"a\"")];
    let plain: &[_] = &[("x-nothing", "")];
    for (ttl, fields, expected) in [
        (Ttl::For(Duration::from_millis(1_234)), plain, Some(1_234)),
        (Ttl::Until(Timestamp::from_secs(begin + 9)), plain, Some(9_000)),
        (Ttl::Until(Timestamp::from_secs(begin - 9)), tagged, Some(0)),
        (Ttl::Until(Timestamp::NEVER), plain, Some(1 << 40)),
        (Ttl::Forever, plain, Some(1 << 40)),
        (Ttl::DoNotStore, plain, None),
        (Ttl::DoNotStore, tagged, None),
        (Ttl::Revalidate, tagged, Some(0)),
        (Ttl::For(Duration::ZERO), tagged, Some(0)),
        (Ttl::Revalidate, plain, None), // without a validator it cannot be revalidated
    ] {
        for is_default in [false, true] {
            let rules =
                if is_default { Rules::new().default_ttl(ttl) } else { Rules::new().override_ttl(ttl) };
            assert_eq!(fresh_for(&with(rules, fields), || get(URI)).await, expected, "{ttl:?} {fields:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn ttl_limits_apply_to_explicit_and_heuristic_lifetimes() {
    let limits = || Rules::new().min_ttl(20 * SECOND).max_ttl(60 * SECOND);
    let old: &[_] = &[("last-modified", "Wed, 31 Dec 2025 00:00:00 GMT")]; // 8,640 s by the heuristic
    let new: &[_] = &[("last-modified", "Wed, 31 Dec 2025 23:59:00 GMT")]; // 6 s
    for (rules, fields, expected) in [
        (limits(), &[("cache-control", "max-age=5")][..], Some(20_000)),
        (limits(), &[("cache-control", "max-age=30")], Some(30_000)),
        (limits(), &[("cache-control", "max-age=500")], Some(60_000)),
        (limits(), &[("cache-control", "max-age=0")], Some(20_000)),
        (limits(), &[("expires", "0")], Some(20_000)),
        (limits(), &[("cache-control", "max-age=500"), ("age", "490")], Some(20_000)), // 10 s are left
        (limits(), old, Some(60_000)),
        (limits(), new, Some(20_000)),
        (limits(), &[("x-nothing", "")], None),
        (limits(), &[("cache-control", "no-cache, max-age=500"), ("etag", "\"a\"")], Some(0)),
        (limits().default_ttl(60 * SECOND), &[("x-nothing", "")], Some(60_000)),
        (
            limits().override_ttl(Ttl::Revalidate),
            &[("cache-control", "max-age=30"), ("etag", "\"a\"")],
            Some(0),
        ),
    ] {
        assert_eq!(fresh_for(&with(rules, fields), || get(URI)).await, expected, "{fields:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn override_ttl_counts_from_receipt() {
    let rules = || Rules::new().override_ttl(10 * SECOND);
    for fields in [
        &[("cache-control", "max-age=5000"), ("age", "4000")][..],
        &[("cache-control", "no-cache")],
        &[("cache-control", "max-age=0, must-revalidate")],
        &[("expires", "Thu, 01 Jan 1970 00:00:00 GMT"), ("date", "Fri, 02 Jan 2026 00:00:00 GMT")],
    ] {
        let fixture = with(rules(), fields);
        assert_eq!(fresh_for(&fixture, || get(URI)).await, Some(10_000), "{fields:?}");
    }
    // When the override has ended, must-revalidate forbids serving the response stale.
    let fixture = with(rules(), &[("cache-control", "must-revalidate")]);
    fixture.get(URI).await;
    fixture.clock.advance(11 * SECOND);
    let stale = Request::get(URI).header("cache-control", "max-stale").body(ReqBody::default()).unwrap();
    assert_eq!(fixture.ask(stale).await.word(), "miss");
}

#[tokio::test(start_paused = true)]
async fn first_matching_rule_sets_ttl() {
    let rules = || {
        Rules::new()
            .rule(Rule::new().url("*.example.com/api/**").statuses([404]).override_ttl(SECOND))
            .rule(
                Rule::new()
                    .url("*.example.com/api/**")
                    .content_type("application/json")
                    .override_ttl(2 * SECOND),
            )
            .rule(Rule::new().url("*.example.com/**").override_ttl(3 * SECOND))
            .rule(Rule::new().statuses(500..=599).override_ttl(4 * SECOND))
            .rule(Rule::new().content_type("image/*").override_ttl(5 * SECOND))
            .override_ttl(6 * SECOND)
    };
    for (uri, status, media_type, expected) in [
        ("http://a.example.com/api/x", 404, "application/json", Some(1)),
        ("http://a.example.com/api/x", 200, "Application/JSON; charset=utf-8", Some(2)),
        ("http://a.example.com/api/x", 200, "application/jsonp", Some(3)),
        ("http://a.example.com/other", 404, "image/png", Some(3)),
        ("http://example.com.evil.org/api/", 503, "image/png", Some(4)),
        ("http://other.org/", 200, "IMAGE/png", Some(5)),
        ("http://other.org/", 200, "imagery/png", Some(6)),
        // One rule names the status, and the first matching rule sets the lifetime.
        ("http://a.example.com/other", 500, "text/plain", Some(3)),
        // The layer's override does not apply to errors that no rule names.
        ("http://other.org/", 409, "text/plain", None),
    ] {
        let origin = Origin::new(move |_| {
            let body = bytes::Bytes::from_static(b"body").into();
            Response::builder().status(status).header("content-type", media_type).body(body).unwrap()
        });
        let fixture = Fixture::with(origin, MemoryStorage::new(), |builder| builder.rules(rules()));
        assert_eq!(fixture.get(uri).await.status.ttl(), expected, "{uri} {status} {media_type}");
        assert_eq!(fixture.get(uri).await.word(), if expected.is_some() { "hit" } else { "miss" });
    }
}

#[tokio::test(start_paused = true)]
async fn revalidation_renews_override_ttl() {
    let origin = Origin::new(|request| {
        let known = request.headers().contains_key("if-none-match");
        let body = if known { &b""[..] } else { b"body" };
        let status = if known { 304 } else { 200 };
        let response = Response::builder().status(status).header("etag", "\"a\"");
        response.header("cache-control", "max-age=1000").body(bytes::Bytes::from(body).into()).unwrap()
    });
    let fixture = Fixture::with(origin, MemoryStorage::new(), |builder| {
        builder.rules(Rules::new().override_ttl(Duration::from_millis(1_500)))
    });
    fixture.get(URI).await;
    for _ in 0..3 {
        fixture.clock.advance(Duration::from_millis(1_499));
        assert_eq!(fixture.get(URI).await.word(), "hit");
        fixture.clock.advance(Duration::from_millis(1));
        assert_eq!(fixture.get(URI).await.word(), "revalidated");
    }
    assert_eq!(fixture.origin.count(), 4);
}

#[tokio::test(start_paused = true)]
async fn changed_rules_apply_to_later_fetches() {
    let fixture = with(Rules::new().override_ttl(10 * SECOND), &[("x-nothing", "")]);
    fixture.get("http://example.com/before").await;
    fixture.layer.set_rules(Rules::new().override_ttl(Ttl::DoNotStore)).unwrap();
    let answers: [Answer; 2] = [fixture.get("http://example.com/before").await, fixture.get(URI).await];
    assert_eq!(
        answers.map(|answer| answer.status.to_string()),
        ["hit; ttl=10", "fwd=uri-miss; fwd-status=200; detail=rule"]
    );
    let wrong = Rules::new().min_ttl(2 * SECOND).max_ttl(SECOND);
    assert!(fixture.layer.set_rules(wrong).is_err());
    assert_eq!(fixture.get(URI).await.word(), "miss");
    fixture.layer.set_rules(fixture.layer.rules().override_ttl(SECOND)).unwrap();
    fixture.get(URI).await;
    assert_eq!(fixture.get(URI).await.word(), "hit");
}
