//! The storage itself.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;

use super::builder::{Settings, TieredStorageBuilder};
use super::changes::Changes;
use super::outage::{Outage, Outages, as_busy};
use super::time::{Time, millis};
use crate::error::Result;
use crate::storage::record::CopyMark;
use crate::storage::{Hold, Key, Kind, Record, Retain, Stamp, Storage, Usage};
use crate::time::Timestamp;

/// The number of the next storage.
static NEXT_TIER: AtomicU32 = AtomicU32::new(0);
/// Stands for the change count of a storage without a signal. No storage counts so far.
const NO_SIGNAL: u64 = u64::MAX;
/// The most chunks that are read without waiting. Each of them is looked at by itself, and a longer body is read piece by piece in
/// any case.
const MAX_CHUNKS_NOW: u32 = 64;

/// A storage that keeps copies of another storage's records in a nearer one.
///
/// The [module](crate::storage::tiered) describes its guarantees. Clones share both storages.
///
/// ```
/// # #[cfg(feature = "sqlite")] {
/// use tower_response_cache::CacheLayer;
/// use tower_response_cache::storage::{MemoryStorage, SqliteStorage, TieredStorage};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tower_response_cache::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("responses.sqlite");
/// let near = MemoryStorage::builder().max_bytes(64 * 1024 * 1024).build();
/// let far = SqliteStorage::open(path).await?;
/// let layer = CacheLayer::new(TieredStorage::new(near, far));
/// # Ok(())
/// # }
/// # main().unwrap();
/// # }
/// ```
#[derive(Clone)]
pub struct TieredStorage<N, F> {
    near: N,
    far: F,
    shared: Arc<Shared>,
}

struct Shared {
    /// The number in the marks of this storage. A near storage that is itself tiered returns records with marks of its own,
    /// whose counts and times mean something else.
    tier: u32,
    changes: Changes,
    max_lag: Duration,
    serve_while_far_is_down: Duration,
    far_timeout: Duration,
    time: Time,
    outages: Outages,
}

/// The counts and the time before a record is read from the far storage, for which its copy is current.
#[derive(Clone, Copy)]
struct Moment {
    own_changes: u64,
    /// [`NO_SIGNAL`] if the far storage has no signal, or has lost it.
    far_changes: u64,
    now: u64,
}

/// Whether a copy may be served.
enum Verdict {
    Current,
    /// The far storage is down, and the copy may be served meanwhile.
    Unchecked,
    /// It must be compared with the far storage.
    Unknown,
}

impl<N: Storage, F: Storage> TieredStorage<N, F> {
    /// Creates a storage from two with the default settings.
    ///
    /// `near` keeps the copies, and belongs to this storage alone: give it one of its own. `far` decides.
    pub fn new(near: N, far: F) -> Self {
        Self::builder(near, far).build()
    }

    /// Returns a builder for a storage with other settings.
    pub fn builder(near: N, far: F) -> TieredStorageBuilder<N, F> {
        TieredStorageBuilder::new(near, far)
    }

    /// Returns the storage that keeps the copies.
    pub fn near(&self) -> &N {
        &self.near
    }

    /// Returns the storage that decides.
    pub fn far(&self) -> &F {
        &self.far
    }

    pub(super) fn from_builder(builder: TieredStorageBuilder<N, F>) -> Self {
        let TieredStorageBuilder { near, far, settings } = builder;
        let Settings { max_lag, serve_while_far_is_down, far_timeout, clock } = settings;
        let shared = Shared {
            tier: NEXT_TIER.fetch_add(1, Ordering::Relaxed),
            changes: Changes::new(),
            max_lag,
            serve_while_far_is_down,
            far_timeout,
            time: Time::new(clock),
            outages: Outages::default(),
        };
        Self { near, far, shared: Arc::new(shared) }
    }

    fn moment(&self, key: Key) -> Moment {
        Moment {
            own_changes: self.shared.changes.count(key),
            far_changes: self.far.change_count(key, self.shared.max_lag).unwrap_or(NO_SIGNAL),
            now: self.shared.time.now(),
        }
    }

    /// Returns the mark that this storage has given to a copy.
    fn mark_of<'a>(&self, copy: &'a Record) -> Option<&'a CopyMark> {
        copy.mark().filter(|mark| mark.tier == self.shared.tier)
    }

    /// Returns whether a copy may be served.
    ///
    /// Each number of the mark says by itself that the copy was current at that count or time. So it does not matter that they
    /// are not read together: the latest comparison that any of them stems from is covered by the others.
    fn judge(&self, key: Key, copy: &Record, moment: Moment) -> Verdict {
        let Some(mark) = self.mark_of(copy) else { return Verdict::Unknown };
        let Moment { own_changes, far_changes, now } = moment;
        if mark.own_changes.load(Ordering::Acquire) != own_changes || mark.expires_at <= now {
            return Verdict::Unknown;
        }
        let age = now.checked_sub(mark.checked_at.load(Ordering::Acquire));
        let is_younger_than = |time| age.is_some_and(|age| age < millis(time));
        // A copy from before the signal was lost may have been changed since, whatever its age is.
        let is_same = mark.far_changes.load(Ordering::Acquire) == far_changes;
        if is_same && (far_changes != NO_SIGNAL || is_younger_than(self.shared.max_lag)) {
            Verdict::Current
        } else if is_younger_than(self.shared.serve_while_far_is_down) && self.outage(key).is_down(now) {
            Verdict::Unchecked
        } else {
            Verdict::Unknown
        }
    }

    /// Returns a copy that needs neither waiting nor the far storage.
    fn current_copy(&self, key: Key) -> Option<Record> {
        let copy = self.near.read_now(key)?.ok()??;
        self.serve(key, copy, self.moment(key)).ok()
    }

    /// Returns the copy as it is served, or gives it back if it must be compared.
    fn serve(&self, key: Key, copy: Record, moment: Moment) -> std::result::Result<Record, Record> {
        match self.judge(key, &copy, moment) {
            Verdict::Current => Ok(copy),
            Verdict::Unchecked => {
                Ok(copy.with_mark(CopyMark { is_unchecked: true, ..self.new_mark(&copy, moment) }))
            }
            Verdict::Unknown => Err(copy),
        }
    }

    fn new_mark(&self, record: &Record, moment: Moment) -> CopyMark {
        let expires_at = self.shared.time.of_expiry(record.retain_until(), moment.now);
        let Moment { own_changes, far_changes, now } = moment;
        CopyMark::new(self.shared.tier, own_changes, far_changes, now, expires_at)
    }

    /// Returns the record as a copy that was current at a moment.
    fn copy_of(&self, record: &Record, moment: Moment) -> Record {
        record.with_mark(self.new_mark(record, moment))
    }

    /// Writes a copy into the near storage. A copy that it does not take is only slower.
    async fn keep(&self, key: Key, copy: Record) {
        if self.mark_of(&copy).is_some_and(|mark| mark.expires_at > self.shared.time.now()) {
            drop(self.near.write(key, copy).await);
        }
    }

    /// Returns the copy in the near storage, current or not.
    async fn any_copy(&self, key: Key) -> Option<Record> {
        match self.near.read_now(key) {
            Some(copy) => copy.ok()?,
            None => self.near.read(key).await.ok()?,
        }
    }

    /// Compares copies with the far storage, and marks those that are current.
    ///
    /// Returns for each key whether its copy is current, or else whether the far storage has another record.
    async fn compare(&self, copies: &[(Key, Record, Moment)]) -> Result<Vec<Comparison>> {
        let keys: Vec<Key> = copies.iter().map(|(key, ..)| *key).collect();
        let stamps = self.ask_far(&keys, self.far.stamps(&keys)).await?;
        let mut compared = Vec::with_capacity(copies.len());
        // A storage that returns fewer stamps than it was asked for knows nothing about the rest.
        let stamps = stamps.into_iter().map(Some).chain(std::iter::repeat(None));
        for ((key, copy, moment), stamp) in copies.iter().zip(stamps) {
            compared.push(match stamp {
                Some(Some((stamp, retain_until))) if stamp == copy.stamp() => {
                    let same_time = copy.retain_until() == retain_until;
                    match self.mark_of(copy).filter(|_| same_time) {
                        Some(mark) => {
                            mark.confirm(moment.own_changes, moment.far_changes, moment.now);
                            Comparison::Current(copy.clone())
                        }
                        // The retention was changed, or the near storage has lost the mark.
                        None => {
                            let copy = self.copy_of(&copy.clone().with_retain_until(retain_until), *moment);
                            self.keep(*key, copy.clone()).await;
                            Comparison::Current(copy)
                        }
                    }
                }
                Some(None) => Comparison::Absent,
                _ => Comparison::Replaced,
            });
        }
        Ok(compared)
    }

    /// Returns the state of the server of the far storage that has a key.
    fn outage(&self, key: Key) -> &Outage {
        self.shared.outages.of(self.far.server_of(key))
    }

    /// Runs a read of the far storage as [`Outage::ask`] does.
    ///
    /// The keys are of one entry. If they are not, the server of the first one counts.
    async fn ask_far<T>(&self, keys: &[Key], read: impl Future<Output = Result<T>>) -> Result<T> {
        let Shared { time, far_timeout, outages, .. } = &*self.shared;
        let outage = keys.first().map_or_else(|| outages.of(0), |key| self.outage(*key));
        outage.ask(time, *far_timeout, read).await
    }

    /// Writes the copy of a record that was written to the far storage at the count that its change has returned.
    async fn keep_written(&self, key: Key, record: &Record, before: Moment, count: Option<u64>) {
        match count {
            Some(own_changes) => self.keep(key, self.copy_of(record, Moment { own_changes, ..before })).await,
            None => drop(self.near.delete(key).await),
        }
    }
}

/// The result of comparing a copy with the far storage.
enum Comparison {
    Current(Record),
    Absent,
    Replaced,
}

/// Returns whether records of this kind are copied.
///
/// A lease is an agreement of this moment, for which a copy is worth nothing.
fn is_copied(key: Key) -> bool {
    key.kind != Kind::Lease
}

#[deny(clippy::missing_trait_methods)]
impl<N: Storage, F: Storage> Storage for TieredStorage<N, F> {
    fn read_now(&self, key: Key) -> Option<Result<Option<Record>>> {
        if !is_copied(key) {
            return self.far.read_now(key);
        }
        self.current_copy(key).map(|copy| Ok(Some(copy)))
    }

    async fn read(&self, key: Key) -> Result<Option<Record>> {
        if !is_copied(key) {
            return self.ask_far(&[key], self.far.read(key)).await;
        }
        let copy = self.any_copy(key).await;
        // Before the far storage is read: a later change is not in the record, and is counted later.
        let moment = self.moment(key);
        if let Some(copy) = copy {
            let copy = match self.serve(key, copy, moment) {
                Ok(copy) => return Ok(Some(copy)),
                Err(copy) => copy,
            };
            match self.compare(&[(key, copy.clone(), moment)]).await.map(|mut compared| compared.pop()) {
                Ok(Some(Comparison::Current(copy))) => return Ok(Some(copy)),
                Ok(Some(Comparison::Absent)) => {
                    drop(self.near.delete(key).await);
                    return Ok(None);
                }
                Ok(_) => {}
                // The far storage is noted as down by now, so that the copy may be served by that setting.
                Err(error) => return self.serve(key, copy, moment).map_or(Err(error), |copy| Ok(Some(copy))),
            }
        }
        // A chunk of a body that has begun has no other way, and a deadline of its own.
        let record = match key.kind {
            Kind::Chunk => self.far.read(key).await.map_err(as_busy)?,
            _ => self.ask_far(&[key], self.far.read(key)).await?,
        };
        if let Some(record) = &record {
            self.keep(key, self.copy_of(record, moment)).await;
        }
        Ok(record)
    }

    fn read_chunks_now(&self, first: Key, last: u32, chunks: &mut [Option<Bytes>]) -> bool {
        if last.saturating_sub(first.part) >= MAX_CHUNKS_NOW {
            return false;
        }
        for part in first.part..=last {
            let Some(copy) = self.current_copy(Key { part, ..first }) else { return false };
            if let Some(chunk) = chunks.get_mut((part - first.part) as usize) {
                *chunk = Some(copy.payload());
            }
        }
        true
    }

    async fn write(&self, key: Key, record: Record) -> Result<()> {
        let before = self.moment(key);
        let change = self.shared.changes.begin(key);
        self.far.write(key, record.clone()).await?;
        let count = change.end();
        if is_copied(key) {
            self.keep_written(key, &record, before, count).await;
        }
        Ok(())
    }

    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        // A caller that repeats a write may meet the record itself, whose retention was changed since.
        let is_repeated = self.any_copy(key).await.is_some_and(|copy| copy.stamp() == record.stamp());
        let before = self.moment(key);
        let change = self.shared.changes.begin(key);
        let is_written = self.far.write_if(key, seen, record.clone()).await?;
        // Also counted if nothing is written: the caller has seen another record than the far storage has, perhaps a copy.
        let count = change.end().filter(|_| !is_repeated);
        if is_written && is_copied(key) {
            self.keep_written(key, &record, before, count).await;
        }
        Ok(is_written)
    }

    async fn delete(&self, key: Key) -> Result<bool> {
        let change = self.shared.changes.begin(key);
        let deleted = self.far.delete(key).await?;
        change.end();
        drop(self.near.delete(key).await);
        Ok(deleted)
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<u64> {
        let changes: Vec<_> = keys.iter().map(|key| self.shared.changes.begin(*key)).collect();
        let deleted = self.far.delete_many(keys).await?;
        drop(changes);
        drop(self.near.delete_many(keys).await);
        Ok(deleted)
    }

    async fn retain(&self, keys: &[Key], retain: Retain) -> Result<u64> {
        // Dropped when the far storage has answered. The copies keep their times until the next comparison, which takes over
        // the new ones.
        let _changes: Vec<_> = keys.iter().map(|key| self.shared.changes.begin(*key)).collect();
        self.far.retain(keys, retain).await
    }

    async fn delete_expired(&self, now: Timestamp) -> Result<u64> {
        // Another process may have shortened a retention, so that the copy of a record that is deleted here lives for longer.
        let _change = self.shared.changes.begin_all();
        let deleted = self.far.delete_expired(now).await?;
        drop(self.near.delete_expired(now).await);
        Ok(deleted)
    }

    async fn clear(&self) -> Result<()> {
        let _change = self.shared.changes.begin_all();
        let cleared = self.far.clear().await;
        drop(self.near.clear().await);
        cleared
    }

    fn keys(&self) -> impl Stream<Item = Result<Key>> + Send {
        self.far.keys()
    }

    fn values(&self) -> impl Stream<Item = Result<(Key, Record)>> + Send {
        self.far.values()
    }

    async fn size(&self) -> Result<u64> {
        self.far.size().await
    }

    async fn contains(&self, key: Key) -> Result<bool> {
        if is_copied(key) && self.current_copy(key).is_some() {
            return Ok(true);
        }
        self.ask_far(&[key], self.far.contains(key)).await
    }

    async fn contains_all(&self, keys: &[Key]) -> Result<bool> {
        let (mut copies, mut missing) = (Vec::new(), Vec::new());
        for &key in keys {
            let copy = self.any_copy(key).await.filter(|_| is_copied(key));
            let moment = self.moment(key);
            match copy.map(|copy| self.serve(key, copy, moment)) {
                Some(Ok(_)) => {}
                Some(Err(copy)) => copies.push((key, copy, moment)),
                None => missing.push(key),
            }
        }
        // One question for all copies: they are then current for the reads that follow.
        if !copies.is_empty() {
            match self.compare(&copies).await {
                Ok(compared) if compared.iter().any(|found| matches!(found, Comparison::Absent)) => {
                    return Ok(false);
                }
                Ok(_) => {}
                // As in `read`: the far storage is noted as down by now.
                Err(error) => {
                    let mut copies = copies.into_iter();
                    if !copies.all(|(key, copy, moment)| self.serve(key, copy, moment).is_ok()) {
                        return Err(error);
                    }
                }
            }
        }
        match missing.is_empty() {
            true => Ok(true),
            false => self.ask_far(&missing, self.far.contains_all(&missing)).await,
        }
    }

    async fn stamps(&self, keys: &[Key]) -> Result<Vec<Option<(Stamp, Timestamp)>>> {
        self.ask_far(keys, self.far.stamps(keys)).await
    }

    fn change_count(&self, key: Key, max_silence: Duration) -> Option<u64> {
        self.far.change_count(key, max_silence)
    }

    fn server_of(&self, key: Key) -> u16 {
        self.far.server_of(key)
    }

    fn max_record_len(&self) -> usize {
        self.far.max_record_len()
    }

    fn inline_len(&self) -> usize {
        self.far.inline_len()
    }

    fn compresses(&self) -> bool {
        self.near.compresses() || self.far.compresses()
    }

    fn keeps_records(&self) -> bool {
        self.near.keeps_records() || self.far.keeps_records()
    }

    fn hold(&self, chunk: Key, bytes: u64) -> Hold {
        Hold::new((self.near.hold(chunk, bytes), self.far.hold(chunk, bytes)))
    }

    async fn usage(&self) -> Result<Usage> {
        self.far.usage().await
    }

    async fn check(&self) -> Result<()> {
        self.far.check().await
    }

    async fn close(&self) -> Result<()> {
        let near = self.near.close().await;
        self.far.close().await.and(near)
    }
}

impl<N: fmt::Debug, F: fmt::Debug> fmt::Debug for TieredStorage<N, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TieredStorage")
            .field("near", &self.near)
            .field("far", &self.far)
            .finish_non_exhaustive()
    }
}
