//! The storage and its settings.

use std::fmt;
use std::future::poll_fn;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::task::Poll;

use foldhash::quality::RandomState;
use futures_core::Stream;

use super::builder::MemoryStorageBuilder;
use super::contest::{Contest, GOLDEN, LOOKS, SHARE, Way, mix};
use super::group::{self, ENTRY, FORM, Group, Named};
use super::table::Table;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::evictions::evicted;
use crate::storage::holds::Holds;
use crate::storage::{Hold, Key, Kind, Record, Retain, Stamp, Storage, Usage};
use crate::time::Timestamp;

/// The part of the bound that has a lock of its own: few entries in many shards could not be compared well.
const SHARD_BYTES: u64 = 8 * 1024 * 1024;
const MOST_SHARDS: u64 = 64;
/// Every so many hits of a shard, the clock that all shards read is moved: it is written seldom, since it is read at each.
const TICK: u64 = 16;
/// So many entries are dropped before others may run.
const DROPPED_AT_ONCE: usize = 256;

/// Keeps records in this process. Clones are handles of the same store.
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
    max_entry: u64,
    /// The bodies that are being read.
    holds: Arc<Holds>,
    /// What all entries weigh, and what is reserved for records that are being written.
    used: AtomicU64,
    /// How many heads and variants there are.
    listed: AtomicU64,
    /// How many entries were ever made.
    born: AtomicU64,
    /// Counts uses, about.
    clock: AtomicU64,
    random: AtomicU64,
    contest: Mutex<Contest>,
    /// What the contest says at present.
    by_recency: AtomicBool,
}

#[derive(Default)]
struct Shard {
    hits: AtomicU64,
    table: RwLock<Table>,
}

/// Whether reading this is a request's use of the entry, and not a part of one.
fn counts(key: Key) -> bool {
    matches!(key.kind, Kind::Head | Kind::Group)
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
    /// Makes a storage with the default settings.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// A storage of this bound.
    pub(super) fn bounded(max_bytes: u64) -> Self {
        // Far from where sums would overflow.
        let max_bytes = max_bytes.min(u64::MAX / 4);
        let shards = (max_bytes / SHARD_BYTES).clamp(1, MOST_SHARDS);
        let hasher = RandomState::default();
        let seed = hasher.hash_one(0_u64);
        Self(Arc::new(Inner {
            shards: (0..shards).map(|_| Shard::default()).collect(),
            hasher,
            max_bytes,
            max_entry: max_bytes / 2,
            holds: Arc::default(),
            used: AtomicU64::new(0),
            listed: AtomicU64::new(0),
            born: AtomicU64::new(0),
            clock: AtomicU64::new(0),
            random: AtomicU64::new(seed),
            contest: Mutex::new(Contest::new(max_bytes, seed)),
            by_recency: AtomicBool::new(false),
        }))
    }

    /// Makes a builder of a storage with other settings.
    pub fn builder() -> MemoryStorageBuilder {
        MemoryStorageBuilder::default()
    }

    pub(super) fn born(&self) -> u64 {
        self.0.born.load(Ordering::SeqCst)
    }

    pub(super) fn table(&self, shard: usize) -> Option<RwLockReadGuard<'_, Table>> {
        self.0.shards.get(shard).map(Shard::read)
    }

    fn find(&self, key: Key) -> (Named, &Shard) {
        let hash = self.0.hasher.hash_one(u128::from_ne_bytes(key.entry));
        // Not the bits by which the index or the contest choose.
        let shard = (hash >> 32) as usize % self.0.shards.len();
        (Named { hash, entry: key.entry }, &self.0.shards[shard])
    }

    fn get(&self, key: Key) -> Option<Record> {
        let (name, shard) = self.find(key);
        let table = shard.read();
        let node = table.get(&name)?;
        let record = node.group.get(key)?.clone();
        if shard.hits.fetch_add(1, Ordering::Relaxed) % TICK == TICK - 1 {
            self.0.clock.fetch_add(TICK, Ordering::Relaxed);
        }
        let now = self.0.clock.load(Ordering::Relaxed);
        let before = table.used(node, now, counts(key));
        let (weight, has_grown) = (node.group.weight(), node.group.has_grown(key));
        drop(table);
        // What was used just now is a hit in any way of choosing.
        if counts(key) && now.saturating_sub(before) > 2 * TICK {
            self.note_use(name, weight);
        }
        if has_grown {
            self.count_again(key, record.stamp());
        }
        Some(record)
    }

    /// As `get`, but does not count as a use.
    fn peek<T>(&self, key: Key, what: impl FnOnce(&Record) -> T) -> Option<T> {
        let (name, shard) = self.find(key);
        shard.read().get(&name)?.group.get(key).map(what)
    }

    fn note_use(&self, name: Named, weight: u64) {
        if !name.hash.is_multiple_of(SHARE) {
            return;
        }
        // Nothing waits for statistics.
        if let Ok(mut contest) = self.0.contest.try_lock() {
            let way = contest.note(name.hash, weight);
            self.0.by_recency.store(way == Way::Recent, Ordering::Relaxed);
        }
    }

    fn random(&self) -> u64 {
        mix(self.0.random.fetch_add(GOLDEN, Ordering::Relaxed))
    }

    /// Reserves room, which other entries than `own` give; false: they have none left.
    fn reserve(&self, bytes: u64, own: &Named) -> bool {
        // Counted before there is room, so that two that reserve at once do not use the same room.
        self.0.used.fetch_add(bytes, Ordering::AcqRel);
        while self.0.used.load(Ordering::Acquire) > self.0.max_bytes {
            if !self.evict(own) {
                self.0.used.fetch_sub(bytes, Ordering::AcqRel);
                return false;
            }
        }
        true
    }

    /// Evicts one entry, one that is held after all others; false: there is none but `own`.
    fn evict(&self, own: &Named) -> bool {
        let holds = &*self.0.holds;
        if !holds.any() {
            return self.evict_but(own, None, LOOKS);
        }
        self.evict_but(own, Some(holds), LOOKS)
            || self.evict_but(own, Some(holds), usize::MAX)
            || self.evict_but(own, None, LOOKS)
    }

    /// Evicts the worst entry of `looks`; false: there is none among them that may go.
    fn evict_but(&self, own: &Named, spared: Option<&Holds>, looks: usize) -> bool {
        let shards = &self.0.shards;
        let way = if self.0.by_recency.load(Ordering::Relaxed) { Way::Recent } else { Way::Frequent };
        let now = self.0.clock.load(Ordering::Relaxed);
        // A few looks into each of some shards, and more shards where these are empty.
        let some = shards.len().min(LOOKS / 2);
        let first = self.random() as usize;
        let mut worst: Option<(u64, Named, u64, usize)> = None;
        for step in 0..shards.len() {
            if step >= some && looks == LOOKS && worst.is_some() {
                break;
            }
            let shard = first.wrapping_add(step) % shards.len();
            let found = shards[shard].read().worst(way, now, own, spared, looks / some, || self.random());
            if let Some((score, name, born)) = found
                && worst.is_none_or(|worst| score > worst.0)
            {
                worst = Some((score, name, born, shard));
            }
        }
        let Some((_, name, born, shard)) = worst else { return false };
        let gone = {
            let mut table = shards[shard].write();
            // Another may have taken it away meanwhile, which is as good.
            if table.get(&name).is_none_or(|node| node.born != born) {
                return true;
            }
            let gone = table.remove(&name);
            // Under the lock: a writer of the same entry counts from zero again.
            if let Some(gone) = &gone {
                self.0.listed.fetch_sub(gone.listed(), Ordering::Relaxed);
            }
            gone
        };
        if let Some(gone) = gone {
            let weight = gone.weight();
            drop(gone);
            self.0.used.fetch_sub(weight, Ordering::AcqRel);
            evicted("memory", 1);
        }
        true
    }

    /// Writes a record, if `seen` is the stamp of what is there or is not asked for; says whether it is there now.
    fn put(&self, key: Key, seen: Option<Option<Stamp>>, record: Record) -> Result<bool> {
        let expected = |there: Option<Stamp>| match seen {
            Some(_) if there == Some(record.stamp()) => Some(true),
            Some(seen) if there != seen => Some(false),
            _ => None,
        };
        // Before anything is evicted for a record that is not written.
        if let Some(told) = seen.and_then(|_| expected(self.peek(key, Record::stamp))) {
            return Ok(told);
        }
        let cost = group::cost(key, &record);
        let most = group::entry_cost(key).saturating_add(cost);
        let too_large = || {
            let what = "the entry would take more than half of the memory storage: raise its max_bytes to keep such entries";
            Error::new(ErrorKind::TooLarge, what)
        };
        if most.saturating_add(group::form_room(key.kind, &record)) > self.0.max_entry {
            return Err(too_large());
        }
        let (name, shard) = self.find(key);
        if !self.reserve(most, &name) {
            return Err(too_large());
        }
        let mut gone = Vec::new();
        let mut table = shard.write();
        let there = table.get(&name).and_then(|node| node.group.get(key)).map(Record::stamp);
        if let Some(told) = expected(there) {
            drop(table);
            self.0.used.fetch_sub(most, Ordering::AcqRel);
            return Ok(told);
        }
        let now = self.0.clock.fetch_add(1, Ordering::Relaxed);
        let is_new = table.get(&name).is_none();
        if is_new {
            table.insert(name, Group::default(), self.0.born.fetch_add(1, Ordering::SeqCst), now);
        }
        let (mut taken, mut weight) = (false, 0);
        if let Some(node) = table.get_mut(&name) {
            let (before, listed) = (if is_new { 0 } else { node.group.weight() }, node.group.listed());
            // A new group has room for what is no heavier than an entry may be.
            taken = node.group.make_room(key, cost, self.0.max_entry, &self.0.holds, &mut gone);
            if taken {
                gone.extend(node.group.put(key, record));
            }
            weight = node.group.weight();
            self.0.used.fetch_sub(most + before - weight, Ordering::AcqRel);
            self.0.listed.fetch_add(node.group.listed().wrapping_sub(listed), Ordering::Relaxed);
        }
        // A new one is marked already.
        if taken
            && !is_new
            && let Some(node) = table.get(&name)
        {
            table.used(node, now, false);
        }
        drop(table);
        if is_new {
            self.note_use(name, weight);
        }
        if taken { Ok(true) } else { Err(too_large()) }
    }

    /// Counts a record again that has got its decoded form. The entry goes if there is no room for it.
    fn count_again(&self, key: Key, stamp: Stamp) {
        let Some(cost) = self.peek(key, |record| group::cost(key, record)) else { return };
        let (name, shard) = self.find(key);
        let has_room = self.reserve(cost, &name);
        let (mut gone, mut group_gone) = (Vec::new(), None);
        let (mut before, mut after) = (0, 0);
        let mut table = shard.write();
        if let Some(node) = table.get_mut(&name)
            && node.group.get(key).is_some_and(|there| there.stamp() == stamp)
        {
            let listed = node.group.listed();
            before = node.group.weight();
            let fits =
                has_room && node.group.make_room(key, cost, self.0.max_entry, &self.0.holds, &mut gone);
            if fits && let Some(record) = node.group.remove(group::place(key)) {
                node.group.put(key, record);
            }
            after = node.group.weight();
            let mut left = node.group.listed();
            if !fits {
                group_gone = table.remove(&name);
                (after, left) = (0, 0);
            }
            self.0.listed.fetch_sub(listed - left, Ordering::Relaxed);
        }
        drop(table);
        drop((gone, group_gone));
        let reserved = if has_room { cost } else { 0 };
        self.0.used.fetch_sub(reserved + before - after, Ordering::AcqRel);
    }

    /// Takes a record out, if `when` says so.
    fn remove(&self, key: Key, when: impl FnOnce(&Record) -> bool) -> bool {
        let (name, shard) = self.find(key);
        let mut table = shard.write();
        let Some(node) = table.get_mut(&name).filter(|node| node.group.get(key).is_some_and(when)) else {
            return false;
        };
        let before = node.group.weight();
        let gone = node.group.remove(group::place(key));
        let after = if node.group.is_empty() {
            table.remove(&name);
            0
        } else {
            node.group.weight()
        };
        self.0.listed.fetch_sub(u64::from(key.kind.is_listed()), Ordering::Relaxed);
        self.0.used.fetch_sub(before - after, Ordering::AcqRel);
        drop(table);
        gone.is_some()
    }

    fn retain_one(&self, key: Key, retain: Retain) -> bool {
        let moves = |record: &Record| retain.apply(record.retain_until()) != record.retain_until();
        match self.peek(key, moves) {
            Some(true) => {
                let (name, shard) = self.find(key);
                shard.write().get_mut(&name).is_some_and(|node| node.group.retain(key, retain))
            }
            there => there.is_some(),
        }
    }
}

/// What was taken out of a shard: it counts until it is dropped, also where clearing is given up half way.
struct Cleared<'a, I: Iterator<Item = Group>> {
    inner: &'a Inner,
    groups: I,
}

impl<I: Iterator<Item = Group>> Cleared<'_, I> {
    /// False: nothing is left.
    fn drop_some(&mut self) -> bool {
        let mut some = false;
        for group in self.groups.by_ref().take(DROPPED_AT_ONCE) {
            let (weight, listed) = (group.weight(), group.listed());
            drop(group);
            self.inner.used.fetch_sub(weight, Ordering::AcqRel);
            self.inner.listed.fetch_sub(listed, Ordering::Relaxed);
            some = true;
        }
        some
    }
}

impl<I: Iterator<Item = Group>> Drop for Cleared<'_, I> {
    fn drop(&mut self) {
        while self.drop_some() {}
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

/// Lets other tasks run, on whatever runtime this is.
async fn step_aside() {
    let mut aside = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut aside, true) {
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

    /// Drops the records in steps, between which other tasks run.
    async fn clear(&self) -> Result<()> {
        for shard in &self.0.shards {
            let table = std::mem::take(&mut *shard.write());
            let mut cleared = Cleared { inner: &self.0, groups: table.into_groups() };
            while cleared.drop_some() {
                step_aside().await;
            }
        }
        self.0.contest.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }

    fn keys(&self) -> impl Stream<Item = Result<Key>> + Send {
        self.listing(|key, _| Some(key))
    }

    fn read_now(&self, key: Key) -> Option<Result<Option<Record>>> {
        Some(Ok(self.get(key)))
    }

    async fn contains(&self, key: Key) -> Result<bool> {
        Ok(self.peek(key, |_| ()).is_some())
    }

    /// Looks for each: an entry that needs room lets go of its oldest bodies.
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

    /// Looks at every record, in steps between which other tasks run.
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
                // It may have been written again meanwhile.
                deleted += u64::from(self.remove(key, |record| record.retain_until() <= now));
            }
            step_aside().await;
        }
        Ok(deleted)
    }

    /// The greatest that fits into an entry of its own, with a decoded form.
    fn max_record_len(&self) -> usize {
        let empty = Record::new(bytes::Bytes::new(), Timestamp::EPOCH).memory() as u64;
        let Some(room) = self.0.max_entry.checked_sub(ENTRY + empty + FORM) else { return 0 };
        // As an allocator rounds: eight bytes of its own, multiples of sixteen, and 32 at least.
        let longest = if room < 32 { 0 } else { room / 16 * 16 - 8 };
        usize::try_from(longest).unwrap_or(usize::MAX / 4) + Record::OVERHEAD
    }

    /// As long as a chunk may be: a record that is written again shares the bytes of its body.
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

    /// Does nothing: the records go with the last handle.
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
