//! Invalidations that the store has not taken yet.
//!
//! Promises: an entry that is pending an invalidation is a miss for this process, and nothing is stored for it, until the
//! store has taken the tombstone; the number kept is bounded, and when there are too many, what was stored before of the
//! origin that most of them are of counts as invalidated. Where no origin stands out, or too many have, everything does.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::groups::origin;
use crate::key::EffectiveUri;
use crate::storage::Key;
use crate::time::Timestamp;

const MOST: usize = 10_000;
/// An origin of which so many are pending stands out.
const MANY: usize = MOST / 100;
/// So many origins are remembered of which nothing from before is believed.
const MOST_ORIGINS: usize = 1000;

#[derive(Debug, Default)]
pub(crate) struct PendingInvalidations {
    /// The map's length, so that the usual case takes no lock.
    len: AtomicUsize,
    heads: Mutex<HashMap<Key, Due>>,
    next: AtomicU64,
    /// What was stored up to then, in milliseconds since the epoch, is not believed any more.
    all_before: AtomicU64,
    /// The same of the origins of these hashes. Taken after `heads`.
    origins: Mutex<HashMap<u64, Timestamp>>,
    /// The length of that map.
    origins_len: AtomicUsize,
    /// No origin can choose a name that has another's hash.
    hasher: RandomState,
    /// A task is there that carries out what is pending.
    settling: AtomicBool,
}

/// What a head is pending.
#[derive(Clone, Copy, Debug)]
struct Due {
    /// The latest invalidation of it.
    pending: Pending,
    /// The hash of its origin; `None`: it may be of any.
    origin: Option<u64>,
}

/// One invalidation that is to be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pending(u64);

/// The mark that a task carries out what is pending. Given back when it is dropped, since its task may end with its runtime.
pub(crate) struct Settler(Arc<PendingInvalidations>);

impl Drop for Settler {
    fn drop(&mut self) {
        self.0.settling.store(false, Ordering::SeqCst);
    }
}

impl PendingInvalidations {
    /// Notes an invalidation, before it is tried. `of`: the URI or key text of what it ends; `None`: that may be anything.
    pub(crate) fn add(&self, head: Key, of: Option<&str>, now: Timestamp) {
        let pending = Pending(self.next.fetch_add(1, Ordering::SeqCst));
        let origin = of.and_then(|text| self.hash(text));
        let mut heads = self.lock();
        if heads.len() >= MOST && !heads.contains_key(&head) {
            self.make_room(&mut heads, now);
        }
        heads.insert(head, Due { pending, origin });
        self.len.store(heads.len(), Ordering::SeqCst);
    }

    /// Forgets those of the origin that owes most, or all.
    fn make_room(&self, heads: &mut HashMap<Key, Due>, now: Timestamp) {
        let mut counts: HashMap<Option<u64>, usize> = HashMap::new();
        heads.values().for_each(|due| *counts.entry(due.origin).or_default() += 1);
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        let mut origins = self.origins();
        match most {
            Some((Some(origin), count))
                if count >= MANY && (origins.len() < MOST_ORIGINS || origins.contains_key(&origin)) =>
            {
                heads.retain(|_, due| due.origin != Some(origin));
                origins.insert(origin, now);
                tracing::warn!(
                    "too many invalidations wait for the storage: what is stored of their origin counts as stale"
                );
            }
            _ => {
                heads.clear();
                origins.clear();
                self.all_before.fetch_max(now.as_millis(), Ordering::SeqCst);
                tracing::warn!(
                    "too many invalidations wait for the storage: all that is stored counts as stale"
                );
            }
        }
        self.origins_len.store(origins.len(), Ordering::SeqCst);
    }

    /// The store has taken it. A later one for the same head stays.
    pub(crate) fn settle(&self, head: Key, pending: Pending) {
        let mut heads = self.lock();
        if heads.get(&head).is_some_and(|due| due.pending == pending) {
            heads.remove(&head);
        }
        self.len.store(heads.len(), Ordering::SeqCst);
    }

    /// What this head is pending.
    pub(crate) fn get(&self, head: Key) -> Option<Pending> {
        if self.is_empty() { None } else { self.lock().get(&head).map(|due| due.pending) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len.load(Ordering::SeqCst) == 0
    }

    /// Some head that is pending something.
    pub(crate) fn any(&self) -> Option<(Key, Pending)> {
        self.lock().iter().next().map(|(key, due)| (*key, due.pending))
    }

    /// Returns the mark that a task carries them out; `None`: a task does already.
    pub(crate) fn begin_settling(self: &Arc<Self>) -> Option<Settler> {
        let is_first = !self.settling.swap(true, Ordering::SeqCst);
        is_first.then(|| Settler(Arc::clone(self)))
    }

    /// Whether what was stored at this time, under this key text, can still be believed.
    pub(crate) fn believes(&self, stored: Timestamp, key_text: &str) -> bool {
        let before = self.all_before.load(Ordering::SeqCst);
        if before != 0 && stored.as_millis() <= before {
            return false;
        }
        if self.origins_len.load(Ordering::SeqCst) == 0 {
            return true;
        }
        let origins = self.origins();
        match self.hash(key_text) {
            Some(origin) => origins.get(&origin).is_none_or(|before| stored > *before),
            // Its groups may be of any origin.
            None => origins.values().all(|before| stored > *before),
        }
    }

    /// The hash of the origin; `None` for a name of the user's.
    fn hash(&self, text: &str) -> Option<u64> {
        let is_named = EffectiveUri::of_text(text).is_none_or(|uri| uri.is_named());
        (!is_named).then(|| self.hasher.hash_one(origin(text)))
    }

    fn origins(&self) -> MutexGuard<'_, HashMap<u64, Timestamp>> {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Due>> {
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
    fn a_flood_of_one_origin_ends_that_origin_alone() {
        let (pending, now, later) =
            (PendingInvalidations::default(), Timestamp::from_secs(10), Timestamp::from_secs(11));
        pending.add(key(0, 1), Some(BANK), now);
        for n in 0..25_000 {
            pending.add(key(n, 2), Some(EVIL), now);
        }
        assert!(pending.get(key(0, 1)).is_some(), "the other's is still pending");
        assert!(pending.get(key(0, 2)).is_none() && pending.get(key(24_999, 2)).is_some());
        assert!(!pending.believes(now, "https://evil.example/2") && pending.believes(later, EVIL));
        assert!(pending.believes(now, BANK) && pending.believes(now, "http://evil.example/1"));
        // What the user names may be in a group of any origin.
        assert!(!pending.believes(now, "cache-key:///a") && pending.believes(later, "cache-key:///a"));
    }

    #[test]
    fn where_no_origin_stands_out_all_is_ended() {
        let (pending, now) = (PendingInvalidations::default(), Timestamp::from_secs(10));
        for n in 0..10_000 {
            pending.add(key(n, 2), Some(&format!("http://{n}.example/")), now);
        }
        assert!(pending.believes(now, BANK));
        pending.add(key(10_000, 2), None, now);
        assert!(!pending.believes(now, BANK) && pending.believes(Timestamp::from_secs(11), BANK));
    }
}
