//! Settings for all requests that are made within a future.
//!
//! The scope of a request is the one in which its service was called.
//!
//! # Invariants
//! - A scope holds for the future that it wraps, and ends with it, also when the future is dropped.
//! - An inner scope adds to the outer scope and never lifts it.
//! - The outer scope is the one in which the inner future is polled, wherever that future was made.
//! - A task that the future spawns is outside the scope.
//!
//! ```
//! use tower_response_cache::scope;
//!
//! # async fn requests() {}
//! # async fn run() {
//! scope::disabled(async {
//!     requests().await; // straight to the origin
//! })
//! .await;
//! # }
//! ```

use std::future::{Future, poll_fn};
use std::pin::pin;

tokio::task_local! {
    static SCOPE: Scope;
}

/// The settings of a scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) disabled: bool,
    pub(crate) read_only: bool,
    pub(crate) only_if_cached: bool,
}

impl Scope {
    const NONE: Self = Self { disabled: false, read_only: false, only_if_cached: false };

    /// Combines this scope with an inner one.
    pub(crate) fn around(self, inner: Self) -> Self {
        Self {
            disabled: self.disabled || inner.disabled,
            read_only: self.read_only || inner.read_only,
            // Within `disabled` every request goes to the origin. A 504 would lift that.
            only_if_cached: self.only_if_cached || (inner.only_if_cached && !self.disabled),
        }
    }

    pub(crate) fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// Returns the scope of the future that is being polled.
    pub(crate) fn current() -> Self {
        SCOPE.try_with(|scope| *scope).unwrap_or(Self::NONE)
    }
}

/// Bypasses the cache for requests within this future.
///
/// Requests go to the inner service, and their responses are not stored. A successful unsafe request still invalidates
/// what is stored for its URI, so that no outdated response is served later.
pub fn disabled<F: Future>(future: F) -> impl Future<Output = F::Output> {
    within(Scope { disabled: true, ..Scope::NONE }, future)
}

/// Stores and freshens nothing for requests within this future.
///
/// Stored responses are still served. A successful unsafe request still invalidates what is stored for its URI.
pub fn read_only<F: Future>(future: F) -> impl Future<Output = F::Output> {
    within(Scope { read_only: true, ..Scope::NONE }, future)
}

/// Answers requests within this future from the storage or by 504 (RFC 9111 §5.2.1.7, `only-if-cached`).
///
/// That includes requests that bypass the cache. Nothing is refreshed in the background. Unsafe requests still go to the
/// origin, and within [`disabled`] all requests do.
pub fn only_if_cached<F: Future>(future: F) -> impl Future<Output = F::Output> {
    within(Scope { only_if_cached: true, ..Scope::NONE }, future)
}

/// Polls a future within a scope.
///
/// The outer scope is read at each poll, since the future may have been made outside the scope in which it is polled.
async fn within<F: Future>(scope: Scope, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| SCOPE.sync_scope(Scope::current().around(scope), || future.as_mut().poll(cx))).await
}
