//! What counts as the same request: the effective URI without what the user says does not count, or a name in its place.
//!
//! Promises: a URI that nothing is said about is left as it is, and nothing is allocated for it; a name of the user's is
//! never mistaken for a URI; values that do not count are in nothing that is stored.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::{Uri, request};
use percent_encoding::percent_decode_str;

use super::{Defaults, EffectiveUri};

/// Names what a request is about; `None`: its URI does.
pub(crate) type Naming = Arc<dyn Fn(&request::Parts) -> Option<String> + Send + Sync>;

/// The scheme of the user's names.
pub(super) const NAMED: &str = "cache-key";

/// How the identity of a request is made.
#[derive(Clone, Default)]
pub(crate) struct Identity {
    pub(crate) ignored_query: Vec<String>,
    pub(crate) sorted_query: bool,
    pub(crate) naming: Option<Naming>,
}

impl Identity {
    /// Of a request; `name`: the one that it brings.
    pub(crate) fn of<'a>(
        &self,
        parts: &'a request::Parts,
        name: Option<&str>,
        defaults: &'a Defaults,
    ) -> Option<EffectiveUri<'a>> {
        let uri = EffectiveUri::of(parts, defaults)?;
        let name = name.map(str::to_owned).or_else(|| self.naming.as_ref()?(parts));
        Some(match name {
            Some(name) => EffectiveUri::named(&name),
            None => self.plain(uri),
        })
    }

    /// Whether a request has a name in the place of its URI.
    pub(crate) fn names(&self, parts: &request::Parts, name: Option<&str>) -> bool {
        name.is_some() || self.naming.as_ref().is_some_and(|naming| naming(parts).is_some())
    }

    /// The URI that is sent on in place of the one that the client asked for, without what does not count.
    pub(crate) fn rewritten(&self, uri: &Uri) -> String {
        let path_and_query = uri.path_and_query().map_or("", |path| path.as_str());
        let path_and_query = self.normal(path_and_query).map_or(Cow::Borrowed(path_and_query), Cow::Owned);
        match (uri.scheme_str(), uri.authority()) {
            (Some(scheme), Some(authority)) => format!("{scheme}://{authority}{path_and_query}"),
            _ => path_and_query.into_owned(),
        }
    }

    /// Whether it leaves all URIs as they are.
    pub(crate) fn is_plain(&self) -> bool {
        self.ignored_query.is_empty() && !self.sorted_query && self.naming.is_none()
    }

    /// Of another URI, that the response to a request names.
    pub(crate) fn of_uri<'a>(&self, uri: &'a Uri, asked: &request::Parts) -> Option<EffectiveUri<'a>> {
        if let Some(naming) = &self.naming {
            let mut parts = asked.clone();
            parts.uri = uri.clone();
            if let Some(name) = naming(&parts) {
                return Some(EffectiveUri::named(&name));
            }
        }
        EffectiveUri::of_uri(uri).map(|uri| self.plain(uri))
    }

    /// The URI without what does not count.
    pub(crate) fn plain<'a>(&self, mut uri: EffectiveUri<'a>) -> EffectiveUri<'a> {
        if let Some(normal) = self.normal(&uri.path_and_query) {
            uri.path_and_query = Cow::Owned(normal);
        }
        uri
    }

    /// The path and query in the form that equal requests share; `None`: it is in that form.
    fn normal(&self, path_and_query: &str) -> Option<String> {
        if !self.sorted_query && self.ignored_query.is_empty() {
            return None;
        }
        let (path, query) = path_and_query.split_once('?')?;
        // Some servers split at semicolons as well, so that a parameter could hide in the value of an ignored one, or
        // another one be the last of its name.
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
            // Values of one name keep their order, which may mean something.
            pairs.sort_by(|one, other| one.0.cmp(&other.0));
        }
        let pairs: Vec<&str> = pairs.into_iter().map(|(_, pair)| pair).collect();
        let mark = if pairs.is_empty() { "" } else { "?" };
        Some(format!("{path}{mark}{}", pairs.join("&")))
    }
}

/// The name of a parameter, as a form writes it (a plus is a space).
fn decoded(name: &str) -> Cow<'_, str> {
    if !name.contains(['%', '+']) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(percent_decode_str(&name.replace('+', " ")).decode_utf8_lossy().into_owned())
}

impl EffectiveUri<'_> {
    /// What the user names: the scheme, and the empty host that no URI has here, keep it apart from all URIs.
    fn named(name: &str) -> Self {
        let path_and_query = Cow::Owned(format!("/{name}"));
        Self { scheme: NAMED, host: Cow::Borrowed(""), port: None, path_and_query, exact: true }
    }

    /// Whether it is a name of the user's.
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
    fn the_query_without_what_does_not_count() {
        let identity = |ignored: &[&str], sorted_query| Identity {
            ignored_query: ignored.iter().map(|&name| name.to_owned()).collect(),
            sorted_query,
            naming: None,
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
            assert_eq!(identity.normal(uri).as_deref().unwrap_or(uri), expected);
        }
    }

    #[test]
    fn a_name_is_no_uri() {
        let (named, parts) =
            (EffectiveUri::named("http://a/"), http::Request::get("http://a/").body(()).unwrap());
        let parts = parts.into_parts().0;
        let defaults = Defaults { scheme: http::uri::Scheme::HTTP, authority: None };
        let uri = EffectiveUri::of(&parts, &defaults).unwrap();
        assert!(named.is_named() && !uri.is_named() && named.to_text() != uri.to_text());
        assert!(named.is_text(&named.to_text()));
    }
}
