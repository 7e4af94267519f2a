//! Settings that contradict each other or have no effect are reported as errors.

use std::time::Duration;

use http::Method;
use http::header::{COOKIE, HOST};
use http::uri::Scheme;
use tower_response_cache::storage::{BoxStorage, MemoryStorage};
use tower_response_cache::{CacheLayer, CacheLayerBuilder, ErrorKind, Forbidden, Rule, Rules, Ttl};

type Builder = CacheLayerBuilder<BoxStorage>;
type Settings = fn(Builder) -> Builder;

const NONE: Duration = Duration::ZERO;
const LEAST: Duration = Duration::from_nanos(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn builder() -> Builder {
    CacheLayer::builder(BoxStorage::new(MemoryStorage::new()))
}

#[test]
fn contradictory_settings_report_a_remedy() {
    let wrong: [(Settings, &[&str]); 61] = [
        (|b| b.record(true).replay(true), &["record and replay contradict", "build one layer to record"]),
        (|b| b.replay(true).record(true), &["record and replay contradict"]),
        (|b| b.record(true).shared(true), &["record", "remove shared(true)"]),
        (|b| b.replay(true).lease(SECOND), &["lease", "remove it"]),
        (|b| b.record(true).read_only(true), &["record"]),
        (|b| b.only_if_cached(true).record(true), &["record"]),
        (|b| b.heuristic_percent(101), &["heuristic_percent", "0 to 100"]),
        (|b| b.heuristic_percent(200), &["heuristic_percent"]),
        (|b| b.operation_timeout(NONE), &["operation_timeout is zero", "longer"]),
        (|b| b.body_timeout(NONE), &["body_timeout is zero", "longer"]),
        (|b| b.coalesce_timeout(NONE), &["coalesce_timeout is zero", "coalesce(false)"]),
        (|b| b.refresh_timeout(NONE), &["refresh_timeout is zero", "max_background_refreshes(0)"]),
        (|b| b.lease(NONE), &["lease is zero", "leave it out"]),
        (|b| b.default_tti(NONE), &["default_tti is zero", "leave it out"]),
        (|b| b.record(true).default_tti(HOUR), &["default_tti", "remove it"]),
        (|b| b.store_set_cookie(true), &["store_set_cookie", "add shared(true)"]),
        (|b| b.shared(true).ignore_cookie(true), &["ignore_cookie", "ignore_headers([COOKIE])"]),
        (
            |b| b.rules(Rules::new().max_ttl(SECOND).override_ttl(HOUR)),
            &["override_ttl", "longer than max_ttl", "raise"],
        ),
        (|b| b.rules(Rules::new().max_ttl(SECOND).override_ttl(Ttl::Forever)), &["longer than max_ttl"]),
        (
            |b| b.rules(Rules::new().max_ttl(SECOND).default_ttl(HOUR)),
            &["default_ttl", "longer than max_ttl"],
        ),
        (
            |b| b.rules(Rules::new().min_ttl(HOUR).override_ttl(SECOND)),
            &["shorter than min_ttl", "lower min_ttl"],
        ),
        (|b| b.rules(Rules::new().min_ttl(HOUR).default_ttl(SECOND)), &["shorter than min_ttl"]),
        (|b| b.rules(Rules::new().min_ttl(2 * SECOND).max_ttl(SECOND)), &["min_ttl is longer", "swap"]),
        (|b| b.rules(Rules::new().rule(Rule::new().url("a.example"))), &["says nothing"]),
        (|b| b.rules(Rules::new().rule(Rule::new().tag(""))), &["tag is empty", "remove it"]),
        (|b| b.rules(Rules::new().rule(Rule::new().url("").override_ttl(SECOND))), &["pattern"]),
        (|b| b.rules(Rules::new().rule(Rule::new().url("a b").override_ttl(SECOND))), &["pattern"]),
        (
            |b| b.rules(Rules::new().rule(Rule::new().statuses([206, 304]).override_ttl(SECOND))),
            &["statuses"],
        ),
        (|b| b.rules(Rules::new().rule(Rule::new().statuses([]).override_ttl(SECOND))), &["statuses"]),
        (
            |b| b.rules(Rules::new().rule(Rule::new().content_type("").override_ttl(SECOND))),
            &["content_type"],
        ),
        (
            |b| b.rules(Rules::new().rule(Rule::new().content_type("html").override_ttl(SECOND))),
            &["content_type"],
        ),
        (|b| b.rules(Rules::new().statuses([])), &["statuses"]),
        (|b| b.methods([]), &["methods"]),
        (|b| b.methods([Method::GET, Method::TRACE]), &["methods", "TRACE"]),
        (|b| b.key_secret(""), &["secret is empty", "leave it out"]),
        (|b| b.status_field(""), &["status_field is empty", "name"]),
        (|b| b.ignore_query_params([""]), &["ignore_query_params", "remove"]),
        (|b| b.tag_fields(["a b"]), &["tag_fields", "surrogate-key"]),
        (|b| b.remove_tag_fields(true), &["remove_tag_fields", "tag_fields"]),
        (|b| b.only_query_params(["a", ""]), &["only_query_params", "remove"]),
        (|b| b.only_query_params_for("a/?b", ["c"]), &["query", "remove"]),
        (|b| b.ignore_query_params_for("a b", ["c"]), &["URL pattern"]),
        (|b| b.key_cookies::<&str>([]), &["key_cookies", "ignore_cookie"]),
        (|b| b.key_cookies([""]), &["key_cookies"]),
        (|b| b.key_cookies(["a"]).ignore_cookie(true), &["key_cookies", "remove"]),
        (|b| b.key_cookies(["a"]).ignore_headers([COOKIE]), &["key_cookies", "remove"]),
        (|b| b.default_authority(""), &["default_authority", "localhost:8080"]),
        (|b| b.default_authority("http://example.com"), &["default_authority"]),
        (|b| b.default_authority("user@example.com"), &["default_authority"]),
        (|b| b.max_body_bytes(0), &["max_body_bytes is 0", "read_only"]),
        (|b| b.chunk_bytes(0), &["chunk_bytes is 0", "leave it out"]),
        (|b| b.max_content_bytes(0), &["max_content_bytes is 0"]),
        (|b| b.min_body_bytes(2).max_body_bytes(1), &["min_body_bytes"]),
        (|b| b.lease(SECOND).coalesce(false), &["lease"]),
        (|b| b.lease(SECOND).read_only(true), &["lease"]),
        (|b| b.refresh_early(SECOND).max_background_refreshes(0), &["refresh_early"]),
        (|b| b.key_headers([HOST]).ignore_headers([HOST]), &["key_headers"]),
        (|b| b.ignore_cookie(true).key_headers([COOKIE]), &["ignore_cookie"]),
        (|b| b.targeted_fields(["a b"]), &["targeted_fields", "cdn-cache-control"]),
        (|b| b.targeted_fields([""]), &["targeted_fields", "cdn-cache-control"]),
        (|b| b.targeted_fields(["a-cache-control", "Cache-Control"]), &["targeted_fields", "remove it"]),
    ];
    for (settings, parts) in wrong {
        let error = settings(builder()).build().expect_err(parts[0]);
        assert_eq!(error.kind(), ErrorKind::Config);
        for part in parts {
            assert!(error.to_string().contains(part), "{error}: {part}");
        }
    }
    #[cfg(feature = "metrics")]
    assert!(builder().metrics_label("").build().is_err());
    assert_eq!(builder().ignore_content_fields([""]).unwrap_err().kind(), ErrorKind::Config);
}

#[test]
fn extreme_valid_settings_build() {
    let right: [Settings; 36] = [
        |b| b.rules(Rules::new().min_ttl(SECOND).max_ttl(SECOND)),
        |b| b.rules(Rules::new().min_ttl(NONE).max_ttl(Duration::MAX).override_ttl(Duration::MAX)),
        |b| b.rules(Rules::new().max_ttl(NONE)),
        |b| b.rules(Rules::new().max_ttl(SECOND).override_ttl(SECOND)),
        |b| b.rules(Rules::new().min_ttl(SECOND).default_ttl(SECOND)),
        |b| b.rules(Rules::new().min_ttl(HOUR).override_ttl(Ttl::DoNotStore)),
        |b| b.rules(Rules::new().min_ttl(HOUR).rule(Rule::new().override_ttl(Ttl::Revalidate))),
        |b| b.rules(Rules::new().min_ttl(HOUR).rule(Rule::new().override_ttl(NONE))),
        |b| b.rules(Rules::new().min_ttl(HOUR).rule(Rule::new().override_ttl(SECOND))),
        |b| b.rules(Rules::new().max_ttl(SECOND).rule(Rule::new().override_ttl(HOUR))),
        |b| {
            b.rules(
                Rules::new()
                    .rule(Rule::new().url("*.example.com/**").statuses(200..=299).default_ttl(Ttl::Forever)),
            )
        },
        |b| b.rules(Rules::new().rule(Rule::new().tag("t"))),
        |b| b.heuristic_percent(0),
        |b| b.heuristic_percent(100),
        |b| b.max_heuristic_ttl(NONE).max_heuristic_ttl(Duration::MAX),
        |b| b.stale_retention(NONE),
        |b| b.stale_retention(Duration::MAX),
        |b| b.stale_while_revalidate(NONE).stale_if_error(NONE),
        |b| b.stale_while_revalidate(Duration::MAX).stale_if_error(Duration::MAX),
        |b| b.refresh_early(NONE).max_background_refreshes(0),
        |b| b.refresh_early(Duration::MAX).max_background_refreshes(usize::MAX),
        |b| b.operation_timeout(LEAST).body_timeout(LEAST).coalesce_timeout(LEAST).refresh_timeout(LEAST),
        |b| b.operation_timeout(Duration::MAX).body_timeout(Duration::MAX),
        |b| b.coalesce_timeout(Duration::MAX).refresh_timeout(Duration::MAX),
        |b| b.lease(LEAST),
        |b| b.lease(Duration::MAX),
        |b| b.min_body_bytes(0).max_body_bytes(1).chunk_bytes(1),
        |b| b.min_body_bytes(u64::MAX).max_body_bytes(u64::MAX).chunk_bytes(usize::MAX),
        |b| b.max_content_bytes(1).max_content_bytes(u64::MAX),
        |b| b.read_only(true).only_if_cached(true).key_all_headers(true).ignore_headers([HOST]),
        |b| b.shared(true).store_set_cookie(true).rules(Rules::new().store_despite(Forbidden::Private)),
        |b| b.ignore_cookie(true).ignore_query_params(["q"]).ignore_query_params::<String>([]),
        |b| b.partition("").key_secret("s").status_field("s").metrics_label("m"),
        |b| b.default_authority("a").default_authority("[::1]:65535").default_scheme(Scheme::HTTPS),
        |b| b.record(true).record(true),
        |b| b.replay(true).read_only(true).fail_closed(true),
    ];
    for (number, settings) in right.into_iter().enumerate() {
        let built = settings(builder()).build();
        assert!(built.is_ok(), "{number}: {built:?}");
    }
}
