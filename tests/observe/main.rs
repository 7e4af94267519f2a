//! What a cache tells of itself: its statistics, metrics, spans and events.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::future_not_send)]

mod events;
mod listener;
#[cfg(all(feature = "metrics", feature = "sqlite", feature = "directory", feature = "memory"))]
mod metrics;
mod statistics;
#[path = "../support/mod.rs"]
mod support;
