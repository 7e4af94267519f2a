//! Formats sizes, times and text for people.
//!
//! # Invariants
//! - Text from the storage, once [`escaped`], cannot move the terminal's cursor or begin a new line.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use bytesize::ByteSize;
use tower_response_cache::Timestamp;

/// Formats a number with its noun: `3 responses`, `1 response`.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// Formats a number in groups of three digits: `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a size: `1.5 KiB`.
pub fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// Formats a size for a narrow column: `1.5K`.
pub fn short_size(bytes: u64) -> String {
    ByteSize(bytes).display().iec_short().to_string()
}

/// Formats a duration in the largest unit that fits: `59s`, `3h`, `800d`.
pub fn short_duration(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds @ 3600..86_400 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// Formats a time relative to now: `in 5m`, `3h ago`, `never`.
pub fn relative(time: Timestamp, now: Timestamp) -> String {
    if time.is_never() {
        "never".to_owned()
    } else if time > now {
        format!("in {}", short_duration(time.since(now)))
    } else {
        format!("{} ago", short_duration(now.since(time)))
    }
}

/// Formats a time by RFC 3339, to the millisecond, or returns `None` for never.
pub fn rfc3339(time: Timestamp) -> Option<String> {
    let time = (!time.is_never()).then(|| SystemTime::from(time))?;
    Some(humantime::format_rfc3339_millis(time).to_string())
}

/// Formats a time by RFC 3339 and relative to now.
pub fn timestamp(time: Timestamp, now: Timestamp) -> String {
    rfc3339(time).map_or_else(|| "never".to_owned(), |text| format!("{text} ({})", relative(time, now)))
}

/// Escapes control characters, and those that change the direction of writing.
pub fn escaped(text: &str) -> Cow<'_, str> {
    let is_plain = |letter: char| {
        !letter.is_control()
            && !matches!(letter, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let escape = |letter: char| {
        if is_plain(letter) { letter.to_string() } else { letter.escape_unicode().to_string() }
    };
    Cow::Owned(text.chars().map(escape).collect())
}

/// Shortens a text to so many columns by cutting its middle, because URLs differ mostly at their end.
pub fn shortened(text: &str, columns: usize) -> Cow<'_, str> {
    if width(text) <= columns {
        return Cow::Borrowed(text);
    }
    let kept = columns.saturating_sub(1); // the ellipsis takes one
    let first = fitting(text.chars(), kept * 2 / 5);
    let last = fitting(text.chars().rev(), kept - kept * 2 / 5);
    let last: String = last.chars().rev().collect();
    Cow::Owned(format!("{first}…{last}"))
}

/// Takes letters while they fit into so many columns.
fn fitting(letters: impl Iterator<Item = char>, columns: usize) -> String {
    let mut left = columns;
    let fits = |letter: &char| match left.checked_sub(width(letter.encode_utf8(&mut [0; 4]))) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    letters.take_while(fits).collect()
}

/// Returns how many columns of a terminal a text takes.
pub fn width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { console::measure_text_width(text) }
}

/// Pads a text with spaces to the right.
pub fn align_left(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(width(text))))
}

/// Pads a text with spaces to the left.
pub fn align_right(text: &str, columns: usize) -> String {
    format!("{}{text}", " ".repeat(columns.saturating_sub(width(text))))
}

/// Normalises a URL as the cache does, or returns any other text as it is.
///
/// The scheme and host are in lower case; there is a path, and neither a default port, a user nor a fragment.
pub fn normal_url(text: &str) -> String {
    let parsed = text.split('#').next().and_then(|url| url.parse::<http::Uri>().ok());
    let Some(uri) = parsed else { return text.to_owned() };
    let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else { return text.to_owned() };
    let usual = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    let port = uri.port_u16().filter(|port| Some(*port) != usual);
    let port = port.map_or_else(String::new, |port| format!(":{port}"));
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!("{scheme}://{}{port}{slash}{path}", host.to_ascii_lowercase())
}
