//! How the cache works, in four pictures.
//!
//! # Where the layer stands
//!
//! A layer above the cache sees every request and every response, hits too. A layer below the cache sees only the requests
//! that go to the origin. [Which layer goes where](crate::_documentation::questions#where-in-the-stack-does-the-cache-go)
//! has the reasons.
//!
#![doc = include_str!("pictures/stack.svg")]
//!
//! # How a request is answered
//!
//! The cache looks the request up in the storage and decides by RFC 9111 and your [rules](crate::Rules) how to use the
//! stored response. A fresh response is a hit. A stale one is served where that
//! [is allowed](crate::_documentation::questions#when-is-a-stale-response-served), or validated. If no stored response can
//! be used, the request is a miss.
//!
#![doc = include_str!("pictures/request.svg")]
//!
//! Requests for the same entry share one fetch ([`coalesce`](crate::CacheLayerBuilder::coalesce)): one request leads it, and
//! the others read the response while it comes. A body streams to its callers and into the storage at the same time. It is
//! stored once it has ended cleanly. Each response carries a [`CacheStatus`](crate::CacheStatus) that says which way it
//! took.
//!
//! Some requests [bypass](crate::_documentation::questions#why-does-a-request-bypass-the-cache) the cache, and unsafe ones
//! (POST, PUT, DELETE and the like) always go to the inner service. An unsafe request that succeeds invalidates the stored
//! responses for its URI.
//!
//! # The life of an entry
//!
//! An entry is all that is stored for one effective URI: one response, or several variants of it that Vary or the
//! credentials of the request tell apart.
//!
#![doc = include_str!("pictures/entry.svg")]
//!
//! - **Fresh:** for the lifetime that the response states (`max-age`, Expires), that a [rule](crate::Rules) sets, or that
//!   the heuristic guesses from Last-Modified.
//! - **Stale:** kept for its stale windows, and if it has a validator for
//!   [`stale_retention`](crate::CacheLayerBuilder::stale_retention) (7 days by default). A 304 makes it fresh again without
//!   a body.
//! - **Tombstone:** written by every invalidation. A fetch that began before the invalidation finds the tombstone and is not
//!   stored, in every process that shares the storage. It goes after ten minutes.
//! - **Gone:** deleted, expired or evicted. The next request is a miss.
//!
//! # Private or shared
//!
//! A cache is either private, for one client program, or shared, for many users.
//! [`shared(true)`](crate::CacheLayerBuilder::shared) sets it. The questions page says
//! [which one to choose](crate::_documentation::questions#private-or-shared).
//!
#![doc = include_str!("pictures/private-shared.svg")]
