//! The storages that need no server.
//!
//! Tests the contract that every storage fulfils, and what each storage promises beyond it.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::future_not_send)]

#[cfg(any(feature = "sqlite", feature = "directory"))]
mod on_disk;
#[path = "../support/mod.rs"]
mod support;

#[cfg(all(feature = "memory", feature = "testing"))]
mod broken;
#[cfg(all(
    feature = "memory",
    feature = "sqlite",
    feature = "directory",
    feature = "redis-tls",
    feature = "mongodb"
))]
mod connect;
#[cfg(all(feature = "memory", feature = "sqlite", feature = "directory", feature = "testing"))]
mod contract;
#[cfg(feature = "directory")]
mod directory;
mod footprint;
#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(all(feature = "memory", feature = "sqlite"))]
mod tiered;
#[cfg(feature = "memory")]
mod tiered_random;
#[cfg(all(feature = "memory", any(feature = "zstd", feature = "lz4", feature = "encrypt")))]
mod wrappers;
