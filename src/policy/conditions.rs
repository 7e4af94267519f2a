//! What a stored response answers to a request's preconditions and range (RFC 9110 §13.2.2, RFC 9111 §4.3.2).

use http::{HeaderMap, HeaderName, Method, StatusCode, header};

use super::dates;
use super::freshness::entity_tag;
use super::list::split_list;
use super::range::{Ranges, parse_range};
use super::targeted::CDN_CACHE_CONTROL;
use crate::time::Timestamp;

/// How a stored response is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Full,
    NotModified,
    Range { start: u64, end_inclusive: u64 },
    Unsatisfiable,
}

/// `len` is the length of the stored body, `received` when the response was.
pub(crate) fn answer(
    method: &Method,
    request: &HeaderMap,
    status: StatusCode,
    stored: &HeaderMap,
    len: u64,
    received: Timestamp,
) -> Answer {
    let asks = |name: &HeaderName| request.contains_key(name);
    if status != StatusCode::OK
        || !(asks(&header::IF_NONE_MATCH) || asks(&header::IF_MODIFIED_SINCE) || asks(&header::RANGE))
    {
        return Answer::Full;
    }
    if asks(&header::IF_NONE_MATCH) {
        if matches_none(request, stored) {
            return Answer::NotModified;
        }
    } else if let Some(since) = dates::single(request, &header::IF_MODIFIED_SINCE, received) {
        let date = |name| dates::single(stored, name, received);
        let modified = date(&header::LAST_MODIFIED).or_else(|| date(&header::DATE)).unwrap_or(received);
        if modified <= since {
            return Answer::NotModified;
        }
    }
    if method != Method::GET || !asks(&header::RANGE) || !same_as_before(request, stored, received) {
        return Answer::Full;
    }
    match parse_range(request, len) {
        Ranges::None => Answer::Full,
        Ranges::Unsatisfiable => Answer::Unsatisfiable,
        Ranges::One { start, end_inclusive } => Answer::Range { start, end_inclusive },
    }
}

/// If-None-Match: whether it names the stored response, by weak comparison (RFC 9110 §13.1.2).
fn matches_none(request: &HeaderMap, stored: &HeaderMap) -> bool {
    let mine = entity_tag(stored);
    let lines = request.get_all(header::IF_NONE_MATCH).iter();
    lines
        .flat_map(|line| split_list(line.as_bytes()))
        .any(|tag| tag == b"*" || mine.is_some_and(|mine| weakly_equal(mine, tag)))
}

/// If-Range: whether the range is of what the caller has (RFC 9110 §13.1.5), by strong comparison.
fn same_as_before(request: &HeaderMap, stored: &HeaderMap, received: Timestamp) -> bool {
    let mut lines = request.get_all(header::IF_RANGE).iter();
    let Some(condition) = lines.next() else { return true };
    if lines.next().is_some() {
        return false;
    }
    let tag = condition.as_bytes().trim_ascii();
    if tag.starts_with(b"\"") || tag.starts_with(b"W/") {
        return !tag.starts_with(b"W/") && entity_tag(stored) == Some(tag);
    }
    // A date is a strong validator if it is at least a second before the Date of the response (RFC 9110 §8.8.2.2).
    let (Some(asked), Some(modified), Some(date)) = (
        dates::parse(condition, received),
        dates::single(stored, &header::LAST_MODIFIED, received),
        dates::single(stored, &header::DATE, received),
    ) else {
        return false;
    };
    asked == modified && date >= modified + std::time::Duration::from_secs(1) && asked > Timestamp::EPOCH
}

/// Weak comparison of entity tags (RFC 9110 §8.8.3.2).
pub(crate) fn weakly_equal(one: &[u8], other: &[u8]) -> bool {
    without_weakness(one) == without_weakness(other)
}

pub(crate) fn without_weakness(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// The fields of a 304 that is made from a stored response (RFC 9110 §15.4.5).
pub(crate) fn not_modified_headers(stored: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let names = [
        header::CACHE_CONTROL,
        header::CONTENT_LOCATION,
        header::DATE,
        header::ETAG,
        header::EXPIRES,
        header::LAST_MODIFIED,
        header::VARY,
        CDN_CACHE_CONTROL,
    ];
    for name in names {
        for value in stored.get_all(&name) {
            headers.append(name.clone(), value.clone());
        }
    }
    headers
}
