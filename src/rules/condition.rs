//! Conditions of a rule on the request and on the response.
//!
//! # Invariants
//! - A condition on something that is not known does not hold.
//! - The time of a comparison is linear in the length of the compared text for each piece of its pattern.

use std::borrow::Cow;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName, Method, StatusCode, request};
use percent_encoding::percent_decode;

use super::rule::config;
use crate::error::Result;

/// A response that rules are matched with, and the request that it answers.
pub(crate) struct RuledResponse<'a> {
    pub(crate) request: &'a request::Parts,
    pub(crate) status: StatusCode,
    pub(crate) headers: &'a HeaderMap,
    /// The length of the body in bytes, if it is known.
    pub(crate) len: Option<u64>,
}

/// A condition on a request or a response.
#[derive(Clone, Debug)]
pub(super) enum Condition {
    /// A query parameter of this name has a value that matches.
    QueryParam(String, ValuePattern),
    /// A cookie of this name has a value that matches.
    Cookie(String, ValuePattern),
    /// A line of this field of the request matches.
    RequestHeader(HeaderName, ValuePattern),
    /// A line of this field of the response matches.
    ResponseHeader(HeaderName, ValuePattern),
    /// The request has one of these methods, of which HEAD is written as GET.
    Methods(Vec<Method>),
    LargerThan(u64),
    SmallerThan(u64),
}

impl Condition {
    /// Creates a condition on a query parameter.
    ///
    /// # Errors
    /// Returns an error of the kind [`Config`](crate::ErrorKind::Config) if no parameter can meet it.
    pub(super) fn query_param(name: String, value: &str) -> Result<Self> {
        if name.is_empty() {
            return Err(config("a rule's query_param has no name: name a parameter"));
        }
        Ok(Self::QueryParam(name, ValuePattern::new(value)))
    }

    /// Creates a condition on a cookie.
    ///
    /// # Errors
    /// Returns an error of the kind [`Config`](crate::ErrorKind::Config) if no cookie can meet it.
    pub(super) fn cookie(name: String, value: &str) -> Result<Self> {
        let is_apart = |c: char| c == ';' || c.is_ascii_control();
        if name.is_empty() || name.contains(|c: char| is_apart(c) || matches!(c, '=' | ' ')) {
            return Err(config(
                "a rule's cookie has a name that no cookie can have: name a cookie, without `=`",
            ));
        }
        if value.contains(is_apart) {
            return Err(config(
                "a rule's cookie has a pattern that no value matches: remove the semicolon or control",
            ));
        }
        Ok(Self::Cookie(name, ValuePattern::new(value)))
    }

    /// Creates a condition on a field of the request or of the response.
    ///
    /// # Errors
    /// Returns an error of the kind [`Config`](crate::ErrorKind::Config) if no field can meet it.
    pub(super) fn header(name: &str, value: &str, of_request: bool) -> Result<Self> {
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            return Err(config(if of_request {
                "a rule's request_header has a name that no field can have: name a field such as accept-language"
            } else {
                "a rule's response_header has a name that no field can have: name a field such as content-language"
            }));
        };
        if value.contains(|c: char| c.is_ascii_control() && c != '\t') || value.trim_ascii() != value {
            return Err(config(
                "a rule's request_header or response_header has a pattern that no value matches: remove control \
                 characters, and white space at its ends",
            ));
        }
        let pattern = ValuePattern::new(value);
        Ok(if of_request { Self::RequestHeader(name, pattern) } else { Self::ResponseHeader(name, pattern) })
    }

    /// Creates a condition on the method.
    ///
    /// # Errors
    /// Returns an error of the kind [`Config`](crate::ErrorKind::Config) if none of the methods can be cached.
    pub(super) fn methods(methods: impl IntoIterator<Item = Method>) -> Result<Self> {
        let methods: Vec<Method> = methods.into_iter().map(|method| entry_method(&method)).collect();
        if methods.iter().all(|method| matches!(*method, Method::CONNECT | Method::OPTIONS | Method::TRACE)) {
            return Err(config(
                "a rule's methods names no method whose responses can be stored: name one, such as GET",
            ));
        }
        Ok(Self::Methods(methods))
    }

    /// Returns whether the condition is on the URL.
    pub(super) fn is_of_url(&self) -> bool {
        matches!(self, Self::QueryParam(..))
    }

    /// Returns whether a response meets the condition.
    ///
    /// `url` is its effective URI.
    pub(super) fn holds(&self, url: &str, response: &RuledResponse<'_>) -> bool {
        let has_line = |fields: &HeaderMap, name, pattern: &ValuePattern| {
            fields.get_all(name).iter().any(|line| pattern.matches(line.as_bytes().trim_ascii()))
        };
        match self {
            Self::QueryParam(name, pattern) => {
                let query = url.split_once('?').map_or("", |(_, query)| query);
                query.split('&').any(|pair| {
                    let (raw, value) = pair.split_once('=').unwrap_or((pair, ""));
                    *decoded(raw) == *name.as_bytes() && pattern.matches(&decoded(value))
                })
            }
            Self::Cookie(name, pattern) => {
                // HTTP/2 may split the field into lines at its semicolons (RFC 9113 §8.2.3).
                let lines = response.request.headers.get_all(COOKIE).iter();
                let mut cookies = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
                cookies.any(|cookie| {
                    let mut parts = cookie.splitn(2, |byte| *byte == b'=').map(<[u8]>::trim_ascii);
                    parts.next() == Some(name.as_bytes())
                        && parts.next().is_some_and(|value| pattern.matches(value))
                })
            }
            Self::RequestHeader(name, pattern) => has_line(&response.request.headers, name, pattern),
            Self::ResponseHeader(name, pattern) => has_line(response.headers, name, pattern),
            Self::Methods(methods) => methods.contains(&entry_method(&response.request.method)),
            Self::LargerThan(bytes) => response.len.is_some_and(|len| len > *bytes),
            Self::SmallerThan(bytes) => response.len.is_some_and(|len| len < *bytes),
        }
    }
}

/// Returns a method as it identifies an entry: HEAD is answered from the entry of GET.
fn entry_method(method: &Method) -> Method {
    if *method == Method::HEAD { Method::GET } else { method.clone() }
}

/// Decodes the name or value of a query parameter, in which a plus is a space.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text.as_bytes());
    }
    Cow::Owned(percent_decode(text.replace('+', " ").as_bytes()).collect())
}

/// A pattern of a whole value, in which a star is any text.
#[derive(Clone)]
pub(super) struct ValuePattern(Box<[Box<[u8]>]>);

impl ValuePattern {
    /// Creates a pattern. Any text is one.
    fn new(text: &str) -> Self {
        Self(text.split('*').map(|piece| piece.as_bytes().into()).collect())
    }

    /// Returns whether the pattern matches a whole value.
    fn matches(&self, value: &[u8]) -> bool {
        let [first, rest @ ..] = &*self.0 else { return false };
        let Some(mut left) = value.strip_prefix(&**first) else { return false };
        let [pieces @ .., last] = rest else { return left.is_empty() };
        // The first place of each piece leaves the longest rest to the others.
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            match left.windows(piece.len()).position(|found| *found == **piece) {
                Some(at) => left = left.get(at + piece.len()..).unwrap_or_default(),
                None => return false,
            }
        }
        left.ends_with(last)
    }
}

/// Shows no text, which may contain a secret.
impl std::fmt::Debug for ValuePattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ValuePattern").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_in_a_value_is_any_text() {
        for (pattern, matching, other) in [
            ("de", &["de"][..], &["", "d", "dee", "DE"][..]),
            ("", &[""], &["a"]),
            ("*", &["", "a", "*"], &[]),
            ("de*", &["de", "de-AT"], &["", "d", "ade"]),
            ("*json", &["json", "application/json"], &["json5", "jso"]),
            ("a*a", &["aa", "aba"], &["a", "ab", "aab"]),
            ("a*b*c", &["abc", "abbcbcc", "a-b-c"], &["ac", "acb", "abcd"]),
            ("*a**b*", &["ab", "xaybz"], &["ba"]),
        ] {
            let pattern = ValuePattern::new(pattern);
            assert!(matching.iter().all(|value| pattern.matches(value.as_bytes())), "{matching:?}");
            assert!(!other.iter().any(|value| pattern.matches(value.as_bytes())), "{other:?}");
        }
    }
}
