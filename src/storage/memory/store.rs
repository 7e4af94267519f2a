//! The storage and its settings.

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_core::Stream;
use futures_util::stream;
use quick_cache::sync::Cache;
use quick_cache::{OptionsBuilder, Weighter};

use super::going::Evicting;
use super::group::{Group, OVERHEAD};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Key, Record, Retain, Stamp, Storage};
use crate::time::Timestamp;

const STRIPES: usize = 32;
/// An entry may take a shard and no more: nearly half of the bound.
const SHARDS: u64 = 2;
/// The share of a shard that holds what is used often, in percent. What is heavier is dropped by the cache, silently
/// and with what it replaces, so entries stay below it by more than its rounding.
const HOT: u64 = 97;

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
    entries: Cache<[u8; 16], Group, GroupWeight, EntryHasher, Evicting>,
    /// Changes of one entry take turns, so that a group is read, changed and put back by one at a time.
    turns: [Mutex<()>; STRIPES],
    max_entry: u64,
}

/// Settings of a [`MemoryStorage`], from [`MemoryStorage::builder`].
#[derive(Clone, Debug)]
#[must_use]
pub struct MemoryStorageBuilder {
    max_bytes: u64,
}

impl MemoryStorageBuilder {
    /// How many bytes are kept at most. An entry may take 48 % of it. Below some kilobytes nothing is kept. Default:
    /// 64 MiB.
    pub fn max_bytes(mut self, most: u64) -> Self {
        self.max_bytes = most;
        self
    }

    /// The storage.
    #[must_use]
    pub fn build(self) -> MemoryStorage {
        let most = self.max_bytes.max(SHARDS * 1024);
        let mut options = OptionsBuilder::new();
        // Shards are set, since one record heavier than a shard would be dropped silently, with what it replaces.
        options
            .shards(SHARDS as usize)
            .hot_allocation(HOT as f64 / 100.0)
            .weight_capacity(most)
            .estimated_items_capacity(
                usize::try_from(most / 16_384).unwrap_or(usize::MAX).clamp(16, 1 << 20),
            );
        let entries = match options.build() {
            Ok(options) => Cache::with_options(options, GroupWeight, EntryHasher, Evicting),
            // It names all it needs, so that this is never reached.
            Err(_) => Cache::with(16, most, GroupWeight, EntryHasher, Evicting),
        };
        let max_entry = entries.shard_capacity().min(most / SHARDS) / 100 * (HOT - 1);
        MemoryStorage(Arc::new(Inner { entries, turns: [const { Mutex::new(()) }; STRIPES], max_entry }))
    }
}

impl Default for MemoryStorageBuilder {
    fn default() -> Self {
        Self { max_bytes: 64 * 1024 * 1024 }
    }
}

#[derive(Clone, Copy)]
struct GroupWeight;

impl Weighter<[u8; 16], Group> for GroupWeight {
    fn weight(&self, _: &[u8; 16], group: &Group) -> u64 {
        group.weight().max(1) // what weighs nothing would never be evicted
    }
}

/// An entry's name is a piece of a keyed hash already: eight bytes of it are a hash as good as any.
#[derive(Clone, Copy, Default)]
struct EntryHasher;

impl BuildHasher for EntryHasher {
    type Hasher = FirstBytes;

    fn build_hasher(&self) -> FirstBytes {
        FirstBytes(0)
    }
}

struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 ^= u64::from_ne_bytes(*first);
        }
    }

    fn write_usize(&mut self, _: usize) {} // the length of the name, always the same

    fn finish(&self) -> u64 {
        self.0
    }
}

impl MemoryStorage {
    /// A storage with the default settings.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// A storage with settings.
    pub fn builder() -> MemoryStorageBuilder {
        MemoryStorageBuilder::default()
    }

    fn turn(&self, key: Key) -> MutexGuard<'_, ()> {
        let turn = &self.0.turns[usize::from(key.entry[0]) % STRIPES];
        turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: Key) -> Option<Record> {
        self.0.entries.get(&key.entry)?.into_record(key)
    }

    /// As `get`, but does not count as a use.
    fn peek(&self, key: Key) -> Option<Record> {
        self.0.entries.peek(&key.entry)?.into_record(key)
    }

    /// Puts a record in or takes it out, while the caller holds the entry's turn; says what was there.
    fn set(&self, key: Key, record: Option<Record>) -> Result<Option<Record>> {
        let mut group = self.0.entries.peek(&key.entry).unwrap_or_default();
        if let Some(record) = &record
            && group.weight_with(key, record) > self.0.max_entry
        {
            return Err(Error::new(
                ErrorKind::TooLarge,
                "the entry would take nearly half of the memory storage: raise its max_bytes to keep such entries",
            ));
        }
        let before = group.set(key, record);
        if group.is_empty() {
            self.0.entries.remove(&key.entry);
        } else {
            self.0.entries.insert(key.entry, group);
        }
        Ok(before)
    }

    fn remove(&self, key: Key) -> Result<bool> {
        let _turn = self.turn(key);
        if self.peek(key).is_none() {
            return Ok(false);
        }
        self.set(key, None).map(|before| before.is_some())
    }

    fn compare_and_write(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        let _turn = self.turn(key);
        let there = self.peek(key).map(|there| there.stamp());
        if there == Some(record.stamp()) {
            return Ok(true);
        }
        if there != seen {
            return Ok(false);
        }
        self.set(key, Some(record)).map(|_| true)
    }

    fn move_retention(&self, keys: &[Key], retain: Retain) -> Result<u64> {
        let mut there = 0;
        for &key in keys {
            let _turn = self.turn(key);
            if let Some(record) = self.peek(key) {
                there += 1;
                let time = retain.apply(record.retain_until());
                if time != record.retain_until() {
                    self.set(key, Some(record.with_retain_until(time)))?;
                }
            }
        }
        Ok(there)
    }

    fn all(&self) -> Vec<(Key, Record)> {
        let mut all = Vec::new();
        for (entry, group) in self.0.entries.iter() {
            all.extend(group.records(entry));
        }
        // An entry that moves inside the cache while it is listed may be met twice.
        all.sort_by_key(|(key, _)| *key);
        all.dedup_by_key(|(key, _)| *key);
        all
    }
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStorage")
            .field("entries", &self.0.entries.len())
            .field("bytes", &self.0.entries.weight())
            .finish()
    }
}

#[deny(clippy::missing_trait_methods)]
impl Storage for MemoryStorage {
    async fn read(&self, key: Key) -> Result<Option<Record>> {
        Ok(self.get(key))
    }

    async fn write(&self, key: Key, record: Record) -> Result<()> {
        let _turn = self.turn(key);
        self.set(key, Some(record)).map(|_| ())
    }

    async fn delete(&self, key: Key) -> Result<bool> {
        self.remove(key)
    }

    async fn clear(&self) -> Result<()> {
        // A change that is half way would put back what it had read before.
        let _all: Vec<_> =
            self.0.turns.iter().map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner)).collect();
        self.0.entries.clear();
        Ok(())
    }

    fn keys(&self) -> impl Stream<Item = Result<Key>> + Send {
        stream::iter(self.all().into_iter().map(|(key, _)| Ok(key)))
    }

    fn read_now(&self, key: Key) -> Option<Result<Option<Record>>> {
        Some(Ok(self.get(key)))
    }

    async fn contains(&self, key: Key) -> Result<bool> {
        Ok(self.peek(key).is_some())
    }

    async fn contains_all(&self, _: &[Key]) -> Result<bool> {
        Ok(true) // an entry goes whole
    }

    async fn size(&self) -> Result<u64> {
        Ok(self.all().iter().filter(|(key, _)| key.kind.is_listed()).count() as u64)
    }

    fn values(&self) -> impl Stream<Item = Result<(Key, Record)>> + Send {
        stream::iter(self.all().into_iter().filter(|(key, _)| key.kind.is_listed()).map(Ok))
    }

    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        self.compare_and_write(key, seen, record)
    }

    async fn retain(&self, keys: &[Key], retain: Retain) -> Result<u64> {
        self.move_retention(keys, retain)
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<u64> {
        keys.iter().map(|key| self.remove(*key).map(u64::from)).sum()
    }

    /// Looks at every record: they are bounded, and at hand.
    async fn delete_expired(&self, now: Timestamp) -> Result<u64> {
        let mut deleted = 0;
        for (key, _) in self.all() {
            let _turn = self.turn(key);
            if self.peek(key).is_some_and(|record| record.retain_until() <= now) {
                deleted += u64::from(self.set(key, None)?.is_some());
            }
        }
        Ok(deleted)
    }

    fn max_record_len(&self) -> usize {
        usize::try_from(self.0.max_entry.saturating_sub(OVERHEAD)).unwrap_or(usize::MAX)
    }
}
