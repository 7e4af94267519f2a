//! A body of 256 MiB through a storage: at once, in little memory, and whole.
//!
//! Each case runs in a process of its own, whose peak of memory is compared with that of one without a cache. A binary of
//! their own keeps other tests from delaying them.
#![allow(unreachable_pub, dead_code, clippy::unwrap_used)]

mod measured;
#[cfg(feature = "dynamodb")]
#[path = "../servers/mod.rs"]
mod servers;

#[cfg(feature = "dynamodb")]
mod dynamodb;
#[cfg(feature = "sqlite")]
mod sqlite;
