//! The tower layer: [`CacheLayer`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tower_layer::Layer;

use crate::adapt::{DefaultBody, FnBody};
use crate::builder::CacheLayerBuilder;
use crate::error::Result;
use crate::observe::statistics::Statistics;
use crate::rules::Rules;
use crate::service::{Cache, Config, Shared};
use crate::storage::{Storage, Usage};

/// Wraps a tower HTTP service with a cache that keeps responses in a [`Storage`].
///
/// All services that one layer makes, and all their clones, are one cache: they share the storage, the fetches that are
/// under way, and what the cache knows about the health of the storage.
///
/// ```
/// # #[cfg(feature = "memory")] {
/// use tower::ServiceBuilder;
/// use tower_response_cache::{CacheLayer, storage::MemoryStorage};
///
/// let service = ServiceBuilder::new()
///     .layer(CacheLayer::new(MemoryStorage::new()))
///     .service_fn(|_request: http::Request<http_body_util::Empty<bytes::Bytes>>| async {
///         Ok::<_, std::io::Error>(http::Response::new(http_body_util::Full::new(bytes::Bytes::from("hello"))))
///     });
/// # }
/// ```
///
/// The inner service must be `Clone`, and the request body `Default`. If yours are not, see [`adapt`](crate::adapt).
pub struct CacheLayer<S: Storage, M = DefaultBody> {
    shared: Arc<Shared<S>>,
    empty_body: M,
}

impl<S: Storage> CacheLayer<S> {
    /// Returns a private cache, for one client program, with the default settings.
    pub fn new(storage: S) -> Self {
        Self::from_shared(Shared::new(storage, Config::default()))
    }

    /// Returns a builder for a cache with other settings.
    pub fn builder(storage: S) -> CacheLayerBuilder<S> {
        CacheLayerBuilder::new(storage)
    }

    pub(crate) fn from_shared(shared: Arc<Shared<S>>) -> Self {
        Self { shared, empty_body: DefaultBody }
    }
}

impl<S: Storage, M> CacheLayer<S, M> {
    /// Sets how an empty request body is made, for a body that is not `Default`.
    ///
    /// The cache repeats requests, and sends some of its own. Those have an empty body.
    ///
    /// Default: by `Default`.
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// use bytes::Bytes;
    /// use http::{Request, Response};
    /// use http_body_util::{BodyExt, Empty, combinators::BoxBody};
    /// use tower::ServiceBuilder;
    /// use tower_response_cache::{CacheLayer, storage::MemoryStorage};
    ///
    /// // A `BoxBody` is not `Default`.
    /// type RequestBody = BoxBody<Bytes, std::convert::Infallible>;
    /// let layer = CacheLayer::new(MemoryStorage::new()).empty_body(|| Empty::new().boxed());
    /// let service = ServiceBuilder::new().layer(layer).service_fn(|_: Request<RequestBody>| async {
    ///     Ok::<_, std::io::Error>(Response::new(http_body_util::Full::new(Bytes::from("hello"))))
    /// });
    /// # fn takes<S: tower::Service<Request<RequestBody>>>(_: S) {}
    /// # takes(service);
    /// # }
    /// ```
    #[must_use]
    pub fn empty_body<F>(self, make: F) -> CacheLayer<S, FnBody<F>> {
        CacheLayer { shared: self.shared, empty_body: FnBody(make) }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared<S>> {
        &self.shared
    }
}

// `Sync`, so that the futures of the methods are `Send`.
impl<S: Storage, M: Sync> CacheLayer<S, M> {
    /// Waits until everything that was begun is done.
    ///
    /// That is bodies that are being written, and background refreshes. Await it before a program ends; otherwise the
    /// responses that were read last may not be stored.
    pub async fn idle(&self) {
        self.shared.records.tasks.idle().await;
    }

    /// Returns what the cache has done since it was built, over all its services.
    ///
    /// It does not block requests.
    pub fn statistics(&self) -> Statistics {
        self.shared.observer.statistics()
    }

    /// Returns the rules that are in force.
    pub fn rules(&self) -> Rules {
        Rules::clone(&self.shared.rules())
    }

    /// Replaces the rules while the cache runs.
    ///
    /// The new rules hold for responses that are stored or validated from now on. Stored responses keep the lifetime that
    /// they were given. A layer that [records](crate::CacheLayerBuilder::record) still keeps every response for ever.
    ///
    /// # Errors
    /// Returns [`Config`](crate::ErrorKind::Config) if the rules contradict themselves. The old rules stay in force.
    pub fn set_rules(&self, rules: Rules) -> Result<()> {
        self.shared.set_rules(rules)
    }

    /// Switches the cache off until the guard is dropped.
    ///
    /// Requests of all services of the layer go to the inner service, and their responses are not stored. If there are
    /// several guards, the cache is switched on again when the last one is dropped. A successful unsafe request still
    /// invalidates what is stored for its URI. [`scope::disabled`](crate::scope::disabled) does the same for one task.
    pub fn disable(&self) -> DisabledGuard {
        self.shared.disablers.fetch_add(1, Ordering::Relaxed);
        DisabledGuard(Arc::clone(&self.shared.disablers))
    }

    /// Invalidates all responses that were stored with this tag.
    ///
    /// Tags are set by [`CacheOptions::tags`](crate::CacheOptions::tags) and [`Rule::tag`](crate::Rule::tag). The
    /// invalidation is one write, however many responses have the tag. After this method has returned, no process on the
    /// storage serves a response with the tag whose fetch began earlier, if the clocks of the processes differ by at most
    /// five seconds. For these five seconds other processes store no response with the tag.
    ///
    /// It covers the partitions of this layer's `CacheMiddleware`s, but not those of a layer with another
    /// [`partition`](crate::CacheLayerBuilder::partition): use
    /// [`CacheHandle::across_partitions`](crate::CacheHandle::across_partitions) for them.
    ///
    /// # Errors
    /// Returns the storage's error if the write was not acknowledged. This process treats the tag as invalidated all the
    /// same, and repeats the write by itself.
    pub async fn invalidate_tag(&self, name: &str) -> Result<()> {
        self.shared.records.invalidate_tag(name).await
    }

    /// Invalidates all responses in a group that the origin named by Cache-Groups (RFC 9875).
    ///
    /// It works as [`invalidate_tag`](CacheLayer::invalidate_tag) does. A response to an unsafe request does the same by
    /// Cache-Group-Invalidation. `origin` is a scheme and a host, and a port unless it is the scheme's default:
    /// `https://example.com`.
    ///
    /// # Errors
    /// Returns [`Config`](crate::ErrorKind::Config) if `origin` is malformed, or the error of `invalidate_tag`.
    pub async fn invalidate_group(&self, origin: &str, name: &str) -> Result<()> {
        self.shared.records.invalidate_origin_group(origin, name).await
    }

    /// Returns how many bytes the storage keeps, and its bound on them ([`Storage::usage`]).
    ///
    /// # Errors
    /// Returns the storage's error, or [`Timeout`](crate::ErrorKind::Timeout) if it does not answer in time.
    pub async fn usage(&self) -> Result<Usage> {
        self.shared.records.usage().await
    }

    /// Asks the storage whether it works ([`Storage::check`]).
    ///
    /// It is for the start of a program, or for a health check. A cache whose storage does not work goes on without it.
    ///
    /// # Errors
    /// Returns why the storage cannot be used.
    pub async fn check(&self) -> Result<()> {
        self.shared.records.check().await
    }

    /// Closes the storage, after everything that was begun is stored.
    ///
    /// It is for the end of a program. It waits for everything that was begun, and then for [`Storage::close`], each for at
    /// most [`body_timeout`](CacheLayerBuilder::body_timeout). Later requests are answered without the storage.
    ///
    /// # Errors
    /// Returns [`Timeout`](crate::ErrorKind::Timeout) if the storage does not close in time, or the storage's error if
    /// something could not be written.
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// use tower_response_cache::{CacheLayer, storage::MemoryStorage};
    ///
    /// let layer = CacheLayer::new(MemoryStorage::new());
    /// // … the program runs …
    /// layer.close().await?;
    /// # Ok::<_, tower_response_cache::Error>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub async fn close(&self) -> Result<()> {
        self.shared.records.close().await
    }

    /// Returns the storage.
    pub fn storage(&self) -> &S {
        self.shared.records.storage.inner()
    }
}

/// Keeps a cache [switched off](CacheLayer::disable) for as long as it lives.
#[derive(Debug)]
#[must_use = "the cache is switched on again when this is dropped"]
pub struct DisabledGuard(Arc<AtomicUsize>);

impl Drop for DisabledGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S: Storage, M: Clone> Clone for CacheLayer<S, M> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), empty_body: self.empty_body.clone() }
    }
}

impl<S: Storage, M> fmt::Debug for CacheLayer<S, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheLayer")
            .field("config", &self.shared.config)
            .field("flights", &self.shared.flights.len())
            .finish_non_exhaustive()
    }
}

impl<Inner, S: Storage, M: Clone> Layer<Inner> for CacheLayer<S, M> {
    type Service = Cache<Inner, S, M>;

    fn layer(&self, inner: Inner) -> Self::Service {
        Cache::from_shared(inner, Arc::clone(&self.shared), self.empty_body.clone())
    }
}
