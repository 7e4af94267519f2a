//! The cache as a middleware of `reqwest-middleware`, and a redirect follower to put above it.
//!
//! Promises: `Response::url()` of a hit is the URL of its request; an error of the client below reaches the caller as
//! it came; a response that another URL gave, since the client below followed redirects, is not stored; what the client
//! adds to requests below the cache is counted, if the cache is told of it, and else only what is `public` is kept.
//!
//! It needs reqwest 0.13 and reqwest-middleware 0.5, which are re-exported, so that a user's types always fit: [`reqwest_client`] and [`reqwest_middleware`].

mod below;
mod cache_middleware;
mod follow_redirects;
mod hops;

pub use ::reqwest as reqwest_client;
pub use ::reqwest_middleware;

pub use self::cache_middleware::CacheMiddleware;
pub use self::follow_redirects::{FollowRedirects, TooManyRedirects};
pub use self::hops::{Hop, Hops};
