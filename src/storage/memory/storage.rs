//! The [`MemoryStorage`] type.

use std::fmt;
use std::future::poll_fn;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::task::Poll;

use bytes::Bytes;
use foldhash::quality::RandomState;
use futures_core::Stream;

use super::builder::MemoryStorageBuilder;
use super::entry_records::{self, DECODED_FORM, ENTRY, EntryId, EntryRecords};
use super::eviction_policy::{
    EVICTION_SAMPLE, EvictionPolicy, PolicyTrial, SAMPLE_RATE, SPLIT_MIX_STEP, split_mix,
};
use super::table::Table;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::evictions::evicted;
use crate::storage::holds::Holds;
use crate::storage::{Hold, Key, Kind, Record, Retain, Stamp, Storage, Usage};
use crate::time::Timestamp;

/// The part of the bound that has a lock of its own. Smaller shards would have too few entries for an eviction to compare.
const SHARD_BYTES: u64 = 8 * 1024 * 1024;
/// More locks than there are cores in most machines, so that more of them would not help.
const MAX_SHARDS: u64 = 64;
/// After so many hits of a shard, it advances the clock that all shards read. Every hit reads the clock, so writing it each time
/// would make the cores wait for its cache line.
const CLOCK_STEP: u64 = 16;
/// How many entries are dropped before other tasks may run.
const DROP_BATCH: usize = 256;

/// A storage in the memory of this process.
///
/// Clones are handles to the same storage. It has a [bound](MemoryStorageBuilder::max_bytes), and evicts entries to stay
/// within it.
///
/// ```
/// use tower_response_cache::storage::MemoryStorage;
///
/// let storage = MemoryStorage::builder().max_bytes(256 * 1024 * 1024).build();
/// ```
#[derive(Clone)]
pub struct MemoryStorage(Arc<Inner>);

struct Inner {
    shards: Box<[Shard]>,
    hasher: RandomState,
    max_bytes: u64,
    /// The most that one entry may take.
    max_entry_bytes: u64,
    /// The length of the longest record that fits into an entry of its own, with room for its decoded form.
    ///
    /// Computed once, since it is asked for each write.
    max_record_len: usize,
    /// The bodies that are being read.
    holds: Arc<Holds>,
    /// The weight of all entries, and what is reserved for records that are being written.
    used: AtomicU64,
    /// The number of heads and variants.
    listed: AtomicU64,
    /// The number of entries that were ever created.
    created: AtomicU64,
    /// The time that ages are measured in, which is about the number of uses.
    clock: AtomicU64,
    random: AtomicU64,
    trial: Mutex<PolicyTrial>,
    /// The policy that the trial has chosen. Apart from the trial, so that an eviction need not lock it.
    prefers_recency: AtomicBool,
}

#[derive(Default)]
struct Shard {
    hits: AtomicU64,
    table: RwLock<Table>,
}

/// Returns whether reading this record counts as a request's use of the entry. Reading its other records does not.
fn counts_as_use(key: Key) -> bool {
    matches!(key.kind, Kind::Head | Kind::Group)
}

/// Returns the length of the longest record that fits into an entry of its own.
///
/// The entry then also has room for the decoded form.
fn max_record_len(max_entry_bytes: u64) -> usize {
    let empty = Record::new(Bytes::new(), Timestamp::EPOCH).memory() as u64;
    let Some(room) = max_entry_bytes.checked_sub(ENTRY + empty + DECODED_FORM) else { return 0 };
    // The inverse of `heap_bytes`: eight bytes for the allocator, multiples of sixteen, and at least 32.
    let longest = if room < 32 { 0 } else { room / 16 * 16 - 8 };
    usize::try_from(longest).unwrap_or(usize::MAX / 4) + Record::OVERHEAD
}

impl Shard {
    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryStorage {
    /// Creates a storage with the default settings.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Creates a storage with this bound.
    pub(super) fn bounded(max_bytes: u64) -> Self {
        // So far below the maximum that no sum of weights overflows.
        let max_bytes = max_bytes.min(u64::MAX / 4);
        let shards = (max_bytes / SHARD_BYTES).clamp(1, MAX_SHARDS);
        let hasher = RandomState::default();
        let seed = hasher.hash_one(0_u64);
        Self(Arc::new(Inner {
            shards: (0..shards).map(|_| Shard::default()).collect(),
            hasher,
            max_bytes,
            max_entry_bytes: max_bytes / 2,
            max_record_len: max_record_len(max_bytes / 2),
            holds: Arc::default(),
            used: AtomicU64::new(0),
            listed: AtomicU64::new(0),
            created: AtomicU64::new(0),
            clock: AtomicU64::new(0),
            random: AtomicU64::new(seed),
            trial: Mutex::new(PolicyTrial::new(max_bytes, seed)),
            prefers_recency: AtomicBool::new(false),
        }))
    }

    /// Creates a builder for a storage with other settings.
    pub fn builder() -> MemoryStorageBuilder {
        MemoryStorageBuilder::default()
    }

    /// Returns the sequence number that the next entry gets.
    pub(super) fn next_sequence(&self) -> u64 {
        self.0.created.load(Ordering::SeqCst)
    }

    pub(super) fn table(&self, shard: usize) -> Option<RwLockReadGuard<'_, Table>> {
        self.0.shards.get(shard).map(Shard::read)
    }

    /// Returns the identifier and the shard of an entry.
    fn find(&self, key: Key) -> (EntryId, &Shard) {
        let hash = self.0.hasher.hash_one(u128::from_ne_bytes(key.entry));
        (EntryId { hash, entry: key.entry }, &self.0.shards[self.shard_of(hash)])
    }

    /// Returns the shard of an entry with a hash.
    fn shard_of(&self, hash: u64) -> usize {
        // Other bits than those that the index and the trial use, which would otherwise be alike within a shard.
        (hash >> 32) as usize % self.0.shards.len()
    }

    /// Reads a record, and records the use.
    fn get(&self, key: Key) -> Option<Record> {
        let (id, shard) = self.find(key);
        let table = shard.read();
        let entry = table.get(&id)?;
        let record = entry.records.get(key)?.clone();
        let now = self.count_hit(shard);
        let before = table.record_use(entry, now, counts_as_use(key));
        let (weight, has_grown) = (entry.records.weight(), entry.records.has_grown(key));
        drop(table);
        // An entry that was used just now is a hit with any policy, so it tells nothing about them.
        if counts_as_use(key) && now.saturating_sub(before) > 2 * CLOCK_STEP {
            self.record_trial_use(id, weight);
        }
        if has_grown {
            self.count_again(key, record.stamp());
        }
        Some(record)
    }

    /// Counts a hit of a shard, and returns the time.
    fn count_hit(&self, shard: &Shard) -> u64 {
        if shard.hits.fetch_add(1, Ordering::Relaxed) % CLOCK_STEP == CLOCK_STEP - 1 {
            self.0.clock.fetch_add(CLOCK_STEP, Ordering::Relaxed);
        }
        self.0.clock.load(Ordering::Relaxed)
    }

    /// Looks at a record without recording a use.
    fn peek<T>(&self, key: Key, look: impl FnOnce(&Record) -> T) -> Option<T> {
        let (id, shard) = self.find(key);
        shard.read().get(&id)?.records.get(key).map(look)
    }

    /// Lets the entry take part in the trial, if it is in the sample.
    fn record_trial_use(&self, id: EntryId, weight: u64) {
        if !id.hash.is_multiple_of(SAMPLE_RATE) {
            return;
        }
        // No request waits for statistics: a use that finds the trial locked is left out.
        if let Ok(mut trial) = self.0.trial.try_lock() {
            let policy = trial.record_use(id.hash, weight);
            self.0.prefers_recency.store(policy == EvictionPolicy::Recency, Ordering::Relaxed);
        }
    }

    fn random(&self) -> u64 {
        split_mix(self.0.random.fetch_add(SPLIT_MIX_STEP, Ordering::Relaxed))
    }

    /// Reserves room by evicting entries other than `own`. Returns false if there is none left to evict.
    fn reserve(&self, bytes: u64, own: &EntryId) -> bool {
        // Added before there is room, so that two tasks that reserve at the same time do not both use the same room.
        self.0.used.fetch_add(bytes, Ordering::AcqRel);
        while self.0.used.load(Ordering::Acquire) > self.0.max_bytes {
            if !self.evict(own) {
                self.0.used.fetch_sub(bytes, Ordering::AcqRel);
                return false;
            }
        }
        true
    }

    /// Evicts one entry other than `own`. Returns false if there is none.
    ///
    /// Evicts a held entry only if there is no other.
    fn evict(&self, own: &EntryId) -> bool {
        let holds = &*self.0.holds;
        if !holds.any() {
            return self.evict_worst(own, None, EVICTION_SAMPLE);
        }
        // A sample first. If all of it is held, every entry is looked at, and only then is a held one evicted.
        self.evict_worst(own, Some(holds), EVICTION_SAMPLE)
            || self.evict_worst(own, Some(holds), usize::MAX)
            || self.evict_worst(own, None, EVICTION_SAMPLE)
    }

    /// Evicts the worst entry of a sample. Returns false if the sample has none that may be evicted.
    fn evict_worst(&self, own: &EntryId, spared: Option<&Holds>, sample: usize) -> bool {
        let shards = &self.0.shards;
        let policy = match self.0.prefers_recency.load(Ordering::Relaxed) {
            true => EvictionPolicy::Recency,
            false => EvictionPolicy::Frequency,
        };
        let now = self.0.clock.load(Ordering::Relaxed);
        // A few entries in each of some shards, which costs fewer locks than one in each; more shards if these are empty.
        // Entries are spread over the shards at random, so that a few shards represent all.
        let some = shards.len().min(EVICTION_SAMPLE / 4);
        let first = self.random() as usize;
        let mut worst: Option<((u64, usize), usize)> = None;
        for step in 0..shards.len() {
            if step >= some && sample == EVICTION_SAMPLE && worst.is_some() {
                break;
            }
            let shard = first.wrapping_add(step) % shards.len();
            // Only the shard of `own` has to look for it.
            let own = Some(own).filter(|own| self.shard_of(own.hash) == shard);
            let found = shards[shard].read().worst(policy, now, own, spared, sample / some, || self.random());
            if let Some(found) = found
                && worst.is_none_or(|(worst, _)| found.0 > worst.0)
            {
                worst = Some((found, shard));
            }
        }
        let Some((found, shard)) = worst else { return false };
        let evicted_records = {
            let mut table = shards[shard].write();
            let removed = table.remove_worst(policy, now, own, spared, found);
            // Under the lock, because a writer that creates the entry again counts it from zero.
            if let Some(removed) = &removed {
                self.0.listed.fetch_sub(removed.listed(), Ordering::Relaxed);
            }
            removed
        };
        // If another task has used or removed the entry since the lock was released, the caller tries again.
        if let Some(evicted_records) = evicted_records {
            let weight = evicted_records.weight();
            // Dropped before its room is given to others, so that the memory stays within the bound.
            drop(evicted_records);
            self.0.used.fetch_sub(weight, Ordering::AcqRel);
            evicted("memory", 1);
        }
        true
    }

    /// Writes a record. With `seen`, writes only if the current record has that stamp.
    ///
    /// Returns whether the record is written, as `write_if` does.
    fn put(&self, key: Key, seen: Option<Option<Stamp>>, record: Record) -> Result<bool> {
        let compared = |current: Option<Stamp>| match seen {
            Some(_) if current == Some(record.stamp()) => Some(true),
            Some(seen) if current != seen => Some(false),
            _ => None,
        };
        // Compared here too, so that no entry is evicted for a record that is not written.
        if let Some(answer) = seen.and_then(|_| compared(self.peek(key, Record::stamp))) {
            return Ok(answer);
        }
        let cost = entry_records::record_cost(key, &record);
        // As if the entry were new. What is not needed is given back below.
        let reserved = entry_records::entry_cost(key).saturating_add(cost.bytes);
        let too_large = || {
            let message = "the entry would take more than half of the memory storage: raise its max_bytes to keep such entries";
            Error::new(ErrorKind::TooLarge, message)
        };
        if reserved.saturating_add(entry_records::form_room(key.kind, &record)) > self.0.max_entry_bytes {
            return Err(too_large());
        }
        let (id, shard) = self.find(key);
        if !self.reserve(reserved, &id) {
            return Err(too_large());
        }
        // Declared before the lock, so that the records are dropped after it is released.
        let mut removed = Vec::new();
        let mut table = shard.write();
        let current = table.get(&id).and_then(|entry| entry.records.get(key)).map(Record::stamp);
        if let Some(answer) = compared(current) {
            drop(table);
            self.0.used.fetch_sub(reserved, Ordering::AcqRel);
            return Ok(answer);
        }
        let now = self.0.clock.fetch_add(1, Ordering::Relaxed);
        let is_new = table.get(&id).is_none();
        if is_new {
            table.insert(id, EntryRecords::default(), self.0.created.fetch_add(1, Ordering::SeqCst), now);
        }
        let (mut written, mut weight) = (false, 0);
        if let Some(entry) = table.get_mut(&id) {
            let (before, listed) = (if is_new { 0 } else { entry.records.weight() }, entry.records.listed());
            // Never fails for a new entry, whose weight was checked above. So no empty entry is left behind.
            written = entry.records.make_room(key, cost, self.0.max_entry_bytes, &self.0.holds, &mut removed);
            if written {
                removed.extend(entry.records.put(key, record, cost));
            }
            weight = entry.records.weight();
            self.0.used.fetch_sub(reserved + before - weight, Ordering::AcqRel);
            self.0.listed.fetch_add(entry.records.listed().wrapping_sub(listed), Ordering::Relaxed);
        }
        // A new entry has its mark from the insertion.
        if written
            && !is_new
            && let Some(entry) = table.get(&id)
        {
            table.record_use(entry, now, false);
        }
        drop(table);
        if is_new {
            self.record_trial_use(id, weight);
        }
        if written { Ok(true) } else { Err(too_large()) }
    }

    /// Counts a record again that has got its decoded form. Removes the entry if there is no room for the form.
    fn count_again(&self, key: Key, stamp: Stamp) {
        let cost =
            |record: &Record| (record.stamp() == stamp).then(|| entry_records::record_cost(key, record));
        let Some(cost) = self.peek(key, cost).flatten() else { return };
        let (id, shard) = self.find(key);
        // The whole cost, although most of it is counted already. That is given back below.
        let has_room = self.reserve(cost.bytes, &id);
        let (mut removed, mut removed_entry) = (Vec::new(), None);
        let (mut before, mut after) = (0, 0);
        let mut table = shard.write();
        if let Some(entry) = table.get_mut(&id)
            && entry.records.get(key).is_some_and(|current| current.stamp() == stamp)
        {
            let listed = entry.records.listed();
            before = entry.records.weight();
            let fits = has_room
                && entry.records.make_room(key, cost, self.0.max_entry_bytes, &self.0.holds, &mut removed);
            if fits && let Some(record) = entry.records.remove(entry_records::record_id(key)) {
                entry.records.put(key, record, cost);
            }
            after = entry.records.weight();
            let mut left = entry.records.listed();
            if !fits {
                removed_entry = table.remove(&id);
                (after, left) = (0, 0);
            }
            self.0.listed.fetch_sub(listed - left, Ordering::Relaxed);
        }
        drop(table);
        // After the lock is released, and before their room is given to others.
        drop((removed, removed_entry));
        let reserved = if has_room { cost.bytes } else { 0 };
        self.0.used.fetch_sub(reserved + before - after, Ordering::AcqRel);
    }

    /// Removes a record if it satisfies the condition. Returns whether it was removed.
    fn remove(&self, key: Key, condition: impl FnOnce(&Record) -> bool) -> bool {
        let (id, shard) = self.find(key);
        let mut table = shard.write();
        let Some(entry) = table.get_mut(&id).filter(|entry| entry.records.get(key).is_some_and(condition))
        else {
            return false;
        };
        let before = entry.records.weight();
        let removed = entry.records.remove(entry_records::record_id(key));
        let after = if entry.records.is_empty() {
            table.remove(&id);
            0
        } else {
            entry.records.weight()
        };
        self.0.listed.fetch_sub(u64::from(key.kind.is_listed()), Ordering::Relaxed);
        self.0.used.fetch_sub(before - after, Ordering::AcqRel);
        drop(table);
        removed.is_some()
    }

    /// Changes the retention time of a record. Returns whether there is one.
    fn retain_one(&self, key: Key, retain: Retain) -> bool {
        let changes = |record: &Record| retain.apply(record.retain_until()) != record.retain_until();
        // The exclusive lock is taken only if there is something to change.
        match self.peek(key, changes) {
            Some(true) => {
                let (id, shard) = self.find(key);
                shard.write().get_mut(&id).is_some_and(|entry| entry.records.retain(key, retain))
            }
            unchanged => unchanged.is_some(),
        }
    }
}

/// The entries that were taken out of a shard.
///
/// They count towards the bound until they are dropped, even if the future of `clear` is dropped before its end.
struct Cleared<'a, I: Iterator<Item = EntryRecords>> {
    inner: &'a Inner,
    entries: I,
}

impl<I: Iterator<Item = EntryRecords>> Cleared<'_, I> {
    /// Drops the next entries. Returns false if there are none left.
    fn drop_batch(&mut self) -> bool {
        let mut any = false;
        for records in self.entries.by_ref().take(DROP_BATCH) {
            let (weight, listed) = (records.weight(), records.listed());
            drop(records);
            self.inner.used.fetch_sub(weight, Ordering::AcqRel);
            self.inner.listed.fetch_sub(listed, Ordering::Relaxed);
            any = true;
        }
        any
    }
}

impl<I: Iterator<Item = EntryRecords>> Drop for Cleared<'_, I> {
    fn drop(&mut self) {
        while self.drop_batch() {}
    }
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries: usize = self.0.shards.iter().map(|shard| shard.read().len()).sum();
        f.debug_struct("MemoryStorage")
            .field("entries", &entries)
            .field("bytes", &self.0.used.load(Ordering::Relaxed))
            .finish()
    }
}

/// Lets other tasks run, on any runtime.
async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Storage for MemoryStorage {
    async fn read(&self, key: Key) -> Result<Option<Record>> {
        Ok(self.get(key))
    }

    async fn write(&self, key: Key, record: Record) -> Result<()> {
        self.put(key, None, record).map(|_| ())
    }

    async fn delete(&self, key: Key) -> Result<bool> {
        Ok(self.remove(key, |_| true))
    }

    /// Drops the records in batches, between which other tasks run.
    async fn clear(&self) -> Result<()> {
        for shard in &self.0.shards {
            let table = std::mem::take(&mut *shard.write());
            let mut cleared = Cleared { inner: &self.0, entries: table.into_records() };
            while cleared.drop_batch() {
                yield_now().await;
            }
        }
        self.0.trial.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }

    fn keys(&self) -> impl Stream<Item = Result<Key>> + Send {
        self.listing(|key, _| Some(key))
    }

    fn read_now(&self, key: Key) -> Option<Result<Option<Record>>> {
        Some(Ok(self.get(key)))
    }

    /// Reads all of them under one lock.
    fn read_chunks_now(&self, first: Key, last: u32, chunks: &mut [Option<Bytes>]) -> bool {
        let (id, shard) = self.find(first);
        let table = shard.read();
        let Some(entry) = table.get(&id) else { return false };
        let is_read = entry.records.read_chunks(first, last, chunks);
        if is_read {
            table.record_use(entry, self.count_hit(shard), counts_as_use(first));
        }
        is_read
    }

    async fn contains(&self, key: Key) -> Result<bool> {
        Ok(self.peek(key, |_| ()).is_some())
    }

    /// Looks for each record, since an entry that needs room removes its oldest bodies.
    async fn stamps(&self, keys: &[Key]) -> Result<Vec<Option<(Stamp, Timestamp)>>> {
        let stamp = |key: &Key| self.peek(*key, |record| (record.stamp(), record.retain_until()));
        Ok(keys.iter().map(stamp).collect())
    }

    async fn contains_all(&self, keys: &[Key]) -> Result<bool> {
        Ok(keys.iter().all(|key| self.peek(*key, |_| ()).is_some()))
    }

    async fn size(&self) -> Result<u64> {
        Ok(self.0.listed.load(Ordering::Relaxed))
    }

    fn values(&self) -> impl Stream<Item = Result<(Key, Record)>> + Send {
        self.listing(|key, record| key.kind.is_listed().then(|| (key, record.clone())))
    }

    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        self.put(key, Some(seen), record)
    }

    async fn retain(&self, keys: &[Key], retain: Retain) -> Result<u64> {
        Ok(keys.iter().map(|key| u64::from(self.retain_one(*key, retain))).sum())
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<u64> {
        Ok(keys.iter().map(|key| u64::from(self.remove(*key, |_| true))).sum())
    }

    /// Looks at every record, in batches between which other tasks run.
    async fn delete_expired(&self, now: Timestamp) -> Result<u64> {
        let mut cursor = self.cursor();
        let mut expired = Vec::new();
        let (mut more, mut deleted) = (true, 0);
        while more {
            more = self.step(&mut cursor, |key, record| {
                if record.retain_until() <= now {
                    expired.push(key);
                }
            });
            for key in expired.drain(..) {
                // Another task may have written it again since the lock was released.
                deleted += u64::from(self.remove(key, |record| record.retain_until() <= now));
            }
            yield_now().await;
        }
        Ok(deleted)
    }

    fn max_record_len(&self) -> usize {
        self.0.max_record_len
    }

    /// Returns no limit, since a record that is written again shares its body's bytes.
    fn inline_len(&self) -> usize {
        usize::MAX
    }

    fn hold(&self, chunk: Key, bytes: u64) -> Hold {
        self.0.holds.hold(chunk, bytes, self.0.max_bytes)
    }

    async fn usage(&self) -> Result<Usage> {
        Ok(Usage::new(self.0.used.load(Ordering::Relaxed), Some(self.0.max_bytes)))
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Does nothing. The records are dropped with the last handle.
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
