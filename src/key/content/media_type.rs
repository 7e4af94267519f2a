//! A media type and its parameters (RFC 9110 §8.3.1), and other fields of this syntax.

use super::{push_count, push_piece};

/// The most parameters that are parsed. Each is compared with all before it, so the time grows with the
/// square of their number.
const MAX_PARAMETERS: usize = 32;

/// A parameter's name in lower case, and its value without quotes.
pub(super) type Parameter = (String, Vec<u8>);

#[derive(Clone, Debug)]
pub(super) struct MediaType {
    essence: String,
    /// Sorted by name.
    parameters: Vec<Parameter>,
}

impl MediaType {
    /// Parses a media type.
    ///
    /// Returns `None` if it is malformed, or has too many parameters or one of them twice.
    pub(super) fn parse(field: &[u8]) -> Option<Self> {
        let (essence, mut parameters) = with_parameters(field)?;
        let slash = essence.iter().position(|byte| *byte == b'/')?;
        let (kind, subtype) = (essence.get(..slash)?, essence.get(slash + 1..)?);
        if !is_token(kind) || !is_token(subtype) {
            return None;
        }
        let essence = std::str::from_utf8(essence).ok()?.to_ascii_lowercase();
        // The values of other parameters may distinguish case.
        for (_, value) in parameters.iter_mut().filter(|(name, _)| name == "charset") {
            value.make_ascii_lowercase();
        }
        parameters.sort_unstable();
        Some(Self { essence, parameters })
    }

    /// Returns type and subtype in lower case.
    pub(super) fn essence(&self) -> &str {
        &self.essence
    }

    /// Returns whether the content is in UTF-8, as far as the media type says.
    pub(super) fn is_utf8(&self) -> bool {
        self.parameter("charset").is_none_or(|charset| [&b"utf-8"[..], b"us-ascii"].contains(&charset))
    }

    /// Returns the boundary between the parts of multipart content (RFC 2046 §5.1.1).
    ///
    /// Returns `None` if it is missing or invalid.
    pub(super) fn boundary(&self) -> Option<&[u8]> {
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(byte);
        self.parameter("boundary").filter(|boundary| {
            (1..=70).contains(&boundary.len()) && boundary.iter().all(allowed) && !boundary.ends_with(b" ")
        })
    }

    fn parameter(&self, name: &str) -> Option<&[u8]> {
        self.parameters.iter().find(|(own, _)| own == name).map(|(_, value)| &**value)
    }

    /// Returns the form that all spellings of this media type share.
    ///
    /// It lacks the boundary of a form that `was_parsed`, since another boundary may separate the same parts.
    pub(super) fn canonical(&self, was_parsed: bool) -> Vec<u8> {
        let counts =
            |name: &str| !(was_parsed && self.essence == "multipart/form-data" && name == "boundary");
        let counting = || self.parameters.iter().filter(|(name, _)| counts(name));
        let mut canonical = Vec::with_capacity(64);
        push_piece(&mut canonical, self.essence.as_bytes());
        push_count(&mut canonical, counting().count());
        for (name, value) in counting() {
            push_piece(&mut canonical, name.as_bytes());
            push_piece(&mut canonical, value);
        }
        canonical
    }
}

/// Parses what precedes the first semicolon, and the parameters after it.
///
/// Returns `None` if they are malformed, too many, or if one occurs twice, of which some parsers use the
/// first and some the last.
pub(super) fn with_parameters(field: &[u8]) -> Option<(&[u8], Vec<Parameter>)> {
    let end = field.iter().position(|byte| *byte == b';').unwrap_or(field.len());
    let (lead, mut rest) = field.split_at_checked(end)?;
    let mut parameters: Vec<Parameter> = Vec::new();
    loop {
        rest = rest.trim_ascii_start();
        let Some((semicolon, after)) = rest.split_first() else { break };
        if *semicolon != b';' {
            return None;
        }
        rest = after.trim_ascii_start();
        if rest.is_empty() || rest.starts_with(b";") {
            // Empty parameters are allowed and have no meaning.
            continue;
        }
        let (name, after) = rest.split_at_checked(rest.iter().position(|byte| *byte == b'=')?)?;
        let (value, after) = value(after.get(1..)?)?;
        if !is_token(name) {
            return None;
        }
        let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
        if parameters.len() >= MAX_PARAMETERS || parameters.iter().any(|(other, _)| *other == name) {
            return None;
        }
        parameters.push((name, value));
        rest = after;
    }
    Some((lead.trim_ascii(), parameters))
}

/// Parses the token or quoted string at the start of a text.
///
/// Returns what follows it, too.
fn value(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let end = text.iter().position(|byte| !is_token_byte(*byte)).unwrap_or(text.len());
        let (token, rest) = text.split_at_checked(end)?;
        return if token.is_empty() { None } else { Some((token.to_vec(), rest)) };
    };
    let mut plain = Vec::new();
    let mut rest = quoted;
    loop {
        match rest {
            [b'"', after @ ..] => return Some((plain, after)),
            [b'\\', escaped, after @ ..] => {
                plain.push(*escaped);
                rest = after;
            }
            [b'\\'] | [] => return None,
            [byte, after @ ..] => {
                plain.push(*byte);
                rest = after;
            }
        }
    }
}

pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_token_byte(*byte))
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
