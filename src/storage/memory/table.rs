//! The entries of a shard, indexed by their identifiers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::entry_records::{EntryId, EntryRecords, TableEntry};
use super::eviction_policy::{BuildIdentityHasher, EVICTION_SAMPLE, EvictionPolicy, MAX_USES};
use crate::storage::holds::Holds;

/// When and how often an entry was used.
///
/// Eight bits hold the number of uses, and the bits above them the storage's clock at the last use.
///
/// It is atomic because hits share the lock of the shard. `Relaxed` is enough: no other memory depends on it, and a use that is
/// lost to a concurrent one makes no difference to an eviction.
#[derive(Debug)]
struct UseMark(AtomicU64);

impl UseMark {
    fn new(now: u64) -> Self {
        Self(AtomicU64::new(now << 8))
    }

    /// Returns the time of the last use, and the number of uses.
    fn read(&self) -> (u64, u8) {
        let mark = self.0.load(Ordering::Relaxed);
        (mark >> 8, mark as u8)
    }

    /// Records a use, and returns the time of the previous one.
    fn record(&self, now: u64, counts: bool) -> u64 {
        let (before, uses) = self.read();
        let uses_now = if counts { (uses + 1).min(MAX_USES) } else { uses };
        // A write that changes nothing would still take the cache line from the other cores.
        if (before, uses) != (now, uses_now) {
            self.0.store(now << 8 | u64::from(uses_now), Ordering::Relaxed);
        }
        before
    }
}

#[derive(Debug, Default)]
pub(super) struct Table {
    index: HashMap<EntryId, u32, BuildIdentityHasher>,
    /// An entry keeps its position while it exists, so that a listing does not miss it.
    entries: Vec<Option<TableEntry>>,
    /// The empty positions.
    free: Vec<u32>,
    /// The occupied positions without gaps, from which an eviction picks at random.
    live: Vec<u32>,
    /// The marks of the entries at these positions, in the same order. They are apart from the entries because an eviction
    /// reads sixteen at random: marks are small and likely to be in the core's cache, entries are not.
    marks: Vec<UseMark>,
}

impl Table {
    pub(super) fn get(&self, id: &EntryId) -> Option<&TableEntry> {
        self.at(*self.index.get(id)?)
    }

    pub(super) fn get_mut(&mut self, id: &EntryId) -> Option<&mut TableEntry> {
        self.entries.get_mut(*self.index.get(id)? as usize)?.as_mut()
    }

    /// Returns the entry at a position.
    pub(super) fn at(&self, position: u32) -> Option<&TableEntry> {
        self.entries.get(position as usize)?.as_ref()
    }

    /// Returns the number of positions, occupied or empty.
    pub(super) fn positions(&self) -> u32 {
        self.entries.len() as u32
    }

    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    pub(super) fn insert(&mut self, id: EntryId, records: EntryRecords, sequence: u64, now: u64) {
        let position = self.free.pop().unwrap_or(self.entries.len() as u32);
        let live_index = self.live.len() as u32;
        let entry = TableEntry { id, records, sequence, live_index };
        match self.entries.get_mut(position as usize) {
            Some(empty) => *empty = Some(entry),
            None => self.entries.push(Some(entry)),
        }
        self.live.push(position);
        self.marks.push(UseMark::new(now));
        self.index.insert(id, position);
    }

    /// Records a use of an entry, and returns the time of the previous one.
    ///
    /// `counts` is false for a further read by the same request, which makes the entry recent but not more frequent.
    pub(super) fn record_use(&self, entry: &TableEntry, now: u64, counts: bool) -> u64 {
        self.marks.get(entry.live_index as usize).map_or(now, |mark| mark.record(now, counts))
    }

    pub(super) fn remove(&mut self, id: &EntryId) -> Option<EntryRecords> {
        let position = self.index.remove(id)?;
        let entry = self.entries.get_mut(position as usize)?.take()?;
        self.free.push(position);
        self.live.swap_remove(entry.live_index as usize);
        self.marks.swap_remove(entry.live_index as usize);
        if let Some(moved) = self.live.get(entry.live_index as usize).copied()
            && let Some(Some(moved)) = self.entries.get_mut(moved as usize)
        {
            moved.live_index = entry.live_index;
        }
        Some(entry.records)
    }

    /// Returns the entry of a sample to evict first, by its score and its index among the marks.
    ///
    /// Never returns `own`, nor an entry that `spared` holds. Looks at every entry if there are no more than `sample`.
    /// Returns `None` if there is no such entry in the sample; if all of it is spared, a larger sample may find one.
    ///
    /// Without `spared`, only marks are read.
    pub(super) fn worst(
        &self,
        policy: EvictionPolicy,
        now: u64,
        own: Option<&EntryId>,
        spared: Option<&Holds>,
        sample: usize,
        mut random: impl FnMut() -> u64,
    ) -> Option<(u64, usize)> {
        let len = self.live.len();
        let all = len <= EVICTION_SAMPLE.max(sample);
        let own = own.and_then(|own| self.get(own)).map(|entry| entry.live_index as usize);
        let candidates = (0..if all { len } else { sample }).map(|look| match all {
            true => look,
            false => (random() % len as u64) as usize,
        });
        let candidates = candidates.filter(|at| Some(*at) != own && !self.is_spared(*at, spared));
        candidates.filter_map(|at| Some((self.score(policy, now, at)?, at))).max_by_key(|(score, _)| *score)
    }

    /// Removes the entry at an index among the marks, if it is still to be evicted.
    ///
    /// It is not if another entry is there, or if it was used since [`worst`](Self::worst) has returned its `score`.
    pub(super) fn remove_worst(
        &mut self,
        policy: EvictionPolicy,
        now: u64,
        own: &EntryId,
        spared: Option<&Holds>,
        (score, at): (u64, usize),
    ) -> Option<EntryRecords> {
        let id = self.at(*self.live.get(at)?)?.id;
        let is_worst = self.score(policy, now, at).is_some_and(|now| now >= score);
        if id == *own || !is_worst || self.is_spared(at, spared) { None } else { self.remove(&id) }
    }

    /// Returns the score of the entry at an index among the marks. The highest is evicted first.
    fn score(&self, policy: EvictionPolicy, now: u64, at: usize) -> Option<u64> {
        let (last_use, uses) = self.marks.get(at)?.read();
        Some(policy.score(now.saturating_sub(last_use), uses))
    }

    fn is_spared(&self, at: usize, spared: Option<&Holds>) -> bool {
        let Some(spared) = spared else { return false };
        let entry = self.live.get(at).and_then(|position| self.at(*position));
        entry.is_some_and(|entry| spared.has_entry(&entry.id.entry))
    }

    /// Returns the records of all entries, for the caller to drop outside the lock.
    pub(super) fn into_records(self) -> impl Iterator<Item = EntryRecords> + Send {
        self.entries.into_iter().flatten().map(|entry| entry.records)
    }
}
