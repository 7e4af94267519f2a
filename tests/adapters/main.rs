//! The layer in axum's routers, in reqwest's middleware, and around hyper's client.
#![allow(unreachable_pub, dead_code, clippy::unwrap_used, clippy::future_not_send)]

mod sockets;

#[cfg(all(feature = "axum", feature = "memory"))]
mod axum;
#[cfg(all(feature = "reqwest", feature = "memory"))]
mod http_service;
#[cfg(feature = "sqlite")]
mod hyper_client;
#[cfg(all(feature = "reqwest", feature = "content-keys", feature = "memory"))]
mod reqwest;
