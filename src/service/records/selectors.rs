//! Selects the entry and the variant for a request.
//!
//! An entry is selected by the effective URI, or by a name that the user gave. A variant is selected by the fields that Vary
//! names, by credentials in a private cache, and by every other part of the request on which the response may depend and
//! which the URI does not contain (RFC 9111 §4.1).
//!
//! # Invariants
//!
//! - Two requests select the same variant only if they agree in every field that the stored response names, and in the Host
//!   field, the target and the client if those select.
//! - A part of the request that the user ignores selects nothing, and is not matched by rules either.

use std::sync::atomic::Ordering;

use http::uri::Scheme;
use http::{HeaderMap, HeaderName, Uri, Version, header, request};

use super::Records;
use crate::control::CacheOptions;
use crate::entry::Head;
use crate::key::{self, EffectiveUri};
use crate::policy::{self, NoVarySearch};
use crate::service::config::Config;
use crate::service::directives::options;
use crate::storage::Storage;

/// The digest of a request's content, among its extensions, if the content selects the response.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "content-keys"), allow(dead_code))]
pub(crate) struct ContentKey(pub(crate) [u8; 32]);

/// Marks a request to which its client adds fields that the cache does not see.
///
/// The response to a request of another client may depend on other fields, so that it does not answer this one.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "reqwest"), allow(dead_code))]
pub(crate) struct HiddenFields;

/// Stands for the hidden fields among the selecting names. No field in use has a name with an asterisk.
const HIDDEN_FIELDS: HeaderName = HeaderName::from_static("*client");

/// Returns whether a request's method and content select its response.
pub(crate) fn is_by_content(request: &request::Parts) -> bool {
    request.extensions.get::<ContentKey>().is_some()
}

/// Removes the digest of the content, and returns whether there was one.
pub(crate) fn forget_content(request: &mut request::Parts) -> bool {
    request.extensions.remove::<ContentKey>().is_some()
}

impl Config {
    /// Returns the effective URI of a request, or the name that the user gave.
    ///
    /// The entry of the request is stored under it.
    pub(crate) fn identify<'a>(&'a self, parts: &'a request::Parts) -> Option<EffectiveUri<'a>> {
        let name = options(parts).and_then(CacheOptions::key_text);
        self.identity.of(parts, name, &self.defaults)
    }

    /// Returns the effective URI of a request as text.
    pub(crate) fn plain_uri(&self, parts: &request::Parts) -> Option<String> {
        Some(EffectiveUri::of(parts, &self.defaults)?.to_text())
    }

    /// Returns the effective URI of a request as text, if its key has another text.
    pub(crate) fn plain_text(&self, key: &EffectiveUri<'_>, parts: &request::Parts) -> Option<Box<str>> {
        if self.identity.is_plain() && !key.is_named() && !key.is_for_queries() {
            return None;
        }
        self.plain_uri(parts).map(String::into_boxed_str)
    }

    /// Returns the URI that rules are matched with.
    ///
    /// It lacks every part that the user ignores, or that does not count by the response's own No-Vary-Search. Otherwise a
    /// client could add such a part, and so choose another rule for a response that all clients get.
    pub(crate) fn ruled_uri(&self, parts: &request::Parts, response: &HeaderMap) -> String {
        let Some(uri) = EffectiveUri::of(parts, &self.defaults) else { return String::new() };
        let uri = self.identity.plain(uri);
        let value = if self.no_vary_search { NoVarySearch::of(response) } else { None };
        match value.and_then(|value| value.reduced(uri.query())) {
            Some(query) => uri.with_query(&query).to_text(),
            None => uri.to_text(),
        }
    }

    /// Returns whether a name that the user gave replaces the request's URI.
    fn is_named(&self, request: &request::Parts) -> bool {
        self.identity.names(request, options(request).and_then(CacheOptions::key_text))
    }

    /// Returns whether the Host field of a request selects its response.
    fn has_selecting_host(&self, request: &request::Parts) -> bool {
        let uri = || EffectiveUri::of(request, &self.defaults);
        request.headers.contains_key(header::HOST)
            && !self.policy.ignored_fields.contains(&header::HOST)
            && uri().is_some_and(|uri| uri.host_selects(request))
            && !self.is_named(request)
    }

    /// Returns whether something that the origin may not take into account selects the response.
    ///
    /// This is so for credentials, for a part that the user has added to the key, and for a rewritten target. The entity tag
    /// of another request's response must not be offered to the origin then.
    pub(crate) fn has_hidden_selector(&self, names: &[HeaderName], request: &request::Parts) -> bool {
        let has = |name: &HeaderName| *name == policy::ALL_FIELDS || request.headers.contains_key(name);
        policy::is_personal(names, &request.headers, &self.policy)
            || self.policy.key_fields.iter().any(has)
            || is_by_content(request)
            || request.extensions.get::<HiddenFields>().is_some()
            || self.has_selecting_host(request)
            || (key::rewritten(request).is_some() && !self.is_named(request))
    }

    /// Returns whether a head names every field that selects a response in this cache.
    ///
    /// A head that a cache with other settings has stored may not.
    pub(crate) fn covers_key_fields(&self, head: &Head) -> bool {
        self.policy.key_fields.iter().all(|name| head.names.contains(name))
            && head.ignored_selectors.as_ref().is_none_or(|ignored_selectors| {
                let query = self.identity.query_fingerprint(&head.key_text);
                ignored_selectors.is_within(&self.policy, query)
            })
    }
}

impl<S: Storage> Records<S> {
    /// Returns the hash of everything in a request that selects a variant.
    ///
    /// This is the values of the fields with these names, and of the parts that always select.
    pub(crate) fn selection(&self, names: &[HeaderName], request: &request::Parts) -> [u8; 16] {
        let target = [key::HOST_BESIDE, key::REWRITTEN, HIDDEN_FIELDS];
        let config = &self.config;
        self.keyer.selection(names.iter().chain(&target), |name| match name {
            name if *name == policy::CONTENT => {
                let ContentKey(digest) = request.extensions.get()?;
                Some([request.method.as_str().as_bytes(), b" ", digest].concat())
            }
            name if *name == key::HOST_BESIDE => config
                .has_selecting_host(request)
                .then(|| policy::raw_value(&request.headers, &header::HOST))?,
            name if *name == key::REWRITTEN => {
                let uri = key::rewritten(request).filter(|_| !config.is_named(request))?;
                let asked = EffectiveUri::of(request, &config.defaults);
                Some(config.identity.rewritten(uri, asked.as_ref()).into_bytes())
            }
            name if *name == HIDDEN_FIELDS => request.extensions.get::<HiddenFields>().map(|_| Vec::new()),
            name => policy::selecting_value(name, &request.headers, &config.policy),
        })
    }

    /// Records that a response is stored under an assumed scheme.
    pub(super) fn record_scheme(&self, request: &request::Parts) {
        if !key::has_scheme(request) {
            // Relaxed: the flag is only ever set, and publishes no other memory.
            self.has_assumed_scheme.store(true, Ordering::Relaxed);
        }
    }

    /// Returns the URI with the other scheme, if one was assumed.
    ///
    /// The same resource may be stored under this URI too.
    ///
    /// On one TLS server, requests of HTTP/2 name the scheme, and those of HTTP/1.1 do not. The requests of a client always
    /// name it, so that the cache of a client has nothing to invalidate twice.
    pub(crate) fn other_scheme(&self, request: &request::Parts, uri: &Uri) -> Option<Uri> {
        let other = match uri.scheme()? {
            scheme if *scheme == Scheme::HTTP => Scheme::HTTPS,
            scheme if *scheme == Scheme::HTTPS => Scheme::HTTP,
            _ => return None,
        };
        let named = key::has_scheme(request);
        let from_server =
            request.version >= Version::HTTP_2 || self.has_assumed_scheme.load(Ordering::Relaxed);
        let config = &self.config;
        if !config.assumes_scheme || (named && (other != config.defaults.scheme || !from_server)) {
            return None;
        }
        let mut parts = uri.clone().into_parts();
        parts.scheme = Some(other);
        Uri::from_parts(parts).ok()
    }
}
