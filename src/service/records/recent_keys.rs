//! A bounded memory of keys with the time of the last note: entries whose responses cannot be shared, whose origin failed
//! lately, or that are known to be outdated where nothing may be written.
//!
//! # Invariants
//!
//! - Only speed depends on it; the oldest are forgotten first.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::bounded_map::BoundedMap;
use crate::storage::Key;
use crate::time::Timestamp;

/// A key takes some 100 bytes here, so that this is one megabyte.
const MOST: usize = 10_000;

#[derive(Debug)]
pub(crate) struct RecentKeys {
    /// The map's length, so that the usual case, an empty map, takes no lock.
    len: AtomicUsize,
    keys: Mutex<BoundedMap<Key, (Timestamp, Option<u16>)>>,
}

impl Default for RecentKeys {
    fn default() -> Self {
        Self { len: AtomicUsize::new(0), keys: Mutex::new(BoundedMap::new(MOST)) }
    }
}

impl RecentKeys {
    /// Notes a key, with the status that the origin answered with where that matters.
    pub(crate) fn add(&self, key: Key, now: Timestamp, code: Option<u16>) {
        let mut keys = self.lock();
        keys.insert(key, (now, code));
        self.len.store(keys.len(), Ordering::SeqCst);
    }

    pub(crate) fn forget(&self, key: Key) {
        if self.len.load(Ordering::SeqCst) > 0 {
            let mut keys = self.lock();
            keys.remove(&key);
            self.len.store(keys.len(), Ordering::SeqCst);
        }
    }

    /// Returns when the key was noted last, and with which status.
    pub(crate) fn since(&self, key: Key) -> Option<(Timestamp, Option<u16>)> {
        if self.len.load(Ordering::SeqCst) == 0 { None } else { self.lock().get(&key).copied() }
    }

    fn lock(&self) -> MutexGuard<'_, BoundedMap<Key, (Timestamp, Option<u16>)>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
