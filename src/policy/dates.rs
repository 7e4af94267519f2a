//! Dates in fields (RFC 9110 §5.6.7): the three forms of an HTTP-date.
//!
//! Promises: total on any bytes; exactly the three forms, in any letter case (RFC 9111 §4.2) and in GMT alone; the day
//! of the week must be one, but need not be the right one.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::time::Timestamp;

/// A date in a field's value. `near` tells the century of a year of two digits.
pub(crate) fn parse(value: &HeaderValue, near: Timestamp) -> Option<Timestamp> {
    let text = value.as_bytes().trim_ascii().to_ascii_lowercase();
    let text = std::str::from_utf8(&text).ok()?;
    imf_fixdate(text).or_else(|| rfc850(text, near)).or_else(|| asctime(text))
}

/// The date of a field that has one line and a date in it.
pub(crate) fn single(headers: &HeaderMap, name: &HeaderName, near: Timestamp) -> Option<Timestamp> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    if lines.next().is_some() { None } else { parse(first, near) }
}

/// A date as a field's value.
pub(crate) fn format(time: Timestamp) -> Option<HeaderValue> {
    HeaderValue::try_from(httpdate::fmt_http_date(time.into())).ok()
}

const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf_fixdate(text: &str) -> Option<Timestamp> {
    let (_, rest) = text.split_once(", ").filter(|(day, _)| is_short_day(day))?;
    let mut parts = rest.strip_suffix(" gmt")?.split(' ');
    let (day, month, year, time) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    moment(digits(year, 4)?, month, digits(day, 2)?, time)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc850(text: &str, near: Timestamp) -> Option<Timestamp> {
    let (_, rest) = text.split_once(", ").filter(|(day, _)| DAYS.contains(day))?;
    let (date, time) = rest.strip_suffix(" gmt")?.split_once(' ')?;
    let mut parts = date.split('-');
    let (day, month, year) = (parts.next()?, parts.next()?, digits(parts.next()?, 2)?);
    if parts.next().is_some() {
        return None;
    }
    // More than fifty years ahead means the last year before that ended so (RFC 9110 §5.6.7).
    let now = 1970 + (near.as_millis() / 31_556_952_000).min(8_000);
    let mut full = now - now % 100 + year + 100;
    while full > now + 50 {
        full -= 100;
    }
    moment(full, month, digits(day, 2)?, time)
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime(text: &str) -> Option<Timestamp> {
    let (_, rest) = text.split_once(' ').filter(|(day, _)| is_short_day(day))?;
    let (month, rest) = rest.split_once(' ')?;
    let (day, rest) = rest.split_at_checked(2)?;
    let day = match day.strip_prefix(' ') {
        Some(one) => digits(one, 1)?,
        None => digits(day, 2)?,
    };
    let (time, year) = rest.strip_prefix(' ')?.split_once(' ')?;
    moment(digits(year, 4)?, month, day, time)
}

fn is_short_day(day: &str) -> bool {
    day.len() == 3 && DAYS.iter().any(|name| name.starts_with(day))
}

/// Just so many digits.
fn digits(text: &str, count: usize) -> Option<u64> {
    (text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// `time` is `08:49:37`. What is before 1970 counts as that moment.
fn moment(year: u64, month: &str, day: u64, time: &str) -> Option<Timestamp> {
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let mut parts = time.split(':').map(|part| digits(part, 2));
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let longest = match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if parts.next().is_some() || day == 0 || day > longest || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    if year < 1970 {
        return Some(Timestamp::EPOCH);
    }
    // Days since 1970, by years that begin in March, so that a leap day is a year's last.
    let (from, months) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * from + from / 4 - from / 100 + from / 400 + (153 * months + 2) / 5 + day - 1 - 719_468;
    Some(Timestamp::from_secs(days * 86_400 + hour * 3_600 + minute * 60 + second))
}
