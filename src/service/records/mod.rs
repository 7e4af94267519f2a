//! Reads and writes the records of entries.
//!
//! [`Records`] is the storage as one cache of this process sees it: with deadlines and circuit breakers (`guard`), with the
//! in-flight writes (`in_flight`), and without the entries whose invalidation is pending (`pending_invalidations`). Requests
//! write heads, variants and chunks only through this folder.
//!
//! # Invariants
//!
//! - A lookup never refreshes the stamps that it saw; every later write of the same request is compared with them.
//! - A record that this process has announced is found by its lookups until the storage has answered.
//! - After an invalidation is settled, no process serves a response whose fetch began before it.
//! - Every operation of the storage that a request waits for ends within its deadline.
//! - Every map that grows with keys or groups has a bound. Reaching it costs hits, never correctness.
//!
//! # Locks
//!
//! All locks of this folder are std `Mutex`es, and none is held across an await. Only two pairs are nested: a chain's lock
//! within that of the in-flight writes, and the origins' lock within that of the pending invalidations.
//!
//! # Neighbours
//!
//! Calls `entry`, `policy`, `key` and `storage`. Called by every other folder of `service`. It knows no flights, and never
//! calls the inner service.

mod backlog;
mod bounded_map;
mod breaker;
mod changes;
mod chunks;
mod entity_tags;
mod expiry;
mod groups;
mod guard;
mod idle;
mod in_flight;
mod invalidation;
mod lease;
mod lookup;
mod pending_invalidations;
mod recent_keys;
mod search;
mod selectors;
mod writer;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
#[cfg(feature = "metrics")]
use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(feature = "metrics")]
use std::time::Duration;

use self::changes::Changes;
use self::guard::Guarded;
use self::in_flight::InFlightWrites;
use self::pending_invalidations::PendingInvalidations;
use super::config::Config;
use super::tasks::Tasks;
use crate::error::Result;
use crate::key::Keyer;
use crate::observe::Observer;
use crate::storage::{Storage, Usage, random_id};

pub(crate) use self::chunks::{ReadDeadline, RetainedBody};
pub(crate) use self::expiry::{EXPIRY_ATTEMPTS, contended};
pub(crate) use self::groups::{CLOCK_SKEW, GroupName, GroupState, origin, report_ignored_groups};
pub(crate) use self::guard::within;
pub(crate) use self::in_flight::ChunkWrite;
pub(crate) use self::lease::{Lease, Leased};
pub(crate) use self::lookup::{Found, HeadKey, PriorRead, Snapshot, usable_head, variant_in};
pub(crate) use self::recent_keys::RecentKeys;
#[cfg(feature = "content-keys")]
pub(crate) use self::selectors::ContentKey;
#[cfg(feature = "reqwest")]
pub(crate) use self::selectors::HiddenFields;
pub(crate) use self::selectors::{forget_content, is_by_content};
pub(crate) use self::writer::{Part, PlaceholderWrite, Warming, WriteError, Writer};

/// The minimum time between two readings of the storage's usage. A reading may be a scan of the storage.
#[cfg(feature = "metrics")]
const USAGE_INTERVAL: Duration = Duration::from_secs(5);

/// The readings of the storage's usage, which all partitions share.
#[cfg(feature = "metrics")]
#[derive(Default)]
struct UsageReadings {
    /// When the usage was read last, in milliseconds since the epoch.
    last: AtomicU64,
    /// A task waits to read it for the responses that were stored since.
    is_planned: AtomicBool,
}

/// A task that is going to read the usage, until it is dropped: when it begins to read, or when its runtime goes away.
#[cfg(feature = "metrics")]
struct PlannedReading(Arc<UsageReadings>);

#[cfg(feature = "metrics")]
impl Drop for PlannedReading {
    fn drop(&mut self) {
        self.0.is_planned.store(false, Ordering::Relaxed);
    }
}

/// The records of one cache.
///
/// These are the records in the storage, and the changes that the storage has not acknowledged yet.
pub(crate) struct Records<S: Storage> {
    pub(crate) config: Arc<Config>,
    pub(crate) tasks: Tasks,
    pub(crate) observer: Arc<Observer>,
    /// The storage with its breakers and its backlog, which all partitions share.
    pub(crate) storage: Arc<Guarded<S>>,
    pub(crate) keyer: Keyer,
    /// Makes the keys of groups and tags. All partitions use that of the layer, since they share groups.
    pub(crate) group_keyer: Keyer,
    pub(crate) in_flight: Arc<InFlightWrites>,
    pub(crate) pending: Arc<PendingInvalidations>,
    /// The groups that this process has invalidated, and its deletions by filter.
    pub(crate) changes: Arc<Changes>,
    /// The records that are outdated in a storage to which this cache may not write, or that are being replaced.
    pub(crate) outdated: RecentKeys,
    /// The entries whose responses cannot be shared. Requests for them do not wait for each other.
    pub(crate) uncoalescable: RecentKeys,
    /// The entries whose responses cannot be shared by requests with Authorization, in a shared cache.
    pub(crate) uncoalescable_authorized: RecentKeys,
    /// The entries whose responses cannot be fetched in slices.
    pub(crate) unsliced: RecentKeys,
    /// The lists of paths that were not in the storage a moment ago (No-Vary-Search).
    unlisted: RecentKeys,
    /// The records whose retention times are being moved, since they were used.
    moves: idle::Moves,
    /// A response was stored under an assumed scheme.
    has_assumed_scheme: AtomicBool,
    /// The number of this cache in the process.
    ///
    /// Two caches of one process may share decoded records in memory, which keep the freshness that one of them has
    /// computed by its own policy. The number tells by which.
    pub(crate) number: u64,
    /// The random id of this cache, which tells it from the caches of other processes.
    pub(crate) id: [u8; 16],
    #[cfg(feature = "metrics")]
    usage_readings: Arc<UsageReadings>,
    /// The records of the layer, if this is a partition of it.
    root: Option<Arc<Self>>,
}

impl<S: Storage> Records<S> {
    /// Returns the records of a cache.
    pub(crate) fn new(storage: S, config: Arc<Config>, observer: Arc<Observer>, number: u64) -> Self {
        Self {
            storage: Arc::new(Guarded::new(storage, &config, Arc::clone(&observer))),
            keyer: Keyer::new(&config.key_secret, &config.partition, config.policy.shared),
            group_keyer: Keyer::new(&config.key_secret, &config.partition, config.policy.shared),
            tasks: Tasks::default(),
            in_flight: Arc::default(),
            pending: Arc::default(),
            changes: Arc::default(),
            outdated: RecentKeys::default(),
            uncoalescable: RecentKeys::default(),
            uncoalescable_authorized: RecentKeys::default(),
            unsliced: RecentKeys::default(),
            unlisted: RecentKeys::default(),
            moves: idle::Moves::default(),
            has_assumed_scheme: AtomicBool::new(false),
            number,
            id: random_id(),
            #[cfg(feature = "metrics")]
            usage_readings: Arc::default(),
            root: None,
            config,
            observer,
        }
    }

    /// Returns the records of a partition.
    ///
    /// It shares the storage, the groups and the pending invalidations.
    #[cfg(feature = "reqwest")]
    pub(crate) fn partition(self: &Arc<Self>, config: Arc<Config>, number: u64) -> Self {
        let root = self.root();
        Self {
            storage: Arc::clone(&self.storage),
            keyer: Keyer::new(&config.key_secret, &config.partition, config.policy.shared),
            group_keyer: root.group_keyer.clone(),
            tasks: self.tasks.clone(),
            observer: Arc::clone(&self.observer),
            // Its own: the keys of a partition differ from those of any other.
            in_flight: Arc::default(),
            pending: Arc::clone(&self.pending),
            changes: Arc::clone(&self.changes),
            outdated: RecentKeys::default(),
            uncoalescable: RecentKeys::default(),
            uncoalescable_authorized: RecentKeys::default(),
            unsliced: RecentKeys::default(),
            unlisted: RecentKeys::default(),
            moves: idle::Moves::default(),
            has_assumed_scheme: AtomicBool::new(false),
            number,
            id: self.id,
            #[cfg(feature = "metrics")]
            usage_readings: Arc::clone(&self.usage_readings),
            root: Some(Arc::clone(root)),
            config,
        }
    }

    /// Returns the records of the layer, of which this may be a partition.
    fn root(self: &Arc<Self>) -> &Arc<Self> {
        self.root.as_ref().unwrap_or(self)
    }

    /// Returns how much the storage holds.
    pub(crate) async fn usage(&self) -> Result<Usage> {
        within(self.config.operation_timeout, self.storage.inner().usage()).await
    }

    /// Returns an error if the storage cannot be used.
    pub(crate) async fn check(&self) -> Result<()> {
        within(self.config.operation_timeout, self.storage.inner().check()).await
    }

    /// Closes the storage after the running tasks have ended, or at the latest after `body_timeout`.
    pub(crate) async fn close(&self) -> Result<()> {
        let timeout = self.config.body_timeout;
        let idle = async {
            self.tasks.idle().await;
            Ok(())
        };
        let _ = within(timeout, idle).await; // a task that hangs must not keep the storage from being closed
        within(timeout, self.storage.inner().close()).await
    }

    /// Spawns a task that reports how much the storage holds: at once, or later if that was reported recently.
    #[cfg(feature = "metrics")]
    fn report_usage(self: &Arc<Self>) {
        let now = self.config.clock.now().as_millis();
        let last = self.usage_readings.last.load(Ordering::Relaxed);
        let is_due = last == 0 || now < last || now - last >= USAGE_INTERVAL.as_millis() as u64;
        // Of several tasks that find it due, only the one whose exchange succeeds reads the usage. Relaxed, since the time
        // publishes no other memory.
        let order = Ordering::Relaxed;
        if is_due && self.usage_readings.last.compare_exchange(last, now, order, order).is_ok() {
            let records = Arc::clone(self);
            // In a task, so that no response waits for the reading.
            self.tasks.spawn(async move { records.read_usage().await });
            return;
        }
        // The last response of many is reported too: without this, the gauge would show the first one until the next burst.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.usage_readings.is_planned.swap(true, order) {
            return;
        }
        let planned = PlannedReading(Arc::clone(&self.usage_readings));
        // It holds no storage open. It is not counted as a task of the cache either, since `idle` need not wait for a gauge.
        let records = Arc::downgrade(self);
        runtime.spawn(async move {
            tokio::time::sleep(USAGE_INTERVAL).await;
            // Before the reading, so that a response that it may miss plans the next one.
            drop(planned);
            if let Some(records) = records.upgrade() {
                let now = records.config.clock.now().as_millis();
                records.usage_readings.last.store(now, order);
                records.read_usage().await;
            }
        });
    }

    /// Reports how much the storage holds, if it knows.
    #[cfg(feature = "metrics")]
    async fn read_usage(&self) {
        if let Ok(usage) = self.usage().await {
            self.observer.report_usage(usage);
        }
    }

    #[cfg(not(feature = "metrics"))]
    #[allow(clippy::unused_self)]
    fn report_usage(&self) {}
}
