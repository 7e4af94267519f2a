//! Records that this process is still writing: asked before the store, so that a caller finds what it just had.
//!
//! Promises: a record is here from before the caller has its last byte until the store has answered. A head or variant
//! is given only to who read, in the store, the stamp that it is written against: never after an invalidation.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::storage::{Key, Record, Stamp};

#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// The map's length, so that the usual case takes no lock.
    len: AtomicUsize,
    map: Mutex<HashMap<Key, Underway>>,
}

/// A record and what its write compares with.
#[derive(Clone, Debug)]
pub(crate) struct Underway {
    pub(crate) record: Record,
    seen: Option<Stamp>,
    /// Somebody may be reading the body that it names.
    asked: bool,
}

impl Underway {
    /// The record, for one who read this in its place.
    pub(crate) fn against(self, there: Option<&Record>) -> Option<Record> {
        let there = there.map(Record::stamp);
        (there == self.seen || there == Some(self.record.stamp())).then_some(self.record)
    }
}

impl Pending {
    pub(crate) fn is_empty(&self) -> bool {
        self.len.load(Ordering::SeqCst) == 0
    }

    pub(crate) fn get(&self, key: Key) -> Option<Underway> {
        if self.is_empty() {
            return None;
        }
        let mut map = self.lock();
        let underway = map.get_mut(&key)?;
        underway.asked = true;
        Some(underway.clone())
    }

    /// The heads and variants, with where they are written.
    pub(crate) fn listed(&self) -> Vec<(Key, Record)> {
        let map = self.lock();
        let listed = map.iter().filter(|(key, _)| key.kind.is_listed());
        listed.map(|(key, underway)| (*key, underway.record.clone())).collect()
    }

    pub(crate) fn insert(&self, key: Key, seen: Option<Stamp>, record: Record) {
        let mut map = self.lock();
        map.insert(key, Underway { record, seen, asked: false });
        self.len.store(map.len(), Ordering::SeqCst);
    }

    /// The store has answered for this record; one that took its place here stays. Whether it may have been given to
    /// anybody: one whose place was taken may have been.
    pub(crate) fn remove(&self, key: Key, stamp: Stamp) -> bool {
        let mut map = self.lock();
        let own = map.get(&key).is_some_and(|underway| underway.record.stamp() == stamp);
        let asked = if own { map.remove(&key).is_some_and(|underway| underway.asked) } else { true };
        self.len.store(map.len(), Ordering::SeqCst);
        asked
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Underway>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
