//! Validation (RFC 9111 §4.3), freshening by a 304 (§3.2), and invalidation (§4.4).

use http::{Method, StatusCode, Uri};

use super::*;

#[test]
fn validation_replaces_callers_conditions() {
    let mut request = fields(&[
        ("if-none-match", "\"callers\""),
        ("if-modified-since", "x"),
        ("range", "bytes=0-1"),
        ("if-range", "\"r\""),
        ("accept", "a"),
    ]);
    add_validators(
        &mut request,
        &fields(&[("etag", "W/\"t\""), ("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT")]),
    );
    let expected = fields(&[
        ("accept", "a"),
        ("if-none-match", "W/\"t\""),
        ("if-modified-since", "Thu, 01 Jan 2026 00:00:00 GMT"),
    ]);
    assert_eq!(request, expected);
    let mut request = fields(&[("range", "bytes=0-1"), ("if-match", "\"x\"")]);
    strip_conditions(&mut request);
    assert!(request.is_empty());
}

#[test]
fn not_modified_selects_by_validator() {
    let modified = "Thu, 01 Jan 2026 00:00:00 GMT";
    for (stored, response, expected) in [
        (("etag", "\"a\""), ("etag", "\"a\""), true),
        (("etag", "\"a\""), ("etag", "\"b\""), false),
        (("etag", "W/\"a\""), ("etag", "W/\"a\""), true),
        (("etag", "\"a\""), ("etag", "W/\"a\""), true), // §4.3.4: weak comparison for a weak tag
        (("etag", "W/\"a\""), ("etag", "\"a\""), false), // §4.3.4: strong comparison for a strong tag
        (("last-modified", modified), ("etag", "\"a\""), false),
        (("last-modified", modified), ("last-modified", modified), true),
        (("last-modified", modified), ("last-modified", "Thu, 01 Jan 2026 00:00:01 GMT"), false),
        (("etag", "\"a\""), ("x", "y"), true), // the request asked about this response alone
    ] {
        assert_eq!(
            selects_304(&fields(&[stored]), &fields(&[response])),
            expected,
            "{stored:?} {response:?}"
        );
    }
}

#[test]
fn freshening_keeps_body_and_connection_fields() {
    let mut stored = fields(&[
        ("x-old", "1"),
        ("x-many", "1"),
        ("x-many", "2"),
        ("content-length", "5"),
        ("content-encoding", "gzip"),
        ("content-type", "text/plain"),
        ("age", "9"),
        ("date", "Thu, 01 Jan 2026 00:00:00 GMT"),
    ]);
    let update = fields(&[
        ("x-many", "3"),
        ("x-many", "4"),
        ("x-new", "5"),
        ("content-length", "0"),
        ("content-encoding", "br"),
        ("connection", "x-hop"),
        ("x-hop", "6"),
        ("transfer-encoding", "chunked"),
        ("content-type", "text/html"),
    ]);
    freshen(&mut stored, &update, &Options::default());
    let mut expected = fields(&[("x-old", "1"), ("x-many", "3"), ("x-many", "4"), ("x-new", "5")]);
    expected.extend(fields(&[
        ("content-length", "5"),
        ("content-encoding", "gzip"),
        ("content-type", "text/html"),
    ]));
    assert_eq!(stored, expected);
}

#[test]
fn successful_unsafe_method_invalidates() {
    for (method, status, expected) in [
        ("POST", 200, true),
        ("PUT", 204, true),
        ("DELETE", 301, true),
        ("PATCH", 200, true),
        ("FROBNICATE", 200, true),
        ("POST", 404, false),
        ("POST", 500, false),
        ("GET", 200, false),
        ("HEAD", 200, false),
        ("OPTIONS", 200, false),
        ("QUERY", 200, false),
    ] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        assert_eq!(
            invalidates(&method, StatusCode::from_u16(status).unwrap()),
            expected,
            "{method} {status}"
        );
    }
}

#[test]
fn only_same_origin_uris_are_invalidated() {
    let base: Uri = "http://example.com/a/b?q".parse().unwrap();
    let named = |value: &str| {
        let uris = invalidated(&base, &fields(&[("location", value)]));
        uris.iter().map(Uri::to_string).collect::<Vec<_>>().join(" ")
    };
    for (value, expected) in [
        ("/c", "http://example.com/c"),
        ("c?d#e", "http://example.com/a/c?d"),
        ("../c", "http://example.com/c"),
        ("./", "http://example.com/a/"),
        ("..", "http://example.com/"),
        ("../../../c", "http://example.com/c"),
        ("?x", "http://example.com/a/b?x"),
        ("", "http://example.com/a/b?q"),
        ("//EXAMPLE.com:80/c", "http://EXAMPLE.com:80/c"),
        ("http://example.com/c", "http://example.com/c"),
        ("https://example.com/c", ""),
        ("http://example.com:81/c", ""),
        ("http://evil.example/c", ""),
        ("//evil.example/c", ""),
    ] {
        assert_eq!(named(value), expected, "{value}");
    }
}
