//! Validation (RFC 9111 §4.3.1, §4.3.3).

use tower_response_cache::MissReason::Replaced;
use tower_response_cache::ValidateReason::Stale;

use super::table::{case, run};

#[test]
fn validation() {
    run([
        case("both validators are sent", "§4.3.1")
            .get("").ok(r#"cache-control: max-age=10 | etag: "a" | last-modified: {-1000}"#)
            .after(11).get("").revalidated(Stale).asked(r#"if-none-match: "a" | if-modified-since: {-1000}"#),
        case("a weak tag is sent as it came", "§4.3.1")
            .get("").ok(r#"cache-control: max-age=10 | etag: W/"a""#).after(11).get("").revalidated(Stale)
            .asked(r#"if-none-match: W/"a" | !if-modified-since"#),
        case("no validator, no condition", "§4.3.1").get("").ok("cache-control: max-age=10").after(11).get("")
            .asked("!if-none-match | !if-modified-since"),
        case("a whole answer takes the place", "§4.3.3")
            .get("").ok(r#"cache-control: max-age=10 | etag: "a""#)
            .after(11).get("").ok("cache-control: max-age=10").body("new").miss(Replaced(Stale)).stores().gives("new")
            .get("").hit().gives("new"),
        case("the client's other tag: it gets the whole stored response", "§4.3.2")
            .get("").ok(r#"cache-control: max-age=10 | etag: "a""#)
            .after(11).get(r#"if-none-match: "b""#).not_modified(r#"etag: "a""#).code(200).shows(r#"etag: "a""#),
        case("the client's own tag: 304", "§4.3.2")
            .get("").ok(r#"cache-control: max-age=10 | etag: "a""#)
            .after(11).get(r#"if-none-match: "a""#).not_modified(r#"etag: "a""#).code(304),
        case("a 304 with another strong tag updates nothing", "§4.3.4")
            .get("").ok(r#"cache-control: max-age=10 | etag: "a""#)
            .after(11).get("").not_modified(r#"etag: "b" | cache-control: max-age=60"#).ok("").body("new").gives("new"),
    ]);
}
