//! Guides for users of another HTTP cache.
//!
//! Each guide shows the same program in both libraries, lists the counterparts of names, and says what differs and what to
//! do with the stored data.
//!
//! | from | page |
//! |---|---|
//! | aiohttp-client-cache (Python, aiohttp) | [`aiohttp_client_cache`] |
//! | requests-cache (Python, requests) | [`requests_cache`] |
//! | http-cache with http-cache-reqwest or http-cache-tower (Rust) | [`http_cache`] |
//!
//! [`counterparts`](crate::_documentation::counterparts) has a row for each setting of the two Python libraries.

#[doc = include_str!("aiohttp_client_cache.md")]
pub mod aiohttp_client_cache {}

#[doc = include_str!("requests_cache.md")]
pub mod requests_cache {}

#[doc = include_str!("http_cache.md")]
pub mod http_cache {}
