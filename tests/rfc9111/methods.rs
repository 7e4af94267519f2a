//! Which methods are stored and answered (RFC 9111 §3, RFC 9110 §9.2.3, §9.3.3).

use super::table::{case, run};

#[test]
fn methods() {
    let others = ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO"].map(|method| {
        case(format!("{method} is not stored"), "§3")
            .send(method, "").ok("cache-control: max-age=60 | content-location: /a").stores_nothing().get("").forwarded()
    });
    run(others.into_iter().chain([
        case("POST with freshness and its own Content-Location serves a later GET", "RFC 9110 §9.3.3")
            .send("POST", "").ok("cache-control: max-age=60 | content-location: http://example.com/a").stores().get("").hit(),
        case("a relative Content-Location", "RFC 9110 §9.3.3")
            .send("POST", "").ok("cache-control: max-age=60 | content-location: /a").stores().get("").hit(),
        case("POST with another Content-Location", "RFC 9110 §9.3.3")
            .send("POST", "").ok("cache-control: max-age=60 | content-location: /b").stores_nothing().get("").forwarded(),
        case("POST without Content-Location", "RFC 9110 §9.3.3")
            .send("POST", "").ok("cache-control: max-age=60").stores_nothing().get("").forwarded(),
        case("POST without explicit freshness", "RFC 9110 §9.3.3")
            .send("POST", "").ok("content-location: /a | last-modified: {-1000}").stores_nothing().get("").forwarded(),
        case("a later POST is never answered from the store", "RFC 9110 §9.3.3")
            .send("POST", "").ok("cache-control: max-age=60 | content-location: /a").send("POST", "").ok("").asked_times(1),
    ]));
}
