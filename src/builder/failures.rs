//! The settings for failures of the origin and of the storage.

use std::time::Duration;

use super::CacheLayerBuilder;
use crate::storage::Storage;

/// # Failures
///
/// Answers and timeouts for an origin or a storage that fails or is slow.
impl<S: Storage> CacheLayerBuilder<S> {
    /// Serves stale responses for this long while the origin fails (RFC 5861 §4).
    ///
    /// The origin fails when the inner service returns an error or answers 500, 502, 503 or 504. The setting counts where
    /// neither the response nor the request has `stale-if-error`. After a failure, stale responses are served at once, and
    /// one request at a time asks the inner service, for up to 10 seconds after the last failure. `must-revalidate`,
    /// `no-cache` and the like still forbid it.
    ///
    /// Default: zero.
    pub fn stale_if_error(mut self, window: Duration) -> Self {
        self.config.policy.stale_if_error = Some(window);
        self
    }

    /// Serves stale responses of any age when the inner service returns an error (RFC 9111 §4.2.4).
    ///
    /// It counts where neither the response nor the request has `stale-if-error`. Responses are then kept for
    /// [`stale_retention`](Self::stale_retention) even if they have no validator. `must-revalidate`, `no-cache` and the
    /// like still forbid it.
    ///
    /// Default: `false`. The error reaches the caller.
    pub fn stale_when_disconnected(mut self, serve: bool) -> Self {
        self.config.policy.stale_when_disconnected = serve;
        self
    }

    /// Answers 503 when the storage fails.
    ///
    /// Default: `false`. The request goes to the inner service.
    pub fn fail_closed(mut self, fail: bool) -> Self {
        self.config.fail_closed = fail;
        self
    }

    /// Sets how long one operation of the storage may take.
    ///
    /// After that the request goes on without the storage.
    ///
    /// Default: 500 ms.
    pub fn operation_timeout(mut self, longest: Duration) -> Self {
        self.config.operation_timeout = longest;
        self
    }

    /// Sets how long reading the next chunk of a stored body may take.
    ///
    /// After that the body ends with an error, since it has already begun. The same time is given to a reader that holds
    /// up others: where several readers share a response that cannot be stored to its end, the slowest has this long for
    /// the 256 KiB that it is behind the others.
    ///
    /// Default: 10 s.
    pub fn body_timeout(mut self, longest: Duration) -> Self {
        self.config.body_timeout = longest;
        self
    }
}
