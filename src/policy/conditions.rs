//! The answer of a stored response to a request's preconditions and range (RFC 9110 §13 and §14, RFC 9111 §4.3.2).
//!
//! # Invariants
//! - Only a stored 200 answers with 304, 206 or 416. Every other stored response is sent whole.
//! - A Range field that cannot be answered with ranges of bytes is ignored, as RFC 9110 §14.2 permits.

use std::ops::Range;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, StatusCode, header};

use super::byte_ranges::{ByteRanges, Resolved};
use super::dates;
use super::freshness::entity_tag;
use super::list::split_list;
use super::made_tag::MadeTag;
use super::options::Options;
use super::storing::is_query;
use crate::time::Timestamp;

/// How a stored response is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The whole response.
    Full,
    /// 304, without the body.
    NotModified,
    /// 206, with these bytes.
    Range(Range<u64>),
    /// 206, with several ranges of bytes as parts in this order.
    Ranges(Vec<Range<u64>>),
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
    answer_ranges(request, len)
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

/// Returns the answer to a Range field (RFC 9110 §14.2).
///
/// The answer to a field that is ignored is the whole response.
fn answer_ranges(request: &HeaderMap, len: u64) -> Answer {
    match ByteRanges::parse(request).map_or(Resolved::Whole, |ranges| ranges.resolve(len)) {
        Resolved::Whole => Answer::Full,
        Resolved::Unsatisfiable => Answer::Unsatisfiable,
        Resolved::One(range) => Answer::Range(range),
        Resolved::Several(ranges) => Answer::Ranges(ranges),
    }
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
