//! The way of a request through the cache.
//!
//! [`route()`] says which way a request takes. A request that the cache may answer is first tried without waiting
//! ([`answer_now`]); otherwise [`run`] looks it up, and an `Exchange` goes round its loop until it has an answer. Both ask
//! the same [`decide`](decision::decide) what a stored response is good for.
//!
//! # Invariants
//!
//! - The loop is the only place that starts another lookup, joins a flight, or publishes an outcome. Every function that it
//!   calls returns an outcome to it.
//! - Its rounds are bounded, and so is the time that a request waits for other requests.
//! - The request goes on whatever the storage does.
//!
//! # Neighbours
//!
//! Calls `coalesce`, `origin`, `records` and `respond`. Called by [`Cache`](super::Cache), and by adapters that have a
//! fetcher of their own.

#[cfg(feature = "content-keys")]
mod content;
mod decision;
mod exchange;
mod follow;
mod refresh;
mod route;

#[cfg(feature = "content-keys")]
pub(super) use self::content::run_with_content;
pub(super) use self::decision::answer_now;
pub(crate) use self::exchange::run;
pub(crate) use self::route::{Content, Route, bypass, route};
