//! Scopes: how all requests that a task makes within a future use the cache.
//!
//! Promises: a scope holds for the future that it wraps and for nothing else, and ends with it, also when that is
//! dropped; an inner scope adds to the outer one and never lifts it, wherever its future was made: the outer scope is the
//! one in which that is polled. What a future spawns is a task of its own, outside the scope.
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
//!
//! The scope of a request is the one in which its service was called.

use std::future::{Future, poll_fn};
use std::pin::pin;

tokio::task_local! {
    static SCOPE: Scope;
}

/// What holds in a scope.
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
            // A cache that is switched off is asked for nothing, so that a 504 would lift what the outer scope says.
            only_if_cached: self.only_if_cached || (inner.only_if_cached && !self.disabled),
        }
    }

    pub(crate) fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// Of the future that is being polled.
    pub(crate) fn current() -> Self {
        SCOPE.try_with(|scope| *scope).unwrap_or(Self::NONE)
    }
}

/// Within this future, requests go straight to the origin, and their responses are not stored. What a successful unsafe
/// request makes doubtful is still invalidated, so that nothing wrong is served afterwards.
pub fn disabled<F: Future>(future: F) -> impl Future<Output = F::Output> {
    within(Scope { disabled: true, ..Scope::NONE }, future)
}

/// Within this future, what is stored answers, and nothing new is stored or freshened. What a successful unsafe request
/// makes doubtful is still invalidated.
pub fn read_only<F: Future>(future: F) -> impl Future<Output = F::Output> {
    within(Scope { read_only: true, ..Scope::NONE }, future)
}

/// Within this future, requests are answered from what is stored or by 504, as with `only-if-cached` (RFC 9111
/// §5.2.1.7): also those that pass the cache by, and nothing is refreshed in the background. Unsafe requests go to the
/// origin all the same, and so do all requests where [`disabled`] is around this.
pub fn only_if_cached<F: Future>(future: F) -> impl Future<Output = F::Output> {
    within(Scope { only_if_cached: true, ..Scope::NONE }, future)
}

/// Polls a future within a scope.
///
/// The scopes around it are read at each poll, for that is when requests are made: the future may have been made outside
/// the scope in which it is polled.
async fn within<F: Future>(scope: Scope, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| SCOPE.sync_scope(Scope::current().around(scope), || future.as_mut().poll(cx))).await
}
