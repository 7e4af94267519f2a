//! How long a response is fresh (RFC 9111 §4.2), and how old it is (§4.2.3).

use tower_response_cache::MissReason::{Absent, Expired, Replaced};
use tower_response_cache::NotStored;
use tower_response_cache::ValidateReason::Stale;

use super::table::{case, run};

#[test]
fn lifetime() {
    run([
        case("max-age ends when the age reaches it", "§4.2")
            .get("").ok(r#"cache-control: max-age=60 | etag: "a""#)
            .after(59).get("").hit().shows("age: 59")
            .after(1).get("").revalidated(Stale),
        case("s-maxage in a shared cache comes before max-age and Expires", "§4.2.1").shared()
            .get("").ok("cache-control: max-age=10, s-maxage=60 | expires: {5}")
            .after(59).get("").hit().after(1).get("").not_reused(),
        case("a shorter s-maxage too", "§4.2.1").shared()
            .get("").ok(r#"cache-control: max-age=60, s-maxage=10 | etag: "a""#)
            .after(9).get("").hit().after(1).get("").revalidated(Stale),
        case("s-maxage=0 in a shared cache", "§5.2.2.10").shared()
            .get("").ok("cache-control: s-maxage=0, max-age=60").stores_not(NotStored::Stale),
        case("s-maxage in a private cache means nothing", "§5.2.2.10")
            .get("").ok(r#"cache-control: max-age=10, s-maxage=60 | etag: "a""#)
            .after(9).get("").hit().after(1).get("").revalidated(Stale),
        case("s-maxage alone in a private cache is no lifetime", "§5.2.2.10")
            .get("").ok("cache-control: s-maxage=60").stores_nothing(),
        case("s-maxage before Expires in a shared cache", "§5.3").shared()
            .get("").ok("cache-control: s-maxage=60 | expires: {-60}").stores().after(59).get("").hit(),
        case("max-age before Expires", "§5.3")
            .get("").ok("cache-control: max-age=60 | expires: {5}")
            .after(59).get("").hit().after(1).get("").not_reused(),
        case("max-age before an invalid Expires", "§5.3")
            .get("").ok("cache-control: max-age=60 | expires: 0").after(59).get("").hit(),
        case("a shorter max-age before Expires", "§5.3")
            .get("").ok("cache-control: max-age=5 | expires: {60}").after(5).get("").not_reused(),
        case("Expires minus Date", "§4.2.1")
            .get("").ok("date: {0} | expires: {60}").after(59).get("").hit().after(1).get("").not_reused(),
        case("Expires minus Date where the origin's clock is ahead", "§4.2.1")
            .get("").ok("date: {4} | expires: {64}").after(59).get("").hit().after(1).get("").not_reused(),
        case("Expires without Date counts from its receipt", "§4.2.1")
            .get("").ok("expires: {60}").after(59).get("").hit().after(1).get("").not_reused(),
        case("Expires equal to Date", "§4.2.1")
            .get("").ok("date: {0} | expires: {0}").stores_not(NotStored::Stale),
        case("Expires in the past", "§4.2.1").get("").ok("expires: {-60}").stores_not(NotStored::Stale),
        case("an invalid Date is ignored", "§4.2.3")
            .get("").ok("date: yesterday | cache-control: max-age=60").after(59).get("").hit().shows("age: 59"),
        case("Cache-Control without a lifetime leaves Expires", "§4.2.1")
            .get("").ok("cache-control: public | expires: {60}").after(59).get("").hit(),
    ]);
}

#[test]
fn heuristics() {
    run([
        case("a tenth of the time since the last change", "§4.2.2")
            .get("").ok("last-modified: {-1000}").stores()
            .after(99).get("").hit().after(1).get("").revalidated(Stale).asked("if-modified-since: {-1000}"),
        case("reckoned from Date", "§4.2.2")
            .get("").ok("date: {-500} | last-modified: {-10500}").after(499).get("").hit().shows("age: 999")
            .after(1).get("").not_reused(),
        case("a day at most", "§4.2.2")
            .get("").ok("last-modified: {-100000000}").after(86_399).get("").hit().after(1).get("").revalidated(Stale),
        case("the builder's bound", "§4.2.2").with(|builder| builder.max_heuristic_ttl(std::time::Duration::from_secs(50)))
            .get("").ok("last-modified: {-1000}").after(49).get("").hit().after(1).get("").revalidated(Stale),
        case("the builder's share", "§4.2.2").with(|builder| builder.heuristic_percent(20))
            .get("").ok("last-modified: {-1000}").after(199).get("").hit().after(1).get("").revalidated(Stale),
        case("no heuristics where the builder says 0", "§4.2.2").with(|builder| builder.heuristic_percent(0))
            .get("").ok("last-modified: {-1000}").get("").revalidated(Stale),
        case("changed after it was sent: no lifetime", "§4.2.2")
            .get("").ok("last-modified: {60}").get("").not_reused(),
        case("an invalid Last-Modified gives none", "§4.2.2")
            .get("").ok("last-modified: long ago").stores_not(NotStored::NoFreshness),
        case("not with max-age", "§4.2.2")
            .get("").ok("cache-control: max-age=5 | last-modified: {-1000}")
            .after(4).get("").hit().after(1).get("").revalidated(Stale),
        case("not with max-age=0", "§4.2.2")
            .get("").ok("cache-control: max-age=0 | last-modified: {-1000}").get("").revalidated(Stale),
        case("not with a malformed max-age", "§4.2.1")
            .get("").ok("cache-control: max-age=x | last-modified: {-1000}").get("").revalidated(Stale),
        case("not with an Expires that is past", "§4.2.2")
            .get("").ok("expires: {-10} | last-modified: {-1000}").get("").revalidated(Stale),
        case("not with an invalid Expires", "§5.3")
            .get("").ok("expires: 0 | last-modified: {-1000}").get("").revalidated(Stale),
        case("also for a URI with a query", "§4.2.2")
            .get("").at("/a?b=c").ok("last-modified: {-1000}").get("").at("/a?b=c").hit(),
    ]);
}

#[test]
fn age() {
    run([
        case("the Age that came counts", "§4.2.3")
            .get("").ok("cache-control: max-age=60 | age: 50").after(9).get("").hit().shows("age: 59")
            .after(1).get("").not_reused(),
        case("an old Date counts", "§4.2.3")
            .get("").ok("cache-control: max-age=60 | date: {-50}").after(9).get("").hit().shows("age: 59")
            .after(1).get("").not_reused(),
        case("the greater of Age and apparent age: Age", "§4.2.3")
            .get("").ok("cache-control: max-age=60 | date: {-20} | age: 50").get("").hit().shows("age: 50"),
        case("the greater of Age and apparent age: Date", "§4.2.3")
            .get("").ok("cache-control: max-age=60 | date: {-50} | age: 20").get("").hit().shows("age: 50"),
        case("a Date in the future is no negative age", "§4.2.3")
            .get("").ok("cache-control: max-age=60 | date: {4}").after(59).get("").hit().shows("age: 59")
            .after(1).get("").not_reused(),
        case("a Date far in the future is none to rely on: never without validation", "§4.2.3")
            .get("").ok(r#"cache-control: max-age=60 | date: {5000} | etag: "a""#).get("").revalidated(Stale),
        case("the time of the exchange counts on top of Age", "§4.2.3")
            .get("").ok("cache-control: max-age=60 | age: 10").slow(5).get("").hit().shows("age: 15")
            .after(44).get("").hit().after(1).get("").not_reused(),
        case("the time of the exchange counts without Age", "§4.2.3")
            .get("").ok("cache-control: max-age=60").slow(5).get("").hit().shows("age: 5"),
        case("Date after a slow exchange: the exchange counts", "§4.2.3")
            .get("").ok("cache-control: max-age=60 | date: {5}").slow(5).get("").hit().shows("age: 5"),
        case("one Age on a hit", "§5.1")
            .get("").ok("cache-control: max-age=60 | age: 7").after(3).get("").hit().shows("age: 10"),
        case("no Age is made up for the origin's answer", "§5.1")
            .get("").ok("cache-control: max-age=60").miss(Absent).shows("!age"),
        case("a validated response's age begins anew", "§4.2.3")
            .get("").ok(r#"cache-control: max-age=10 | etag: "a""#)
            .after(20).get("").not_modified(r#"etag: "a" | date: {20}"#).revalidated(Stale)
            .after(9).get("").hit().shows("age: 9").after(1).get("").revalidated(Stale),
        case("the 304's Age counts", "§4.3.4")
            .get("").ok(r#"cache-control: max-age=10 | etag: "a""#)
            .after(20).get("").not_modified(r#"etag: "a" | date: {17} | age: 3"#).revalidated(Stale)
            .after(6).get("").hit().shows("age: 9").after(1).get("").revalidated(Stale),
        case("an Age of the first response does not outlive its validation", "§4.3.4")
            .get("").ok(r#"cache-control: max-age=10 | etag: "a" | age: 9"#)
            .after(20).get("").not_modified(r#"etag: "a" | date: {20}"#).revalidated(Stale)
            .after(9).get("").hit().shows("age: 9"),
        case("beyond the revalidation window it is gone", "§4.2.4")
            .with(|builder| builder.stale_retention(std::time::Duration::from_secs(100)))
            .get("").ok(r#"cache-control: max-age=10 | etag: "a""#)
            .after(111).get("").miss(Expired).asked("!if-none-match"),
        case("within the revalidation window it is validated", "§4.2.4")
            .with(|builder| builder.stale_retention(std::time::Duration::from_secs(100)))
            .get("").ok(r#"cache-control: max-age=10 | etag: "a""#)
            .after(109).get("").ok("").miss(Replaced(Stale)).asked(r#"if-none-match: "a""#),
        case("Date is added where there is none", "RFC 9110 §6.6.1")
            .get("").ok("cache-control: max-age=60").after(5).get("").hit().shows("date: {0}"),
        case("Date stays", "§4.2.3")
            .get("").ok("cache-control: max-age=60 | date: {-5}").after(5).get("").hit().shows("date: {-5}"),
    ]);
}
