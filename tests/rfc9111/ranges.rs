//! Ranges of a stored whole response (RFC 9110 §14).

use super::table::{BODY, Case, case, run};

fn stored(name: &str) -> Case {
    case(name, "RFC 9110 §14.2").get("").ok(r#"cache-control: max-age=60 | etag: "a" | last-modified: {-1000}"#).stores()
}

#[test]
fn ranges() {
    let parts = [
        ("0-1", "01", "0-1"), ("8-", "89", "8-9"), ("-3", "789", "7-9"), ("8-99", "89", "8-9"), ("-99", BODY, "0-9"),
        ("9-9", "9", "9-9"), ("0-99999999999999999999999", BODY, "0-9"),
    ];
    let parts = parts.map(|(range, body, sent)| {
        stored(range).get(&format!("range: bytes={range}")).hit().code(206).gives(body)
            .shows(&format!("content-range: bytes {sent}/10 | content-length: {}", body.len()))
    });
    let beyond = ["10-", "10-20", "-0"].map(|range| {
        stored(range).get(&format!("range: bytes={range}")).hit().code(416).shows("content-range: bytes */10")
    });
    let whole = ["bytes=0-1,3-4", "lines=0-1", "bytes=2-1", "bytes=a-b", "bytes=-", "bytes", "bytes=0-1 | range: bytes=3-4"];
    let whole = whole.map(|range| stored(range).get(&format!("range: {range}")).hit().code(200).gives(BODY));
    let conditions = [
        (r#""a""#, 206), (r#""b""#, 200), (r#"W/"a""#, 200), ("{-1000}", 206), ("{-999}", 200), ("x", 200),
    ];
    let conditions = conditions.map(|(condition, code)| {
        stored(condition).get(&format!("range: bytes=0-1 | if-range: {condition}")).hit().code(code)
    });
    run(parts.into_iter().chain(beyond).chain(whole).chain(conditions).chain([
        stored("If-None-Match comes first").get(r#"range: bytes=0-1 | if-none-match: "a""#).hit().code(304),
        case("a weak tag is no condition for a range", "RFC 9110 §13.1.5")
            .get("").ok(r#"cache-control: max-age=60 | etag: W/"a""#)
            .get(r#"range: bytes=0-1 | if-range: W/"a""#).hit().code(200).gives(BODY),
        case("only a 200 has ranges", "RFC 9110 §14.2")
            .get("").answer(404, "cache-control: max-age=60").get("range: bytes=0-1").hit().code(404).gives(BODY),
        stored("HEAD has no ranges").send("HEAD", "range: bytes=0-1").hit().code(200),
        case("a miss asks for the range", "§3.3").get("range: bytes=0-1").asked("range: bytes=0-1"),
    ]));
}
