//! Invalidations that the store has not taken yet.
//!
//! Promises: an entry that is owed an invalidation is a miss for this process, and nothing is stored for it, until the
//! store has taken the tombstone; the number kept is bounded, and when there are too many, everything that was stored
//! before counts as invalidated.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::storage::Key;
use crate::time::Timestamp;

const MOST: usize = 10_000;

#[derive(Debug, Default)]
pub(crate) struct Owed {
    /// The map's length, so that the usual case takes no lock.
    len: AtomicUsize,
    /// Heads, with the number of the latest invalidation of each.
    heads: Mutex<HashMap<Key, u64>>,
    next: AtomicU64,
    /// What was stored up to then, in milliseconds since the epoch, is not believed any more.
    all_before: AtomicU64,
    /// A task is there that carries out what is owed.
    settling: AtomicBool,
}

/// One invalidation that is to be carried out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Debt(u64);

impl Owed {
    /// Notes an invalidation, before it is tried.
    pub(crate) fn add(&self, head: Key, now: Timestamp) -> Debt {
        let debt = self.next.fetch_add(1, Ordering::SeqCst);
        let mut heads = self.lock();
        if heads.len() >= MOST && !heads.contains_key(&head) {
            heads.clear();
            self.all_before.fetch_max(now.as_millis(), Ordering::SeqCst);
            tracing::warn!("too many invalidations wait for the storage: all that is stored counts as stale");
        }
        heads.insert(head, debt);
        self.len.store(heads.len(), Ordering::SeqCst);
        Debt(debt)
    }

    /// The store has taken it. A later one for the same head stays.
    pub(crate) fn settle(&self, head: Key, debt: Debt) {
        let mut heads = self.lock();
        if heads.get(&head) == Some(&debt.0) {
            heads.remove(&head);
        }
        self.len.store(heads.len(), Ordering::SeqCst);
    }

    /// What this head is owed.
    pub(crate) fn debt(&self, head: Key) -> Option<Debt> {
        if self.is_empty() { None } else { self.lock().get(&head).copied().map(Debt) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len.load(Ordering::SeqCst) == 0
    }

    /// Some head that is owed something.
    pub(crate) fn any(&self) -> Option<(Key, Debt)> {
        self.lock().iter().next().map(|(key, debt)| (*key, Debt(*debt)))
    }

    /// True for the one that is to carry out what is owed.
    pub(crate) fn begin_settling(&self) -> bool {
        !self.settling.swap(true, Ordering::SeqCst)
    }

    pub(crate) fn end_settling(&self) {
        self.settling.store(false, Ordering::SeqCst);
    }

    /// Whether what was stored at this time can still be believed.
    pub(crate) fn believes(&self, stored: Timestamp) -> bool {
        let before = self.all_before.load(Ordering::SeqCst);
        before == 0 || stored.as_millis() > before
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, u64>> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
