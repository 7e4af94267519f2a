//! The syntax of list fields: members, `name=value` pairs and seconds (RFC 9110 §5.6, RFC 9111 §1.2.2).
//!
//! Promises: total on any bytes; what is in quotes separates nothing; a value that is not in the grammar is told from
//! one that is absent.

use std::borrow::Cow;

/// The greatest delta-seconds (RFC 9111 §1.2.2): larger ones count as this.
pub(super) const MOST: u64 = 1 << 31;

/// What follows the name of a directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Argument<'a> {
    Absent,
    /// A token, or a quoted string without its quotes.
    Value(Cow<'a, [u8]>),
    /// Something that is neither, or white space around the equals sign.
    Malformed,
}

/// The directives of a line, malformed ones included.
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

fn argument(value: &[u8]) -> Argument<'_> {
    let Some(quoted) = value.strip_prefix(b"\"") else {
        let token = !value.is_empty() && value.iter().all(|byte| is_token(*byte));
        return if token { Argument::Value(value.into()) } else { Argument::Malformed };
    };
    let Some(inside) = quoted.strip_suffix(b"\"") else { return Argument::Malformed };
    if !inside.contains(&b'\\') && !inside.contains(&b'"') {
        return Argument::Value(inside.into());
    }
    let mut plain = Vec::with_capacity(inside.len());
    let mut bytes = inside.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return Argument::Malformed,
            b'\\' => match bytes.next() {
                Some(escaped) => plain.push(*escaped),
                None => return Argument::Malformed, // the closing quote was an escaped one
            },
            _ => plain.push(*byte),
        }
    }
    Argument::Value(plain.into())
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether every quote in a line is closed: of a line where one is not, nobody knows what it says.
pub(super) fn is_balanced(line: &[u8]) -> bool {
    let mut quotes = Quotes::default();
    line.iter().for_each(|byte| quotes.pass(*byte));
    !quotes.open
}

/// Where a line is inside quotes.
#[derive(Default)]
struct Quotes {
    open: bool,
    escaped: bool,
}

impl Quotes {
    fn pass(&mut self, byte: u8) {
        match (self.open, self.escaped, byte) {
            (true, true, _) => self.escaped = false,
            (true, false, b'\\') => self.escaped = true,
            (_, _, b'"') => self.open = !self.open,
            _ => {}
        }
    }
}

/// The members of a comma-separated list (RFC 9110 §5.6.1), trimmed, empty ones left out.
pub(super) fn split_list(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let from = rest?;
        let mut quotes = Quotes::default();
        let comma = from.iter().position(|byte| {
            let separates = *byte == b',' && !quotes.open;
            quotes.pass(*byte);
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

/// A whole number of seconds (RFC 9111 §1.2.2): saturates; `None` for anything but digits.
pub(super) fn delta_seconds(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits
        .iter()
        .fold(0_u64, |value, digit| value.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    Some(value.min(MOST))
}
