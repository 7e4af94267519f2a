//! Invalidations that the storage has not acknowledged yet.
//!
//! An entry with a pending invalidation is a miss for this process, and no response of it is stored. The invalidation stays
//! pending until the storage has acknowledged a tombstone.
//!
//! The number of pending invalidations is bounded. At the bound, the invalidations of the origin that has most of them are
//! dropped, and every response of this origin whose fetch began before counts as invalidated. If no origin has many of them,
//! or if this has happened to too many origins, all invalidations are dropped, and every response whose fetch began before
//! counts as invalidated.
//!
//! # Invariants
//!
//! - At most [`MAX_PENDING`] invalidations and [`MAX_ORIGINS`] origins are kept.
//! - This process does not serve a response that a pending or a dropped invalidation covers.
//! - At most one task retries them at a time. It ends only when none is pending, or with its runtime.
//!
//! # Locks
//!
//! `heads` is locked before `origins` if both are held. Both are std `Mutex`es: each is held for operations on one map, never
//! across an await. At the bound, `heads` is held for a pass over the whole map, which removes at least a hundredth of it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::groups::origin;
use crate::key::EffectiveUri;
use crate::storage::Key;
use crate::time::Timestamp;

/// How many invalidations are kept. Each takes less than 100 bytes, so that they take at most one megabyte.
const MAX_PENDING: usize = 10_000;
/// How many invalidations are dropped at least. If fewer were dropped, the bound would soon be reached again, and each time
/// costs a pass over all of them.
const MIN_DROPPED: usize = MAX_PENDING / 100;
/// How many origins are remembered whose earlier responses count as invalidated. Each lookup may have to search them.
const MAX_ORIGINS: usize = 1000;

/// The invalidations that the storage has not acknowledged.
#[derive(Debug, Default)]
pub(crate) struct PendingInvalidations {
    /// The number of pending invalidations, so that the usual lookup takes no lock. It is stored under the lock of `heads`.
    ///
    /// SeqCst pairs with `settling`: [`add`](Self::add) stores the length, and `settling` is swapped afterwards, while a task
    /// that ends resets `settling` and then loads the length. One of the two must see the other, or no task would retry the
    /// invalidation.
    len: AtomicUsize,
    /// The latest invalidation of each head or group.
    heads: Mutex<HashMap<Key, PendingInvalidation>>,
    /// The number of the next invalidation. Relaxed, since the numbers only have to differ.
    next: AtomicU64,
    /// Every response whose fetch began by this time counts as invalidated.
    ///
    /// In milliseconds since the epoch, or zero if there is no such time.
    ///
    /// It is raised under the lock of `heads`, before the invalidations that it covers are removed for other tasks. SeqCst
    /// makes a task that no longer finds one of them see the new value.
    all_before: AtomicU64,
    /// The same time for the responses of single origins, by their hashes. Locked after `heads`.
    origins: Mutex<HashMap<u64, Timestamp>>,
    /// The length of `origins`, so that the usual lookup takes no lock. Ordered as `all_before` is.
    origins_len: AtomicUsize,
    /// Random, so that no origin can choose a name with another origin's hash.
    hasher: RandomState,
    /// A task retries the pending invalidations. Ordered with `len`, see there.
    settling: AtomicBool,
}

/// One invalidation of a head or group.
#[derive(Clone, Copy, Debug)]
struct PendingInvalidation {
    id: InvalidationId,
    /// The hash of its origin. `None` if the invalidation may concern any origin.
    origin: Option<u64>,
}

/// Tells an invalidation from a later one of the same head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidationId(u64);

/// Marks that a task retries the pending invalidations.
///
/// The mark is removed when this is dropped, and not by a call at the end of the task: a task that is dropped with its
/// runtime does not reach its end.
pub(crate) struct Settler(Arc<PendingInvalidations>);

impl Drop for Settler {
    fn drop(&mut self) {
        self.0.settling.store(false, Ordering::SeqCst);
    }
}

impl PendingInvalidations {
    /// Adds an invalidation before it is tried.
    ///
    /// `of` is the URI or key text of what is invalidated. `None` if that may belong to any origin.
    pub(crate) fn add(&self, head: Key, of: Option<&str>, now: Timestamp) {
        let id = InvalidationId(self.next.fetch_add(1, Ordering::Relaxed));
        let origin = of.and_then(|text| self.hash(text));
        let mut heads = self.lock();
        if heads.len() >= MAX_PENDING && !heads.contains_key(&head) {
            self.make_room(&mut heads, now);
        }
        heads.insert(head, PendingInvalidation { id, origin });
        self.len.store(heads.len(), Ordering::SeqCst);
    }

    /// Drops the invalidations of the origin that has most of them, or all.
    fn make_room(&self, heads: &mut HashMap<Key, PendingInvalidation>, now: Timestamp) {
        let mut counts: HashMap<Option<u64>, usize> = HashMap::new();
        heads.values().for_each(|pending| *counts.entry(pending.origin).or_default() += 1);
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        let mut origins = self.origins();
        match most {
            Some((Some(origin), count))
                if count >= MIN_DROPPED && (origins.len() < MAX_ORIGINS || origins.contains_key(&origin)) =>
            {
                heads.retain(|_, pending| pending.origin != Some(origin));
                origins.insert(origin, now);
                tracing::warn!(
                    "too many invalidations wait for the storage: what is stored of their origin counts as stale"
                );
            }
            _ => {
                heads.clear();
                // `all_before` covers all origins from here on.
                origins.clear();
                // The maximum, since the clock may have been set back.
                self.all_before.fetch_max(now.as_millis(), Ordering::SeqCst);
                tracing::warn!(
                    "too many invalidations wait for the storage: all that is stored counts as stale"
                );
            }
        }
        self.origins_len.store(origins.len(), Ordering::SeqCst);
    }

    /// Removes an invalidation that the storage has acknowledged. A later one of the same head stays.
    pub(crate) fn remove(&self, head: Key, id: InvalidationId) {
        let mut heads = self.lock();
        if heads.get(&head).is_some_and(|pending| pending.id == id) {
            heads.remove(&head);
        }
        self.len.store(heads.len(), Ordering::SeqCst);
    }

    /// Returns the pending invalidation of a head or group.
    pub(crate) fn get(&self, head: Key) -> Option<InvalidationId> {
        if self.is_empty() { None } else { self.lock().get(&head).map(|pending| pending.id) }
    }

    /// Returns whether no invalidation is pending.
    pub(crate) fn is_empty(&self) -> bool {
        self.len.load(Ordering::SeqCst) == 0
    }

    /// Returns the heads and groups of all pending invalidations.
    pub(crate) fn keys(&self) -> Vec<Key> {
        let mut keys: Vec<Key> = self.lock().keys().copied().collect();
        // In an order that does not change from run to run, so that a random test can be replayed.
        keys.sort_unstable();
        keys
    }

    /// Returns the mark of the task that retries the invalidations.
    ///
    /// Returns `None` if there is such a task already.
    pub(crate) fn begin_settling(self: &Arc<Self>) -> Option<Settler> {
        let is_first = !self.settling.swap(true, Ordering::SeqCst);
        is_first.then(|| Settler(Arc::clone(self)))
    }

    /// Returns whether no dropped invalidation covers a response.
    ///
    /// `requested` is when the fetch of the response began, and `key_text` the text of its key.
    pub(crate) fn permits(&self, requested: Timestamp, key_text: &str) -> bool {
        let before = self.all_before.load(Ordering::SeqCst);
        if before != 0 && requested.as_millis() <= before {
            return false;
        }
        if self.origins_len.load(Ordering::SeqCst) == 0 {
            return true;
        }
        let origins = self.origins();
        match self.hash(key_text) {
            Some(origin) => origins.get(&origin).is_none_or(|before| requested > *before),
            // The name was chosen by the user, so that the response may be from any origin.
            None => origins.values().all(|before| requested > *before),
        }
    }

    /// Returns the hash of the origin of a URI or key text.
    ///
    /// Returns `None` for a name that the user chose.
    fn hash(&self, text: &str) -> Option<u64> {
        let is_named = EffectiveUri::of_text(text).is_none_or(|uri| uri.is_named());
        (!is_named).then(|| self.hasher.hash_one(origin(text)))
    }

    fn origins(&self) -> MutexGuard<'_, HashMap<u64, Timestamp>> {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, PendingInvalidation>> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32, of: u8) -> Key {
        let mut entry = [of; 16];
        entry[..4].copy_from_slice(&n.to_be_bytes());
        Key::head(entry)
    }

    const EVIL: &str = "https://evil.example/1";
    const BANK: &str = "https://bank.example/";

    #[test]
    fn overflow_by_one_origin_invalidates_only_that_origin() {
        let (pending, now, later) =
            (PendingInvalidations::default(), Timestamp::from_secs(10), Timestamp::from_secs(11));
        pending.add(key(0, 1), Some(BANK), now);
        for n in 0..25_000 {
            pending.add(key(n, 2), Some(EVIL), now);
        }
        assert!(pending.get(key(0, 1)).is_some(), "the other's is still pending");
        assert!(pending.get(key(0, 2)).is_none() && pending.get(key(24_999, 2)).is_some());
        assert!(!pending.permits(now, "https://evil.example/2") && pending.permits(later, EVIL));
        assert!(pending.permits(now, BANK) && pending.permits(now, "http://evil.example/1"));
        // A name that the user gave may be in a group of any origin.
        assert!(!pending.permits(now, "cache-key:///a") && pending.permits(later, "cache-key:///a"));
    }

    #[test]
    fn overflow_by_many_origins_invalidates_all() {
        let (pending, now) = (PendingInvalidations::default(), Timestamp::from_secs(10));
        for n in 0..10_000 {
            pending.add(key(n, 2), Some(&format!("http://{n}.example/")), now);
        }
        assert!(pending.permits(now, BANK));
        pending.add(key(10_000, 2), None, now);
        assert!(!pending.permits(now, BANK) && pending.permits(Timestamp::from_secs(11), BANK));
    }
}
