//! Rules, settings and request options of the user.
//!
//! The tests cover which responses are stored and for how long, which requests count as the same, which responses are
//! invalidated together, and how one request or a task uses the cache.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::future_not_send)]

#[path = "../support/mod.rs"]
mod support;

mod conditions;
#[cfg(feature = "content-keys")]
mod content;
mod contradictions;
mod groups;
mod kept;
mod options;
mod sameness;
mod scopes;
mod search;
#[cfg(all(feature = "sqlite", feature = "directory"))]
mod tape;
mod ttl;
