//! HEAD requests (RFC 9111 §4.3.5).

use tower_response_cache::ValidateReason::Request;

use super::table::{Case, case, run};

fn stored(name: &str) -> Case {
    case(name, "§4.3.5").get("").ok(r#"cache-control: max-age=60 | etag: "a" | content-length: 10 | x-a: 1"#).stores()
}

#[test]
fn heads() {
    let asked_with_head = |name, answer: &str| stored(name).after(50).send("HEAD", "cache-control: no-cache").ok(answer);
    run([
        stored("served from a stored GET").send("HEAD", "").hit().gives("").shows("content-length: 10 | x-a: 1"),
        case("not stored by itself", "§4.3.5").send("HEAD", "").ok("cache-control: max-age=60").stores_nothing()
            .get("").forwarded(),
        asked_with_head("the same validators and length freshen",
            r#"cache-control: max-age=60 | etag: "a" | content-length: 10 | x-a: 2"#)
            .after(20).get("").hit().shows("x-a: 2"),
        asked_with_head("another tag makes it stale", r#"cache-control: max-age=60 | etag: "b" | content-length: 10"#)
            .get("").not_reused(),
        asked_with_head("another length makes it stale", r#"cache-control: max-age=60 | etag: "a" | content-length: 11"#)
            .get("").not_reused(),
        asked_with_head("a length beside Transfer-Encoding says nothing",
            r#"cache-control: max-age=60 | etag: "a" | content-length: 11 | transfer-encoding: chunked | x-a: 2"#)
            .get("").hit().shows("content-length: 10 | x-a: 2"),
        stored("HEAD with no-cache is validated").send("HEAD", "cache-control: no-cache").revalidated(Request),
    ]);
}
