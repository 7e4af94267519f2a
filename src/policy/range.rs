//! The Range field (RFC 9110 §14.2), as far as a stored whole response answers it: one range of bytes.

use http::{HeaderMap, header};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ranges {
    /// Nothing that is answered by a range: another unit, several ranges, or malformed.
    None,
    One {
        start: u64,
        end_inclusive: u64,
    },
    Unsatisfiable,
}

pub(crate) fn parse_range(request: &HeaderMap, len: u64) -> Ranges {
    let mut lines = request.get_all(header::RANGE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return Ranges::None };
    let parsed = line.to_str().ok().and_then(|line| {
        let (unit, range) = line.trim().split_once('=')?;
        let (first, last) = range.trim().split_once('-')?;
        unit.eq_ignore_ascii_case("bytes").then_some((first, last))
    });
    let Some((first, last)) = parsed else { return Ranges::None };
    match (number(first), number(last)) {
        // `-n`: the last n bytes.
        (None, Some(count)) if first.is_empty() => {
            if count == 0 || len == 0 {
                return Ranges::Unsatisfiable;
            }
            Ranges::One { start: len.saturating_sub(count), end_inclusive: len - 1 }
        }
        (Some(start), _) if last.is_empty() => one(start, u64::MAX, len),
        (Some(start), Some(end)) if start <= end => one(start, end, len),
        _ => Ranges::None,
    }
}

fn one(start: u64, end: u64, len: u64) -> Ranges {
    if start >= len {
        return Ranges::Unsatisfiable;
    }
    Ranges::One { start, end_inclusive: end.min(len - 1) }
}

/// Digits; a number that is too large is as good as the largest.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}
