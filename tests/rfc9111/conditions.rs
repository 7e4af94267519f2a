//! Preconditions of clients, answered from the storage (RFC 9111 §4.3.2).

use super::table::{Case, case, run};

fn stored(name: &str) -> Case {
    case(name, "§4.3.2").get("").ok(r#"cache-control: max-age=60 | etag: "a" | last-modified: {-1000} | vary: x | x-a: 1"#)
}

#[test]
fn preconditions() {
    run([
        stored("the tag").get(r#"if-none-match: "a""#).hit().code(304).gives("")
            .shows(r#"etag: "a" | cache-control: max-age=60 | vary: x | date"#),
        stored("the tag, weak").get(r#"if-none-match: W/"a""#).hit().code(304),
        stored("the tag in a list").get(r#"if-none-match: "b", "a""#).hit().code(304),
        stored("the tag on a second line").get(r#"if-none-match: "b" | if-none-match: "a""#).hit().code(304),
        stored("any tag").get("if-none-match: *").hit().code(304),
        stored("another tag").get(r#"if-none-match: "b""#).hit().code(200),
        stored("letter case of a tag counts").get(r#"if-none-match: "A""#).hit().code(200),
        stored("not modified since").get("if-modified-since: {-1000}").hit().code(304).gives(""),
        stored("not modified since, later").get("if-modified-since: {-10}").hit().code(304),
        stored("modified since").get("if-modified-since: {-1001}").hit().code(200),
        stored("an invalid date is ignored").get("if-modified-since: yesterday").hit().code(200),
        stored("If-None-Match comes first, and differs")
            .get(r#"if-none-match: "b" | if-modified-since: {-10}"#).hit().code(200),
        stored("If-None-Match comes first, and matches")
            .get(r#"if-none-match: "a" | if-modified-since: {-2000}"#).hit().code(304),
        stored("If-Match is not for a cache").get(r#"if-match: "b""#).ok("").code(200),
        case("Date stands in for Last-Modified", "§4.3.2")
            .get("").ok("cache-control: max-age=60 | date: {0}").get("if-modified-since: {0}").hit().code(304)
            .get("if-modified-since: {-1}").hit().code(200),
        case("only a 200 is answered by 304", "RFC 9110 §13.2.1")
            .get("").answer(404, r#"cache-control: max-age=60 | etag: "a""#).get(r#"if-none-match: "a""#).hit().code(404),
        case("nothing stored: the condition is the origin's", "§4.3.2")
            .get(r#"if-none-match: "a""#).not_modified(r#"etag: "a""#).code(304).asked(r#"if-none-match: "a""#),
    ]);
}
