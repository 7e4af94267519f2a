//! The user's rules: what is kept, for how long, what counts as the same request, which responses end together, and how one
//! request or a task uses the cache.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::future_not_send)]

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "content-keys")]
mod content;
mod contradictions;
mod groups;
mod kept;
mod options;
mod sameness;
mod scopes;
#[cfg(all(feature = "sqlite", feature = "directory"))]
mod tape;
mod ttl;
