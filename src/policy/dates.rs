//! Reading and writing the dates in fields (RFC 9110 §5.6.7).
//!
//! # Invariants
//! - No bytes make a function here panic.
//! - Exactly the three forms of an HTTP-date are read, in any letter case, and only in GMT (RFC 9111 §4.2).
//! - The name of the weekday has to be one, but need not be that of the date.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::time::Timestamp;

/// The length of the longest date, such as `Wednesday, 09-Nov-94 08:49:37 GMT`.
const MAX_LEN: usize = 33;

/// Parses the date in a field's value (RFC 9110 §5.6.7).
///
/// `near` is a time near the date. It decides the century of a year of two digits.
pub(crate) fn parse(value: &HeaderValue, near: Timestamp) -> Option<Timestamp> {
    // In an array, since a response may be judged by three dates, and an allocation for each would show in its time.
    let mut buffer = [0; MAX_LEN];
    let value = value.as_bytes().trim_ascii();
    let text = buffer.get_mut(..value.len())?;
    text.copy_from_slice(value);
    text.make_ascii_lowercase();
    let text = std::str::from_utf8(text).ok()?;
    imf_fixdate(text).or_else(|| rfc850(text, near)).or_else(|| asctime(text))
}

/// Returns the date in a field that has exactly one line (RFC 9110 §5.3 and §5.6.7).
pub(crate) fn single(headers: &HeaderMap, name: &HeaderName, near: Timestamp) -> Option<Timestamp> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    if lines.next().is_some() { None } else { parse(first, near) }
}

/// Formats a date as a field's value, as an IMF-fixdate (RFC 9110 §5.6.7).
pub(crate) fn format(time: Timestamp) -> Option<HeaderValue> {
    HeaderValue::try_from(httpdate::fmt_http_date(time.into())).ok()
}

const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// Parses `Sun, 06 Nov 1994 08:49:37 GMT`, the preferred form (RFC 9110 §5.6.7).
fn imf_fixdate(text: &str) -> Option<Timestamp> {
    let (_, rest) = text.split_once(", ").filter(|(day, _)| is_short_day(day))?;
    let mut parts = rest.strip_suffix(" gmt")?.split(' ');
    let (day, month, year, time) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    timestamp(digits(year, 4)?, month, digits(day, 2)?, time)
}

/// Parses `Sunday, 06-Nov-94 08:49:37 GMT`, an obsolete form (RFC 9110 §5.6.7).
fn rfc850(text: &str, near: Timestamp) -> Option<Timestamp> {
    let (_, rest) = text.split_once(", ").filter(|(day, _)| DAYS.contains(day))?;
    let (date, time) = rest.strip_suffix(" gmt")?.split_once(' ')?;
    let mut parts = date.split('-');
    let (day, month, two_digits) = (parts.next()?, parts.next()?, digits(parts.next()?, 2)?);
    if parts.next().is_some() {
        return None;
    }
    // A mean Gregorian year has 31,556,952 seconds: near enough, since only the century depends on it. The bound keeps
    // the arithmetic far from an overflow where `near` is `Timestamp::NEVER`.
    let this_year = 1970 + (near.as_millis() / 31_556_952_000).min(8_000);
    // A year more than fifty years ahead is the most recent past year with these digits (RFC 9110 §5.6.7).
    let mut year = this_year - this_year % 100 + two_digits + 100;
    while year > this_year + 50 {
        year -= 100;
    }
    timestamp(year, month, digits(day, 2)?, time)
}

/// Parses `Sun Nov  6 08:49:37 1994`, the obsolete form of C's `asctime` (RFC 9110 §5.6.7).
fn asctime(text: &str) -> Option<Timestamp> {
    let (_, rest) = text.split_once(' ').filter(|(day, _)| is_short_day(day))?;
    let (month, rest) = rest.split_once(' ')?;
    let (day, rest) = rest.split_at_checked(2)?;
    let day = match day.strip_prefix(' ') {
        Some(digit) => digits(digit, 1)?,
        None => digits(day, 2)?,
    };
    let (time, year) = rest.strip_prefix(' ')?.split_once(' ')?;
    timestamp(digits(year, 4)?, month, day, time)
}

/// Returns whether this is the three-letter name of a weekday (RFC 9110 §5.6.7).
fn is_short_day(day: &str) -> bool {
    day.len() == 3 && DAYS.iter().any(|name| name.starts_with(day))
}

/// Parses a number of exactly `count` digits.
fn digits(text: &str, count: usize) -> Option<u64> {
    // `parse` alone would accept a sign.
    (text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Converts a date of the Gregorian calendar in GMT, with a time such as `08:49:37` (RFC 9110 §5.6.7).
///
/// A date before 1970 becomes the epoch.
fn timestamp(year: u64, month: &str, day: u64, time: &str) -> Option<Timestamp> {
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let mut parts = time.split(':').map(|part| digits(part, 2));
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let last_day = match month {
        2 => 28 + u64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    // The grammar permits second 60, for leap seconds. It becomes the first second of the next minute.
    if parts.next().is_some() || day == 0 || day > last_day || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    if year < 1970 {
        return Some(Timestamp::EPOCH);
    }
    // The years of this formula begin in March, so that a leap day is the last day of its year. `(153 * months + 2) /
    // 5` is the number of days before a month, counted from March. 719,468 days lie between year 0 and 1970 when
    // counted so.
    let (year, months) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * months + 2) / 5 + day - 1 - 719_468;
    Some(Timestamp::from_secs(days * 86_400 + hour * 3_600 + minute * 60 + second))
}
