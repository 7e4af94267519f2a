//! The layer.

use std::fmt;
use std::sync::Arc;

use tower_layer::Layer;

use crate::builder::CacheLayerBuilder;
use crate::service::{Cache, Core};
use crate::storage::Storage;

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
    core: Arc<Core<S>>,
}

impl<S: Storage> CacheLayer<S> {
    /// A private cache (for one client program) with the default settings.
    pub fn new(storage: S) -> Self {
        Self::builder(storage).build()
    }

    /// A cache with settings.
    pub fn builder(storage: S) -> CacheLayerBuilder<S> {
        CacheLayerBuilder::new(storage)
    }

    pub(crate) fn from_core(core: Arc<Core<S>>) -> Self {
        Self { core }
    }

    #[cfg(feature = "reqwest")]
    pub(crate) fn core(&self) -> &Arc<Core<S>> {
        &self.core
    }

    /// Waits until all that was begun is done: bodies that are being committed, background refreshes. Await it before
    /// a program ends, or what was read last may not be stored.
    pub async fn idle(&self) {
        self.core.tasks.idle().await;
    }

    /// The storage.
    pub fn storage(&self) -> &S {
        self.core.store.store()
    }
}

impl<S: Storage> Clone for CacheLayer<S> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core) }
    }
}

impl<S: Storage> fmt::Debug for CacheLayer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheLayer")
            .field("config", &self.core.config)
            .field("flights", &self.core.flights.len())
            .finish_non_exhaustive()
    }
}

impl<Inner, S: Storage> Layer<Inner> for CacheLayer<S> {
    type Service = Cache<Inner, S>;

    fn layer(&self, inner: Inner) -> Self::Service {
        Cache::new(inner, Arc::clone(&self.core))
    }
}
