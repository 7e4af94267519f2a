//! The state that all services and clones of one layer share. Fields only: each belongs to the room that its type is of.

#[cfg(feature = "reqwest")]
use std::collections::HashMap;
use std::collections::HashSet;
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

pub(crate) struct Shared<S: Storage> {
    pub(crate) config: Arc<Config>,
    /// May change while the cache runs.
    pub(crate) rules: Arc<RwLock<Arc<Rules>>>,
    /// How many guards switch the cache off.
    pub(crate) disablers: Arc<AtomicUsize>,
    pub(crate) observer: Arc<Observer>,
    pub(crate) records: Arc<Records<S>>,
    pub(crate) flights: Arc<Flights<S>>,
    /// Entries whose origin failed while a stale response would do.
    pub(super) failing_origins: RecentKeys,
    /// The entries that are being refreshed in the background: one refresh each, a bounded number in all.
    pub(super) refreshing: Mutex<HashSet<Key>>,
    /// The mistakes of the setup that were told, one bit for each reason of a bypass.
    pub(super) told_bypasses: Arc<AtomicU32>,
    /// The partitions of this cache that are in use, by name: as many as the user makes. Partitions of a partition are
    /// listed here as well.
    #[cfg(feature = "reqwest")]
    partitions: Arc<Mutex<HashMap<String, Weak<Self>>>>,
}

fn next_number() -> u64 {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

impl<S: Storage> Shared<S> {
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
            told_bypasses: Arc::default(),
            #[cfg(feature = "reqwest")]
            partitions: Arc::default(),
            config,
            observer,
        })
    }

    /// Returns the same cache in a partition of its own, which shares the storage, the statistics, and the invalidations of
    /// groups and tags. The same name gives the same partition for as long as it is in use.
    #[cfg(feature = "reqwest")]
    pub(crate) fn partitioned(self: &Arc<Self>, name: &str) -> Arc<Self> {
        let mut config = Config::clone(&self.config);
        if config.partition.is_empty() {
            config.partition = name.to_owned();
        } else {
            config.partition = format!("{}\0{}{name}", config.partition.len(), config.partition);
        }
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = partitions.get(&config.partition).and_then(Weak::upgrade) {
            return shared;
        }
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
            told_bypasses: Arc::clone(&self.told_bypasses),
            partitions: Arc::clone(&self.partitions),
        });
        partitions.insert(full_name, Arc::downgrade(&shared));
        shared
    }

    pub(crate) fn is_disabled(&self) -> bool {
        self.disablers.load(Ordering::Relaxed) > 0
    }
}
