//! The cache around reqwest: below `reqwest-middleware`, or in a tower stack.
//!
//! [`CacheMiddleware`] is a middleware of `reqwest-middleware`, and [`FollowRedirects`] one that follows redirects above it.
//! [`HttpService`] makes a plain client a tower service.
//!
//! They need reqwest 0.13 and reqwest-middleware 0.5. Both crates are re-exported, as [`reqwest_client`] and
//! [`reqwest_middleware`], so that a program can use the same versions.
//!
//! # Invariants
//! - `Response::url()` of a hit is the URL of its request.
//! - An error of the client below reaches the caller as it is.
//! - A response from another URL, to which the client below was redirected, is not stored.
//! - The fields that the client adds below the cache select the response if the cache is told of them. Otherwise only
//!   responses that say `public` are stored.

mod cache_middleware;
mod fetcher;
mod follow_redirects;
mod http_service;

pub use ::reqwest as reqwest_client;
pub use ::reqwest_middleware;

pub use self::cache_middleware::CacheMiddleware;
pub use self::follow_redirects::{FollowRedirects, Redirect, Redirects, TooManyRedirects};
pub use self::http_service::{HttpService, HttpServiceFuture};
