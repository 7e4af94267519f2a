//! Which responses may be stored (RFC 9111 §3), and which of their fields (§3.1).

use tower_response_cache::MissReason::{Absent, Replaced};
use tower_response_cache::NotStored;
use tower_response_cache::ValidateReason::{NoCache, Stale};

use super::table::{case, run};

#[test]
fn directives_decide_what_is_stored() {
    run([
        case("max-age: stored and reused", "§3")
            .get("").ok("cache-control: max-age=60").miss(Absent).stores()
            .get("").hit().shows("age: 0"),
        case("Expires: stored and reused", "§3").get("").ok("expires: {60}").stores().get("").hit(),
        case("no-store", "§5.2.2.5")
            .get("").ok("cache-control: no-store, max-age=60").stores_not(NotStored::ResponseNoStore)
            .get("").miss(Absent),
        case("no-store on a second line", "§5.2.2.5")
            .get("").ok("cache-control: max-age=60 | cache-control: no-store").stores_not(NotStored::ResponseNoStore),
        case("no-store with an argument still forbids", "§5.2.2.5")
            .get("").ok("cache-control: max-age=60, no-store=1").stores_not(NotStored::ResponseNoStore),
        case("no-store with ETag and Expires", "§5.2.2.5")
            .get("").ok(r#"cache-control: no-store | etag: "a" | expires: {60}"#)
            .stores_not(NotStored::ResponseNoStore),
        case("no-store of the request", "§5.2.1.5")
            .get("cache-control: no-store").ok("cache-control: max-age=60").stores_not(NotStored::RequestNoStore)
            .get("").miss(Absent),
        case("no-store in a request does not remove what other responses stored", "§5.2.1.5")
            .get("").ok("cache-control: max-age=60")
            .get("cache-control: no-store").hit()
            .get("").hit(),
        case("private in a private cache", "§5.2.2.7")
            .get("").ok("cache-control: private, max-age=60").stores().get("").hit(),
        case("private in a shared cache", "§5.2.2.7").shared()
            .get("").ok("cache-control: private, max-age=60").stores_not(NotStored::Private)
            .get("").miss(Absent),
        case("private together with public and s-maxage: the stricter holds", "§4.2.1").shared()
            .get("").ok("cache-control: public, private, s-maxage=60").stores_not(NotStored::Private),
        case("public in a shared cache", "§5.2.2.9").shared()
            .get("").ok("cache-control: public, max-age=60").stores().get("").hit(),
        case("an unknown directive is ignored", "§5.2.3")
            .get("").ok("cache-control: max-age=60, community=\"UCI\", foo").stores().get("").hit(),
        case("private with an unknown directive adheres to private", "§5.2.3").shared()
            .get("").ok("cache-control: private, community=\"UCI\", max-age=60").stores_not(NotStored::Private),
        case("no-cache with a validator is stored", "§5.2.2.4")
            .get("").ok(r#"cache-control: no-cache, max-age=60 | etag: "a""#).stores()
            .get("").revalidated(NoCache).asked(r#"if-none-match: "a""#),
        case("no-cache without a validator is of no use", "§5.2.2.4")
            .get("").ok("cache-control: no-cache").stores_nothing().get("").forwarded(),
        case("neither freshness nor a validator", "§3")
            .get("").ok("").stores_not(NotStored::NoFreshness),
        case("a validator without freshness", "§3")
            .get("").ok(r#"etag: "a""#).stores().get("").revalidated(Stale),
        case("stale from the start, with a validator", "§3")
            .get("").ok(r#"cache-control: max-age=0 | etag: "a""#).stores().get("").revalidated(Stale),
        case("stale from the start, without a validator", "§3")
            .get("").ok("cache-control: max-age=0").stores_not(NotStored::Stale).get("").miss(Absent),
        case("older than its lifetime already", "§3")
            .get("").ok("cache-control: max-age=60 | age: 60").stores_not(NotStored::Stale),
    ]);
}

#[test]
fn status_decides_storing() {
    let mut cases = Vec::new();
    let heuristic = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501].map(|status| {
        case(format!("{status} has a heuristic lifetime"), "§4.2.2")
            .get("").answer(status, "last-modified: {-1000}").stores()
            .after(99).get("").hit().code(status)
            .after(1).get("").not_reused()
    });
    let others = [201, 202, 205, 302, 303, 307, 400, 401, 402, 403, 406, 409, 418, 429, 451, 500, 502, 503, 504, 599];
    let none = others.into_iter().filter(|status| ![401, 406, 429].contains(status)).map(|status| {
        case(format!("{status} has no heuristic lifetime"), "§3")
            .get("").answer(status, "last-modified: {-1000}").stores_not(NotStored::StatusNotCacheable)
            .get("").miss(Absent)
    });
    // These statuses concern one request or client, so no other request gets the response.
    let of_one = [401, 406, 407, 408, 411, 412, 413, 415, 416, 417, 421, 425, 426, 428, 429, 431, 505, 511];
    let one = of_one.map(|status| {
        case(format!("{status} is about one request"), "§3")
            .get("").answer(status, "cache-control: public, max-age=60").stores_not(NotStored::StatusOfRequest)
            .get("").miss(Absent)
    });
    let explicit = others.into_iter().filter(|status| !of_one.contains(status)).map(|status| {
        case(format!("{status} with explicit freshness"), "§3")
            .get("").answer(status, "cache-control: max-age=60").stores()
            .after(59).get("").hit().code(status).shows("age: 59")
    });
    let public = [302, 307, 403, 500].map(|status| {
        case(format!("{status} with public may have a heuristic lifetime"), "§5.2.2.9")
            .get("").answer(status, "cache-control: public | last-modified: {-1000}").stores()
            .after(99).get("").hit().code(status)
    });
    cases.extend(heuristic.into_iter().chain(none).chain(one).chain(explicit).chain(public));
    cases.extend([
        case("206 is not stored", "§3.3")
            .get("range: bytes=0-1").answer(206, "cache-control: max-age=60 | content-range: bytes 0-1/10").body("01")
            .code(206).stores_not(NotStored::PartialContent)
            .get("").miss(Absent),
        case("206 is not stored even with must-understand", "§5.2.2.3")
            .get("range: bytes=0-1")
            .answer(206, "cache-control: must-understand, max-age=60 | content-range: bytes 0-1/10").body("01")
            .stores_nothing(),
        case("304 to a client's condition is not stored", "§3")
            .get(r#"if-none-match: "a""#).not_modified(r#"etag: "a" | cache-control: max-age=60"#)
            .code(304).stores_nothing()
            .get("").forwarded(),
    ]);
    run(cases);
}

#[test]
fn must_understand() {
    let mut cases = Vec::new();
    let known = [200, 203, 302, 404, 429, 500, 503].map(|status| {
        let known = status != 429; // RFC 9110 does not define 429
        let case = case(format!("{status} with must-understand and no-store"), "§5.2.2.3")
            .get("").answer(status, "cache-control: must-understand, no-store, max-age=60");
        if known { case.stores().get("").hit().code(status) } else { case.stores_nothing().get("").miss(Absent) }
    });
    cases.extend(known);
    cases.extend([
        case("an unknown status", "§5.2.2.3")
            .get("").answer(599, "cache-control: must-understand, max-age=60").stores_nothing()
            .get("").miss(Absent),
        case("an unknown status, and no-store", "§5.2.2.3")
            .get("").answer(599, "cache-control: must-understand, no-store, max-age=60").stores_nothing(),
        case("a known status without no-store", "§5.2.2.3")
            .get("").ok("cache-control: must-understand, max-age=60").stores().get("").hit(),
        case("it does not override no-store of the request", "§5.2.1.5")
            .get("cache-control: no-store").ok("cache-control: must-understand, no-store, max-age=60")
            .stores_not(NotStored::RequestNoStore),
        case("it does not override private", "§5.2.2.7").shared()
            .get("").ok("cache-control: must-understand, no-store, private, max-age=60")
            .stores_not(NotStored::Private),
        case("it gives no lifetime", "§5.2.2.3")
            .get("").ok("cache-control: must-understand, no-store").stores_nothing(),
    ]);
    run(cases);
}

#[test]
fn connection_fields_are_not_stored() {
    let mut cases = Vec::new();
    let fields = ["Keep-Alive", "Proxy-Authenticate", "Proxy-Authentication-Info", "Proxy-Connection", "TE", "Upgrade"];
    cases.extend(fields.map(|name| {
        case(format!("{name} is not stored"), "§3.1")
            .get("").ok(&format!("cache-control: max-age=60 | {name}: x | x-a: 1")).stores()
            .get("").hit().shows(&format!("!{name} | x-a: 1"))
    }));
    cases.extend([
        case("what Connection names is not stored", "§3.1")
            .get("").ok("cache-control: max-age=60 | connection: X-A, x-b | x-a: 1 | x-b: 2 | x-c: 3")
            .get("").hit().shows("!connection | !x-a | !x-b | x-c: 3"),
        case("unknown fields are stored", "§3.1")
            .get("").ok("cache-control: max-age=60 | x-unknown: 1 | content-type: text/plain | server: s")
            .get("").hit().shows("x-unknown: 1 | content-type: text/plain | server: s"),
        case("the lines of a field keep their order", "§3.1")
            .get("").ok("cache-control: max-age=60 | set-cookie: b=2 | set-cookie: a=1 | link: <x> | link: <y>, <z>")
            .get("").hit().shows("set-cookie: b=2 | set-cookie: a=1 | link: <x> | link: <y>, <z>"),
        case("a changed answer takes the place", "§4.3.3")
            .get("").ok(r#"cache-control: max-age=10 | etag: "a""#)
            .after(11).get("").ok(r#"cache-control: max-age=10 | etag: "b""#).body("new").miss(Replaced(Stale)).stores()
            .get("").hit().gives("new").shows(r#"etag: "b""#),
    ]);
    run(cases);
}
