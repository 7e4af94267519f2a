//! The user's rules: what is kept, for how long, what counts as the same request, and how one request or a task uses the
//! cache.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::future_not_send)]

#[path = "../support/mod.rs"]
mod support;

mod content;
mod contradictions;
mod kept;
mod options;
mod sameness;
mod scopes;
mod tape;
mod ttl;
