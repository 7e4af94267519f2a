//! When a stale response is served (RFC 9111 §4.2.4, RFC 5861).

use tower_response_cache::MissReason::{Absent, Replaced};
use tower_response_cache::StaleReason::{MaxStale, IfError, WhileRevalidate};
use tower_response_cache::ValidateReason::{NoCache, Request, Stale};

use super::table::{case, run};

/// The directives that forbid stale responses, and whether the cache is shared.
const STRICT: [(&str, bool); 5] = [
    ("must-revalidate", false), ("must-revalidate", true), ("proxy-revalidate", true), ("s-maxage=10", true),
    ("no-cache", false),
];

#[test]
fn stale_needs_permission() {
    let mut cases = Vec::new();
    cases.extend([
        case("stale is not served by itself", "§4.2.4")
            .get("").ok("cache-control: max-age=10").after(11).get("").forwarded(),
        case("nor when the origin is down", "§4.2.4")
            .get("").ok(r#"cache-control: max-age=10 | etag: "a""#).after(11).get("").down().error(),
        case("nor when it fails", "§4.3.3")
            .get("").ok(r#"cache-control: max-age=10 | etag: "a""#)
            .after(11).get("").answer(503, "").code(503).miss(Replaced(Stale)),
    ]);
    for ways in [
        ["cache-control: max-stale", "stale-while-revalidate=100"],
        ["", "stale-while-revalidate=100"],
    ] {
        cases.extend(STRICT.map(|(directive, shared)| {
            let reason = if directive == "no-cache" { NoCache } else { Stale };
            let case = case(format!("{directive} forbids {}", ways.join(" and ")), "§4.2.4");
            if shared { case.shared() } else { case }
                .get("").ok(&format!(r#"cache-control: max-age=10, {directive}, {} | etag: "a""#, ways[1]))
                .after(11).get(ways[0]).revalidated(reason)
        }));
    }
    cases.extend(STRICT.map(|(directive, shared)| {
        let case = case(format!("{directive} forbids it while the origin is down"), "§4.2.4");
        if shared { case.shared() } else { case }
            .with(|builder| builder.stale_when_disconnected(true))
            .get("").ok(&format!(r#"cache-control: max-age=10, {directive}, stale-if-error=100 | etag: "a""#))
            .after(11).get("cache-control: stale-if-error=100").down().error()
    }));
    cases.extend(STRICT.map(|(directive, shared)| {
        let case = case(format!("{directive} forbids it while the origin fails"), "§4.2.4");
        if shared { case.shared() } else { case }
            .get("").ok(&format!(r#"cache-control: max-age=10, {directive}, stale-if-error=100 | etag: "a""#))
            .after(11).get("").answer(503, "").code(503).forwarded()
    }));
    run(cases);
}

#[test]
fn max_stale_permits_stale_response() {
    run([
        case("any age", "§5.2.1.2")
            .get("").ok(r#"cache-control: max-age=10 | etag: "a""#)
            .after(10_000).get("cache-control: max-stale").stale(MaxStale).asked_times(0).shows("age: 10000 | !warning"),
        case("within the bound", "§5.2.1.2")
            .get("").ok(r#"cache-control: max-age=10 | etag: "a""#)
            .after(30).get("cache-control: max-stale=20").stale(MaxStale).asked_times(0),
        case("beyond the bound", "§5.2.1.2")
            .get("").ok(r#"cache-control: max-age=10 | etag: "a""#)
            .after(31).get("cache-control: max-stale=20").revalidated(Stale),
        case("max-age still counts", "§5.2.1.1")
            .get("").ok(r#"cache-control: max-age=10 | etag: "a""#)
            .after(30).get("cache-control: max-stale=20, max-age=15").revalidated(Request),
        case("max-age without max-stale wants no stale response", "§5.2.1.1")
            .get("").ok(r#"cache-control: max-age=10 | etag: "a""#)
            .after(30).get("cache-control: max-age=100").revalidated(Stale),
        case("proxy-revalidate is nothing to a private cache", "§5.2.2.8")
            .get("").ok(r#"cache-control: max-age=10, proxy-revalidate | etag: "a""#)
            .after(11).get("cache-control: max-stale").stale(MaxStale),
        case("s-maxage is nothing to a private cache", "§5.2.2.10")
            .get("").ok(r#"cache-control: max-age=10, s-maxage=10 | etag: "a""#)
            .after(11).get("cache-control: max-stale").stale(MaxStale),
        case("malformed: not stale at all", "§5.2.1.2")
            .get("").ok(r#"cache-control: max-age=10 | etag: "a""#)
            .after(11).get("cache-control: max-stale=x").revalidated(Stale),
        case("a heuristic lifetime that has ended", "§4.2.4")
            .get("").ok("last-modified: {-1000}").after(101).get("cache-control: max-stale").stale(MaxStale),
    ]);
}

#[test]
fn stale_while_revalidate_serves_within_window() {
    let stored = r#"cache-control: max-age=10, stale-while-revalidate=20 | etag: "a""#;
    run([
        case("stale is served, and refreshed behind", "RFC 5861 §3")
            .get("").ok(stored)
            .after(30).get("").not_modified(r#"etag: "a""#).stale(WhileRevalidate).shows("age: 30 | !warning")
            .asked_times(1).asked(r#"if-none-match: "a""#)
            .get("").hit().shows("age: 0"),
        case("the new response is stored behind", "RFC 5861 §3")
            .get("").ok(stored)
            .after(30).get("").ok(stored).body("new").stale(WhileRevalidate).gives("0123456789").asked_times(1)
            .get("").hit().gives("new"),
        case("not beyond its bound", "RFC 5861 §3").get("").ok(stored).after(31).get("").revalidated(Stale),
        case("without a validator too", "RFC 5861 §3")
            .get("").ok("cache-control: max-age=10, stale-while-revalidate=20")
            .after(11).get("").ok("cache-control: max-age=10").body("new").stale(WhileRevalidate).asked_times(1)
            .get("").hit().gives("new"),
        case("malformed: not at all", "RFC 5861 §3")
            .get("").ok(r#"cache-control: max-age=10, stale-while-revalidate=x | etag: "a""#)
            .after(11).get("").revalidated(Stale),
        case("not for a request that says no-cache", "§5.2.1.4")
            .get("").ok(stored).after(11).get("cache-control: no-cache").revalidated(Request),
        case("not for a request with max-age", "§5.2.1.1")
            .get("").ok(stored).after(11).get("cache-control: max-age=5").revalidated(Request),
        case("not for a request with max-age that is kept, since it wants nothing stale", "§5.2.1.1")
            .get("").ok(stored).after(11).get("cache-control: max-age=100").revalidated(Stale),
        case("not for a request with min-fresh", "§5.2.1.3")
            .get("").ok(stored).after(11).get("cache-control: min-fresh=1").revalidated(Request),
        case("max-stale of the request bounds it", "§5.2.1.2")
            .get("").ok(stored).after(25).get("cache-control: max-stale=5").revalidated(Stale),
        case("a refresh that fails leaves it", "RFC 5861 §3")
            .get("").ok(stored).after(11).get("").down().stale(WhileRevalidate)
            .get("").not_modified(r#"etag: "a""#).stale(WhileRevalidate),
    ]);
}

#[test]
fn stale_if_error_serves_within_window() {
    let mut cases = Vec::new();
    let stored = r#"cache-control: max-age=10, stale-if-error=20 | etag: "a""#;
    let without = r#"cache-control: max-age=10 | etag: "a""#;
    cases.extend([500, 502, 503, 504].map(|status| {
        case(format!("{status}"), "RFC 5861 §4")
            .get("").ok(stored)
            .after(30).get("").answer(status, "").body("failed").stale(IfError).code(200).gives("0123456789")
            .shows("age: 30 | !warning").asked_times(1)
    }));
    cases.extend([404, 410, 501, 505, 400, 429].map(|status| {
        case(format!("{status} is no failure"), "RFC 5861 §4")
            .get("").ok(stored).after(30).get("").answer(status, "cache-control: no-store").code(status).forwarded()
    }));
    cases.extend([
        case("the origin is down", "RFC 5861 §4").get("").ok(stored).after(30).get("").down().stale(IfError),
        case("beyond its bound: the error", "RFC 5861 §4").get("").ok(stored).after(31).get("").down().error(),
        case("beyond its bound: the failure", "RFC 5861 §4")
            .get("").ok(stored).after(31).get("").answer(503, "").code(503).forwarded(),
        case("the request's", "RFC 5861 §4")
            .get("").ok(without).after(30).get("cache-control: stale-if-error=20").answer(500, "").stale(IfError),
        case("the request's, beyond its bound", "RFC 5861 §4")
            .get("").ok(without).after(31).get("cache-control: stale-if-error=20").answer(500, "").code(500),
        case("malformed: not at all", "RFC 5861 §4")
            .get("").ok(r#"cache-control: max-age=10, stale-if-error=x | etag: "a""#)
            .after(11).get("").answer(500, "").code(500),
        case("not for a request that says no-cache", "§5.2.1.4")
            .get("").ok(stored).after(11).get("cache-control: no-cache").down().error(),
        case("the failure is not stored over it", "§4.3.3")
            .get("").ok(stored).after(11).get("").answer(503, "").stale(IfError)
            .after(10).get("").not_modified(r#"etag: "a""#).revalidated(Stale),
        case("nothing stored: the failure", "RFC 5861 §4").get("").answer(503, "").code(503).miss(Absent),
        case("stale_when_disconnected: down", "§4.2.4").with(|builder| builder.stale_when_disconnected(true))
            .get("").ok("cache-control: max-age=10").after(10_000).get("").down().stale(IfError),
        case("stale_when_disconnected: a failure that answers is the answer", "§4.2.4")
            .with(|builder| builder.stale_when_disconnected(true))
            .get("").ok(without).after(11).get("").answer(503, "").code(503).forwarded(),
        case("stale_when_disconnected: stale-if-error still bounds it", "RFC 5861 §4")
            .with(|builder| builder.stale_when_disconnected(true))
            .get("").ok(stored).after(31).get("").down().error(),
        case("stale_when_disconnected: a request with max-age wants nothing stale", "§5.2.1.1")
            .with(|builder| builder.stale_when_disconnected(true))
            .get("").ok(without).after(11).get("cache-control: max-age=60").down().error(),
    ]);
    run(cases);
}
