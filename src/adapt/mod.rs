//! Adapters for services and bodies that the cache cannot use as they are.
//!
//! The cache repeats requests and sends some of its own. For that it needs an inner service that is `Clone`, and a request
//! body that can be made anew.
//!
//! | what you have | what to add |
//! |---|---|
//! | an inner service that is not `Clone`, such as a `BoxService` or kube's client | [`ShareLayer`] below the cache |
//! | a body with a constructor of its own, such as kube's `Body::empty()` | [`CacheLayer::empty_body`](crate::CacheLayer::empty_body) |
//! | a body that no program can make, such as hyper's `Incoming` | [`OptionalBodyLayer`] above the cache |
//!
//! ```
//! # #[cfg(feature = "memory")] {
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{Empty, Full};
//! use tower::util::BoxService;
//! use tower::{ServiceBuilder, service_fn};
//! use tower_response_cache::adapt::ShareLayer;
//! use tower_response_cache::{CacheLayer, storage::MemoryStorage};
//!
//! // It is not `Clone`.
//! let client = BoxService::new(service_fn(|_: Request<Empty<Bytes>>| async {
//!     Ok::<_, std::io::Error>(Response::new(Full::new(Bytes::from("hello"))))
//! }));
//! let service = ServiceBuilder::new()
//!     .layer(CacheLayer::new(MemoryStorage::new()))
//!     .layer(ShareLayer::new())
//!     .service(client);
//! # drop(service);
//! # }
//! ```

mod empty_body;
mod optional_body;
mod share;

pub use self::empty_body::{DefaultBody, EmptyBody, FnBody};
pub use self::optional_body::{OptionalBody, OptionalBodyLayer, OptionalBodyService};
pub use self::share::{Share, ShareFuture, ShareLayer};
