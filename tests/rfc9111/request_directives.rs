//! Cache-Control of requests (RFC 9111 §5.2.1) and Pragma (§5.4).

use tower_response_cache::MissReason::{Absent, Replaced};
use tower_response_cache::NotStored;
use tower_response_cache::StaleReason::MaxStale;
use tower_response_cache::ValidateReason::{NoCache, Request, Stale};

use super::table::{Case, case, run};

/// Returns a case that stores a response that is fresh for a minute.
///
/// The next request is sent 20 seconds later.
fn stored(name: &str, section: &'static str) -> Case {
    case(name, section).get("").ok(r#"cache-control: max-age=60 | etag: "a""#).stores().after(20)
}

#[test]
fn limits() {
    run([
        stored("no-cache", "§5.2.1.4").get("cache-control: no-cache").revalidated(Request)
            .asked(r#"if-none-match: "a""#).shows("age: 0"),
        stored("NO-CACHE", "§5.2").get("cache-control: NO-CACHE").revalidated(Request),
        stored("no-cache on a second line", "§5.2").get("cache-control: x | cache-control: no-cache").revalidated(Request),
        stored("no-cache in quotes is hidden", "§5.2").get(r#"cache-control: x="no-cache""#).hit(),
        stored("no-cache, and a new response", "§5.2.1.4")
            .get("cache-control: no-cache").ok("cache-control: max-age=60").body("new").miss(Replaced(Request)).stores()
            .get("").hit().gives("new"),
        stored("max-age above the age", "§5.2.1.1").get("cache-control: max-age=21").hit(),
        stored("max-age equal to the age", "§5.2.1.1").get("cache-control: max-age=20").hit(),
        stored("max-age below the age", "§5.2.1.1").get("cache-control: max-age=19").revalidated(Request),
        stored("max-age=0", "§5.2.1.1").get("cache-control: max-age=0").revalidated(Request),
        stored("max-age quoted", "§5.2").get(r#"cache-control: max-age="19""#).revalidated(Request),
        stored("max-age twice: the least", "§4.2.1").get("cache-control: max-age=100, max-age=5").revalidated(Request),
        stored("max-age with spaces counts as 0", "§5.2").get("cache-control: max-age = 100").revalidated(Request),
        stored("max-age malformed counts as 0", "§5.2.1.1").get("cache-control: max-age=x").revalidated(Request),
        stored("max-age huge", "§1.2.2").get("cache-control: max-age=99999999999999999999999").hit(),
        stored("immutable does not override max-age of a request", "RFC 8246 §2")
            .get("cache-control: max-age=0").revalidated(Request),
        stored("min-fresh below what is left", "§5.2.1.3").get("cache-control: min-fresh=39").hit(),
        stored("min-fresh equal to what is left", "§5.2.1.3").get("cache-control: min-fresh=40").hit(),
        stored("min-fresh above what is left", "§5.2.1.3").get("cache-control: min-fresh=41").revalidated(Request),
        stored("min-fresh huge", "§1.2.2").get("cache-control: min-fresh=9999999999999999999").revalidated(Request),
        stored("min-fresh together with max-stale", "§5.2.1.3")
            .get("cache-control: min-fresh=41, max-stale").revalidated(Request),
        stored("no-transform means nothing here", "§5.2.1.6").get("cache-control: no-transform").hit(),
        stored("an unknown directive", "§5.2.3").get("cache-control: foo, bar=1").hit(),
        stored("max-stale on what is fresh", "§5.2.1.2").get("cache-control: max-stale=0").hit(),
        stored("must-revalidate is none of a request's", "§5.2.1").get("cache-control: must-revalidate").hit(),
        stored("stale for max-stale=0", "§5.2.1.2").after(41).get("cache-control: max-stale=0").revalidated(Stale),
    ]);
}

#[test]
fn only_if_cached() {
    run([
        case("nothing stored", "§5.2.1.7").get("cache-control: only-if-cached").refused(),
        stored("fresh", "§5.2.1.7").get("cache-control: only-if-cached").hit(),
        stored("stale", "§5.2.1.7").after(41).get("cache-control: only-if-cached").refused(),
        stored("stale, with max-stale", "§5.2.1.7").after(41)
            .get("cache-control: only-if-cached, max-stale").stale(MaxStale).asked_times(0),
        stored("too old for max-age", "§5.2.1.7").get("cache-control: only-if-cached, max-age=10").refused(),
        stored("with no-cache", "§5.2.1.7").get("cache-control: only-if-cached, no-cache").refused(),
        stored("with Pragma, which does not count beside Cache-Control", "§5.4")
            .get("cache-control: only-if-cached | pragma: no-cache").hit(),
        case("another variant", "§5.2.1.7")
            .get("x-a: 1").ok("cache-control: max-age=60 | vary: x-a")
            .get("x-a: 2 | cache-control: only-if-cached").refused(),
        case("a response that says no-cache", "§5.2.1.7")
            .get("").ok(r#"cache-control: no-cache | etag: "a""#).get("cache-control: only-if-cached").refused()
            .get("").revalidated(NoCache),
        case("HEAD", "§5.2.1.7").send("HEAD", "cache-control: only-if-cached").refused(),
    ]);
}

#[test]
fn no_store_and_pragma() {
    run([
        case("no-store: not stored", "§5.2.1.5")
            .get("cache-control: no-store").ok("cache-control: max-age=60").stores_not(NotStored::RequestNoStore)
            .get("").miss(Absent),
        stored("no-store does not forbid what is stored", "§5.2.1.5").get("cache-control: no-store").hit(),
        stored("no-store: the new response is not stored", "§5.2.1.5")
            .after(41).get("cache-control: no-store").ok("cache-control: max-age=60").body("new")
            .forwarded().gives("new").stores_nothing()
            .get("").not_reused(),
        stored("Pragma", "§5.4").get("pragma: no-cache").revalidated(Request),
        stored("Pragma in capitals", "§5.4").get("pragma: NO-CACHE").revalidated(Request),
        stored("Pragma in a list", "§5.4").get("pragma: x, no-cache").revalidated(Request),
        stored("another Pragma", "§5.4").get("pragma: x").hit(),
        stored("Pragma beside Cache-Control", "§5.4").get("pragma: no-cache | cache-control: max-age=100").hit(),
        case("Pragma does not keep from storing", "§5.4")
            .get("pragma: no-cache").ok("cache-control: max-age=60").stores().get("").hit(),
        case("no-cache does not keep from storing", "§5.2.1.4")
            .get("cache-control: no-cache").ok("cache-control: max-age=60").stores().get("").hit(),
        case("max-age=0 does not keep from storing", "§5.2.1.1")
            .get("cache-control: max-age=0").ok("cache-control: max-age=60").stores().get("").hit(),
    ]);
}
