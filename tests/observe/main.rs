//! What a cache tells of itself: its statistics, spans and events.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::future_not_send)]

mod events;
mod listener;
mod statistics;
#[path = "../support/mod.rs"]
mod support;
