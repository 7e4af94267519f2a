//! The state that all services and clones of one layer share.
//!
//! It has fields and no behaviour: each field belongs to the module that its type is from.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
#[cfg(feature = "reqwest")]
use std::sync::{PoisonError, Weak};

use super::coalesce::Flights;
use super::config::Config;
use super::records::{RecentKeys, Records};
use crate::observe::Observer;
use crate::rules::Rules;
use crate::storage::{Key, Storage};

/// Tells how a fetch in the background has begun.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begun {
    /// As a refresh, when a stored response was served.
    Early,
    /// As the fetch of a request, which got another response because the origin is slow.
    Deserted,
}

/// The state of one cache, or of one partition of it.
pub(crate) struct Shared<S: Storage> {
    pub(crate) config: Arc<Config>,
    /// The current rules. They may be replaced while the cache runs. The lock is held only to clone or replace the inner
    /// `Arc`, so that readers do not wait for the user's closures.
    pub(crate) rules: Arc<RwLock<Arc<Rules>>>,
    /// The number of guards that disable the cache.
    pub(crate) disablers: Arc<AtomicUsize>,
    pub(crate) observer: Arc<Observer>,
    pub(crate) records: Arc<Records<S>>,
    pub(crate) flights: Arc<Flights<S>>,
    /// The records whose origin failed recently, and that were served stale then.
    pub(super) failing_origins: RecentKeys,
    /// The keys for which a fetch runs in the background. A bounded number, one fetch each.
    pub(super) refreshing: Mutex<HashMap<Key, Begun>>,
    /// The bypasses that were warned about, with one bit for each reason.
    pub(super) warned_bypasses: Arc<AtomicU32>,
    /// The partitions of this cache that are in use, by name. Their number is up to the user. Partitions of a partition are
    /// listed here as well.
    #[cfg(feature = "reqwest")]
    partitions: Arc<Mutex<HashMap<String, Weak<Self>>>>,
}

/// Returns a number that no other cache in this process has.
fn next_number() -> u64 {
    // Relaxed, since the numbers only have to differ.
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

impl<S: Storage> Shared<S> {
    /// Returns the state of a new cache.
    pub(crate) fn new(storage: S, config: Config) -> Arc<Self> {
        let observer = Observer::new(config.label());
        let config = Arc::new(config);
        let records = Records::new(storage, Arc::clone(&config), Arc::clone(&observer), next_number());
        Arc::new(Self {
            rules: Arc::new(RwLock::new(Arc::new(config.rules.clone()))),
            disablers: Arc::default(),
            records: Arc::new(records),
            flights: Arc::default(),
            failing_origins: RecentKeys::default(),
            refreshing: Mutex::default(),
            warned_bypasses: Arc::default(),
            #[cfg(feature = "reqwest")]
            partitions: Arc::default(),
            config,
            observer,
        })
    }

    /// Returns a partition of this cache.
    ///
    /// It shares the storage, the statistics, and the invalidations of groups and tags. While a partition is in use, the same
    /// name returns the same partition.
    #[cfg(feature = "reqwest")]
    pub(crate) fn partitioned(self: &Arc<Self>, name: &str) -> Arc<Self> {
        let mut config = Config::clone(&self.config);
        if config.partition.is_empty() {
            config.partition = name.to_owned();
        } else {
            // With the length in front, so that no two pairs of names give the same text.
            config.partition = format!("{}\0{}{name}", config.partition.len(), config.partition);
        }
        // Held until the partition is in the map, so that two requests with one name get one partition.
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = partitions.get(&config.partition).and_then(Weak::upgrade) {
            return shared;
        }
        // Removes those that are no longer in use, so that the map is bounded by the partitions in use.
        partitions.retain(|_, shared| shared.strong_count() > 0);
        let (full_name, config) = (config.partition.clone(), Arc::new(config));
        let records = self.records.partition(Arc::clone(&config), next_number());
        let shared = Arc::new(Self {
            config,
            rules: Arc::clone(&self.rules),
            disablers: Arc::clone(&self.disablers),
            observer: Arc::clone(&self.observer),
            records: Arc::new(records),
            flights: Arc::default(),
            failing_origins: RecentKeys::default(),
            refreshing: Mutex::default(),
            warned_bypasses: Arc::clone(&self.warned_bypasses),
            partitions: Arc::clone(&self.partitions),
        });
        partitions.insert(full_name, Arc::downgrade(&shared));
        shared
    }

    /// Returns whether a guard disables the cache.
    pub(crate) fn is_disabled(&self) -> bool {
        // Relaxed: a request that runs at the same time as the guard is made may take either course.
        self.disablers.load(Ordering::Relaxed) > 0
    }
}
