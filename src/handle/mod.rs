//! A handle to inspect and modify stored responses: [`CacheHandle`].
//!
//! Each file has one kind of method: `find` (one request or URL), `listing` (all entries), `change` (deletions and new
//! lifetimes), `expire` (makes stale), `copy` with `destination` (to another storage), `survey` (damaged and unused records),
//! `warm` with `sitemap` (fetches in advance), `sweeper`, and `verdict` (why a response is not served, for `admin`).
//! An `EntryFilter` chooses responses, a `StoredEntry` describes one. The handle may call `service`, which never calls it.
//!
//! # Invariants
//! - The handle shows a response only if the cache could serve it.
//! - A fetch that was under way, in any process, does not bring back a deleted response.
//! - A storage that hangs causes an error in bounded time. Expiring and clearing are excepted, since they touch all records.
//! - Memory use does not grow with the length of bodies, and by at most about forty bytes for each entry.

mod change;
mod copy;
mod destination;
mod entry;
mod expire;
mod filter;
mod find;
mod listing;
#[cfg(feature = "sitemap")]
mod sitemap;
mod survey;
mod sweeper;
#[cfg(feature = "admin")]
mod verdict;
mod warm;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use futures_util::TryStreamExt;

pub use self::copy::CopyReport;
pub use self::entry::StoredEntry;
pub use self::filter::EntryFilter;
pub use self::listing::StorageSize;
pub use self::survey::VerifyReport;
pub use self::sweeper::Sweeper;
#[cfg(feature = "admin")]
pub(crate) use self::verdict::{Judged, Judgement};
pub use self::warm::{WarmReport, Warmer};
use crate::entry::Membership;
use crate::error::Result;
use crate::key::EffectiveUri;
use crate::layer::CacheLayer;
#[cfg(feature = "admin")]
use crate::observe::LatencyCounts;
use crate::observe::statistics::Statistics;
use crate::service::{self, Shared};
use crate::storage::{Storage, Usage};

/// How many entries are read, copied or deleted at a time: enough to hide the latency of a network, few enough for a
/// storage that requests use meanwhile.
const AT_ONCE: usize = 16;

/// Tells how the members of a group end.
#[derive(Clone, Copy)]
enum Ending {
    Invalid,
    Stale,
}

/// A handle to inspect and modify the stored responses of a [`CacheLayer`], while the cache runs.
///
/// It is cheap to clone.
///
/// - **One request or URL**: [`has`](Self::has), [`get`](Self::get), [`read`](Self::read) and [`delete`](Self::delete) take
///   a request; [`has_url`](Self::has_url), [`get_url`](Self::get_url) and [`delete_url`](Self::delete_url) take a URL.
/// - **Listing**: [`entries`](Self::entries) and [`urls`](Self::urls) are streams, chosen by an [`EntryFilter`];
///   [`size`](Self::size) counts, [`verify`](Self::verify) checks.
/// - **Changing**: [`delete_matching`](Self::delete_matching), [`delete_expired`](Self::delete_expired),
///   [`clear`](Self::clear), [`reset_expiry`](Self::reset_expiry), [`invalidate_tag`](Self::invalidate_tag),
///   [`prune`](Self::prune), [`sweep_every`](Self::sweep_every).
/// - **Making stale** (a soft purge): [`expire`](Self::expire), [`expire_url`](Self::expire_url),
///   [`expire_matching`](Self::expire_matching), [`expire_tag`](Self::expire_tag), [`expire_group`](Self::expire_group). The
///   responses are kept, and are validated or served as stale ones are.
/// - **Moving**: [`copy_to`](Self::copy_to) copies to another storage, [`warm`](Self::warm) fetches in advance.
///
/// An **entry** is all that is stored for one URL: its first response, and variants of it where Vary or the cache's
/// settings tell requests apart. The handle judges entries by the layer's settings. It does not show a response that this
/// cache could not serve, because it was invalidated, has expired or is being written. It shows stale responses that are
/// still kept.
///
/// Where several caches share a storage, a handle sees the entries of its own cache: those with the same
/// [`partition`](crate::CacheLayerBuilder::partition) and [`key_secret`](crate::CacheLayerBuilder::key_secret). With
/// [`across_partitions`](Self::across_partitions) it sees all entries, also those that a `CacheMiddleware` keeps in a
/// partition of its own. Tags and groups always include the partitions of the layer's middlewares.
///
/// Operations of the handle do not count in the [`statistics`](Self::statistics), except for invalidations. The handle may
/// change the storage of a [`read_only`](crate::CacheLayerBuilder::read_only) cache too.
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
    /// Includes the entries of other caches on the storage.
    across_partitions: bool,
}

impl<S: Storage, M> CacheLayer<S, M> {
    /// Returns a handle to inspect and modify stored responses.
    pub fn handle(&self) -> CacheHandle<S> {
        CacheHandle { shared: Arc::clone(self.shared()), across_partitions: false }
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
        self.across_partitions = all;
        self
    }

    /// Invalidates all responses with this tag, as [`CacheLayer::invalidate_tag`] does.
    ///
    /// A handle [`across_partitions`](Self::across_partitions) reads the whole storage, and invalidates the tag in every
    /// partition that has a response with it.
    ///
    /// # Errors
    /// Returns the storage's error if the storage could not be read, or has not acknowledged the write.
    pub async fn invalidate_tag(&self, name: &str) -> Result<()> {
        self.shared.records.invalidate_tag(name).await?;
        self.end_tag_elsewhere(name, Ending::Invalid).await
    }

    async fn end_tag_elsewhere(&self, name: &str, ending: Ending) -> Result<()> {
        self.end_elsewhere(ending, |_, group| group.is_tag && *group.name == *name).await
    }

    /// Invalidates all responses in a group of an origin, as [`CacheLayer::invalidate_group`] does.
    ///
    /// A handle [`across_partitions`](Self::across_partitions) does so as [`invalidate_tag`](Self::invalidate_tag) does.
    ///
    /// # Errors
    /// Returns [`Config`](crate::ErrorKind::Config) if `origin` is malformed, or the storage's error if the storage could
    /// not be read, or has not acknowledged the write.
    pub async fn invalidate_group(&self, origin: &str, name: &str) -> Result<()> {
        self.shared.records.invalidate_origin_group(origin, name).await?;
        self.end_group_elsewhere(origin, name, Ending::Invalid).await
    }

    async fn end_group_elsewhere(&self, origin: &str, name: &str, ending: Ending) -> Result<()> {
        let uri = origin.parse::<http::Uri>().ok();
        let Some(of) = uri.as_ref().and_then(EffectiveUri::of_uri).map(|uri| uri.to_text()) else {
            return Ok(());
        };
        // An entry that the user named may be of any origin.
        let is_of = |url: &str| {
            service::origin(url) == service::origin(&of)
                || EffectiveUri::of_text(url).is_none_or(|uri| uri.is_named())
        };
        self.end_elsewhere(ending, |url, group| !group.is_tag && *group.name == *name && is_of(url)).await
    }

    /// Invalidates or expires the chosen groups of every partition, if this handle is for all of them.
    async fn end_elsewhere(
        &self,
        ending: Ending,
        chosen: impl Fn(&str, &Membership) -> bool + Send + Sync,
    ) -> Result<()> {
        if !self.across_partitions {
            return Ok(());
        }
        let mut keys = HashSet::new();
        let everything = EntryFilter::new();
        let mut entries = std::pin::pin!(self.entries(&everything));
        while let Some(entry) = entries.try_next().await? {
            let groups = entry.variant.response.groups.iter();
            for group in groups.filter(|group| chosen(entry.url(), group)) {
                // Each group once: it may have many members.
                if keys.insert(group.key) {
                    match ending {
                        Ending::Invalid => self.shared.records.invalidate_group_at(group.key).await?,
                        Ending::Stale => self.shared.records.expire_group(group.key).await?,
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns what the cache has done since it was built, as [`CacheLayer::statistics`] does.
    pub fn statistics(&self) -> Statistics {
        self.shared.observer.statistics()
    }

    /// Returns how long the origin took for the heads of responses, and the storage for its operations.
    #[cfg(feature = "admin")]
    pub(crate) fn latencies(&self) -> (LatencyCounts, LatencyCounts) {
        let observer = &self.shared.observer;
        (observer.origin_latency.counts(), observer.storage_latency.counts())
    }

    /// Returns the time by the clock of the cache.
    #[cfg(feature = "admin")]
    pub(crate) fn now(&self) -> crate::time::Timestamp {
        self.shared.config.clock.now()
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

    /// Returns the storage, which knows records and no responses.
    pub fn storage(&self) -> &S {
        self.shared.records.storage.inner()
    }
}

impl<S: Storage> Clone for CacheHandle<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), across_partitions: self.across_partitions }
    }
}

impl<S: Storage> fmt::Debug for CacheHandle<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheHandle")
            .field("across_partitions", &self.across_partitions)
            .finish_non_exhaustive()
    }
}
