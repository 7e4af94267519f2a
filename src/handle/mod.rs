//! A hand on the cache: [`CacheHandle`] looks into the store of a running cache and changes what is there.
//!
//! Each file is one kind of question: `find` (one request or URL), `listing` (what is stored), `change` (deleting, and new
//! lifetimes), `copy` (with `destination`), `survey` (what cannot be used), `warm`, `sweeper`; they are asked with an
//! `EntryFilter` and answered with a `StoredEntry`.
//!
//! Promises: what it shows is what the cache could answer from; what it deletes is not brought back by a fetch that was under
//! way, in any process; a store that hangs is an error in bounded time, but for what the store does to all of its records at
//! once (expiring, clearing), which takes the time that it takes; memory does not grow with the bodies, nor, but for
//! sixteen bytes or so each, with the number of entries.

mod change;
mod copy;
mod destination;
mod entry;
mod filter;
mod find;
mod listing;
mod survey;
mod sweeper;
mod warm;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use futures_util::TryStreamExt;

pub use self::copy::Copied;
pub use self::entry::StoredEntry;
pub use self::filter::EntryFilter;
pub use self::listing::StorageSize;
pub use self::survey::Verified;
pub use self::sweeper::Sweeper;
pub use self::warm::Warmed;
use crate::entry::Membership;
use crate::error::Result;
use crate::key::EffectiveUri;
use crate::layer::CacheLayer;
use crate::observe::statistics::Statistics;
use crate::service::{self, Shared};
use crate::storage::{Storage, Usage};

/// So many entries are read, copied or deleted at a time.
const AT_ONCE: usize = 16;

/// Looks into the store of a [`CacheLayer`], and changes what is there, while the cache runs. Cheap to clone.
///
/// - **One request or URL**: [`has`](Self::has), [`get`](Self::get), [`read`](Self::read), [`delete`](Self::delete) for what
///   the cache would answer a request from; [`has_url`](Self::has_url), [`get_url`](Self::get_url),
///   [`delete_url`](Self::delete_url).
/// - **What is stored**: [`entries`](Self::entries) and [`urls`](Self::urls) as streams, by an [`EntryFilter`];
///   [`size`](Self::size), [`verify`](Self::verify).
/// - **Changing it**: [`delete_matching`](Self::delete_matching), [`delete_expired`](Self::delete_expired),
///   [`clear`](Self::clear), [`reset_expiry`](Self::reset_expiry), [`invalidate_tag`](Self::invalidate_tag),
///   [`prune`](Self::prune), [`sweep_every`](Self::sweep_every).
/// - **Moving**: [`copy_to`](Self::copy_to) another storage, [`warm`](Self::warm) by requests.
///
/// An **entry** is what is stored for one URL: its first response, and further ones where Vary (or the cache's settings)
/// tell requests apart. It is judged by the layer's settings: what this cache could not answer from (invalidated, kept no
/// longer, being written) is not there for the handle either. What is stale but kept is.
///
/// Where several caches share a store, a handle sees its own cache's entries: those of the same
/// [`partition`](crate::CacheLayerBuilder::partition) and [`key_secret`](crate::CacheLayerBuilder::key_secret).
/// [`across_partitions`](Self::across_partitions) shows the others' too, what a `CacheMiddleware` keeps in a `partition` among
/// them. Tags and groups of a layer are those of its middlewares' partitions as well.
///
/// What is asked by hand counts nowhere in the [`statistics`](Self::statistics), but for invalidations. A cache that is
/// [`read_only`](crate::CacheLayerBuilder::read_only) may still be changed by hand.
///
/// ```
/// # #[cfg(feature = "memory")] {
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # use http::{Request, Response};
/// # use http_body_util::{BodyExt, Empty, Full};
/// # use bytes::Bytes;
/// # use tower::{Layer, ServiceExt, service_fn};
/// use futures_util::TryStreamExt;
/// use tower_response_cache::{CacheLayer, EntryFilter, storage::MemoryStorage};
/// # let client = service_fn(|_: Request<Empty<Bytes>>| async {
/// #     Ok::<_, http::Error>(Response::builder().header("cache-control", "max-age=60").body(Full::new(Bytes::from("hello")))?)
/// # });
///
/// let layer = CacheLayer::new(MemoryStorage::new());
/// let handle = layer.handle();
/// # for path in ["/a", "/b/1", "/b/2"] {
/// #     let request = Request::get(format!("https://example.com{path}")).body(Empty::<Bytes>::new()).unwrap();
/// #     layer.layer(client).oneshot(request).await.unwrap().into_body().collect().await.unwrap();
/// # }
/// // … requests go through the layer's services …
///
/// let everything = EntryFilter::new();
/// let mut entries: Vec<_> = handle.entries(&everything).try_collect().await?;
/// entries.sort_by(|one, other| one.url().cmp(other.url()));
/// assert_eq!(entries[0].url(), "https://example.com/a");
/// assert_eq!((entries[0].status().as_u16(), entries[0].body_len()), (200, 5));
///
/// assert!(handle.has_url("https://example.com/a").await?);
/// assert_eq!(handle.delete_url("https://example.com/a").await?, 1);
/// assert_eq!(handle.delete_matching(&EntryFilter::new().url("example.com/b/*")).await?, 2);
/// assert_eq!(handle.size().await?.responses, 0);
/// # Ok::<_, tower_response_cache::Error>(())
/// # }).unwrap();
/// # }
/// ```
pub struct CacheHandle<S: Storage> {
    shared: Arc<Shared<S>>,
    /// Also what other caches keep in the store.
    everywhere: bool,
}

impl<S: Storage> CacheLayer<S> {
    /// A hand on this cache: to see what is stored, and to change it.
    pub fn handle(&self) -> CacheHandle<S> {
        CacheHandle { shared: Arc::clone(self.shared()), everywhere: false }
    }
}

impl<S: Storage> CacheHandle<S> {
    /// Returns this handle for all entries in the storage, or for this cache's own.
    ///
    /// With `true`, the handle also sees the entries of caches with another partition or key secret. Methods that take a
    /// request or a URL see this cache's own entries in any case.
    ///
    /// Default: `false`.
    #[must_use]
    pub fn across_partitions(mut self, all: bool) -> Self {
        self.everywhere = all;
        self
    }

    /// As [`CacheLayer::invalidate_tag`].
    ///
    /// A handle [`across_partitions`](Self::across_partitions) reads the whole store, and ends the tags of this name of
    /// every partition that keeps a response with it.
    ///
    /// # Errors
    /// The store has not taken it yet, or could not be read.
    pub async fn invalidate_tag(&self, name: &str) -> Result<()> {
        self.shared.records.end_tag(name).await?;
        self.end_elsewhere(|_, group| group.is_tag && *group.name == *name).await
    }

    /// As [`CacheLayer::invalidate_group`]; across partitions as [`invalidate_tag`](Self::invalidate_tag).
    ///
    /// # Errors
    /// The origin is none, the store has not taken it yet, or could not be read.
    pub async fn invalidate_group(&self, origin: &str, name: &str) -> Result<()> {
        self.shared.records.end_group(origin, name).await?;
        let uri = origin.parse::<http::Uri>().ok();
        let Some(of) = uri.as_ref().and_then(EffectiveUri::of_uri).map(|uri| uri.to_text()) else {
            return Ok(());
        };
        // What has a name of the user's may be of any origin.
        let is_of = |url: &str| {
            service::origin(url) == service::origin(&of)
                || EffectiveUri::of_text(url).is_none_or(|uri| uri.is_named())
        };
        self.end_elsewhere(|url, group| !group.is_tag && *group.name == *name && is_of(url)).await
    }

    /// Ends the groups that are chosen, wherever stored responses are their members, if this handle is for all partitions.
    async fn end_elsewhere(&self, chosen: impl Fn(&str, &Membership) -> bool + Send + Sync) -> Result<()> {
        if !self.everywhere {
            return Ok(());
        }
        let mut keys = HashSet::new();
        let everything = EntryFilter::new();
        let mut entries = std::pin::pin!(self.entries(&everything));
        while let Some(entry) = entries.try_next().await? {
            let groups = entry.variant.response.groups.iter();
            for group in groups.filter(|group| chosen(entry.url(), group)) {
                // Those that it has ended are no longer listed: each group once.
                if keys.insert(group.key) {
                    self.shared.records.end_group_at(group.key).await?;
                }
            }
        }
        Ok(())
    }

    /// As [`CacheLayer::statistics`].
    pub fn statistics(&self) -> Statistics {
        self.shared.observer.statistics()
    }

    /// Returns how many bytes the storage keeps, as [`CacheLayer::usage`] does.
    ///
    /// # Errors
    /// Returns the storage's error, or [`Timeout`](crate::ErrorKind::Timeout) if it does not answer in time.
    pub async fn usage(&self) -> Result<Usage> {
        self.shared.records.usage().await
    }

    /// Asks the storage whether it works, as [`CacheLayer::check`] does.
    ///
    /// # Errors
    /// Returns why the storage cannot be used.
    pub async fn check(&self) -> Result<()> {
        self.shared.records.check().await
    }

    /// Closes the storage after everything that was begun is stored, as [`CacheLayer::close`] does.
    ///
    /// # Errors
    /// Returns [`Timeout`](crate::ErrorKind::Timeout) if the storage does not close in time, or the storage's error if
    /// something could not be written.
    pub async fn close(&self) -> Result<()> {
        self.shared.records.close().await
    }

    /// The storage itself, which knows nothing of responses.
    pub fn storage(&self) -> &S {
        self.shared.records.store.store()
    }
}

impl<S: Storage> Clone for CacheHandle<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), everywhere: self.everywhere }
    }
}

impl<S: Storage> fmt::Debug for CacheHandle<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheHandle").field("across_partitions", &self.everywhere).finish_non_exhaustive()
    }
}
