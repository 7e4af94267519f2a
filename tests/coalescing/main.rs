//! One fetch for many callers, and never a late answer when a stale one will do.
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
mod stale;
mod stored;
mod world;
