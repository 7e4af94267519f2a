//! The layer.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tower_layer::Layer;

use crate::builder::CacheLayerBuilder;
use crate::error::Result;
use crate::observe::statistics::Statistics;
use crate::rules::Rules;
use crate::service::{Cache, Config, Shared};
use crate::storage::{Storage, Usage};

/// Wraps a tower HTTP service with a cache that keeps responses in a [`Storage`].
///
/// All services that one layer makes, and all their clones, are one cache: they share what is under way, what is known
/// about the store, and the store.
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
pub struct CacheLayer<S: Storage> {
    shared: Arc<Shared<S>>,
}

impl<S: Storage> CacheLayer<S> {
    /// A private cache (for one client program) with the default settings.
    pub fn new(storage: S) -> Self {
        Self::from_shared(Shared::new(storage, Config::default()))
    }

    /// A cache with settings.
    pub fn builder(storage: S) -> CacheLayerBuilder<S> {
        CacheLayerBuilder::new(storage)
    }

    pub(crate) fn from_shared(shared: Arc<Shared<S>>) -> Self {
        Self { shared }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared<S>> {
        &self.shared
    }

    /// Waits until all that was begun is done: bodies that are being committed, background refreshes. Await it before
    /// a program ends, or what was read last may not be stored.
    pub async fn idle(&self) {
        self.shared.records.tasks.idle().await;
    }

    /// What the cache has done since it was built, all its services together. Asking holds up nobody.
    pub fn statistics(&self) -> Statistics {
        self.shared.observer.statistics()
    }

    /// The rules that hold now.
    pub fn rules(&self) -> Rules {
        Rules::clone(&self.shared.rules())
    }

    /// Changes the rules while the cache runs. They hold for what is stored or validated from then on; a response that is
    /// stored keeps the lifetime that it was given. A layer that [records](crate::CacheLayerBuilder::record) goes on to keep
    /// everything for ever.
    ///
    /// # Errors
    /// The rules contradict themselves: those from before go on.
    pub fn set_rules(&self, rules: Rules) -> Result<()> {
        self.shared.set_rules(rules)
    }

    /// Switches the cache off, for all its services, until the guard is dropped: requests go straight to the inner
    /// service, and their responses are not stored. Of several guards the last one ends it. What a successful unsafe
    /// request makes doubtful is still invalidated. [`scope::disabled`](crate::scope::disabled) does it for one task.
    pub fn disable(&self) -> DisabledGuard {
        self.shared.disablers.fetch_add(1, Ordering::Relaxed);
        DisabledGuard(Arc::clone(&self.shared.disablers))
    }

    /// Invalidates all responses that were stored with this tag ([`CacheOptions::tags`](crate::CacheOptions::tags),
    /// [`Rule::tag`](crate::Rule::tag)): by one write, however many they are. Once this has returned, no response whose
    /// fetch began before is served by any process that shares the store, if their clocks are within five seconds of each
    /// other. Other processes store nothing with this tag for those five seconds.
    ///
    /// The responses of its middlewares' partitions are among them; those of a layer with another
    /// [`partition`](crate::CacheLayerBuilder::partition) are not:
    /// [`CacheHandle::across_partitions`](crate::CacheHandle::across_partitions) reaches them.
    ///
    /// # Errors
    /// The store has not taken it yet. This process already treats it as done, and tries again by itself.
    pub async fn invalidate_tag(&self, name: &str) -> Result<()> {
        self.shared.records.end_tag(name).await
    }

    /// Invalidates all responses of a group that the origin named by Cache-Groups (RFC 9875), as
    /// [`invalidate_tag`](CacheLayer::invalidate_tag) does. A response to an unsafe request does the same by
    /// Cache-Group-Invalidation. `origin` is a scheme and a host, with a port unless it is the scheme's:
    /// `https://example.com`.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config): the origin is none. Or as `invalidate_tag`.
    pub async fn invalidate_group(&self, origin: &str, name: &str) -> Result<()> {
        self.shared.records.end_group(origin, name).await
    }

    /// Returns how many bytes the storage keeps, and the bound on them ([`Storage::usage`]).
    ///
    /// # Errors
    /// Returns the storage's error, or [`Timeout`](crate::ErrorKind::Timeout) if it does not answer in time.
    pub async fn usage(&self) -> Result<Usage> {
        self.shared.records.usage().await
    }

    /// Asks the storage whether it works ([`Storage::check`]).
    ///
    /// For the start of a program, or a health check. A cache whose storage does not work goes on without it.
    ///
    /// # Errors
    /// Returns why the storage cannot be used.
    pub async fn check(&self) -> Result<()> {
        self.shared.records.check().await
    }

    /// Closes the storage after everything that was begun is stored.
    ///
    /// For the end of a program. Waits for what was begun, and then for [`Storage::close`], each for at most as long as a
    /// chunk of a body may take ([`body_timeout`](CacheLayerBuilder::body_timeout)). Requests that come later are answered without
    /// the storage.
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

    /// The storage.
    pub fn storage(&self) -> &S {
        self.shared.records.store.store()
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

impl<S: Storage> Clone for CacheLayer<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<S: Storage> fmt::Debug for CacheLayer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheLayer")
            .field("config", &self.shared.config)
            .field("flights", &self.shared.flights.len())
            .finish_non_exhaustive()
    }
}

impl<Inner, S: Storage> Layer<Inner> for CacheLayer<S> {
    type Service = Cache<Inner, S>;

    fn layer(&self, inner: Inner) -> Self::Service {
        Cache::from_shared(inner, Arc::clone(&self.shared))
    }
}
