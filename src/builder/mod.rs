//! The settings of a [`CacheLayer`].

// The documentation lists the groups of settings in this order.
mod freshness;

mod keys;

mod coalescing;

mod failures;

mod limits;

mod offline;

mod reporting;

use http::Uri;
use http::response;
use http::uri::Scheme;
use std::sync::Arc;

use crate::error::Result;
use crate::layer::CacheLayer;
use crate::service::{Config, Shared};
use crate::storage::Storage;

/// Configures a [`CacheLayer`].
///
/// [`CacheLayer::builder`] returns one. Every setting has a default, so that an empty builder gives the same cache as
/// [`CacheLayer::new`]. The order of the settings does not matter; where one is set twice, the last value counts, unless
/// its docs say that values add up.
///
/// ```
/// # #[cfg(feature = "memory")] {
/// use std::time::Duration;
/// use tower_response_cache::{CacheLayer, storage::MemoryStorage};
///
/// let layer = CacheLayer::builder(MemoryStorage::new())
///     .shared(true)
///     .status_field("my-proxy")
///     .operation_timeout(Duration::from_millis(200))
///     .build()?;
/// # }
/// # Ok::<_, tower_response_cache::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct CacheLayerBuilder<S> {
    storage: S,
    config: Config,
}

/// # The kind of cache
impl<S: Storage> CacheLayerBuilder<S> {
    pub(crate) fn new(storage: S) -> Self {
        Self { storage, config: Config::default() }
    }

    /// Makes the cache a shared one, for many users (RFC 9111 §1).
    ///
    /// A shared cache is for a proxy, or for the front of a server. It obeys `s-maxage`. It does not store responses that
    /// are `private`, that set a cookie, or that answer a request with Authorization, unless the response permits it
    /// (RFC 9111 §3.5).
    ///
    /// A private cache is for one client program. In it, requests that differ in Authorization never share a response, and
    /// requests that differ in Cookie share one only if it is `public` and sets no cookie.
    ///
    /// A private and a shared cache on one storage do not find each other's entries.
    ///
    /// Default: `false`, a private cache.
    pub fn shared(mut self, shared: bool) -> Self {
        self.config.policy.shared = shared;
        self
    }

    /// Keeps this cache's entries apart from those of other caches in the same storage.
    ///
    /// An empty name is no partition.
    ///
    /// Default: no partition. All such caches on one storage share their entries.
    pub fn partition(mut self, name: impl Into<String>) -> Self {
        self.config.partition = name.into();
        self
    }

    /// Sets the scheme of requests whose URI has none, as on a server.
    ///
    /// Set it to `https` on a server that speaks TLS. Requests by HTTP/2 name a scheme and an authority, requests by
    /// HTTP/1.1 name neither, and only this setting gives both the same entry. While it is unset, an unsafe request
    /// invalidates its URI under `http` and under `https`.
    ///
    /// Default: `http`.
    pub fn default_scheme(mut self, scheme: Scheme) -> Self {
        self.config.defaults.scheme = scheme;
        self.config.assumes_scheme = false;
        self
    }

    /// Sets the authority of requests that name none.
    ///
    /// `authority` is a host, with or without a port: `example.com`, `localhost:8080`, `[::1]`. It becomes the host of a
    /// request whose URI has no authority and that has no Host field (RFC 9110 §7.1, §7.2), such as a request that a test
    /// hands to a router: `Request::get("/x")`. It does not replace a malformed Host field. On a server, the inner service
    /// should answer a request without Host as it answers a request for this authority, since both have the same entry.
    /// [`build`](Self::build) refuses an authority that is malformed or has user information.
    ///
    /// Default: none. A request without a host bypasses the cache ([`BypassReason::NoHost`](crate::BypassReason::NoHost)).
    pub fn default_authority(mut self, authority: impl Into<String>) -> Self {
        self.config.defaults.authority = Some(authority.into());
        self
    }

    /// Sets a function that returns the URI that a response finally came from.
    ///
    /// It is for a stack where a layer below the cache follows redirects. A response from another URI than the request's
    /// is not stored.
    ///
    /// Default: only the URI that the feature `follow-redirect` reads.
    pub fn final_uri(
        mut self,
        final_uri: impl Fn(&response::Parts) -> Option<Uri> + Send + Sync + 'static,
    ) -> Self {
        self.config.final_uri = Some(Arc::new(final_uri));
        self
    }

    /// Builds the layer.
    ///
    /// # Errors
    /// Returns [`Config`](crate::ErrorKind::Config) if a setting is malformed, has no effect in this kind of cache, or
    /// contradicts another. The message names the setting and says what to do.
    pub fn build(mut self) -> Result<CacheLayer<S>> {
        self.config.check()?;
        self.config.apply_implied_settings();
        Ok(CacheLayer::from_shared(Shared::new(self.storage, self.config)))
    }
}
