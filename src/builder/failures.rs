//! The settings for failures of the origin and of the storage.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, request};

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

    /// Serves a stale response when the inner service has not answered within this time.
    ///
    /// It counts where a stale response may be served because the origin fails: by `stale-if-error` in the response or the
    /// request, by [`stale_if_error`](Self::stale_if_error), or by
    /// [`stale_when_disconnected`](Self::stale_when_disconnected). The fetch goes on in the background for up to
    /// [`refresh_timeout`](Self::refresh_timeout), and its response is stored. Until it ends, requests for the same response
    /// get the stale one at once. If [`max_background_refreshes`](Self::max_background_refreshes) fetches go on already, the
    /// request waits.
    ///
    /// The request also waits if its fetch cannot outlive it, as with reqwest-middleware.
    ///
    /// Default: none. A request waits for as long as the inner service takes.
    pub fn stale_after(mut self, wait: Duration) -> Self {
        self.config.stale_after = Some(wait);
        self
    }

    /// Answers by a function when the inner service has not answered within this time.
    ///
    /// A stale response that may be served has precedence, as with [`stale_after`](Self::stale_after). Otherwise the
    /// function gets the head of the request, and makes the response; it must not block. The fetch goes on in the background,
    /// so that its response is there for a later request. The response of the function is not stored.
    ///
    /// The time counts from the arrival of the request to the head of the response. Requests that bypass the cache or change
    /// a resource are not limited, and neither are those whose fetch cannot outlive them, as with reqwest-middleware. Without
    /// [`stale_after`](Self::stale_after), a stale response that may be served goes first, if the storage returns it within a
    /// tenth of the limit.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use bytes::Bytes;
    /// # use http::Response;
    /// # use tower_response_cache::{CacheLayer, storage::MemoryStorage};
    /// let layer = CacheLayer::builder(MemoryStorage::new())
    ///     .stale_if_error(Duration::from_secs(3600))
    ///     .stale_after(Duration::from_millis(200))
    ///     .fallback_after(Duration::from_secs(2), |_request| {
    ///         let mut response = Response::new(Bytes::from_static(b"[]"));
    ///         *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    ///         response
    ///     })
    ///     .build()?;
    /// # Ok::<(), tower_response_cache::Error>(())
    /// ```
    ///
    /// Default: none.
    pub fn fallback_after(
        mut self,
        limit: Duration,
        fallback: impl Fn(&request::Parts) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        self.config.fallback_after = Some((limit, Arc::new(fallback)));
        self
    }

    /// Continues bodies that break off, with at most this many requests for the rest of each.
    ///
    /// The readers of such a body wait meanwhile, and then get the rest as if nothing had happened; it is stored as a whole. The
    /// rest is asked for with Range and If-Range, after a random pause that doubles from 100 ms to 5 s, or as long as
    /// Retry-After says within these 5 s. An error, a 5xx, a 408 and a 429 use up a request. They count anew after a mebibyte
    /// has arrived. A body that ends early counts as broken off, and so does a 206.
    ///
    /// It is done for a GET whose response has a length and a strong validator: an entity tag, or a Last-Modified that is older
    /// than Date. Anything but exactly the rest of the same representation is refused: another validator, length,
    /// Content-Encoding or Content-Type, or more bytes than announced. Then the body ends as it broke off.
    ///
    /// The inner service gets requests for it that no caller sent. They have no time limit but its own. It needs a tokio runtime,
    /// and with reqwest-middleware `CacheMiddleware::refresh_with`. Responses to requests that bypass the cache are not
    /// continued. [`Statistics::resumed`](crate::Statistics::resumed) counts the bodies.
    ///
    /// Default: 0. A body that breaks off ends with its error, since the cache sends no requests of its own unless it is told to.
    pub fn resume(mut self, attempts: u32) -> Self {
        self.config.resume = attempts;
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
