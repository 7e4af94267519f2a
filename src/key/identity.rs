//! The user's settings on which requests are the same.
//!
//! Query parameters can be ignored or sorted, and requests can have names in place of their URI.
//!
//! # Invariants
//! - Without such settings a URI is kept as it is, and nothing is allocated for it.
//! - A name that the user gives to a request is never mistaken for a URI.
//! - Ignored values are in nothing that is stored.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::query::QuerySettings;
use super::{Defaults, EffectiveUri};
use http::{Uri, request};

/// A function of the user that names requests.
///
/// Returns `None` for a request that its URI identifies.
pub(crate) type KeyFn = Arc<dyn Fn(&request::Parts) -> Option<String> + Send + Sync>;

/// The scheme of a user's name, which no URI of an origin has.
pub(super) const NAMED_SCHEME: &str = "cache-key";

/// The settings from which the identity of a request is made.
#[derive(Clone, Default)]
pub(crate) struct Identity {
    /// Which query parameters identify a request.
    pub(crate) query: QuerySettings,
    pub(crate) key_fn: Option<KeyFn>,
}

impl Identity {
    /// Returns the identity of a request, or `None` if it has no effective URI.
    ///
    /// `name` is the name that the options of the request give it. It takes precedence over the function of
    /// the user.
    pub(crate) fn of<'a>(
        &self,
        parts: &'a request::Parts,
        name: Option<&str>,
        defaults: &'a Defaults,
    ) -> Option<EffectiveUri<'a>> {
        let uri = EffectiveUri::of(parts, defaults)?;
        let name = name.map(str::to_owned).or_else(|| self.key_fn.as_ref()?(parts));
        Some(match name {
            Some(name) => EffectiveUri::named(&name),
            None => self.plain(uri),
        })
    }

    /// Returns whether a name identifies a request in place of its URI.
    pub(crate) fn names(&self, parts: &request::Parts, name: Option<&str>) -> bool {
        name.is_some() || self.key_fn.as_ref().is_some_and(|key_fn| key_fn(parts).is_some())
    }

    /// Returns a rewritten URI without the ignored query parameters, or without the query if `asked` has the same.
    ///
    /// A URI is rewritten if it is not sent on as the client asked for it. The settings are those for `asked`, the effective
    /// URI of the request.
    pub(crate) fn rewritten(&self, uri: &Uri, asked: Option<&EffectiveUri<'_>>) -> String {
        let path_and_query = uri.path_and_query().map_or("", |path| path.as_str());
        let url = asked.map(|asked| self.without_query(asked)).unwrap_or_default();
        let normalized = self.query.normalized(&url, path_and_query);
        let mut path_and_query = normalized.map_or(Cow::Borrowed(path_and_query), Cow::Owned);
        let query_of = |text: &str| text.split_once('?').map(|(_, query)| query.to_owned());
        if asked.is_some_and(|asked| {
            query_of(&self.plain(asked.clone()).path_and_query) == query_of(&path_and_query)
        }) {
            // The key has this query already, or stands for several queries (No-Vary-Search). No URI has a line feed.
            let path = path_and_query.split('?').next().unwrap_or_default();
            path_and_query = Cow::Owned(format!("{path}\n"));
        }
        match (uri.scheme_str(), uri.authority()) {
            (Some(scheme), Some(authority)) => format!("{scheme}://{authority}{path_and_query}"),
            _ => path_and_query.into_owned(),
        }
    }

    /// Returns a URI without its query, if some settings depend on it.
    fn without_query(&self, uri: &EffectiveUri<'_>) -> String {
        let mut url = if self.query.has_patterns() { uri.to_text() } else { String::new() };
        url.truncate(url.find('?').unwrap_or(url.len()));
        url
    }

    /// Returns whether these settings keep every URI as it is.
    pub(crate) fn is_plain(&self) -> bool {
        self.query.is_plain() && self.key_fn.is_none()
    }

    /// Returns a number that stands for the settings by which the text of a key was made from a URI.
    ///
    /// It is 0 if there are none, and for a name.
    pub(crate) fn query_fingerprint(&self, key_text: &str) -> u64 {
        let is_name = || key_text.split_once("://").is_some_and(|(scheme, _)| scheme == NAMED_SCHEME);
        if self.query.is_plain() || is_name() { 0 } else { self.query.fingerprint(key_text) }
    }

    /// Returns the identity of another URI, which the response to a request names (Location, Content-Location).
    ///
    /// The function of the user is given the request `asked` with this URI.
    pub(crate) fn of_uri<'a>(&self, uri: &'a Uri, asked: &request::Parts) -> Option<EffectiveUri<'a>> {
        if let Some(key_fn) = &self.key_fn {
            let mut parts = asked.clone();
            parts.uri = uri.clone();
            if let Some(name) = key_fn(&parts) {
                return Some(EffectiveUri::named(&name));
            }
        }
        EffectiveUri::of_uri(uri).map(|uri| self.plain(uri))
    }

    /// Returns the URI without the query parameters that do not identify it.
    ///
    /// The others are sorted if these settings say so.
    pub(crate) fn plain<'a>(&self, mut uri: EffectiveUri<'a>) -> EffectiveUri<'a> {
        if self.query.is_plain() {
            return uri;
        }
        if let Some(normalized) = self.query.normalized(&self.without_query(&uri), &uri.path_and_query) {
            uri.path_and_query = Cow::Owned(normalized);
        }
        uri
    }
}

impl EffectiveUri<'_> {
    /// Makes the identity of a request that the user names.
    ///
    /// The scheme, and the empty host that no effective URI has, keep it apart from every URI.
    fn named(name: &str) -> Self {
        let path_and_query = Cow::Owned(format!("/{name}"));
        Self {
            scheme: NAMED_SCHEME,
            host: Cow::Borrowed(""),
            port: None,
            path_and_query,
            is_host_field: true,
        }
    }

    /// Returns whether this is a name of the user, not a URI.
    pub(crate) fn is_named(&self) -> bool {
        self.host.is_empty()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("query", &self.query).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Patterns are about the URL that the client asked for, not about the one that is sent on.
    #[test]
    fn rewritten_uri_has_the_settings_of_the_asked_one() {
        let mut identity = Identity::default();
        let pattern = Some(crate::rules::UrlPattern::glob("a/list"));
        identity.query.add(pattern, crate::key::Named::Only, vec!["page".to_owned()]);
        let sent: Uri = "/rewritten?page=1&t=2".parse().unwrap();
        for (asked, expected) in [
            ("http://a/list?page=2&t=2", "/rewritten?page=1"),
            ("http://a/other?page=1&t=3", "/rewritten?page=1&t=2"),
            ("http://a/list?page=1&t=2", "/rewritten\n"),
            ("http://a/other?page=1&t=2", "/rewritten\n"),
            ("http://a/list?page=1&t=4", "/rewritten\n"),
            ("http://a/list", "/rewritten?page=1"),
        ] {
            let asked = asked.parse::<Uri>().unwrap();
            assert_eq!(identity.rewritten(&sent, EffectiveUri::of_uri(&asked).as_ref()), expected);
        }
    }

    #[test]
    fn name_is_distinct_from_the_same_uri() {
        let (named, parts) =
            (EffectiveUri::named("http://a/"), http::Request::get("http://a/").body(()).unwrap());
        let parts = parts.into_parts().0;
        let defaults = Defaults { scheme: http::uri::Scheme::HTTP, authority: None };
        let uri = EffectiveUri::of(&parts, &defaults).unwrap();
        assert!(named.is_named() && !uri.is_named() && named.to_text() != uri.to_text());
        assert!(named.is_text(&named.to_text()));
    }
}
