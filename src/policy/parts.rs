//! Partial responses, and when they may be combined (RFC 9110 §14.4 and §15.3.7, RFC 9111 §3.3 and §3.4).

use std::ops::Range;

use http::{HeaderMap, HeaderValue, header};

use super::conditions::strong_date;
use super::content_range::ContentRange;
use super::freshness::entity_tag;
use crate::time::Timestamp;

/// Returns the value of If-Range that asks for parts of a response (RFC 9110 §13.1.5).
///
/// It is the strong entity tag of the response, or else its Last-Modified, if that is strong: at least a second before Date
/// (§8.8.2.2). Returns `None` for a response without a strong validator, whose parts must not be combined.
pub(crate) fn strong_validator(response: &HeaderMap) -> Option<&HeaderValue> {
    // A date must not stand in for an entity tag that is weak or malformed (RFC 9110 §13.1.5).
    if response.contains_key(header::ETAG) {
        let is_strong = entity_tag(response).is_some_and(|tag| !tag.starts_with(b"W/"));
        return response.get(header::ETAG).filter(|_| is_strong);
    }
    strong_date(response, Timestamp::EPOCH).and_then(|_| response.get(header::LAST_MODIFIED))
}

/// Returns whether two responses to requests for one URI are the same representation, so that their bytes may be combined.
///
/// They are if they have the same strong validator and the same coding (RFC 9110 §15.3.7.3).
pub(crate) fn is_same_representation(one: &HeaderMap, other: &HeaderMap) -> bool {
    let coding = |headers: &HeaderMap| {
        headers.get_all(header::CONTENT_ENCODING).iter().cloned().collect::<Vec<HeaderValue>>()
    };
    strong_validator(one).is_some_and(|validator| strong_validator(other) == Some(validator))
        && coding(one) == coding(other)
}

/// Returns the fields of the complete response to which a partial one belongs.
pub(crate) fn complete_fields(partial: &HeaderMap, complete: u64) -> HeaderMap {
    let mut fields = partial.clone();
    fields.remove(header::CONTENT_RANGE);
    // Removed first: a value of a field with two lines would stay.
    fields.remove(header::CONTENT_LENGTH);
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(complete));
    fields
}

/// Returns the offset of the first byte that a request wants, if that can be known without the length of the body.
///
/// It is zero without Range. Returns `None` for a range of the last bytes, for several ranges, and for a malformed field.
pub(crate) fn first_wanted(request: &HeaderMap) -> Option<u64> {
    let mut lines = request.get_all(header::RANGE).iter();
    let Some(line) = lines.next() else { return Some(0) };
    let (line, None) = (line.to_str().ok()?, lines.next()) else { return None };
    let (unit, range) = line.trim().split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    let is_one = unit.eq_ignore_ascii_case("bytes") && is_number(first) && is_number(last);
    let first = first.parse().ok().filter(|_| is_one)?;
    (last.is_empty() || last.parse().is_ok_and(|last: u64| first <= last)).then_some(first)
}

/// Returns the bytes that a 206 contains, and the length of the complete representation.
///
/// `requested` is the Range field of the request, and `len` the announced length of the content. Returns `None` if the field is
/// missing or malformed, does not say the complete length, contradicts the length of the content, or names other bytes than
/// were asked for (RFC 9110 §14.4 and §15.3.7.1).
pub(crate) fn partial_range(
    requested: &HeaderMap,
    response: &HeaderMap,
    len: Option<u64>,
) -> Option<(Range<u64>, u64)> {
    let ContentRange { first, last, complete } = ContentRange::of(response)?;
    let (complete, range) = (complete?, first..last + 1);
    if len.is_some_and(|len| len != range.end - range.start) {
        return None;
    }
    let mut lines = requested.get_all(header::RANGE).iter();
    let (line, None) = (lines.next()?.to_str().ok()?, lines.next()) else { return None };
    let (unit, asked) = line.trim().split_once('=')?;
    let (from, to) = asked.trim().split_once('-')?;
    let number = |digits: &str| -> Option<u64> {
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| digits.parse().unwrap_or(u64::MAX))
    };
    // The origin may send less than was asked for, but nothing else.
    let is_asked = match (number(from), number(to)) {
        (Some(from), _) if to.is_empty() => first == from,
        (Some(from), Some(to)) => first == from && last <= to,
        (None, Some(count)) if from.is_empty() => {
            first == complete.saturating_sub(count) && range.end == complete
        }
        _ => false,
    };
    (unit.eq_ignore_ascii_case("bytes") && is_asked).then_some((range, complete))
}
