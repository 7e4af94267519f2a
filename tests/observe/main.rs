//! Statistics, metrics, spans and events of a cache.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::future_not_send)]

mod events;
mod listener;
#[cfg(all(feature = "metrics", feature = "sqlite", feature = "directory", feature = "memory"))]
mod metrics;
mod statistics;
#[path = "../support/mod.rs"]
mod support;
