//! The Content-Range field (RFC 9110 §14.4).

use http::{HeaderMap, header};

/// The bytes that a 206 contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContentRange {
    /// The offset of the first byte.
    pub(crate) first: u64,
    /// The offset of the last byte.
    pub(crate) last: u64,
    /// The length of the complete representation, if the field says it.
    pub(crate) complete: Option<u64>,
}

impl ContentRange {
    /// Parses the field of a response.
    ///
    /// Returns `None` if there is none, more than one, one of another unit or of a 416, or a malformed one.
    pub(crate) fn of(response: &HeaderMap) -> Option<Self> {
        let mut lines = response.get_all(header::CONTENT_RANGE).iter();
        let (line, None) = (lines.next()?.to_str().ok()?, lines.next()) else { return None };
        let (unit, rest) = line.trim().split_once(' ')?;
        let (range, complete) = rest.trim_start().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let number = |digits: &str| -> Option<u64> {
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            if is_number { digits.parse().ok() } else { None }
        };
        let complete = if complete == "*" { None } else { Some(number(complete)?) };
        let (first, last) = (number(first)?, number(last)?);
        // The last byte before an end that fits into a number.
        let is_within = first <= last && last < complete.unwrap_or(u64::MAX);
        (unit.eq_ignore_ascii_case("bytes") && is_within).then_some(Self { first, last, complete })
    }
}
