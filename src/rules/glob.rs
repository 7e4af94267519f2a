//! Text with stars, compared octet by octet as URLs are (RFC 3986 §6.2.2).
//!
//! Promises: nothing is allocated to match; a match takes at most the pattern's length times the text's.

use crate::error::{Error, ErrorKind, Result};
use crate::hex;

/// An error about a pattern. It names what is wrong and not the pattern's text, which may hold a secret.
pub(super) fn malformed(message: &'static str) -> Error {
    Error::new(ErrorKind::Config, message)
}

/// One octet, or any run of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// Any run, also none. Only in patterns.
    Run,
    Octet(u8),
    /// An octet that means something else than the same character unescaped, so that `%2F` is not `/`.
    Escaped(u8),
}

/// A pattern: `*` is any run of characters, everything else is itself.
#[derive(Clone, Debug)]
pub(super) struct Glob(Box<[Unit]>);

impl Glob {
    pub(super) fn new(text: &str) -> Result<Self> {
        let mut units = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((unit, after)) = next(rest) {
            units.push(match rest {
                [b'*', b'*', ..] => {
                    return Err(malformed(
                        "URL pattern: `**` has to be a whole segment of the path, or the first label of the host",
                    ));
                }
                [b'*', ..] => Unit::Run,
                [b'%', ..] if after.len() + 1 == rest.len() => {
                    return Err(malformed(
                        "URL pattern: a percent sign without two hexadecimal digits; for the sign itself write %25",
                    ));
                }
                _ => unit,
            });
            rest = after;
        }
        Ok(Self(units.into()))
    }

    /// Whether this is the whole text.
    pub(super) fn matches(&self, text: &[u8]) -> bool {
        let (mut at, mut rest) = (0, text);
        // After the last star: where the pattern goes on, and the text after what the star has taken so far. Earlier
        // stars need no second try: what they left is the longest rest there can be.
        let mut retry: Option<(usize, &[u8])> = None;
        loop {
            match (self.0.get(at), next(rest)) {
                (Some(Unit::Run), _) => {
                    at += 1;
                    if at == self.0.len() {
                        return true;
                    }
                    retry = Some((at, rest));
                }
                (None, None) => return true,
                (Some(wanted), Some((found, after))) if *wanted == found => {
                    at += 1;
                    rest = after;
                }
                _ => {
                    let Some((from, taken)) = retry else { return false };
                    let Some((_, after)) = next(taken) else { return false };
                    at = from;
                    rest = after;
                    retry = Some((from, after));
                }
            }
        }
    }
}

/// The first octet of a URL's text and what follows it. Unreserved characters mean the same escaped or not, and so does
/// what URLs cannot hold unescaped: other than ASCII, and a percent sign that escapes nothing. A star counts as
/// unreserved, so that a pattern can name one by its escape.
fn next(text: &[u8]) -> Option<(Unit, &[u8])> {
    if let [b'%', high, low, rest @ ..] = text
        && let Some(octet) = hex::octet(*high, *low)
    {
        let plain = octet.is_ascii_alphanumeric() || b"-._~*".contains(&octet);
        return Some((if plain { Unit::Octet(octet) } else { Unit::Escaped(octet) }, rest));
    }
    let (first, rest) = text.split_first()?;
    let plain = first.is_ascii() && *first != b'%';
    Some((if plain { Unit::Octet(*first) } else { Unit::Escaped(*first) }, rest))
}
