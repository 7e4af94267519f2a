//! The identity of a response that answers several queries of a path (No-Vary-Search).
//!
//! Its text is that of a URI with the query in normal form, and with a random id as its fragment. The id stands for the value
//! of the field by which the query was normalized.
//!
//! # Invariants
//! - No request has such an identity by its own URI, since no effective URI has a fragment.
//! - A name of the user never becomes one.

use std::borrow::Cow;

use super::EffectiveUri;
use crate::hex;

impl EffectiveUri<'_> {
    /// Returns this URI without its query.
    pub(crate) fn without_query(&self) -> EffectiveUri<'_> {
        EffectiveUri { path_and_query: Cow::Borrowed(self.path_alone()), ..self.reborrowed() }
    }

    /// Returns the query, or an empty one if there is none.
    pub(crate) fn query(&self) -> &str {
        self.path_and_query.split_once('?').map_or("", |(_, query)| query)
    }

    /// Returns this URI with another query.
    pub(crate) fn with_query(&self, query: &str) -> EffectiveUri<'_> {
        let question_mark = if query.is_empty() { "" } else { "?" };
        let path_and_query = Cow::Owned(format!("{}{question_mark}{query}", self.path_alone()));
        EffectiveUri { path_and_query, ..self.reborrowed() }
    }

    /// Returns the identity of the responses for all queries that a value of No-Vary-Search treats as equivalent.
    ///
    /// `query` is their common form, and `id` stands for the value.
    pub(crate) fn for_queries(&self, query: &str, id: &[u8; 16]) -> EffectiveUri<'_> {
        let path = match self.path_alone() {
            "" => "/",
            path => path,
        };
        let path_and_query = Cow::Owned(format!("{path}?{query}#{}", hex::text(id)));
        EffectiveUri { path_and_query, ..self.reborrowed() }
    }

    /// Returns whether this is the identity of a response that answers several queries.
    pub(crate) fn is_for_queries(&self) -> bool {
        !self.is_named() && self.path_and_query.contains('#')
    }

    fn reborrowed(&self) -> EffectiveUri<'_> {
        EffectiveUri {
            scheme: self.scheme,
            host: Cow::Borrowed(&self.host),
            port: self.port,
            path_and_query: Cow::Borrowed(&self.path_and_query),
            is_host_field: self.is_host_field,
        }
    }
}

/// Splits the text of an identity into a URL, and the id if it is for several queries.
pub(crate) fn split_id(text: &str) -> (&str, Option<&str>) {
    match text.split_once('#').filter(|_| EffectiveUri::of_text(text).is_some_and(|uri| uri.is_for_queries()))
    {
        Some((url, id)) => (url.strip_suffix('?').unwrap_or(url), Some(id)),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_for_queries_is_that_of_no_uri() {
        for (url, path, query) in [
            ("http://a/x?b=1&c=2", "http://a/x", "b=1&c=2"),
            ("https://a:8080", "https://a:8080/", ""),
            ("http://a/?q", "http://a/", "q"),
            ("http://a?q", "http://a/", "q"),
        ] {
            let uri = url.parse().unwrap();
            let uri = EffectiveUri::of_uri(&uri).unwrap();
            assert_eq!((&*uri.without_query().to_text(), uri.query()), (path, query));
            let many = uri.for_queries("n=1", &[0xab; 16]);
            assert!(many.is_for_queries() && !uri.is_for_queries());
            let text = many.to_text();
            assert_eq!(EffectiveUri::of_text(&text).unwrap().to_text(), text);
            let id = "ab".repeat(16);
            assert_eq!(split_id(&text), (&*format!("{path}?n=1"), Some(&*id)));
            assert_eq!(split_id(&uri.for_queries("", &[0xab; 16]).to_text()), (path, Some(&*id)));
            assert_eq!(split_id(&uri.to_text()), (&*uri.to_text(), None));
        }
        assert_eq!(split_id("cache-key:///a#b"), ("cache-key:///a#b", None));
    }
}
