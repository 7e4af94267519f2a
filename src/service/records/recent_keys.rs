//! A bounded set of keys, each with the time when it was last added.
//!
//! It is used for entries whose responses cannot be shared, for records whose origin failed recently, and for records that
//! are outdated in a storage to which this cache may not write.
//!
//! # Invariants
//!
//! - At most [`MAX_KEYS`] keys are kept. The oldest are forgotten first.
//! - A forgotten key costs a fetch, a wait or a validation, or permits a response that is fresh by its own fields.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::bounded_map::BoundedMap;
use crate::storage::Key;
use crate::time::Timestamp;

/// How many keys are kept. Each takes about 100 bytes, so that the set takes at most one megabyte.
const MAX_KEYS: usize = 10_000;

/// Remembers keys for a while.
#[derive(Debug)]
pub(crate) struct RecentKeys {
    /// The number of keys, which is stored under the lock. In the usual case of an empty set, a lookup takes no lock.
    ///
    /// Relaxed is enough: it publishes nothing, since the keys themselves are read under the lock. A task that was started or
    /// woken after `add` returned sees a length that counts the key, by the coherence of a single atomic. A task that runs at
    /// the same time may miss the key, as it would have a moment earlier.
    len: AtomicUsize,
    /// The keys. A std `Mutex`, since it is held for one operation on the map and never across an await. No other lock is
    /// taken under it.
    keys: Mutex<BoundedMap<Key, (Timestamp, Option<u16>)>>,
}

impl Default for RecentKeys {
    fn default() -> Self {
        Self { len: AtomicUsize::new(0), keys: Mutex::new(BoundedMap::new(MAX_KEYS)) }
    }
}

impl RecentKeys {
    /// Adds a key, with the status of the origin's response where that matters.
    pub(crate) fn add(&self, key: Key, now: Timestamp, code: Option<u16>) {
        let mut keys = self.lock();
        keys.insert(key, (now, code));
        self.len.store(keys.len(), Ordering::Relaxed);
    }

    /// Removes a key.
    pub(crate) fn forget(&self, key: Key) {
        if self.len.load(Ordering::Relaxed) > 0 {
            let mut keys = self.lock();
            keys.remove(&key);
            self.len.store(keys.len(), Ordering::Relaxed);
        }
    }

    /// Returns the time at which the key was last added, and with which status.
    pub(crate) fn since(&self, key: Key) -> Option<(Timestamp, Option<u16>)> {
        if self.len.load(Ordering::Relaxed) == 0 { None } else { self.lock().get(&key).copied() }
    }

    fn lock(&self) -> MutexGuard<'_, BoundedMap<Key, (Timestamp, Option<u16>)>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
