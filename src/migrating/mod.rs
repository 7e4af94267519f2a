//! For those who come from another HTTP cache: the same program, the names, what differs, and what to do with the data.
//!
//! | from | page |
//! |---|---|
//! | aiohttp-client-cache (Python, aiohttp) | [`aiohttp_client_cache`] |
//! | requests-cache (Python, requests) | [`requests_cache`] |
//! | http-cache with http-cache-reqwest or http-cache-tower (Rust) | [`http_cache`] |
//!
//! Each setting of the two Python libraries has its row in [`counterparts`](crate::counterparts).

#[doc = include_str!("aiohttp_client_cache.md")]
pub mod aiohttp_client_cache {}

#[doc = include_str!("requests_cache.md")]
pub mod requests_cache {}

#[doc = include_str!("http_cache.md")]
pub mod http_cache {}
