//! The settings of the cache that the policy reads.

use std::time::Duration;

use http::HeaderName;

/// The settings of the cache that the policy reads.
///
/// The builder's setters document them for users.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The cache is for many users, and not for one client program (RFC 9111 §1).
    pub(crate) shared: bool,
    /// A shared cache stores responses with Set-Cookie too.
    pub(crate) store_set_cookie: bool,
    /// The heuristic lifetime, in percent of the time since Last-Modified. 0 switches the heuristic off.
    pub(crate) heuristic_percent: u8,
    /// The longest heuristic lifetime.
    pub(crate) max_heuristic_ttl: Duration,
    /// For how long a stale response with a validator is kept.
    pub(crate) stale_retention: Duration,
    /// In a private cache, Authorization and Cookie select the response.
    pub(crate) vary_on_credentials: bool,
    /// Cookie does not select the response.
    pub(crate) ignore_cookie: bool,
    /// The cookies that select the response where Cookie does. `None` for all.
    pub(crate) key_cookies: Option<KeyCookies>,
    /// The fields that Vary names do not select the response.
    pub(crate) ignore_vary: bool,
    /// A stale response is served while the origin is unreachable, where no directive speaks about it.
    pub(crate) stale_when_disconnected: bool,
    /// The window of RFC 5861 §3 for responses that state none.
    pub(crate) stale_while_revalidate: Duration,
    /// The window of RFC 5861 §4 for responses that state none.
    pub(crate) stale_if_error: Option<Duration>,
    /// The targeted fields that replace Cache-Control and Expires, the most important one first.
    ///
    /// `None` for the default, which is CDN-Cache-Control in a shared cache and no field in a private one.
    pub(crate) targeted_fields: Option<Vec<HeaderName>>,
    /// The fields of a response that contain tags.
    pub(crate) tag_fields: Vec<HeaderName>,
    /// The fields that select the response, whatever Vary says.
    pub(crate) key_fields: Vec<HeaderName>,
    /// The fields that never select the response.
    pub(crate) ignored_fields: Vec<HeaderName>,
}

/// The cookies that tell requests apart.
#[derive(Clone, Debug)]
pub(crate) struct KeyCookies {
    /// The names, as [`loose_name`](super::loose_name()) returns them. `None` for a name that may be any.
    pub(crate) names: Vec<Option<String>>,
    /// Stands for the names, and is not 0.
    pub(crate) fingerprint: u64,
}

impl Default for Options {
    /// Returns the settings of a private cache.
    fn default() -> Self {
        Self {
            shared: false,
            store_set_cookie: false,
            // RFC 9111 §4.2.2 calls a tenth a typical fraction.
            heuristic_percent: 10,
            // Not longer, since a guess may be wrong, and a page that has not changed for a year may change today.
            max_heuristic_ttl: Duration::from_secs(24 * 60 * 60),
            // Covers what is asked for once a week. Validating a response costs less than fetching it.
            stale_retention: Duration::from_secs(7 * 24 * 60 * 60),
            vary_on_credentials: true,
            ignore_cookie: false,
            key_cookies: None,
            ignore_vary: false,
            stale_when_disconnected: false,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: None,
            targeted_fields: None,
            tag_fields: Vec::new(),
            key_fields: Vec::new(),
            ignored_fields: Vec::new(),
        }
    }
}
