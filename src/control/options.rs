//! The options of one request: [`CacheOptions`].
//!
//! # Invariants
//! - An option that is not set changes nothing.
//! - An option takes precedence over every rule of the layer.
//! - An option and the request's own Cache-Control add up: neither loosens a limit that the other sets.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};

use super::scope::Scope;
use crate::policy::{RequestDirectives, Ttl};

/// Options for how one request uses the cache.
///
/// Insert them into the request's extensions.
///
/// ```
/// use std::time::Duration;
/// use tower_response_cache::{CacheMode, CacheOptions};
///
/// let request = http::Request::get("https://example.com/")
///     .extension(CacheOptions::new().mode(CacheMode::NoCache).ttl(Duration::from_secs(60)))
///     .body(())?;
/// # Ok::<_, http::Error>(())
/// ```
///
/// Options that contradict each other are not an error, since a request cannot be refused as a layer can when it is built.
/// Instead one of them wins:
/// - With [`CacheMode::NoStore`] no other option has an effect. The mode itself is still told to caches on the way.
/// - With [`no_store`](Self::no_store), [`ttl`](Self::ttl) and [`tags`](Self::tags) have no effect.
/// - [`CacheMode::Reload`] and [`CacheMode::NoCache`] win over [`max_stale`](Self::max_stale) and
///   [`stale_while_revalidate`](Self::stale_while_revalidate).
/// - [`ttl`](Self::ttl) wins over every rule, and over `min_ttl` and `max_ttl` of the layer's rules.
///
/// With reqwest, insert them by `RequestBuilder::with_extension` of reqwest-middleware.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct CacheOptions {
    mode: CacheMode,
    ttl: Option<Ttl>,
    key: Option<Arc<str>>,
    tags: Vec<Arc<str>>,
    no_store: bool,
    max_stale: Option<Duration>,
    stale_while_revalidate: Option<Duration>,
    stale_if_error: Option<Duration>,
    scope: Scope,
}

/// A cache mode of the Fetch standard (<https://fetch.spec.whatwg.org/#concept-request-cache-mode>).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheMode {
    /// Uses the cache as RFC 9111 says.
    #[default]
    Default,
    /// Bypasses the cache: no stored response is used, and the response is not stored.
    NoStore,
    /// Fetches from the origin without using a stored response, and stores the new one (a hard refresh).
    Reload,
    /// Validates a stored response with the origin before it is used (a soft refresh).
    NoCache,
    /// Uses a stored response of any age, and asks the origin only if there is none.
    ForceCache,
    /// Uses a stored response of any age, and never asks the origin.
    ///
    /// If there is none, or if the request bypasses the cache, the answer is 504. Unsafe requests still go to the origin.
    OnlyIfCached,
}

impl CacheOptions {
    /// Returns options of which none is set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the cache mode.
    ///
    /// Default: [`CacheMode::Default`].
    pub fn mode(mut self, mode: CacheMode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets how long the response to this request is fresh, if it comes from the origin.
    ///
    /// It wins over every rule of the layer and over the response's own lifetime. A response that forbids storing is still
    /// not stored.
    ///
    /// Default: the rules, and then the response, decide.
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.ttl = Some(ttl.into());
        self
    }

    /// Sets the name of the entry, in place of the request's URI.
    ///
    /// The response is looked up and stored under this name. Vary and, in a private cache, the credentials still tell
    /// requests apart. An unsafe request invalidates the entry of its own name.
    ///
    /// With `reqwest::FollowRedirects` the name is that of the first response; the responses that it redirects to keep
    /// their URIs. tower-http's `FollowRedirect` above the cache needs `preserve_extensions(false)`; otherwise each hop has
    /// the name, and the redirect that is stored under it answers the hop that it leads to.
    ///
    /// Default: the URI, or the layer's [`key_fn`](crate::CacheLayerBuilder::key_fn).
    pub fn key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds tags that the response is stored with.
    ///
    /// All responses with one tag are [invalidated](crate::CacheLayer::invalidate_tag) together. Tags of the options and of
    /// [rules](crate::Rule::tag) add up. A response keeps its tags when it is revalidated.
    ///
    /// Default: none.
    pub fn tags<T: Into<Arc<str>>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.tags.extend(names.into_iter().map(Into::into));
        self
    }

    /// Does not store the response of this request.
    ///
    /// A stored response may still answer the request.
    ///
    /// Default: `false`.
    pub fn no_store(mut self, no_store: bool) -> Self {
        self.no_store = no_store;
        self
    }

    /// Accepts a response that has been stale for at most this long (RFC 9111 §5.2.1.2, `max-stale`).
    ///
    /// Default: none.
    pub fn max_stale(mut self, longest: Duration) -> Self {
        self.max_stale = Some(longest);
        self
    }

    /// Accepts a response that has been stale for this long, while it is refreshed in the background (RFC 5861 §3).
    ///
    /// The longest window counts: this one, the response's or the layer's.
    ///
    /// Default: that of the response or the layer.
    pub fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.stale_while_revalidate = Some(window);
        self
    }

    /// Accepts a response that has been stale for this long if the origin fails (RFC 5861 §4).
    ///
    /// The longest window counts: this one, the response's or the layer's.
    ///
    /// Default: that of the response or the layer.
    pub fn stale_if_error(mut self, window: Duration) -> Self {
        self.stale_if_error = Some(window);
        self
    }

    /// Returns the options for a request that this one was redirected to.
    #[cfg(feature = "reqwest")]
    pub(crate) fn without_key(&self) -> Self {
        Self { key: None, ..self.clone() }
    }

    pub(crate) fn key_text(&self) -> Option<&str> {
        self.key.as_deref()
    }

    pub(crate) fn tag_names(&self) -> impl Iterator<Item = &str> {
        self.tags.iter().map(|name| &**name)
    }

    pub(crate) fn given_ttl(&self) -> Option<Ttl> {
        self.ttl
    }

    /// Returns whether the request bypasses the cache.
    pub(crate) fn bypasses(&self) -> bool {
        self.mode == CacheMode::NoStore || self.scope.disabled
    }

    pub(crate) fn within(mut self, scope: Scope) -> Self {
        self.scope = self.scope.around(scope);
        self
    }

    /// Returns the options that a background refresh keeps: lifetime, name and tags.
    ///
    /// The others are about the one caller that began it.
    pub(crate) fn for_a_refresh(&self) -> Self {
        Self { ttl: self.ttl, key: self.key.clone(), tags: self.tags.clone(), ..Self::default() }
    }

    /// Adds the options to the request's directives.
    pub(crate) fn apply(&self, asked: &mut RequestDirectives) {
        asked.no_store |= self.no_store;
        asked.no_cache |= matches!(self.mode, CacheMode::NoCache | CacheMode::Reload);
        asked.reload |= self.mode == CacheMode::Reload;
        asked.force |= matches!(self.mode, CacheMode::ForceCache | CacheMode::OnlyIfCached);
        asked.only_if_cached |= self.mode == CacheMode::OnlyIfCached || self.scope.only_if_cached;
        asked.read_only |= self.scope.read_only;
        asked.max_stale = asked.max_stale.max(self.max_stale);
        asked.stale_while_revalidate = asked.stale_while_revalidate.max(self.stale_while_revalidate);
        asked.stale_if_error = asked.stale_if_error.max(self.stale_if_error);
    }

    /// Adds the fields that tell caches on the way about the mode (Fetch, HTTP-network-or-cache fetch, step 8.17).
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        let directive = match self.mode {
            CacheMode::NoCache => HeaderValue::from_static("max-age=0"),
            CacheMode::NoStore | CacheMode::Reload => HeaderValue::from_static("no-cache"),
            _ => return,
        };
        if self.mode != CacheMode::NoCache && !headers.contains_key(header::PRAGMA) {
            headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
        }
        if !headers.contains_key(header::CACHE_CONTROL) {
            headers.insert(header::CACHE_CONTROL, directive);
        }
    }
}
