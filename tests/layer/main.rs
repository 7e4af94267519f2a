//! A request's path through the layer: hits and misses, bodies that stream, storages that fail, and layers around it.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::future_not_send)]

#[path = "../support/mod.rs"]
mod support;

mod faults;
mod flow;
mod retention;
mod stack;
#[cfg(feature = "sqlite")]
mod streaming;
