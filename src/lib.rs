//! An HTTP cache (RFC 9111) as a tower layer, with pluggable storage.
//!
//! [`CacheLayer<S>`](CacheLayer) wraps any tower service of `http::Request` and `http::Response` (a hyper client, a
//! router, a proxy) and answers from a [`Storage`](storage::Storage) where the RFC says it may. Bodies stream, on their
//! way in and out; a storage that fails or hangs is a miss; the inner service's error is untouched.
//!
//! # Three lines
//! ```
//! # #[cfg(feature = "memory")] {
//! use tower::{Layer, ServiceExt, service_fn};
//! use tower_response_cache::{CacheLayer, storage::MemoryStorage};
//! # use http::{Request, Response};
//! # use http_body_util::{BodyExt, Empty, Full};
//! # use bytes::Bytes;
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! # let client = service_fn(|_: Request<Empty<Bytes>>| async {
//! #     Ok::<_, http::Error>(Response::builder().header("cache-control", "max-age=60").body(Full::new(Bytes::from("hello")))?)
//! # });
//! let layer = CacheLayer::new(MemoryStorage::new());
//! let service = layer.layer(client); // hyper-util's client, for one
//!
//! for served_from in ["miss", "hit"] {
//!     let request = Request::get("https://example.com/").body(Empty::<Bytes>::new())?;
//!     let response = service.clone().oneshot(request).await?;
//!     assert_eq!(response.body().status().map(|status| status.word()), Some(served_from));
//!     assert_eq!(response.into_body().collect().await.map_err(|_| ()).unwrap().to_bytes(), "hello");
//! }
//! layer.idle().await; // before the program ends
//! # Ok::<_, http::Error>(())
//! # }).unwrap();
//! # }
//! ```
//!
//! It needs tokio, with its timer enabled; outside a runtime only a store that answers at once is used, and nothing is
//! refreshed in the background. The request's body must be `Default`, since repeated and background requests have an
//! empty one. hyper's `Incoming` is not: map it to a boxed body above the cache. A tower service below the cache should
//! not depend on which task polls it (by task-local variables): a fetch is driven by whoever waits for it.
//!
//! # Which storage
//! | storage | feature | take it | it needs | shared by |
//! |---|---|---|---|---|
//! | `MemoryStorage` | `memory` | for the fastest hits; it is empty when the program starts | nothing; 64 MiB of memory by default | its clones, in one process |
//! | `SqliteStorage` | `sqlite` | to keep responses over restarts, or for several processes on one machine | a path; a C compiler when it is built (SQLite is bundled) | all who open the file, on one machine |
//! | `DirectoryStorage` | `directory` | for recorded responses that a person looks into, copies or commits | a directory, on a file system with locks | all who use the directory, on one machine |
//! | `RedisStorage` | `redis` | for many machines | Redis 6 or later, Valkey or Dragonfly, bounded by a `maxmemory` of its own | all who use the cache name |
//! | `MongoDbStorage` | `mongodb` | for many machines that have a MongoDB already | MongoDB 4.4 or later | all who use the database and collection |
//! | `DynamoDbStorage` | `dynamodb` | for many machines and no server to run | a table of AWS DynamoDB, its rights and its price | all who use the table |
//! | [`BoxStorage`](storage::BoxStorage) | | to choose when the program runs: [`connect`](storage::connect) opens any of them by one address | as the one inside | as the one inside |
//! | your own | | for anything else: five methods, no HTTP and no serialization ([`Storage`](storage::Storage)) | the suite of the feature `testing` | as you make it |
//!
//! Memory, SQLite and the directory bound themselves and evict what was used least lately; on the others the bound is
//! the server's. [`storage`] says what each promises.
//!
//! # What is cached, and why not
//! - Responses to GET, which answer HEAD too; with the feature `content-keys` also those to POST, QUERY and other
//!   [methods](CacheLayerBuilder::methods) that you name, by their content.
//! - Those that say how long they are fresh (`max-age`, Expires; in a shared cache `s-maxage` and CDN-Cache-Control
//!   first); without that those whose lifetime may be guessed from Last-Modified, and those with an entity tag or
//!   Last-Modified, which are validated before each use.
//! - Once the body has come to a clean end: the caller must read it (or set
//!   [`finish_on_drop`](CacheLayerBuilder::finish_on_drop)).
//! - Never those that say `no-store` or `Vary: *`, parts (206), or what another URI answered, since redirects were
//!   followed below the cache. Errors and temporary redirects only if they say how long they are fresh.
//! - By default the cache is private, for one client program: requests with different Authorization never share a
//!   response, nor do those with different Cookie, unless the response is `public`.
//!   [`shared`](CacheLayerBuilder::shared) makes it one for many users, for a proxy or before a server; then nothing is
//!   stored that is `private`, answers Authorization without leave, or sets a cookie.
//! - [`Rules`] say otherwise where you know better than the origin: by URL, status or media type, as default or override.
//!   [`CacheOptions`] among a request's extensions say it for that one, with the cache modes of the Fetch standard;
//!   [`scope`] for all requests of a task.
//! - After an unsafe request (POST, PUT, DELETE …) that succeeds, what is stored for its URI is not served again, by any
//!   process that shares the store. Groups end together by one write: your own [tags](CacheOptions::tags) by
//!   [`invalidate_tag`](CacheLayer::invalidate_tag), and those that the origin names by Cache-Groups (RFC 9875). They
//!   need one more read each.
//!
//! Why a response was not stored, or not found, is in its [`CacheStatus`]: [`Stored`] and [`NotStored`] give the one
//! reason, [`MissReason`] the other, and [`BypassReason`] why the cache was not asked. [Each word](questions#why-is-my-response-not-cached), with what to do about it.
//!
//! # How to see it
//! | where | what |
//! |---|---|
//! | `response.body().status()`, and `response.extensions().get::<CacheStatus>()` | [`CacheStatus`]: where this response came from and what became of it, as types and as text (`hit; ttl=42`) |
//! | the field Cache-Status (RFC 9211) | the same for those on the other side of the wire; set by [`status_field`](CacheLayerBuilder::status_field) |
//! | [`CacheLayer::statistics`] | numbers since the cache was built |
//! | `tracing`, `tower_response_cache=debug` | [events and a span](observe#spans-and-events) for each answer, each response not stored, each failure of the store |
//! | metrics, feature `metrics` | [counters, gauges and times](observe#metrics), for Prometheus and others |
//! | [`CacheLayer::handle`] | what is stored: [look it up, list it](CacheHandle) by URL, status, age or tag, delete it, copy it |
//! | `examples/inspect` | the same from a terminal, for any store's address |
//!
//! # Many callers at once
//! Requests for the same that come while it is fetched share that fetch ([`coalesce`](CacheLayerBuilder::coalesce)).
//! They get the head when it is known that the response is for them too, and then the body while it is still coming,
//! each at its own pace; one that reads slowly, stops or goes away holds up nobody. What is for one caller alone is
//! fetched by each, at once, and from then on nobody waits for another there until a response comes that can be shared.
//! A request with a range fetches for itself ([`fetch_whole`](CacheLayerBuilder::fetch_whole) changes that), as does one
//! with `no-cache`. [`lease`](CacheLayerBuilder::lease) makes it one fetch for all processes that share a store.
//!
//! Where it is allowed, a stale response is served instead of a late one:
//! [`stale_while_revalidate`](CacheLayerBuilder::stale_while_revalidate) and
//! [`stale_if_error`](CacheLayerBuilder::stale_if_error) say so for responses that do not, and
//! [`refresh_early`](CacheLayerBuilder::refresh_early) refreshes what is asked for often before it is stale.
//!
//! # Several processes
//! Processes may share a store (a SQLite file, a directory, Redis, MongoDB, DynamoDB). Of two fetches at a time one is kept whole;
//! an invalidation by one process holds for all once its call has returned. Without
//! [`strict`](CacheLayerBuilder::strict) this has one hole: an entry that is evicted within ten minutes of its
//! invalidation, while a fetch that found nothing has been under way since before it.
//!
//! # Features
//! | feature | default | gives |
//! |---|---|---|
//! | `memory` | yes | `storage::MemoryStorage` |
//! | `sqlite` | | `storage::SqliteStorage`, bundled SQLite |
//! | `directory` | | `storage::DirectoryStorage`: files in a directory, to look into, copy or commit |
//! | `redis` | | `storage::RedisStorage`: one server, a cluster, or under sentinels |
//! | `redis-tls` | | the same by TLS too (`rediss://`), with the system's roots |
//! | `mongodb` | | `storage::MongoDbStorage`: one server, a replica set or a sharded cluster, also by TLS (`tls=true`, `mongodb+srv://`) |
//! | `dynamodb` | | `storage::DynamoDbStorage`: a table of AWS DynamoDB |
//! | `content-keys` | | requests with content (POST, QUERY) told apart by what it means |
//! | `regex` | | patterns of URLs made of a `regex::Regex` |
//! | `reqwest` | | `reqwest::CacheMiddleware` for reqwest-middleware 0.5 and reqwest 0.13, and a redirect follower above it |
//! | `axum` | | caches for axum 0.8: reads its `OriginalUri`, for nested routers; without it axum's requests pass the cache by |
//! | `follow-redirect` | | reads the final URI that tower-http's `FollowRedirect` 0.7 leaves in a response |
//! | `metrics` | | counters, gauges and times by the `metrics` facade, [for Prometheus and others](observe) |
//! | `testing` | | the storage contract's suite |
//!
//! # Pages
//! | page | |
//! |---|---|
//! | [`questions`] | what people ask of an HTTP cache: why it does not store, the stack, several processes, failures, security … |
//! | [`attacks`] | what was tried against the cache, by origins, clients and neighbours, and what it does about it |
//! | [`storage`] | each storage: what it promises, what to know, how its records look |
//! | [`observe`] | every metric, span and event |
//! | [`conformance`] | what RFC 9111 demands, sentence by sentence, with the function and the test that keep it |
//! | [`migrating`] | for those who come from aiohttp-client-cache, requests-cache or http-cache: the same program, the names, what differs |
//! | [`counterparts`] | each setting of aiohttp-client-cache and requests-cache, and ours |
//!
//! For tests and work offline, [`record`](CacheLayerBuilder::record) and [`replay`](CacheLayerBuilder::replay) keep
//! programs from the network. What counts as the same request is set by [`ignore_query`](CacheLayerBuilder::ignore_query),
//! [`key_headers`](CacheLayerBuilder::key_headers), [`key`](CacheLayerBuilder::key) and the like.

// On docs.rs each item says which feature it needs.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod attacks;
mod body;
mod builder;
pub mod conformance;
mod control;
pub mod counterparts;
mod entry;
mod error;
mod handle;
mod hex;
mod key;
mod layer;
pub mod migrating;
pub mod observe;
mod policy;
pub mod questions;
#[cfg(feature = "reqwest")]
pub mod reqwest;
mod rules;
mod service;
pub mod storage;
#[cfg(feature = "testing")]
pub mod testing;
mod time;

pub use self::body::{BodyError, BodyErrorKind, CacheBody};
pub use self::builder::CacheLayerBuilder;
pub use self::control::{
    BypassReason, CacheMode, CacheOptions, CacheStatus, MissReason, Outcome, Stored, scope,
};
pub use self::error::{Error, ErrorKind, Result};
pub use self::handle::{
    CacheHandle, Copied, EntryFilter, StorageSize, StoredEntry, Sweeper, Verified, Warmed,
};
pub use self::layer::{CacheLayer, DisabledGuard};
pub use self::observe::statistics::Statistics;
pub use self::policy::{NotStored, StaleReason, Ttl, ValidateReason};
pub use self::rules::{Forbidden, IntoUrlPattern, Rule, Rules, UrlPattern};
#[cfg(feature = "content-keys")]
pub use self::service::ReplayedContent;
pub use self::service::{Cache, CacheFuture};
pub use self::time::{Clock, MockClock, Timestamp};
