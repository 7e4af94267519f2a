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

use http::{Uri, request};
use percent_encoding::percent_decode_str;

use super::{Defaults, EffectiveUri};

/// A function of the user that names requests.
///
/// Returns `None` for a request that its URI identifies.
pub(crate) type KeyFn = Arc<dyn Fn(&request::Parts) -> Option<String> + Send + Sync>;

/// The scheme of a user's name, which no URI of an origin has.
pub(super) const NAMED_SCHEME: &str = "cache-key";

/// The settings from which the identity of a request is made.
#[derive(Clone, Default)]
pub(crate) struct Identity {
    /// The names of the query parameters that do not identify a request.
    pub(crate) ignored_query: Vec<String>,
    /// Whether the order of query parameters does not identify a request.
    pub(crate) sorted_query: bool,
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

    /// Returns a rewritten URI without the ignored query parameters.
    ///
    /// A URI is rewritten if it is not sent on as the client asked for it.
    pub(crate) fn rewritten(&self, uri: &Uri) -> String {
        let path_and_query = uri.path_and_query().map_or("", |path| path.as_str());
        let path_and_query =
            self.normalized(path_and_query).map_or(Cow::Borrowed(path_and_query), Cow::Owned);
        match (uri.scheme_str(), uri.authority()) {
            (Some(scheme), Some(authority)) => format!("{scheme}://{authority}{path_and_query}"),
            _ => path_and_query.into_owned(),
        }
    }

    /// Returns whether these settings keep every URI as it is.
    pub(crate) fn is_plain(&self) -> bool {
        self.ignored_query.is_empty() && !self.sorted_query && self.key_fn.is_none()
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
        if let Some(normalized) = self.normalized(&uri.path_and_query) {
            uri.path_and_query = Cow::Owned(normalized);
        }
        uri
    }

    /// Returns the path and query in the form that requests of one identity share.
    ///
    /// Returns `None` if they are in that form already.
    fn normalized(&self, path_and_query: &str) -> Option<String> {
        if !self.sorted_query && self.ignored_query.is_empty() {
            return None;
        }
        let (path, query) = path_and_query.split_once('?')?;
        // Some servers split at semicolons as well. A client could hide a parameter in the value of an
        // ignored one, or make another one the last of its name, and so store a response under the wrong
        // identity.
        if query.contains(';') {
            return None;
        }
        let mut pairs: Vec<(Cow<'_, str>, &str)> = query
            .split('&')
            .map(|pair| (decoded(pair.split_once('=').map_or(pair, |(name, _)| name)), pair))
            .collect();
        let before = pairs.len();
        pairs.retain(|(name, _)| !self.ignored_query.iter().any(|ignored| ignored == name));
        let sorted = !self.sorted_query || pairs.is_sorted_by(|one, other| one.0 <= other.0);
        if sorted && pairs.len() == before {
            return None;
        }
        if self.sorted_query {
            // A stable sort: the order of the values of one name may have a meaning.
            pairs.sort_by(|one, other| one.0.cmp(&other.0));
        }
        let pairs: Vec<&str> = pairs.into_iter().map(|(_, pair)| pair).collect();
        let question_mark = if pairs.is_empty() { "" } else { "?" };
        Some(format!("{path}{question_mark}{}", pairs.join("&")))
    }
}

/// Decodes the name of a parameter, in which a plus is a space.
fn decoded(name: &str) -> Cow<'_, str> {
    if !name.contains(['%', '+']) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(percent_decode_str(&name.replace('+', " ")).decode_utf8_lossy().into_owned())
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
        f.debug_struct("Identity")
            .field("ignored_query", &self.ignored_query)
            .field("sorted_query", &self.sorted_query)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_parameters_are_removed_and_others_sorted() {
        let identity = |ignored: &[&str], sorted_query| Identity {
            ignored_query: ignored.iter().map(|&name| name.to_owned()).collect(),
            sorted_query,
            key_fn: None,
        };
        for (ignored, sorted, uri, expected) in [
            (&[][..], false, "/?b=1&a=2", "/?b=1&a=2"),
            (&[], true, "/?b=1&a=2", "/?a=2&b=1"),
            (&[], true, "/?a=2&a=1&a=3", "/?a=2&a=1&a=3"),
            (&[], true, "/?b&a=1", "/?a=1&b"),
            (&["b"], false, "/x?b=1&a=2&b", "/x?a=2"),
            (&["b"], false, "/x?b=1", "/x"),
            (&["b"], false, "/x", "/x"),
            (&["b"], false, "/x?", "/x?"),
            (&["a b"], false, "/?a+b=1&a%20b=2&ab=3", "/?ab=3"),
            (&["b"], false, "/?B=1&%62=2", "/?B=1"),
            (&["b"], true, "/?c=1&b=2;c=3", "/?c=1&b=2;c=3"),
            (&["b"], true, "/;x?c=1&b=2", "/;x?c=1"),
            (&["b"], false, "/?b=1%3bc&c", "/?c"),
        ] {
            let identity = identity(ignored, sorted);
            assert_eq!(identity.normalized(uri).as_deref().unwrap_or(uri), expected);
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
