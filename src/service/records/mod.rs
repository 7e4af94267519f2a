//! The records of entries: what a lookup finds, and every write to the storage.
//!
//! [`Records`] is the storage as one cache of this process sees it: behind deadlines and breakers (`guard`), through the
//! writes that are still in flight (`in_flight`), and without whatever has been invalidated but not yet overwritten
//! (`pending_invalidations`). Nothing outside this folder writes a head, a variant or a chunk.
//!
//! # Invariants
//!
//! - A lookup never refreshes the stamps that it saw; every later write of the same request is compared with them.
//! - What this process has announced is what its next lookup finds, until the storage has answered.
//! - After an invalidation has been settled, no response whose fetch began before it is served by any process.
//! - Every operation of the storage ends within its deadline, and a panic in one is an error of it.
//! - Whatever grows with keys or groups has a bound; reaching it costs hits, never correctness.
//!
//! # Neighbours
//!
//! Calls `entry`, `policy`, `key` and `storage`. Called by every other room. It knows no flights, and never calls the
//! inner service.

mod backlog;
mod bounded_map;
mod breaker;
mod chunks;
mod entity_tags;
mod groups;
mod guard;
mod in_flight;
mod invalidation;
mod lease;
mod lookup;
mod pending_invalidations;
mod recent_keys;
mod selectors;
mod writer;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
#[cfg(feature = "metrics")]
use std::sync::atomic::{AtomicU64, Ordering};

use self::groups::Changes;
use self::guard::Guarded;
use self::in_flight::InFlightWrites;
use self::pending_invalidations::PendingInvalidations;
use super::config::Config;
use super::tasks::Tasks;
use crate::error::Result;
use crate::key::Keyer;
use crate::observe::Observer;
use crate::storage::{Storage, Usage, random_id};

pub(crate) use self::chunks::Patience;
pub(crate) use self::groups::note_ignored;
pub(crate) use self::groups::{CLOCK_SKEW, Named, origin};
pub(crate) use self::guard::within;
pub(crate) use self::in_flight::ChunkWrite;
pub(crate) use self::lease::{Lease, Leased};
pub(crate) use self::lookup::{First, Found, Snapshot, usable_head, variant_in};
pub(crate) use self::recent_keys::RecentKeys;
pub(crate) use self::selectors::Untold;
pub(crate) use self::selectors::{ContentKey, forget_content, is_by_content};
pub(crate) use self::writer::Warming;
pub(crate) use self::writer::{Claim, Lost, Writer};

/// How often the bytes of the storage are shown at most, in milliseconds: counting them may cost the storage a scan.
#[cfg(feature = "metrics")]
const SHOWN_EVERY: u64 = 5_000;

/// One cache's records, and what this process knows of them that the storage does not know yet.
pub(crate) struct Records<S: Storage> {
    pub(crate) config: Arc<Config>,
    pub(crate) tasks: Tasks,
    pub(crate) observer: Arc<Observer>,
    /// With its breakers and its backlog, which all partitions share.
    pub(crate) store: Arc<Guarded<S>>,
    pub(crate) keyer: Keyer,
    /// Makes the keys of groups and tags: the layer's own, for all of its partitions.
    pub(crate) group_keyer: Keyer,
    pub(crate) in_flight: Arc<InFlightWrites>,
    pub(crate) pending: Arc<PendingInvalidations>,
    /// The groups that were invalidated here, and the deletions by filters.
    pub(crate) changes: Arc<Changes>,
    /// Entries that are known to be outdated, where this cache may not write.
    pub(crate) outdated: RecentKeys,
    /// Entries whose responses cannot be shared: requests for them do not wait for each other.
    pub(crate) uncoalescable: RecentKeys,
    /// The same for requests with Authorization, in a shared cache.
    pub(crate) uncoalescable_authorized: RecentKeys,
    /// A response was stored for a request whose scheme was assumed.
    has_assumed_scheme: AtomicBool,
    /// Tells this cache's policy options from another's in what a shared record keeps decoded.
    pub(crate) number: u64,
    /// Tells this cache from others that share the storage.
    pub(crate) id: [u8; 16],
    /// When the usage was shown last, in milliseconds since the epoch.
    #[cfg(feature = "metrics")]
    usage_shown: Arc<AtomicU64>,
    /// The records of the cache that this is a partition of: they live as long as any partition.
    root: Option<Arc<Self>>,
}

impl<S: Storage> Records<S> {
    pub(crate) fn new(storage: S, config: Arc<Config>, observer: Arc<Observer>, number: u64) -> Self {
        Self {
            store: Arc::new(Guarded::new(storage, &config, Arc::clone(&observer))),
            keyer: Keyer::new(&config.secret, &config.partition, config.policy.shared),
            group_keyer: Keyer::new(&config.secret, &config.partition, config.policy.shared),
            tasks: Tasks::default(),
            in_flight: Arc::default(),
            pending: Arc::default(),
            changes: Arc::default(),
            outdated: RecentKeys::default(),
            uncoalescable: RecentKeys::default(),
            uncoalescable_authorized: RecentKeys::default(),
            has_assumed_scheme: AtomicBool::new(false),
            number,
            id: random_id(),
            #[cfg(feature = "metrics")]
            usage_shown: Arc::default(),
            root: None,
            config,
            observer,
        }
    }

    /// The records of a partition: the storage, and whatever concerns groups and invalidations, are shared.
    #[cfg(feature = "reqwest")]
    pub(crate) fn partition(self: &Arc<Self>, config: Arc<Config>, number: u64) -> Self {
        let root = self.root();
        Self {
            store: Arc::clone(&self.store),
            keyer: Keyer::new(&config.secret, &config.partition, config.policy.shared),
            group_keyer: root.group_keyer.clone(),
            tasks: self.tasks.clone(),
            observer: Arc::clone(&self.observer),
            in_flight: Arc::default(),
            pending: Arc::clone(&self.pending),
            changes: Arc::clone(&self.changes),
            outdated: RecentKeys::default(),
            uncoalescable: RecentKeys::default(),
            uncoalescable_authorized: RecentKeys::default(),
            has_assumed_scheme: AtomicBool::new(false),
            number,
            id: self.id,
            #[cfg(feature = "metrics")]
            usage_shown: Arc::clone(&self.usage_shown),
            root: Some(Arc::clone(root)),
            config,
        }
    }

    /// The records that live as long as any of their partitions.
    fn root(self: &Arc<Self>) -> &Arc<Self> {
        self.root.as_ref().unwrap_or(self)
    }

    pub(crate) async fn usage(&self) -> Result<Usage> {
        within(self.config.deadline, self.store.store().usage()).await
    }

    pub(crate) async fn check(&self) -> Result<()> {
        within(self.config.deadline, self.store.store().check()).await
    }

    /// Closes the storage once all work that was begun has ended, or has had as long as a chunk of a body may take.
    pub(crate) async fn close(&self) -> Result<()> {
        let patience = self.config.body_deadline;
        let idle = async {
            self.tasks.idle().await;
            Ok(())
        };
        let _ = within(patience, idle).await; // a task that hangs must not keep the storage open
        within(patience, self.store.store().close()).await
    }

    /// Shows how much the storage keeps, when that has not been shown for a while. Asked after something was stored.
    #[cfg(feature = "metrics")]
    fn show_usage(self: &Arc<Self>) {
        let now = self.config.clock.now().as_millis();
        let shown = self.usage_shown.load(Ordering::Relaxed);
        let is_due = shown == 0 || now < shown || now - shown >= SHOWN_EVERY;
        let order = Ordering::Relaxed;
        if !is_due || self.usage_shown.compare_exchange(shown, now, order, order).is_err() {
            return;
        }
        let records = Arc::clone(self);
        self.tasks.spawn(async move {
            if let Ok(usage) = records.usage().await {
                records.observer.show_usage(usage);
            }
        });
    }

    #[cfg(not(feature = "metrics"))]
    #[allow(clippy::unused_self)]
    fn show_usage(&self) {}
}
