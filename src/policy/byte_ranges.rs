//! The byte ranges that a request asks for, and which of them are answered (RFC 9110 §14.1, §14.2, §15.3.7 and §17.15).
//!
//! # Invariants
//! - A Range field that is not wholly valid, or that has another unit, asks for nothing.
//! - The ranges of an answer are not empty, lie in the body and are disjoint, so that they are never longer than it together.
//! - At most [`MAX_RANGES`] ranges are parsed. The answer to more of them is the whole body.

use std::ops::Range;

use http::{HeaderMap, header};

use super::list::split_list;

/// The maximum number of ranges that are answered as such.
///
/// No client that continues or splits a download asks for more at once. Each range costs the storage a read, and a field of a
/// few kilobytes could name a thousand (RFC 9110 §17.15).
const MAX_RANGES: usize = 16;

/// The maximum number of ranges that have bytes in common with another one (RFC 9110 §14.2 and §17.15).
const MAX_OVERLAPPING: usize = 2;

/// The maximum number of small ranges that may be out of order (RFC 9110 §14.2 and §17.15).
const MAX_SMALL_OUT_OF_ORDER: usize = 4;

/// The number of bytes around a part, as RFC 9110 §15.3.7.2 estimates it.
///
/// Two ranges with a smaller gap take fewer bytes as one.
const PART_OVERHEAD: u64 = 80;

/// The ranges of a valid Range field in bytes, in the order of the field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ByteRanges(Vec<RangeSpec>);

/// A member of a Range field (RFC 9110 §14.1.2).
///
/// A number beyond `u64` counts as the largest one, since both are after the end of every body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RangeSpec {
    /// The bytes from the first to the last position, or to the end of the body.
    Positions { first: u64, last: u64 },
    /// This number of bytes at the end of the body.
    Suffix(u64),
}

/// The ranges that are sent of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resolved {
    /// The whole body, as if there were no Range field.
    Whole,
    /// None, since no byte of the body is in the ranges.
    Unsatisfiable,
    /// One range.
    One(Range<u64>),
    /// Several ranges, in this order.
    Several(Vec<Range<u64>>),
}

impl ByteRanges {
    /// Parses the Range field of a request (RFC 9110 §14.1.1, §14.1.2 and §14.2).
    ///
    /// Returns `None` if the field is to be ignored: it is absent, repeated or malformed, has another unit or an invalid
    /// range, or has more ranges than are answered.
    pub(crate) fn parse(request: &HeaderMap) -> Option<Self> {
        let mut lines = request.get_all(header::RANGE).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else { return None };
        let line = line.as_bytes().trim_ascii();
        let equals = line.iter().position(|byte| *byte == b'=')?;
        if !line[..equals].eq_ignore_ascii_case(b"bytes") {
            return None;
        }
        let mut ranges = Vec::new();
        for member in split_list(&line[equals + 1..]) {
            let range = RangeSpec::parse(member)?;
            if ranges.len() == MAX_RANGES {
                return None;
            }
            ranges.push(range);
        }
        (!ranges.is_empty()).then_some(Self(ranges))
    }

    /// Returns the ranges that are sent of a body of this length.
    ///
    /// Ranges that overlap, or whose gap takes fewer bytes than a further part, become one (RFC 9110 §15.3.7.2). The others
    /// keep their order.
    pub(crate) fn resolve(&self, len: u64) -> Resolved {
        if len == 0 {
            // A suffix is satisfiable even here (RFC 9110 §14.1.2), but no Content-Range describes a part without bytes.
            let is_satisfiable = self.0.iter().any(|range| matches!(range, RangeSpec::Suffix(1..)));
            return if is_satisfiable { Resolved::Whole } else { Resolved::Unsatisfiable };
        }
        let ranges: Vec<_> = self.0.iter().filter_map(|range| range.within(len)).collect();
        if has_too_many_overlaps(&ranges) || has_many_small_out_of_order(&ranges) {
            return Resolved::Whole;
        }
        let mut ranges = coalesce(&ranges);
        match ranges.len() {
            0 | 1 => ranges.pop().map_or(Resolved::Unsatisfiable, Resolved::One),
            _ => Resolved::Several(ranges),
        }
    }
}

impl RangeSpec {
    /// Parses a member of the field, or returns `None` if it is invalid.
    fn parse(member: &[u8]) -> Option<Self> {
        let dash = member.iter().position(|byte| *byte == b'-')?;
        let (first, last) = (&member[..dash], &member[dash + 1..]);
        match (first, last) {
            ([], last) => Some(Self::Suffix(number(last)?)),
            (first, []) => Some(Self::Positions { first: number(first)?, last: u64::MAX }),
            (first, last) => {
                let (from, to) = (number(first)?, number(last)?);
                (!is_less(last, first)).then_some(Self::Positions { first: from, last: to })
            }
        }
    }

    /// Returns the bytes of a body that is not empty, or `None` if it has none in this range.
    fn within(self, len: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::Positions { first, last } => first..last.saturating_add(1).min(len),
            Self::Suffix(count) => len.saturating_sub(count)..len,
        };
        (range.start < range.end).then_some(range)
    }
}

/// Parses a decimal number (RFC 9110 §14.1.2).
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |value: u64, digit: &u8| value.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
    Some(digits.iter().try_fold(0, add).unwrap_or(u64::MAX))
}

/// Compares two decimal numbers of any size.
fn is_less(one: &[u8], other: &[u8]) -> bool {
    let [one, other] = [one, other].map(|digits| {
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        &digits[zeros..]
    });
    (one.len(), one) < (other.len(), other)
}

/// Returns whether more ranges overlap than a sensible client would ask for.
fn has_too_many_overlaps(ranges: &[Range<u64>]) -> bool {
    let overlaps = |(number, one): (usize, &Range<u64>)| {
        let others = ranges.iter().enumerate().filter(|(other, _)| *other != number);
        others.map(|(_, other)| other).any(|other| one.start < other.end && other.start < one.end)
    };
    ranges.iter().enumerate().filter(|range| overlaps(*range)).count() > MAX_OVERLAPPING
}

/// Returns whether the parts would mostly be overhead, and are asked for out of order.
fn has_many_small_out_of_order(ranges: &[Range<u64>]) -> bool {
    let bytes = ranges.iter().fold(0_u64, |bytes, range| bytes.saturating_add(range.end - range.start));
    ranges.len() > MAX_SMALL_OUT_OF_ORDER
        && bytes < PART_OVERHEAD * ranges.len() as u64
        && !ranges.is_sorted_by_key(|range| range.start)
}

/// Joins ranges that overlap or that are close to each other. A joined range takes the first place of its members.
fn coalesce(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut ascending: Vec<_> = ranges.iter().cloned().enumerate().collect();
    ascending.sort_by_key(|(_, range)| range.start);
    let mut joined: Vec<(usize, Range<u64>)> = Vec::with_capacity(ascending.len());
    for (place, range) in ascending {
        match joined.last_mut() {
            Some((first, before)) if range.start < before.end.saturating_add(PART_OVERHEAD) => {
                *first = place.min(*first);
                before.end = range.end.max(before.end);
            }
            _ => joined.push((place, range)),
        }
    }
    joined.sort_by_key(|(place, _)| *place);
    joined.into_iter().map(|(_, range)| range).collect()
}
