//! Concurrent requests for one key.
//!
//! They share one fetch. If a stale response is permitted, they get it instead of waiting for the origin.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::future_not_send)]

#[path = "../support/mod.rs"]
mod support;

mod awaits;
mod bodies;
mod cold;
mod hazards;
mod interleavings;
mod leaders;
mod lease;
mod ranges;
mod resume;
mod search;
mod slow;
mod stale;
mod stored;
mod world;
