//! What a program wants for one request: [`CacheOptions`].
//!
//! Promises: what is not said leaves the request as it is; what is said here comes before every rule of the layer and
//! before the request's own Cache-Control, save that neither loosens what the other limits.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};

use super::scope::Scope;
use crate::policy::{RequestDirectives, Ttl};

/// How one request uses the cache, put into its extensions.
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
/// Options that contradict each other are no error, since a request cannot be refused as a layer can when it is built:
/// - [`CacheMode::NoStore`] leaves all else without effect, but for what the mode tells caches on the way.
/// - [`no_store`](Self::no_store) leaves [`ttl`](Self::ttl) and [`tags`](Self::tags) without effect.
/// - `CacheMode::Reload` and `NoCache` come before [`max_stale`](Self::max_stale) and
///   [`stale_while_revalidate`](Self::stale_while_revalidate).
/// - `ttl` comes before every rule, and before the layer's `min_ttl` and `max_ttl`.
///
/// With the `reqwest` feature, `RequestBuilder::with_extension` of reqwest-middleware does the same.
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

/// The cache modes of the Fetch standard (<https://fetch.spec.whatwg.org/#concept-request-cache-mode>).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheMode {
    /// As RFC 9111 says.
    #[default]
    Default,
    /// The cache is neither asked nor updated.
    NoStore,
    /// The origin is asked, whatever is stored, and what it says is stored: a hard refresh.
    Reload,
    /// What is stored is validated before it is used: a soft refresh.
    NoCache,
    /// What is stored is used however stale it is; the origin is asked only where nothing is.
    ForceCache,
    /// What is stored is used however stale it is; where nothing is, or the request passes the cache by, the answer is
    /// 504. Unsafe requests go to the origin all the same.
    OnlyIfCached,
}

impl CacheOptions {
    /// Options that say nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// How the cache is used. Default: [`CacheMode::Default`].
    pub fn mode(mut self, mode: CacheMode) -> Self {
        self.mode = mode;
        self
    }

    /// How long the response to this request is fresh, if the origin is asked: before every rule of the layer and
    /// whatever the response says. What a response forbids to store stays unstored. Default: the rules say it.
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.ttl = Some(ttl.into());
        self
    }

    /// The name under which the response is stored and looked for, in place of the URI's. Vary, and in a private cache
    /// the credentials, still tell requests apart. An unsafe request invalidates what is stored under its own key.
    /// With `reqwest::FollowRedirects` it names the first response; what that redirects to has its own URI. tower-http's
    /// `FollowRedirect` above the cache needs `preserve_extensions(false)`, or each hop has the key, and the redirect that
    /// is stored under it answers the hop that it leads to. Default: the URI's.
    pub fn key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Names that the response is stored with, if it is; all that were stored with one are
    /// [invalidated](crate::CacheLayer::invalidate_tag) together. They add up with those of the
    /// [rules](crate::Rule::tag), and stay with the response when it is revalidated. Default: none.
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

    /// Takes a response that has been stale for so long, without asking the origin, as `max-stale` does (RFC 9111
    /// §5.2.1.2). Default: none.
    pub fn max_stale(mut self, longest: Duration) -> Self {
        self.max_stale = Some(longest);
        self
    }

    /// Takes a response that has been stale for so long while it is refreshed in the background (RFC 5861 §3), if that is
    /// longer than the response or the layer says. Default: what these say.
    pub fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.stale_while_revalidate = Some(window);
        self
    }

    /// Takes a response that has been stale for so long if the origin fails (RFC 5861 §4), if that is longer than the
    /// response or the layer says. Default: what these say.
    pub fn stale_if_error(mut self, window: Duration) -> Self {
        self.stale_if_error = Some(window);
        self
    }

    /// For a request that this one was redirected to.
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

    /// Whether the cache is not to be asked at all.
    pub(crate) fn bypasses(&self) -> bool {
        self.mode == CacheMode::NoStore || self.scope.disabled
    }

    pub(crate) fn within(mut self, scope: Scope) -> Self {
        self.scope = self.scope.around(scope);
        self
    }

    /// Keeps what counts for the requests that a refresh answers later on: how long its response is fresh, under which name
    /// it is stored and with which tags.
    pub(crate) fn for_a_refresh(&self) -> Self {
        Self { ttl: self.ttl, key: self.key.clone(), tags: self.tags.clone(), ..Self::default() }
    }

    /// Adds what is wanted to what a request says.
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

    /// Tells the caches on the way what is wanted, as the Fetch standard does (HTTP-network-or-cache fetch, step 8.17).
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
