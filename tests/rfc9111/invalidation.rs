//! Invalidation by unsafe requests (RFC 9111 §4.4).

use tower_response_cache::MissReason::Invalidated;

use super::table::{Case, case, run};

const FRESH: &str = "cache-control: max-age=60";

fn stored(name: impl Into<String>) -> Case {
    case(name, "§4.4").get("").ok(FRESH).stores().get("").at("/b").ok(FRESH).stores()
}

#[test]
fn method_and_status_decide_invalidation() {
    let unsafe_ones = ["POST", "PUT", "DELETE", "PATCH", "FOO"].into_iter().flat_map(|method| {
        [200, 204, 303].map(|status| {
            stored(format!("{method} {status}")).send(method, "").answer(status, "").not_reused()
                .get("").miss(Invalidated).get("").at("/b").hit()
        })
    });
    let errors = [400, 404, 409, 500, 503].map(|status| {
        stored(format!("POST {status} changes nothing")).send("POST", "").answer(status, "").code(status).get("").hit()
    });
    let safe = ["OPTIONS", "TRACE", "HEAD"].map(|method| {
        stored(format!("{method} is safe")).send(method, "").ok(FRESH).get("").hit()
    });
    run(unsafe_ones.chain(errors).chain(safe));
}

#[test]
fn response_fields_name_invalidated_uris() {
    let named = ["location", "content-location"].into_iter().flat_map(|field| {
        let post = move |value: &str| {
            stored(format!("{field}: {value}")).send("POST", "").answer(201, &format!("{field}: {value}"))
                .get("").at("/b")
        };
        [
            post("/b").forwarded(), post("b").forwarded(), post("http://example.com/b").forwarded(),
            post("http://example.com:80/b").forwarded(), post("//example.com/b").forwarded(),
            post("https://example.com/b").hit(), post("http://example.com:8080/b").hit(),
            post("http://example.org/b").hit(), post("/c").hit(), post("").hit(),
        ]
    });
    run(named.chain([
        stored("an error names nothing").send("POST", "").answer(404, "location: /b").get("").at("/b").hit(),
        stored("a GET names nothing").get("").at("/c").ok("location: /b").get("").at("/b").hit(),
        case("all variants", "§4.4")
            .get("x-a: 1").ok("cache-control: max-age=60 | vary: x-a").get("x-a: 2").ok("cache-control: max-age=60 | vary: x-a")
            .send("DELETE", "").answer(204, "").get("x-a: 1").forwarded().get("x-a: 2").forwarded(),
    ]));
}
