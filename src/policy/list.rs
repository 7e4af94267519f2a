//! The syntax of list fields and of directives (RFC 9110 §5.6, RFC 9111 §1.2.2 and §5.2).
//!
//! # Invariants
//! - No bytes make a function here panic.
//! - A comma inside quotes separates nothing.
//! - A value outside the grammar is told apart from an absent value.

use std::borrow::Cow;

/// The greatest number of seconds, as which every larger one counts.
///
/// RFC 9111 §1.2.2 names 2^31 for a value that a cache cannot represent.
pub(super) const MAX_DELTA_SECONDS: u64 = 1 << 31;

/// The argument of a directive (RFC 9111 §5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Argument<'a> {
    /// There is no equals sign.
    Absent,
    /// A token, or a quoted string without its quotes.
    Value(Cow<'a, [u8]>),
    /// Something else, or white space around the equals sign.
    Malformed,
}

/// Returns the directives of a line, including malformed ones (RFC 9111 §5.2).
pub(super) fn directives(line: &[u8]) -> impl Iterator<Item = (&[u8], Argument<'_>)> {
    split_list(line).map(|member| {
        let Some(equals) = member.iter().position(|byte| *byte == b'=') else {
            return (member, Argument::Absent);
        };
        let (name, value) = (&member[..equals], &member[equals + 1..]);
        if name.trim_ascii() != name || value.trim_ascii() != value {
            return (name.trim_ascii(), Argument::Malformed);
        }
        (name, argument(value))
    })
}

/// Parses a token or a quoted string (RFC 9110 §5.6.2 and §5.6.4).
fn argument(value: &[u8]) -> Argument<'_> {
    let Some(quoted) = value.strip_prefix(b"\"") else {
        let is_token = !value.is_empty() && value.iter().all(|byte| is_token_char(*byte));
        return if is_token { Argument::Value(value.into()) } else { Argument::Malformed };
    };
    let Some(inside) = quoted.strip_suffix(b"\"") else { return Argument::Malformed };
    if !inside.contains(&b'\\') && !inside.contains(&b'"') {
        return Argument::Value(inside.into());
    }
    let mut unescaped = Vec::with_capacity(inside.len());
    let mut bytes = inside.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return Argument::Malformed,
            b'\\' => match bytes.next() {
                Some(escaped) => unescaped.push(*escaped),
                None => return Argument::Malformed, // the closing quote was an escaped one
            },
            _ => unescaped.push(*byte),
        }
    }
    Argument::Value(unescaped.into())
}

/// Returns whether a byte may be part of a token (RFC 9110 §5.6.2).
fn is_token_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Returns whether every quote in a line is closed (RFC 9110 §5.6.4).
///
/// The directives of a line with an open quote cannot be known, since the quote may have swallowed some.
pub(super) fn is_balanced(line: &[u8]) -> bool {
    let mut quotes = Quotes::default();
    line.iter().for_each(|byte| quotes.advance(*byte));
    !quotes.is_open
}

/// Tracks whether the bytes of a line are inside quotes (RFC 9110 §5.6.4).
#[derive(Default)]
struct Quotes {
    is_open: bool,
    is_escaped: bool,
}

impl Quotes {
    /// Advances by one byte of a quoted string, or of the text around it (RFC 9110 §5.6.4).
    fn advance(&mut self, byte: u8) {
        match (self.is_open, self.is_escaped, byte) {
            (true, true, _) => self.is_escaped = false,
            (true, false, b'\\') => self.is_escaped = true,
            (_, _, b'"') => self.is_open = !self.is_open,
            _ => {}
        }
    }
}

/// Splits a comma-separated list into its members, trimmed and without empty ones (RFC 9110 §5.6.1).
pub(super) fn split_list(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let from = rest?;
        let mut quotes = Quotes::default();
        let comma = from.iter().position(|byte| {
            let separates = *byte == b',' && !quotes.is_open;
            quotes.advance(*byte);
            separates
        });
        let (member, after) = match comma {
            Some(comma) => (&from[..comma], Some(&from[comma + 1..])),
            None => (from, None),
        };
        rest = after;
        Some(member.trim_ascii())
    })
    .filter(|member| !member.is_empty())
}

/// Parses a whole number of seconds, at most [`MAX_DELTA_SECONDS`] (RFC 9111 §1.2.2).
///
/// `None` for anything but digits.
pub(super) fn delta_seconds(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits
        .iter()
        .fold(0_u64, |value, digit| value.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    Some(value.min(MAX_DELTA_SECONDS))
}
