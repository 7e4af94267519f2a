//! When a stored response answers a request (RFC 9111 §4), and how it is served.

use tower_response_cache::MissReason::{Absent, Vary};
use tower_response_cache::NotStored;

use super::table::{case, run};

#[test]
fn effective_uri_selects_entry() {
    let stored = |name| case(name, "§2").get("").at("http://example.com/a?b=c").ok("cache-control: max-age=60").stores();
    run([
        stored("the same").get("").at("http://example.com/a?b=c").hit(),
        stored("another query").get("").at("http://example.com/a?b=d").miss(Absent),
        stored("no query").get("").at("http://example.com/a").miss(Absent),
        stored("another path").get("").at("http://example.com/A?b=c").miss(Absent),
        stored("another host").get("").at("http://example.org/a?b=c").miss(Absent),
        stored("another port").get("").at("http://example.com:8080/a?b=c").miss(Absent),
        stored("the default port").get("").at("http://example.com:80/a?b=c").hit(),
        stored("another scheme").get("").at("https://example.com/a?b=c").miss(Absent),
        stored("the host in capitals").get("").at("http://EXAMPLE.com/a?b=c").hit(),
        case("an empty path is /", "RFC 9110 §4.2.3")
            .get("").at("http://example.com").ok("cache-control: max-age=60").stores()
            .get("").at("http://example.com/").hit(),
    ]);
}

#[test]
fn stored_response_is_served_unchanged() {
    run([
        case("status, fields and body as they came", "§4")
            .get("").answer(404, "cache-control: max-age=60 | content-type: text/x | x-a: 1 | x-a: 2").body("none")
            .get("").hit().code(404).gives("none").shows("content-type: text/x | x-a: 1 | x-a: 2"),
        case("Cache-Control is passed on", "§5.2")
            .get("").ok("cache-control: max-age=60, x=y | cache-control: public")
            .get("").hit().shows("cache-control: max-age=60, x=y | cache-control: public"),
        case("no Warning is added", "§5.5").get("").ok("last-modified: {-10000000}")
            .after(86_399).get("").hit().shows("!warning"),
        case("an empty body", "§4").get("").answer(204, "cache-control: max-age=60").get("").hit().code(204).gives(""),
        case("a redirect", "§4")
            .get("").answer(301, "cache-control: max-age=60 | location: /b").get("").hit().code(301).shows("location: /b"),
        case("Set-Cookie in a private cache", "§7.3")
            .get("").ok("cache-control: max-age=60 | set-cookie: a=1 | set-cookie: b=2").stores()
            .get("").hit().shows("set-cookie: a=1 | set-cookie: b=2"),
        case("Set-Cookie in a shared cache", "§7.3").shared()
            .get("").ok("cache-control: max-age=60 | set-cookie: a=1").stores_not(NotStored::SetCookie),
        case("Set-Cookie in a shared cache that is told so", "§7.3").shared().with(|builder| builder.store_set_cookie(true))
            .get("").ok("cache-control: max-age=60 | set-cookie: a=1").stores().get("").hit().shows("set-cookie: a=1"),
        case("the request's Cache-Control is passed on", "§5.2")
            .get("cache-control: no-cache, x=y").asked("cache-control: no-cache, x=y"),
    ]);
}

#[test]
fn misses_do_not_mix_responses() {
    run([
        case("two misses of two URIs", "§4")
            .get("").at("/a").ok("cache-control: max-age=60").body("a").miss(Absent)
            .get("").at("/b").ok("cache-control: max-age=60").body("b").miss(Absent)
            .get("").at("/a").hit().gives("a").get("").at("/b").hit().gives("b"),
        case("a variant that never was", "§4.1")
            .get("x-a: 1").ok("cache-control: max-age=60 | vary: x-a").get("x-a: 2").miss(Vary),
    ]);
}
