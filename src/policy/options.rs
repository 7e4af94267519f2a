//! The settings that the policy knows.

use std::time::Duration;

use http::HeaderName;

#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// A cache for many users (RFC 9111 §1).
    pub(crate) shared: bool,
    /// In a shared cache: responses with Set-Cookie are stored too.
    pub(crate) store_set_cookie: bool,
    /// Guessed lifetime: this share of the time since the last modification; 0: nothing is guessed.
    pub(crate) heuristic_percent: u8,
    pub(crate) max_heuristic: Duration,
    /// A stale response with a validator is kept for so long.
    pub(crate) stale_retention: Duration,
    /// In a private cache: Authorization and Cookie tell requests apart.
    pub(crate) vary_on_credentials: bool,
    pub(crate) ignore_cookie: bool,
    /// Vary does not tell requests apart.
    pub(crate) ignore_vary: bool,
    /// When the origin cannot be reached, a stale response is served where no directive speaks about it.
    pub(crate) stale_when_disconnected: bool,
    /// The windows of RFC 5861, for responses that say nothing about them.
    pub(crate) stale_while_revalidate: Duration,
    pub(crate) stale_if_error: Option<Duration>,
    /// Fields that tell requests apart whatever Vary says, and those that never do.
    pub(crate) key_fields: Vec<HeaderName>,
    pub(crate) ignored_fields: Vec<HeaderName>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            shared: false,
            store_set_cookie: false,
            heuristic_percent: 10,
            max_heuristic: Duration::from_secs(24 * 60 * 60),
            stale_retention: Duration::from_secs(7 * 24 * 60 * 60),
            vary_on_credentials: true,
            ignore_cookie: false,
            ignore_vary: false,
            stale_when_disconnected: false,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: None,
            key_fields: Vec::new(),
            ignored_fields: Vec::new(),
        }
    }
}
