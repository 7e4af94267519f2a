//! Targeted fields (RFC 9213), of which shared caches obey CDN-Cache-Control in place of Cache-Control.

use tower_response_cache::NotStored;
use tower_response_cache::StaleReason::WhileRevalidate;
use tower_response_cache::ValidateReason::{NoCache, Stale};

use super::table::{Case, case, run};

/// Returns a case whose response is fresh for `seconds`, beside `Cache-Control: max-age=10`.
fn fresh(seconds: u64, what: &str, targeted: &str) -> Case {
    case(what, "RFC 9213 §2.2").shared()
        .get("").ok(&format!("cache-control: max-age=10 | {targeted} | etag: \"a\"")).stores()
        .after(seconds - 1).get("").hit().after(1).get("").revalidated(Stale)
}

#[test]
fn targeted_field_takes_precedence() {
    run([
        fresh(60, "it takes the place", "cdn-cache-control: max-age=60"),
        fresh(5, "a shorter lifetime too", "cdn-cache-control: max-age=5"),
        fresh(60, "s-maxage", "cdn-cache-control: s-maxage=60, max-age=20"),
        fresh(60, "over Expires", "expires: {20} | cdn-cache-control: max-age=60"),
        fresh(60, "several lines", "cdn-cache-control: max-age=60 | cdn-cache-control: must-revalidate"),
        fresh(60, "an unknown directive in it", "cdn-cache-control: max-age=60, foo=1"),
        fresh(60, "parameters are ignored", "cdn-cache-control: max-age=60;a=b"),
        fresh(60, "the last of several members of one name", "cdn-cache-control: max-age=20, max-age=60"),
        fresh(10, "empty: ignored", "cdn-cache-control:"),
        fresh(10, "no dictionary: ignored", "cdn-cache-control: max-age=60, =="),
        fresh(10, "capitals are no key: ignored", "cdn-cache-control: Max-Age=60"),
        fresh(10, "a trailing comma: ignored", "cdn-cache-control: max-age=60,"),
        fresh(10, "spaces around the equals sign: ignored", "cdn-cache-control: max-age = 60"),
        fresh(10, "a semicolon in place of a comma and a bad key: ignored", "cdn-cache-control: max-age=60; Public"),
        fresh(10, "Surrogate-Control is not implemented", "surrogate-control: max-age=60"),
        case("no-store in it", "RFC 9213 §2.2").shared()
            .get("").ok("cache-control: max-age=60 | cdn-cache-control: no-store").stores_not(NotStored::ResponseNoStore),
        case("no-store only in Cache-Control", "RFC 9213 §2.2").shared()
            .get("").ok("cache-control: no-store | cdn-cache-control: max-age=60").stores().get("").hit(),
        case("private only in Cache-Control", "RFC 9213 §2.2").shared()
            .get("").ok("cache-control: private | cdn-cache-control: max-age=60").stores().get("").hit(),
        case("private in it", "RFC 9213 §2.2").shared()
            .get("").ok("cache-control: max-age=60 | cdn-cache-control: private").stores_not(NotStored::Private),
        case("no-cache in it", "RFC 9213 §2.2").shared()
            .get("").ok(r#"cache-control: max-age=60 | cdn-cache-control: no-cache | etag: "a""#)
            .get("").revalidated(NoCache),
        case("no-cache only in Cache-Control", "RFC 9213 §2.2").shared()
            .get("").ok(r#"cache-control: no-cache | cdn-cache-control: max-age=60 | etag: "a""#).get("").hit(),
        case("must-revalidate only in Cache-Control", "RFC 9213 §2.2").shared()
            .get("").ok("cache-control: max-age=5, must-revalidate | cdn-cache-control: max-age=10, stale-while-revalidate=60")
            .after(11).get("").stale(WhileRevalidate),
        case("public in it allows what Authorization forbids", "§3.5").shared()
            .get("authorization: a").ok("cdn-cache-control: public, max-age=60").stores().get("authorization: b").hit(),
        case("public only in Cache-Control does not", "§3.5").shared()
            .get("authorization: a").ok("cache-control: public | cdn-cache-control: max-age=60")
            .stores_not(NotStored::Authorization),
        case("without a lifetime in it, Expires does not count", "RFC 9213 §2.2").shared()
            .get("").ok(r#"expires: {60} | cdn-cache-control: public | etag: "a""#).get("").revalidated(Stale),
        case("a lifetime that is no integer is stale", "RFC 9213 §2.1").shared()
            .get("").ok(r#"cache-control: max-age=60 | cdn-cache-control: max-age="60" | etag: "a""#)
            .get("").revalidated(Stale),
        case("it is passed on", "RFC 9213 §3.1").shared()
            .get("").ok("cache-control: max-age=10 | cdn-cache-control: max-age=60").shows("cdn-cache-control: max-age=60")
            .get("").hit().shows("cache-control: max-age=10"),
    ]);
}

#[test]
fn private_cache_ignores_targeted_field() {
    run([
        case("a lifetime", "RFC 9213 §3.1")
            .get("").ok(r#"cache-control: max-age=10 | cdn-cache-control: max-age=60 | etag: "a""#)
            .after(9).get("").hit().after(1).get("").revalidated(Stale),
        case("no-store", "RFC 9213 §3.1")
            .get("").ok("cache-control: max-age=10 | cdn-cache-control: no-store").stores().get("").hit(),
        case("alone", "RFC 9213 §3.1").get("").ok("cdn-cache-control: max-age=60").stores_nothing(),
    ]);
}

/// Returns a case of a cache with two targeted fields, whose response is fresh for `seconds`.
fn listed(seconds: u64, what: &str, fields: &str) -> Case {
    case(what, "RFC 9213 §2.2").shared().with(|b| b.targeted_fields(["Example-Cache-Control", "cdn-cache-control"]))
        .get("").ok(&format!("cache-control: max-age=10 | {fields} | etag: \"a\"")).stores()
        .after(seconds - 1).get("").hit().after(1).get("").revalidated(Stale)
}

#[test]
fn first_valid_listed_field_governs() {
    run([
        listed(60, "the first", "example-cache-control: max-age=60 | cdn-cache-control: max-age=30"),
        listed(60, "not the first in the response", "cdn-cache-control: max-age=30 | example-cache-control: max-age=60"),
        listed(30, "the second alone", "cdn-cache-control: max-age=30"),
        listed(30, "the first is empty", "example-cache-control: | cdn-cache-control: max-age=30"),
        listed(30, "the first is malformed", "example-cache-control: max-age=60, == | cdn-cache-control: max-age=30"),
        listed(10, "both are malformed", "example-cache-control: ,, | cdn-cache-control: Max-Age=30"),
        listed(10, "one that is not listed", "other-cache-control: max-age=60"),
        case("directives of several fields are not mixed", "RFC 9213 §2.2").shared()
            .with(|b| b.targeted_fields(["example-cache-control", "cdn-cache-control"]))
            .get("").ok("example-cache-control: max-age=60 | cdn-cache-control: no-store | cache-control: private")
            .stores().get("").hit(),
        case("no-store in the first", "RFC 9213 §2.2").shared()
            .with(|b| b.targeted_fields(["example-cache-control", "cdn-cache-control"]))
            .get("").ok("example-cache-control: no-store | cdn-cache-control: max-age=60")
            .stores_not(NotStored::ResponseNoStore),
        case("the default is not in the list", "RFC 9213 §2.2").shared()
            .with(|b| b.targeted_fields(["example-cache-control"]))
            .get("").ok(r#"cache-control: max-age=10 | cdn-cache-control: max-age=60 | etag: "a""#)
            .after(10).get("").revalidated(Stale),
        case("an empty list", "RFC 9213 §2.2").shared().with(|b| b.targeted_fields::<String>([]))
            .get("").ok(r#"cache-control: max-age=10 | cdn-cache-control: max-age=60 | etag: "a""#)
            .after(10).get("").revalidated(Stale),
        case("a list in a private cache", "RFC 9213 §2.2").with(|b| b.targeted_fields(["example-cache-control"]))
            .get("").ok("cache-control: no-store | example-cache-control: max-age=60").stores().get("").hit(),
        case("the fields are in a 304 of the cache", "RFC 9110 §15.4.5").shared()
            .with(|b| b.targeted_fields(["example-cache-control", "cdn-cache-control"]))
            .get("").ok(r#"example-cache-control: max-age=60 | cdn-cache-control: max-age=30 | etag: "a""#)
            .get(r#"if-none-match: "a""#).hit().code(304)
            .shows("example-cache-control: max-age=60 | cdn-cache-control: max-age=30"),
    ]);
}
