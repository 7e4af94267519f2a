//! Partial responses, and the validators on which parts may be combined (RFC 9110 §8.8, §13.1.5 and §14.4).

use http::HeaderMap;

use super::*;
use crate::policy::content_range::ContentRange;

#[test]
fn content_range_is_parsed_strictly() {
    let range = |first, last, complete| Some(ContentRange { first, last, complete });
    for (value, expected) in [
        ("bytes 0-0/1", range(0, 0, Some(1))),
        ("bytes 42-1233/1234", range(42, 1233, Some(1234))),
        ("bytes 42-1233/*", range(42, 1233, None)),
        ("BYTES 42-1233/1234", range(42, 1233, Some(1234))),
        ("bytes 007-8/10", range(7, 8, Some(10))),
        (
            "bytes 0-18446744073709551613/18446744073709551615",
            range(0, 18446744073709551613, Some(18446744073709551615)),
        ),
        // §14.4: the last position is at least the first, and less than the complete length.
        ("bytes 2-1/10", None),
        ("bytes 0-10/10", None),
        ("bytes 0-0/0", None),
        ("bytes 10-10/10", None),
        // No end fits into a number after the largest one.
        ("bytes 0-18446744073709551615/*", None),
        ("bytes 0-18446744073709551616/*", None),
        ("bytes 0-1/18446744073709551616", None),
        // Of a 416.
        ("bytes */1234", None),
        ("bytes */*", None),
        ("lines 0-1/2", None),
        ("bytes=0-1/2", None),
        ("bytes 0-1", None),
        ("bytes 0-/2", None),
        ("bytes -1/2", None),
        ("bytes 0-1/", None),
        ("bytes 0-1/+2", None),
        ("bytes +0-1/2", None),
        ("bytes 0-1/2/3", None),
        ("bytes 0-1-2/3", None),
        ("bytes 0 - 1/2", None),
        ("bytes 0-1/2, bytes 0-1/2", None),
        ("bytes 0x0-1/2", None),
        ("bytes", None),
        ("", None),
    ] {
        assert_eq!(ContentRange::of(&fields(&[("content-range", value)])), expected, "{value}");
    }
    assert_eq!(ContentRange::of(&HeaderMap::new()), None);
    let twice = fields(&[("content-range", "bytes 0-1/2"), ("content-range", "bytes 0-1/2")]);
    assert_eq!(ContentRange::of(&twice), None);
    let mut not_text = HeaderMap::new();
    not_text.insert("content-range", HeaderValue::from_bytes(b"bytes 0-1/2\xff").unwrap());
    assert_eq!(ContentRange::of(&not_text), None);
}

#[test]
fn retry_after_is_seconds_or_date() {
    let seconds = |value| {
        let time = retry_after(&fields(&[("retry-after", value)]), NOW);
        time.map(|time| time.as_secs())
    };
    for (value, expected) in [
        ("120", Some(120)),
        (" 0 ", Some(0)),
        ("99999999999999999999999", Some(u64::MAX)),
        ("Thu, 01 Jan 2026 00:00:07 GMT", Some(7)),
        ("Wed, 31 Dec 2025 00:00:00 GMT", Some(0)),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
    ] {
        assert_eq!(seconds(value), expected, "{value}");
    }
    assert_eq!(retry_after(&fields(&[("retry-after", "1"), ("retry-after", "1")]), NOW), None);
}

#[test]
fn strong_validator_is_tag_or_old_date() {
    let (date, before) = ("Thu, 01 Jan 2026 00:00:00 GMT", "Wed, 31 Dec 2025 23:59:59 GMT");
    for (response, expected) in [
        (vec![("etag", "\"t\"")], Some("\"t\"")),
        (vec![("etag", "\"t\""), ("last-modified", before), ("date", date)], Some("\"t\"")),
        (vec![("etag", "\"\"")], Some("\"\"")),
        (vec![("last-modified", before), ("date", date)], Some(before)),
        // §8.8.2.2: as old as the response, newer, or without a Date to compare it with.
        (vec![("last-modified", date), ("date", date)], None),
        (vec![("last-modified", date), ("date", before)], None),
        (vec![("last-modified", before)], None),
        (vec![("last-modified", before), ("last-modified", before), ("date", date)], None),
        (vec![("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT"), ("date", date)], None),
        (vec![("last-modified", "yesterday"), ("date", date)], None),
        // §13.1.5: a date does not stand in for a tag that is weak, and so not for a malformed one.
        (vec![("etag", "W/\"t\"")], None),
        (vec![("etag", "W/\"t\""), ("last-modified", before), ("date", date)], None),
        (vec![("etag", "t"), ("last-modified", before), ("date", date)], None),
        (vec![("etag", "\"a\""), ("etag", "\"b\""), ("last-modified", before), ("date", date)], None),
        (vec![], None),
    ] {
        let headers = fields(&response);
        let validator = strong_validator(&headers);
        assert_eq!(validator.map(|value| value.to_str().unwrap()), expected, "{response:?}");
    }
}
