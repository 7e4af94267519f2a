//! When a body that broke off may be continued by a partial response (RFC 9110 §13.1.5, §14.3 and §15.3.7.3).
//!
//! # Invariants
//! - A partial response continues a body only if both have the same strong validator, coding and media type.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::dates;
use super::list::split_list;
use super::parts::strong_validator;
use crate::time::Timestamp;

/// Returns whether the origin can be asked for the rest of a response's body.
pub(crate) fn is_resumable(response: &HeaderMap) -> bool {
    let mut units =
        response.get_all(header::ACCEPT_RANGES).iter().flat_map(|line| split_list(line.as_bytes()));
    strong_validator(response).is_some() && !units.any(|unit| unit.eq_ignore_ascii_case(b"none"))
}

/// Returns whether the body of a 206 belongs to the representation of an earlier response.
///
/// It is stricter than RFC 9110 §15.3.7, by which a 206 may leave out Content-Encoding: a proxy that codes only whole responses
/// leaves it out as well, and sends other bytes.
pub(crate) fn is_continued_by(earlier: &HeaderMap, partial: &HeaderMap) -> bool {
    let all = |headers: &HeaderMap, name: &HeaderName| -> Vec<HeaderValue> {
        headers.get_all(name).iter().cloned().collect()
    };
    let is_same = |name| all(earlier, &name) == all(partial, &name);
    let is_absent_or_same = |name: HeaderName| !partial.contains_key(&name) || is_same(name);
    strong_validator(earlier).is_some_and(|validator| strong_validator(partial) == Some(validator))
        && is_same(header::CONTENT_ENCODING)
        && is_absent_or_same(header::CONTENT_TYPE)
        && is_absent_or_same(header::LAST_MODIFIED)
}

/// Returns the time that a response says to wait before the next request (RFC 9110 §10.2.3).
pub(crate) fn retry_after(response: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let mut lines = response.get_all(header::RETRY_AFTER).iter();
    let (value, None) = (lines.next()?, lines.next()) else { return None };
    let digits = value.as_bytes().trim_ascii();
    if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) {
        let seconds = std::str::from_utf8(digits).ok()?.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds));
    }
    Some(dates::parse(value, now)?.since(now))
}
