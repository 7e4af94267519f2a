//! An HTTP cache (RFC 9111) as a tower layer, with pluggable storage.
//!
//! [`CacheLayer<S>`](CacheLayer) wraps any tower service of `http::Request` and `http::Response` (hyper's client, reqwest, a
//! router, a reverse proxy) and answers from a [`Storage`](storage::Storage) when the RFC, or a rule of yours, permits it.
//! Bodies stream in and out. A storage that fails or hangs is a miss. Errors of the inner service reach the caller
//! unchanged.
//!
//! # Usage
//! ```
//! # #[cfg(feature = "memory")] {
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::{BodyExt, Empty};
//! use tower::{Layer, ServiceExt};
//! use tower_response_cache::{CacheLayer, storage::MemoryStorage};
//! # use http::Response;
//! # use http_body_util::Full;
//! # use tower::service_fn;
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! # let client = service_fn(|_: Request<Empty<Bytes>>| async {
//! #     Ok::<_, http::Error>(Response::builder().header("cache-control", "max-age=60").body(Full::new(Bytes::from("hello")))?)
//! # });
//!
//! let layer = CacheLayer::new(MemoryStorage::new());
//! let service = layer.layer(client); // hyper-util's client, for example
//!
//! for served_from in ["miss", "hit"] {
//!     let request = Request::get("https://example.com/").body(Empty::<Bytes>::new())?;
//!     let response = service.clone().oneshot(request).await?;
//!     assert_eq!(response.body().status().map(|status| status.word()), Some(served_from));
//!     assert_eq!(response.into_body().collect().await?.to_bytes(), "hello");
//! }
//! layer.idle().await; // before the program ends
//! # Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
//! # }).unwrap();
//! # }
//! ```
//!
//! The layer stands between the layers that should see every request and those that should see only the requests to
//! the origin. [How it works](_documentation::how_it_works) has more pictures.
//!
#![doc = include_str!("_documentation/pictures/stack.svg")]
//!
//! # Requirements
//! - **tokio, with its timer enabled.** Outside a runtime only a storage that answers at once is used, and nothing is
//!   refreshed in the background.
//! - **An inner service that is `Clone` and a request body that is `Default`**, since the cache repeats requests and sends some
//!   of its own, with an empty body. [`adapt`] has adapters for the others, such as a `BoxService` or hyper's `Incoming`.
//! - **An inner service that works in any task**, so one that does not depend on task-local variables. Any task that waits
//!   for the body may drive the fetch, and several requests may share it.
//!
//! # Which storage
//! | storage | feature | choose it for | shared by |
//! |---|---|---|---|
//! | `MemoryStorage` | `memory` | the fastest hits | its clones, in one process |
//! | `SqliteStorage` | `sqlite` | responses that outlive the program | every process that opens the file |
//! | `DirectoryStorage` | `directory` | recorded responses to read or commit | every process that uses the directory |
//! | `RedisStorage` | `redis` | many machines | all that use the cache name |
//! | `MongoDbStorage` | `mongodb` | many machines with a MongoDB | all that use the database and collection |
//! | `DynamoDbStorage` | `dynamodb` | many machines without a server to run | all that use the table |
//! | [`BoxStorage`](storage::BoxStorage) | | a choice at run time | as the storage inside |
//! | [your own](storage::Storage) | `testing` | anything else | as you make it |
//!
//! - `MemoryStorage` holds 64 MiB by default, and is empty when the program starts.
//! - `SqliteStorage` needs a path, and a C compiler to build the bundled SQLite. `DirectoryStorage` needs a directory on a
//!   file system with locks. Both hold 1 GiB by default, and are for the processes of one machine.
//! - `RedisStorage` needs Redis 6 or later, Valkey or Dragonfly, with a `maxmemory` that bounds it.
//! - `MongoDbStorage` needs MongoDB 4.4 or later.
//! - `DynamoDbStorage` needs a table of AWS DynamoDB, with rights to it and its price.
//! - A storage of your own is five methods, without HTTP and without serialization. The feature `testing` has its tests.
//!
//! Memory, SQLite and directories bound themselves and evict the least recently used records. The server bounds the others.
//! [`storage::connect`] opens a storage by an address, and [`storage`] says what each one promises.
//!
//! # What is cached
//! - **Methods.** Responses to GET, which also answer HEAD. With the feature `content-keys` also responses to POST, QUERY and
//!   other [methods](CacheLayerBuilder::methods) that you name, by their content.
//! - **Lifetime.** Responses that say how long they are fresh (`max-age`, Expires; in a shared cache `s-maxage` and
//!   CDN-Cache-Control come first). Without that, responses whose lifetime can be guessed from Last-Modified, and responses
//!   with a validator, which are validated before each use. Errors and temporary redirects are stored only if they
//!   state a lifetime.
//! - **Complete bodies.** A response is stored once its body has ended cleanly. The caller has to read it, or you set
//!   [`finish_on_drop`](CacheLayerBuilder::finish_on_drop).
//! - **Never:** responses that say `no-store` or `Vary: *`, and responses from another URI because a layer below the cache
//!   followed redirects. Partial responses (206) only with [`store_parts`](CacheLayerBuilder::store_parts) or
//!   [`slices`](CacheLayerBuilder::slices).
//! - **Private by default**, for one client program. Requests with different Authorization never share a response, nor do
//!   requests with different Cookie unless the response is `public`.
//! - **Shared on request.** [`shared(true)`](CacheLayerBuilder::shared) makes a cache for many users, in a proxy or in front
//!   of a server. It stores nothing that is `private`, that answers Authorization without permission, or that sets a cookie.
//! - **Your rules.** [`Rules`] override the origin by URL, status or media type. [`CacheOptions`] in a request's extensions do
//!   so for one request, with the cache modes of the Fetch standard, and [`scope`] for all requests of a task.
//!
//! A successful unsafe request (POST, PUT, DELETE and the like) invalidates the stored responses for its URI, in every
//! process that shares the storage. One write invalidates a whole group of responses: those with one of your own
//! [tags](CacheOptions::tags), by [`invalidate_tag`](CacheLayer::invalidate_tag), and those that the origin groups by
//! Cache-Groups (RFC 9875). Each tag or group of a response costs one more read. A soft purge
//! ([`expire`](CacheHandle::expire), [`expire_tag`](CacheHandle::expire_tag)) makes responses stale instead.
//!
//! The [`CacheStatus`] of a response says why it was not stored ([`NotStored`], in [`Stored::No`]), why no stored response
//! could be used ([`MissReason`]), and why the request bypassed the cache ([`BypassReason`]). The questions page explains
//! [each reason](_documentation::questions#why-is-my-response-not-cached), with what to do about it.
//!
//! # How to observe it
//! | place | content |
//! |---|---|
//! | `response.body().status()` | [`CacheStatus`]: `hit; ttl=42`, also in the response's extensions |
//! | the field Cache-Status (RFC 9211) | the same for the client, by [`status_field`](CacheLayerBuilder::status_field) |
//! | [`CacheLayer::statistics`] | numbers since the cache was built |
//! | `tracing`, target `tower_response_cache` | [events and a span](observe#spans-and-events), at level debug |
//! | feature `metrics` | [counters, gauges and histograms](observe#metrics), for Prometheus and others |
//! | [`CacheLayer::handle`] | [stored responses](CacheHandle): list, find, expire, delete and copy them |
//! | `examples/inspect` | the same in a terminal, for any storage's address |
//! | feature `admin` | the same by HTTP, and a page for a browser: `admin::router` |
//!
//! # Many requests at once
//! Requests for the same entry share one fetch ([`coalesce`](CacheLayerBuilder::coalesce)). Each gets the head once the cache
//! knows that the response answers it too, and then the body while it is still coming. Each reads at its own pace: a caller
//! that reads slowly, stops or goes away does not delay the others.
//!
//! A response for one caller alone is fetched by each caller at once. From then on, requests for that entry do not wait for
//! each other, until a response comes that can be shared. A request with `no-cache` fetches for itself, and so does one with
//! a range, unless [`fetch_whole_for_range`](CacheLayerBuilder::fetch_whole_for_range) or [`slices`](CacheLayerBuilder::slices)
//! is set.
//! [`lease`](CacheLayerBuilder::lease) makes it one fetch for all processes that share a storage.
//!
//! Where it is allowed, a stale response is served instead of a late one.
//! [`stale_while_revalidate`](CacheLayerBuilder::stale_while_revalidate) and
//! [`stale_if_error`](CacheLayerBuilder::stale_if_error) allow it for responses that do not say so themselves, and
//! [`refresh_early`](CacheLayerBuilder::refresh_early) refreshes popular responses before they are stale.
//!
//! # Several processes
//! Processes may share a SQLite file, a directory, or a Redis, MongoDB or DynamoDB. Of two fetches at the same time, one is
//! stored whole. An invalidation by one process holds for all of them once its call has returned.
//!
//! There is one gap: an entry may be evicted within ten minutes of its invalidation, while a fetch that found nothing stored
//! has been under way since before it. [`reserve_on_miss(true)`](CacheLayerBuilder::reserve_on_miss) closes it.
//!
//! # Tests and work offline
//! [`record`](CacheLayerBuilder::record) and [`replay`](CacheLayerBuilder::replay) keep a program off the network, and a
//! [`Clock`] lets a test set the time. Settings such as [`ignore_query_params`](CacheLayerBuilder::ignore_query_params),
//! [`key_headers`](CacheLayerBuilder::key_headers) and [`key_fn`](CacheLayerBuilder::key_fn) say which requests are the same,
//! and so does the origin by Vary and [No-Vary-Search](CacheLayerBuilder::no_vary_search).
//!
//! # Features
//! | feature | enables |
//! |---|---|
//! | `memory` (default) | `storage::MemoryStorage` |
//! | `sqlite` | `storage::SqliteStorage`, with bundled SQLite |
//! | `directory` | `storage::DirectoryStorage` |
//! | `redis` | `storage::RedisStorage`: one server, a cluster, or under sentinels |
//! | `redis-tls` | the same by TLS (`rediss://`), with the system's roots |
//! | `mongodb` | `storage::MongoDbStorage`: one server, a replica set or a sharded cluster, also by TLS |
//! | `dynamodb` | `storage::DynamoDbStorage` |
//! | `zstd`, `lz4` | `storage::CompressedStorage`, around any storage |
//! | `encrypt` | `storage::EncryptedStorage`, around any storage |
//! | `sitemap` | warming with the URLs of a sitemap |
//! | `content-keys` | keys that include the content of POST, QUERY and the like |
//! | `regex` | URL patterns by `regex::Regex` |
//! | `reqwest` | `reqwest::HttpService` for a tower stack around reqwest 0.13, and `reqwest::CacheMiddleware` for reqwest-middleware 0.5 |
//! | `admin` | `admin::router`: a JSON API, PURGE and BAN, and a page for a browser, as an axum router; enables `axum` |
//! | `axum` | caching for axum 0.8, nested routers included; without it axum's requests bypass the cache |
//! | `follow-redirect` | reading the final URI that tower-http 0.7's `FollowRedirect` leaves in a response |
//! | `metrics` | metrics by the [`metrics`](https://docs.rs/metrics) facade |
//! | `testing` | the test suite of the storage contract |
//!
//! # Guides
//! | page | content |
//! |---|---|
//! | [How it works](_documentation::how_it_works) | pictures of the stack, of a request and of an entry's life |
//! | [Questions](_documentation::questions) | why a response is not cached, failures, security, cost |
//! | [Storages](storage) | each storage: promises, limits, record layout |
//! | [Observing](observe) | every metric, span and event |
//! | [Conformance](_documentation::conformance) | each demand of RFC 9111, with its function and test |
//! | [Attacks](_documentation::attacks) | attacks that were tried, and the defences |
//! | [Performance](_documentation::performance) | speed next to other caches and raw drivers, and costs at scale |
//! | [Migrating](_documentation::migrating) | from aiohttp-client-cache, requests-cache or http-cache |
//! | [Counterparts](_documentation::counterparts) | settings of two Python libraries and of shared caches, and ours |

// On docs.rs each item says which feature it needs.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod _documentation;
pub mod adapt;
#[cfg(feature = "admin")]
pub mod admin;
mod body;
mod builder;
mod control;
mod entry;
mod error;
mod handle;
mod hex;
mod key;
mod layer;
pub mod observe;
mod policy;
#[cfg(feature = "reqwest")]
pub mod reqwest;
mod rules;
mod service;
pub mod storage;
#[cfg(feature = "testing")]
pub mod testing;
mod time;
mod wakers;

pub use self::body::{BodyError, BodyErrorKind, CacheBody};
pub use self::builder::CacheLayerBuilder;
pub use self::control::{
    BypassReason, CacheMode, CacheOptions, CacheStatus, MissReason, Outcome, PartialBody, Stored, scope,
};
pub use self::error::{Error, ErrorKind, Result};
pub use self::handle::{
    CacheHandle, CopyReport, EntryFilter, StorageSize, StoredEntry, Sweeper, VerifyReport, WarmReport, Warmer,
};
pub use self::layer::{CacheLayer, DisabledGuard};
pub use self::observe::statistics::Statistics;
pub use self::policy::{NotStored, StaleReason, Ttl, ValidateReason};
pub use self::rules::{Forbidden, IntoUrlPattern, Rule, Rules, UrlPattern};
#[cfg(feature = "content-keys")]
pub use self::service::ReplayedContent;
pub use self::service::{Cache, CacheFuture};
pub use self::time::{Clock, MockClock, Timestamp};
