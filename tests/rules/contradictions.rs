//! What contradicts itself is told of when the cache is built.

use std::time::Duration;

use http::header::{COOKIE, HOST};
use tower_response_cache::storage::MemoryStorage;
use tower_response_cache::{CacheLayer, CacheLayerBuilder, ErrorKind, Rule, Ttl};

type Settings = fn(CacheLayerBuilder<MemoryStorage>) -> CacheLayerBuilder<MemoryStorage>;

#[test]
fn each_contradiction_is_named_and_what_is_none_is_built() {
    const SECOND: Duration = Duration::from_secs(1);
    let wrong: [(Settings, &str); 15] = [
        (|b| b.record().read_only(), "record"),
        (|b| b.only_if_cached().record(), "record"),
        (|b| b.min_ttl(2 * SECOND).max_ttl(SECOND), "min_ttl"),
        (|b| b.rule(Rule::new().url("a.example")), "says nothing"),
        (|b| b.rule(Rule::new().url("a b").override_ttl(SECOND)), "pattern"),
        (|b| b.rule(Rule::new().statuses([206, 304]).override_ttl(SECOND)), "statuses"),
        (|b| b.rule(Rule::new().statuses([]).override_ttl(SECOND)), "statuses"),
        (|b| b.rule(Rule::new().content_type("html").override_ttl(SECOND)), "content_type"),
        (|b| b.statuses([]), "statuses"),
        (|b| b.min_entry_bytes(2).max_entry_bytes(1), "min_entry_bytes"),
        (|b| b.lease(SECOND).coalesce(false), "lease"),
        (|b| b.lease(SECOND).read_only(), "lease"),
        (|b| b.refresh_early(SECOND).max_refreshes(0), "refresh_early"),
        (|b| b.key_headers([HOST]).ignore_headers([HOST]), "key_headers"),
        (|b| b.ignore_cookie().key_headers([COOKIE]), "ignore_cookie"),
    ];
    for (settings, named) in wrong {
        let error = settings(CacheLayer::builder(MemoryStorage::new())).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(named), "{error}: {named}");
    }
    let right: [Settings; 4] = [
        |b| b.min_ttl(SECOND).max_ttl(SECOND),
        |b| b.rule(Rule::new().url("*.example.com/**").statuses(200..=299).default_ttl(Ttl::Forever)),
        |b| b.lease(SECOND),
        |b| b.read_only().only_if_cached().key_all_headers().ignore_headers([HOST]),
    ];
    for settings in right {
        assert!(settings(CacheLayer::builder(MemoryStorage::new())).build().is_ok());
    }
}
