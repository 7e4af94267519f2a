//! What all services and clones of one layer share.

#[cfg(feature = "reqwest")]
use std::collections::HashMap;
use std::collections::HashSet;
#[cfg(feature = "reqwest")]
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::config::Config;
use super::flights::Flights;
use super::groups::Changes;
use super::guard::{Guarded, within};
use super::in_flight::InFlight;
use super::noted::Noted;
use super::owed::Owed;
use super::tasks::Tasks;
use crate::control::BypassReason;
use crate::error::Result;
use crate::key::Keyer;
use crate::observe::{Gauge, Level, Observer};
use crate::rules::Rules;
use crate::storage::{Key, Storage, Usage, random_id};

pub(crate) struct Core<S: Storage> {
    pub(crate) config: Config,
    /// May change while the cache runs.
    pub(crate) rules: Arc<RwLock<Arc<Rules>>>,
    /// How many have switched the cache off.
    pub(crate) disablers: Arc<AtomicUsize>,
    pub(crate) keyer: Keyer,
    /// Makes the keys of groups and tags: the layer's own, for all of its partitions.
    pub(crate) group_keyer: Keyer,
    /// With its breakers and its backlog, for all partitions.
    pub(crate) store: Arc<Guarded<S>>,
    pub(crate) observer: Arc<Observer>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) owed: Arc<Owed>,
    /// The groups that were invalidated here, and what was deleted by filters.
    pub(crate) changes: Arc<Changes>,
    /// Entries that are known to be outdated, where nothing may be written.
    pub(crate) outdated: Noted,
    pub(crate) tasks: Tasks,
    pub(crate) flights: Arc<Flights<S>>,
    /// Entries whose responses were for their callers alone: these do not wait for each other.
    pub(crate) alone: Noted,
    /// Entries whose origin failed while a stale response would do.
    pub(crate) failing: Noted,
    /// The mistakes of the setup that were told, one bit for each reason of a bypass.
    warned: AtomicU32,
    /// Something was stored for a request whose scheme was assumed.
    pub(crate) assumed: AtomicBool,
    /// Tells this cache's policy options from another's in what a shared record keeps decoded.
    pub(crate) number: u64,
    /// When it was shown last how much the storage keeps, in milliseconds since the epoch.
    #[cfg(feature = "metrics")]
    pub(crate) usage_shown: Arc<AtomicU64>,
    /// Tells this cache from others that share the store.
    pub(crate) id: [u8; 16],
    /// The entries that are being refreshed in the background: one refresh each, a bounded number in all.
    refreshing: Mutex<HashSet<Key>>,
    /// The cache that this is a partition of.
    #[cfg(feature = "reqwest")]
    root: Option<Arc<Self>>,
    /// The partitions of this cache that somebody uses, by name: as many as the user makes.
    #[cfg(feature = "reqwest")]
    partitions: Mutex<HashMap<String, Weak<Self>>>,
}

impl<S: Storage> Core<S> {
    pub(crate) fn new(store: S, config: Config) -> Arc<Self> {
        let observer = Observer::new(config.label());
        let store = Arc::new(Guarded::new(store, &config, Arc::clone(&observer)));
        Arc::new(Self::unshared(store, config, observer))
    }

    fn unshared(store: Arc<Guarded<S>>, config: Config, observer: Arc<Observer>) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        Self {
            group_keyer: Keyer::new(&config.secret, &config.partition, config.policy.shared),
            keyer: Keyer::new(&config.secret, &config.partition, config.policy.shared),
            store,
            observer,
            in_flight: Arc::default(),
            owed: Arc::default(),
            changes: Arc::default(),
            outdated: Noted::default(),
            tasks: Tasks::default(),
            flights: Arc::default(),
            alone: Noted::default(),
            failing: Noted::default(),
            warned: AtomicU32::new(0),
            assumed: AtomicBool::new(false),
            id: random_id(),
            #[cfg(feature = "metrics")]
            usage_shown: Arc::default(),
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            rules: Arc::new(RwLock::new(Arc::new(config.rules.clone()))),
            disablers: Arc::default(),
            refreshing: Mutex::default(),
            #[cfg(feature = "reqwest")]
            root: None,
            #[cfg(feature = "reqwest")]
            partitions: Mutex::default(),
            config,
        }
    }

    /// The same cache in a partition of its own: the store, what is counted, and the invalidations of groups and tags are
    /// shared. The same name gives the same partition for as long as somebody uses it.
    #[cfg(feature = "reqwest")]
    pub(crate) fn partitioned(self: &Arc<Self>, name: &str) -> Arc<Self> {
        let mut config = self.config.clone();
        if config.partition.is_empty() {
            config.partition = name.to_owned();
        } else {
            config.partition = format!("{}\0{}{name}", config.partition.len(), config.partition);
        }
        let root = self.root.as_ref().unwrap_or(self);
        let mut partitions = root.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(core) = partitions.get(&config.partition).and_then(Weak::upgrade) {
            return core;
        }
        partitions.retain(|_, core| core.strong_count() > 0);
        let full_name = config.partition.clone();
        let core = Arc::new(Self {
            tasks: self.tasks.clone(),
            rules: Arc::clone(&self.rules),
            disablers: Arc::clone(&self.disablers),
            group_keyer: root.group_keyer.clone(),
            owed: Arc::clone(&self.owed),
            changes: Arc::clone(&self.changes),
            id: self.id,
            #[cfg(feature = "metrics")]
            usage_shown: Arc::clone(&self.usage_shown),
            root: Some(Arc::clone(root)),
            ..Self::unshared(Arc::clone(&self.store), config, Arc::clone(&self.observer))
        });
        partitions.insert(full_name, Arc::downgrade(&core));
        core
    }

    /// The cache that lives as long as any of its partitions.
    pub(super) fn root(self: &Arc<Self>) -> &Arc<Self> {
        #[cfg(feature = "reqwest")]
        return self.root.as_ref().unwrap_or(self);
        #[cfg(not(feature = "reqwest"))]
        self
    }

    pub(crate) async fn usage(&self) -> Result<Usage> {
        within(self.config.deadline, self.store.store().usage()).await
    }

    pub(crate) async fn check(&self) -> Result<()> {
        within(self.config.deadline, self.store.store().check()).await
    }

    /// Closes the storage once what was begun has ended, or has had the time that a chunk of a body may take.
    pub(crate) async fn close(&self) -> Result<()> {
        let patience = self.config.body_deadline;
        let idle = async {
            self.tasks.idle().await;
            Ok(())
        };
        let _ = within(patience, idle).await; // what hangs is not waited for
        within(patience, self.store.store().close()).await
    }

    /// Tells once what to do about a bypass that is a mistake of the setup.
    pub(crate) fn warn_of(self: &Arc<Self>, reason: BypassReason) {
        let Some(advice) = reason.advice() else { return };
        let bit = 1 << reason as u32;
        // A plain look first: a layer that never gets a host should not write to shared memory for each request.
        let warned = &self.root().warned;
        if warned.load(Ordering::Relaxed) & bit == 0 && warned.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            tracing::warn!(reason = reason.word(), advice, "requests pass the cache by");
        }
    }

    pub(crate) fn is_disabled(&self) -> bool {
        self.disablers.load(Ordering::Relaxed) > 0
    }

    /// The right to refresh this record in the background; `None`: somebody does, or too many are.
    pub(crate) fn begin_refresh(self: &Arc<Self>, key: Key) -> Option<Refreshing<S>> {
        let mut refreshing = self.refreshing.lock().unwrap_or_else(PoisonError::into_inner);
        if refreshing.len() >= self.config.max_refreshes || !refreshing.insert(key) {
            return None;
        }
        let level = self.observer.raise(Gauge::Refreshes);
        Some(Refreshing { core: Arc::clone(self), key, _level: level })
    }
}

/// Held while a record is refreshed.
pub(crate) struct Refreshing<S: Storage> {
    core: Arc<Core<S>>,
    key: Key,
    _level: Level,
}

impl<S: Storage> Drop for Refreshing<S> {
    fn drop(&mut self) {
        self.core.refreshing.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}
