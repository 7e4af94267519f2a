//! The handling of one request, from its route to its response.
//!
//! [`route()`] decides whether a request bypasses the cache, invalidates, or may be answered by the cache. For the last
//! kind, [`look_now`] tries to answer without waiting, and [`look_then_run`] after one read. Otherwise [`run`] looks in the
//! storage, and an `Exchange` repeats its loop until it has a response. All use the same [`decide`](decision::decide) to learn
//! how a stored response may be used.
//!
//! # Invariants
//!
//! - The loop is the only place that starts another lookup, joins a flight, or publishes an outcome. Every function that it
//!   calls returns an outcome to it.
//! - Its rounds are bounded, and so is the time that a request waits for other requests.
//! - A failing or slow storage does not fail a request, unless [`fail_closed`](crate::CacheLayerBuilder::fail_closed) is set.
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
mod plain_hit;
mod refresh;
mod route;
mod slow;

#[cfg(feature = "content-keys")]
pub(super) use self::content::run_with_content;
pub(crate) use self::exchange::run;
pub(super) use self::exchange::run_absent;
pub(super) use self::plain_hit::{FirstLook, look_now, look_then_run};
pub(crate) use self::route::{Content, Route, bypass, route};
