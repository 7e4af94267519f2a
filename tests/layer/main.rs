//! Single requests through the layer.
//!
//! The tests cover hits and misses, streamed bodies, failing storages, and other layers around the cache.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::future_not_send)]

#[path = "../support/mod.rs"]
mod support;

mod adapt;
mod awaited;
mod faults;
mod flow;
mod idle;
mod made_etags;
mod partial;
mod parts;
mod retention;
mod stack;
#[cfg(feature = "sqlite")]
mod streaming;
