//! A media type and its parameters (RFC 9110 §8.3.1), and other fields of this syntax.

use super::{put, put_count};

/// So many parameters at most: each is compared with all before it.
const MOST: usize = 32;

/// A parameter's name in lower case, and its value without quotes.
pub(super) type Parameter = (String, Vec<u8>);

#[derive(Clone, Debug)]
pub(super) struct MediaType {
    essence: String,
    /// Sorted by name.
    parameters: Vec<Parameter>,
}

impl MediaType {
    /// `None`: malformed, with too many parameters, or with one that is there twice.
    pub(super) fn of(field: &[u8]) -> Option<Self> {
        let (essence, mut parameters) = with_parameters(field)?;
        let slash = essence.iter().position(|byte| *byte == b'/')?;
        let (kind, subtype) = (essence.get(..slash)?, essence.get(slash + 1..)?);
        if !is_token(kind) || !is_token(subtype) {
            return None;
        }
        let essence = std::str::from_utf8(essence).ok()?.to_ascii_lowercase();
        for (_, value) in parameters.iter_mut().filter(|(name, _)| name == "charset") {
            value.make_ascii_lowercase();
        }
        parameters.sort_unstable();
        Some(Self { essence, parameters })
    }

    /// Type and subtype, in lower case.
    pub(super) fn essence(&self) -> &str {
        &self.essence
    }

    /// Whether the content is in UTF-8, as far as this says.
    pub(super) fn is_utf8(&self) -> bool {
        self.parameter("charset").is_none_or(|charset| [&b"utf-8"[..], b"us-ascii"].contains(&charset))
    }

    /// What stands between the parts of a multipart content (RFC 2046 §5.1.1).
    pub(super) fn boundary(&self) -> Option<&[u8]> {
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(byte);
        self.parameter("boundary").filter(|boundary| {
            (1..=70).contains(&boundary.len()) && boundary.iter().all(allowed) && !boundary.ends_with(b" ")
        })
    }

    fn parameter(&self, name: &str) -> Option<&[u8]> {
        self.parameters.iter().find(|(own, _)| own == name).map(|(_, value)| &**value)
    }

    /// The form that all spellings of this media type share. Where the content was `understood`, its boundary is gone.
    pub(super) fn canonical(&self, understood: bool) -> Vec<u8> {
        let counts =
            |name: &str| !(understood && self.essence == "multipart/form-data" && name == "boundary");
        let counting = || self.parameters.iter().filter(|(name, _)| counts(name));
        let mut canonical = Vec::with_capacity(64);
        put(&mut canonical, self.essence.as_bytes());
        put_count(&mut canonical, counting().count());
        for (name, value) in counting() {
            put(&mut canonical, name.as_bytes());
            put(&mut canonical, value);
        }
        canonical
    }
}

/// What stands before the first semicolon, and the parameters after it. `None`: malformed, too many, or with one that is
/// there twice, of which some readers take the first and some the last.
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
            continue; // an empty parameter, which says nothing
        }
        let (name, after) = rest.split_at_checked(rest.iter().position(|byte| *byte == b'=')?)?;
        let (value, after) = value(after.get(1..)?)?;
        if !is_token(name) {
            return None;
        }
        let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
        if parameters.len() >= MOST || parameters.iter().any(|(other, _)| *other == name) {
            return None;
        }
        parameters.push((name, value));
        rest = after;
    }
    Some((lead.trim_ascii(), parameters))
}

/// A token or a quoted string at the start of a text, and what follows it.
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
