//! Preconditions and ranges of requests for a stored response (RFC 9110 §13 and §14).

use http::{Method, StatusCode};

use super::*;

fn ask(request: &[(&str, &str)]) -> Answer {
    let stored = fields(&[
        ("etag", "\"t\""),
        ("last-modified", "Wed, 31 Dec 2025 00:00:00 GMT"),
        ("date", "Thu, 01 Jan 2026 00:00:00 GMT"),
    ]);
    answer(&Method::GET, &fields(request), StatusCode::OK, &stored, None, 100, NOW)
}

#[test]
fn preconditions_follow_their_precedence() {
    for (request, expected) in [
        (vec![], Answer::Full),
        (vec![("if-none-match", "\"t\"")], Answer::NotModified),
        (vec![("if-none-match", "W/\"t\"")], Answer::NotModified), // §13.1.2: weak comparison
        (vec![("if-none-match", "\"a\", \"t\"")], Answer::NotModified),
        (vec![("if-none-match", "\"a,\", \"t\"")], Answer::NotModified),
        (vec![("if-none-match", "*")], Answer::NotModified),
        (vec![("if-none-match", "\"a\"")], Answer::Full),
        (vec![("if-none-match", "t")], Answer::Full),
        (vec![("if-modified-since", "Wed, 31 Dec 2025 00:00:00 GMT")], Answer::NotModified),
        (vec![("if-modified-since", "Tue, 30 Dec 2025 23:59:59 GMT")], Answer::Full),
        (vec![("if-modified-since", "whenever")], Answer::Full),
        // If-None-Match decides alone (§13.1.3).
        (
            vec![("if-none-match", "\"a\""), ("if-modified-since", "Wed, 31 Dec 2025 00:00:00 GMT")],
            Answer::Full,
        ),
    ] {
        assert_eq!(ask(&request), expected, "{request:?}");
    }
    let request = fields(&[("if-none-match", "*")]);
    let not_found = answer(&Method::GET, &request, StatusCode::NOT_FOUND, &HeaderMap::new(), None, 1, NOW);
    assert_eq!(not_found, Answer::Full); // §13.2.1: only where the response would be a success
}

#[test]
fn ranges_answered_others_ignored() {
    let part = |start: u64, last: u64| Answer::Range(start..last + 1);
    for (range, expected) in [
        ("bytes=0-0", part(0, 0)),
        ("Bytes=10-19", part(10, 19)),
        ("bytes=90-", part(90, 99)),
        ("bytes=90-1000", part(90, 99)),
        ("bytes=90-99999999999999999999999", part(90, 99)),
        ("bytes=-10", part(90, 99)),
        ("bytes=-1000", part(0, 99)),
        ("bytes=-0", Answer::Unsatisfiable),
        ("bytes=100-", Answer::Unsatisfiable),
        ("bytes=5-4", Answer::Full),
        ("bytes=0-1,5-6", part(0, 6)),
        ("lines=0-1", Answer::Full),
        ("bytes=", Answer::Full),
        ("bytes=-", Answer::Full),
        ("bytes=a-b", Answer::Full),
        ("bytes=+1-2", Answer::Full),
    ] {
        assert_eq!(ask(&[("range", range)]), expected, "{range}");
    }
    let (range, head) = (fields(&[("range", "bytes=0-1")]), Method::HEAD);
    assert_eq!(answer(&head, &range, StatusCode::OK, &HeaderMap::new(), None, 100, NOW), Answer::Full); // §14.2: GET only
    assert_eq!(
        answer(&Method::GET, &range, StatusCode::OK, &HeaderMap::new(), None, 0, NOW),
        Answer::Unsatisfiable
    );
}

#[test]
fn if_range_needs_strong_match() {
    let range = ("range", "bytes=0-1");
    let part = || Answer::Range(0..2);
    for (condition, expected) in [
        ("\"t\"", part()),
        ("W/\"t\"", Answer::Full), // §13.1.5: strong comparison
        ("\"a\"", Answer::Full),
        ("Wed, 31 Dec 2025 00:00:00 GMT", part()),
        ("Wed, 31 Dec 2025 00:00:01 GMT", Answer::Full),
        ("whenever", Answer::Full),
    ] {
        assert_eq!(ask(&[range, ("if-range", condition)]), expected, "{condition}");
    }
}

#[test]
fn not_modified_carries_no_body_fields() {
    let stored = fields(&[("etag", "\"t\""), ("vary", "x"), ("content-length", "5"), ("set-cookie", "a=b")]);
    assert_eq!(
        not_modified_headers(&stored, &Options::default()),
        fields(&[("etag", "\"t\""), ("vary", "x")])
    );
}

#[test]
fn if_modified_since_falls_back_to_date() {
    let ask = |stored: &[(&str, &str)], since: &str| {
        let request = fields(&[("if-modified-since", since)]);
        answer(&Method::GET, &request, StatusCode::OK, &fields(stored), None, 1, NOW)
    };
    let date = [("date", "Wed, 31 Dec 2025 00:00:00 GMT")];
    assert_eq!(ask(&date, "Wed, 31 Dec 2025 00:00:00 GMT"), Answer::NotModified);
    assert_eq!(ask(&date, "Tue, 30 Dec 2025 23:59:59 GMT"), Answer::Full);
    assert_eq!(ask(&[], "Thu, 01 Jan 2026 00:00:00 GMT"), Answer::NotModified);
    assert_eq!(ask(&[], "Wed, 31 Dec 2025 23:59:59 GMT"), Answer::Full);
}
