//! The layer where other crates call it: axum's routers, reqwest's middleware, hyper's client.
#![allow(unreachable_pub, dead_code, clippy::unwrap_used)]

mod sockets;

#[cfg(all(feature = "axum", feature = "memory"))]
mod axum;
#[cfg(feature = "sqlite")]
mod hyper_client;
#[cfg(all(feature = "reqwest", feature = "content-keys", feature = "memory"))]
mod reqwest;
