//! Arbitrary bytes in any field cause no panic, and never allow what a directive forbids.

use std::time::Duration;

use http::{Method, StatusCode, Uri, header};

use super::*;

const NAMES: [HeaderName; 16] = [
    header::CACHE_CONTROL,
    header::PRAGMA,
    header::EXPIRES,
    header::DATE,
    header::AGE,
    header::VARY,
    header::ETAG,
    header::LAST_MODIFIED,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::RANGE,
    header::IF_RANGE,
    header::CONNECTION,
    header::LOCATION,
    header::CONTENT_LOCATION,
    header::SET_COOKIE,
];

const WORDS: [&str; 26] = [
    "max-age",
    "no-store",
    "=",
    ",",
    "\"",
    "\\",
    "99999999999999999999",
    "-1",
    " ",
    "*",
    "W/",
    "bytes",
    "-",
    "é",
    "Thu, 01 Jan 2026 00:00:00 GMT",
    "Thu, 99 Jan 9999 99:99:99 GMT",
    "private",
    "s-maxage=1",
    "\t",
    "/",
    "..",
    "?",
    "http://",
    "//",
    "0",
    "stale-while-revalidate=18446744073709551615",
];

fn headers(random: &mut fastrand::Rng) -> HeaderMap {
    let mut map = HeaderMap::new();
    for _ in 0..random.usize(..6) {
        let mut value = Vec::new();
        for _ in 0..random.usize(..8) {
            if random.usize(..4) == 0 {
                value.push(random.usize(..256) as u8);
            } else {
                value.extend_from_slice(WORDS[random.usize(..WORDS.len())].as_bytes());
            }
        }
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            map.append(NAMES[random.usize(..NAMES.len())].clone(), value);
        }
    }
    map
}

#[test]
fn arbitrary_fields_never_panic_or_loosen() {
    let mut random = fastrand::Rng::with_seed(0x2545_F491_4F6C_DD1D);
    let uri: Uri = "http://example.com/a/b".parse().unwrap();
    for round in 0..50_000 {
        let (request, response) = (headers(&mut random), headers(&mut random));
        let options = Options { shared: round % 2 == 0, ..Options::default() };
        let status = StatusCode::from_u16(100 + random.usize(..900) as u16).unwrap();
        let times = [Timestamp::EPOCH, NOW, Timestamp::NEVER];
        let (requested, responded) = (times[random.usize(..3)], times[random.usize(..3)]);
        let freshness = Freshness::new(status, &response, requested, responded, &options);
        let asked = RequestDirectives::of(&request);
        for now in times {
            let verdict = decide(&asked, &freshness, now);
            if freshness.no_cache || asked.no_cache {
                assert!(!matches!(verdict, Verdict::Serve | Verdict::ServeStale(_)));
            }
            stale_on_error(&asked, &freshness, now, round % 3 == 0, &options);
            freshness.ttl(now);
        }
        freshness.retain_until(&options);
        let directives = ResponseDirectives::of(&response, &options);
        let _ = storable(&Method::GET, &request, status, &response, &freshness, &options);
        if let Ok(names) = selecting_names(&response, &directives, &options, StoreDespite::default()) {
            names.iter().for_each(|name| drop(selecting_value(name, &request, &options)));
        }
        let unstored = UnstoredFields::by(&response, &directives, &options);
        let mut stored = stored_headers(&response, &unstored, 2);
        unstored.trailers(&request);
        freshen(&mut stored, &request, &options);
        add_validators(&mut stored, &response);
        selects_304(&response, &request);
        for len in [0, 1, 10, u64::MAX] {
            let ranges = match answer(&Method::GET, &request, StatusCode::OK, &response, None, len, NOW) {
                Answer::Range(range) => vec![range],
                Answer::Ranges(ranges) => ranges,
                Answer::Full | Answer::NotModified | Answer::Unsatisfiable => vec![],
            };
            assert!(ranges.iter().all(|range| range.start < range.end && range.end <= len), "{ranges:?}");
        }
        for named in invalidated(&uri, &response) {
            assert_eq!(named.host(), Some("example.com"));
        }
        not_modified_headers(&response, &Options::default());
    }
    let far = Freshness::new(StatusCode::OK, &HeaderMap::new(), NOW, NOW, &Options::default());
    assert!(far.age(NOW + Duration::MAX) > far.lifetime);
}
