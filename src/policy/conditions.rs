//! The answer of a stored response to a request's preconditions and range (RFC 9110 §13 and §14, RFC 9111 §4.3.2).
//!
//! # Invariants
//! - Only a stored 200 answers with 304, 206 or 416. Every other stored response is sent whole.
//! - A Range field that cannot be answered with one range of bytes is ignored, as RFC 9110 §14.2 permits.

use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, StatusCode, header};

use super::dates;
use super::freshness::entity_tag;
use super::list::split_list;
use super::made_tag::MadeTag;
use super::options::Options;
use super::storing::is_query;
use crate::time::Timestamp;

/// How a stored response is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The whole response.
    Full,
    /// 304, without the body.
    NotModified,
    /// 206, with the bytes from `start` to `end_inclusive`.
    Range { start: u64, end_inclusive: u64 },
    /// 416, since no byte of the body is in the range.
    Unsatisfiable,
}

/// Returns how a stored response answers a request, in the order of RFC 9110 §13.2.2.
///
/// `made` is the entity tag that the cache made for it. `len` is the length of the stored body in bytes. `received` is when
/// the stored response was received.
pub(crate) fn answer(
    method: &Method,
    request: &HeaderMap,
    status: StatusCode,
    stored: &HeaderMap,
    made: Option<MadeTag>,
    len: u64,
    received: Timestamp,
) -> Answer {
    let has = |name: &HeaderName| request.contains_key(name);
    // Preconditions count only where the response would be a success (RFC 9110 §13.2.1), and ranges only where it would
    // be a 200 (§14.2).
    if status != StatusCode::OK
        || !(has(&header::IF_NONE_MATCH) || has(&header::IF_MODIFIED_SINCE) || has(&header::RANGE))
    {
        return Answer::Full;
    }
    // If-Modified-Since is ignored beside If-None-Match (RFC 9110 §13.1.3).
    if has(&header::IF_NONE_MATCH) {
        if if_none_match_names(request, stored, made) {
            return Answer::NotModified;
        }
    } else if let Some(since) = dates::single(request, &header::IF_MODIFIED_SINCE, received) {
        let date = |name| dates::single(stored, name, received);
        // Without Last-Modified a cache compares Date, and without Date the time of receipt (RFC 9111 §4.3.2).
        let modified = date(&header::LAST_MODIFIED).or_else(|| date(&header::DATE)).unwrap_or(received);
        if modified <= since {
            return Answer::NotModified;
        }
    }
    // RFC 9110 §14.2 defines Range for GET alone, and RFC 10008 §2.8 for QUERY.
    if !(method == Method::GET || is_query(method))
        || !has(&header::RANGE)
        || !if_range_holds(request, stored, made, received)
    {
        return Answer::Full;
    }
    answer_range(request, len)
}

/// Returns whether If-None-Match names the stored response, by weak comparison (RFC 9110 §13.1.2).
fn if_none_match_names(request: &HeaderMap, stored: &HeaderMap, made: Option<MadeTag>) -> bool {
    let stored_tag = entity_tag(stored);
    let lines = request.get_all(header::IF_NONE_MATCH).iter();
    lines.flat_map(|line| split_list(line.as_bytes())).any(|tag| {
        tag == b"*"
            || stored_tag.is_some_and(|stored_tag| weakly_equal(stored_tag, tag))
            || made.is_some_and(|made| made.is(opaque_tag(tag)))
    })
}

/// Returns whether If-Range permits a partial answer, by strong comparison (RFC 9110 §13.1.5).
///
/// It does if the field is absent, or if it names the stored response. Several lines of it permit nothing.
fn if_range_holds(
    request: &HeaderMap,
    stored: &HeaderMap,
    made: Option<MadeTag>,
    received: Timestamp,
) -> bool {
    let mut lines = request.get_all(header::IF_RANGE).iter();
    let Some(condition) = lines.next() else { return true };
    if lines.next().is_some() {
        return false;
    }
    let tag = condition.as_bytes().trim_ascii();
    if tag.starts_with(b"\"") || tag.starts_with(b"W/") {
        return !tag.starts_with(b"W/")
            && (entity_tag(stored) == Some(tag) || made.is_some_and(|made| made.is(tag)));
    }
    dates::parse(condition, received).is_some_and(|date| strong_date(stored, received) == Some(date))
}

/// Returns the Last-Modified of a response, if it is a strong validator.
///
/// It is if it is at least a second before the Date of the response (RFC 9110 §8.8.2.2). `near` is a time near the dates.
pub(super) fn strong_date(response: &HeaderMap, near: Timestamp) -> Option<Timestamp> {
    let modified = dates::single(response, &header::LAST_MODIFIED, near)?;
    let date = dates::single(response, &header::DATE, near)?;
    // Every date before 1970 is read as the epoch, so that equality says nothing there.
    (date >= modified + Duration::from_secs(1) && modified > Timestamp::EPOCH).then_some(modified)
}

/// Returns the answer to a Range field that asks for one range of bytes (RFC 9110 §14.1.2 and §14.2).
///
/// The answer to any other Range field is the whole response: another unit, several ranges, or a malformed value.
fn answer_range(request: &HeaderMap, len: u64) -> Answer {
    let mut lines = request.get_all(header::RANGE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return Answer::Full };
    let parsed = line.to_str().ok().and_then(|line| {
        let (unit, range) = line.trim().split_once('=')?;
        let (first, last) = range.trim().split_once('-')?;
        unit.eq_ignore_ascii_case("bytes").then_some((first, last))
    });
    let Some((first, last)) = parsed else { return Answer::Full };
    match (position(first), position(last)) {
        // `-n` asks for the last n bytes.
        (None, Some(count)) if first.is_empty() => {
            if count == 0 || len == 0 {
                return Answer::Unsatisfiable;
            }
            Answer::Range { start: len.saturating_sub(count), end_inclusive: len - 1 }
        }
        (Some(start), _) if last.is_empty() => within_body(start, u64::MAX, len),
        (Some(start), Some(end)) if start <= end => within_body(start, end, len),
        _ => Answer::Full,
    }
}

/// Cuts a range to the length of the body (RFC 9110 §14.1.2).
fn within_body(start: u64, end: u64, len: u64) -> Answer {
    if start >= len {
        return Answer::Unsatisfiable;
    }
    Answer::Range { start, end_inclusive: end.min(len - 1) }
}

/// Parses a position in a byte range (RFC 9110 §14.1.2).
///
/// A number beyond `u64` counts as the largest one, since both are after the end of every body.
fn position(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

/// Compares two entity tags weakly (RFC 9110 §8.8.3.2).
pub(crate) fn weakly_equal(one: &[u8], other: &[u8]) -> bool {
    opaque_tag(one) == opaque_tag(other)
}

/// Returns an entity tag without its mark of weakness (RFC 9110 §8.8.3).
pub(crate) fn opaque_tag(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// Returns the fields of a 304 that is made from a stored response (RFC 9110 §15.4.5).
///
/// Last-Modified, CDN-Cache-Control and the targeted fields that this cache obeys are sent too. The RFC permits fields
/// that guide the update of a cache.
pub(crate) fn not_modified_headers(stored: &HeaderMap, options: &Options) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let names = [
        header::CACHE_CONTROL,
        header::CONTENT_LOCATION,
        header::DATE,
        header::ETAG,
        header::EXPIRES,
        header::LAST_MODIFIED,
        header::VARY,
        HeaderName::from_static("cdn-cache-control"),
    ];
    let others = options.targets().iter().filter(|name| !names.contains(name));
    for name in names.iter().chain(others) {
        for value in stored.get_all(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    headers
}
