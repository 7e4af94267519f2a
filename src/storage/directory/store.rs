//! The store itself: each operation goes to the threads that read, or to the one that writes its shard.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_core::Stream;
use futures_util::future::join_all;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::bound::Bound;
use super::builder::DirectoryStorageBuilder;
use super::failure::failed_change;
use super::listing::Page;
use super::place::Place;
use super::recency::Recency;
use super::records::{Records, When};
use super::upkeep;
use super::workers::{Workers, done};
use crate::error::Result;
use crate::storage::contract::{Retain, Storage, Usage};
use crate::storage::holds::Holds;
use crate::storage::{Hold, Key, Kind, Record, Stamp};
use crate::time::Timestamp;

const VALUES_AT_ONCE: usize = 32;

/// Responses as files in a directory, which survive the process, which many processes may share, and which a person can
/// look into, copy or commit. See the [module](crate::storage::directory) for what it promises.
///
/// ```
/// use tower_response_cache::Timestamp;
/// use tower_response_cache::storage::{DirectoryStorage, Key, Record, Storage};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tower_response_cache::Result<()> {
/// # let parent = tempfile::tempdir().unwrap();
/// # let path = parent.path().join("responses");
/// let storage = DirectoryStorage::open(&path).await?;
/// let key = Key::head([7; 16]);
/// storage.write(key, Record::new("payload", Timestamp::NEVER)).await?;
/// assert!(storage.contains(key).await?);
/// assert!(path.join("07/07070707070707070707070707070707/head").exists());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct DirectoryStorage {
    inner: Arc<Inner>,
}

struct Inner {
    workers: Workers,
    records: Arc<Records>,
    recency: Arc<Recency>,
    /// The bodies that this process is reading.
    holds: Arc<Holds>,
    /// True while a sweep is asked for that has not begun.
    is_sweep_asked: Arc<AtomicBool>,
}

impl DirectoryStorage {
    /// Opens the store in this directory with the default settings; see [`builder`](DirectoryStorage::builder).
    ///
    /// # Errors
    /// As [`DirectoryStorageBuilder::open`].
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self> {
        Self::builder(path).open().await
    }

    /// Opens a store with settings. A leading `~/` of the path is the home directory.
    pub fn builder(path: impl Into<PathBuf>) -> DirectoryStorageBuilder {
        DirectoryStorageBuilder::new(path.into())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.inner.records.place.root()
    }

    pub(super) fn new(workers: Workers, place: Place, max_bytes: Option<u64>) -> Self {
        let records = Records { place, bound: Bound::new(max_bytes) };
        let inner = Inner {
            workers,
            records: Arc::new(records),
            recency: Arc::new(Recency::new()),
            holds: Arc::default(),
            is_sweep_asked: Arc::default(),
        };
        Self { inner: Arc::new(inner) }
    }
}

impl Inner {
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Records) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let records = Arc::clone(&self.records);
        self.workers.read(move || look(&records)).await
    }

    async fn write(&self, key: Key, record: Record, when: When) -> Result<bool> {
        let (records, recency) = (Arc::clone(&self.records), Arc::clone(&self.recency));
        let holds = Arc::clone(&self.holds);
        let written = self.workers.change(key.entry[0], move || {
            let written = records.write(key, &record, &when);
            // Those who write faster than the upkeep makes room do its work, or wait for it.
            if records.bound.is_exceeded() {
                upkeep::sweep(&records, &recency, &holds);
            }
            written
        });
        let written = done(written).await;
        self.keep_within_bound();
        written
    }

    /// Changes records, each shard's at once; the sum of what the changes say. All are asked for before the first wait.
    async fn change(
        &self,
        keys: &[Key],
        change: impl Fn(&Records, &[Key]) -> Result<u64> + Copy + Send + 'static,
    ) -> Result<u64> {
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        let changes = keys.chunk_by(|one, next| one.entry[0] == next.entry[0]).map(|keys| {
            let (records, shard, keys) = (Arc::clone(&self.records), keys[0].entry[0], keys.to_vec());
            done(self.workers.change(shard, move || change(&records, &keys)))
        });
        let changes: Vec<_> = changes.collect();
        join_all(changes).await.into_iter().sum()
    }

    /// Has room made, if it is time, while nobody waits for it.
    fn keep_within_bound(&self) {
        if !self.records.bound.is_due() || self.is_sweep_asked.swap(true, Ordering::AcqRel) {
            return;
        }
        let (records, recency) = (Arc::clone(&self.records), Arc::clone(&self.recency));
        let holds = Arc::clone(&self.holds);
        let is_sweep_asked = Arc::clone(&self.is_sweep_asked);
        drop(self.workers.upkeep(move || {
            // First, so that who writes from now on asks for another.
            is_sweep_asked.store(false, Ordering::Release);
            upkeep::sweep(&records, &recency, &holds);
            Ok(())
        }));
    }

    /// Notes a use; writes nothing here.
    fn used(&self, key: Key) {
        if self.records.bound.max_bytes().is_none() || !(key.kind.is_listed() || key.kind == Kind::Group) {
            return;
        }
        self.recency.touch(key.entry);
        if self.recency.is_due() {
            self.write_down_uses();
        }
    }

    fn write_down_uses(&self) {
        let (records, recency) = (Arc::clone(&self.records), Arc::clone(&self.recency));
        drop(self.workers.upkeep(move || {
            recency.write_down(&records.place);
            Ok(())
        }));
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.recency.is_empty() {
            self.write_down_uses();
        }
    }
}

impl Storage for DirectoryStorage {
    async fn read(&self, key: Key) -> Result<Option<Record>> {
        let found = self.inner.look(move |records| records.read(key)).await?;
        if found.is_some() {
            self.inner.used(key);
        }
        Ok(found)
    }

    fn read_now(&self, _: Key) -> Option<Result<Option<Record>>> {
        None // a disk may take its time
    }

    async fn contains(&self, key: Key) -> Result<bool> {
        self.inner.look(move |records| Ok(records.read(key)?.is_some())).await
    }

    /// Looks for each file: a person may have removed one.
    async fn contains_all(&self, keys: &[Key]) -> Result<bool> {
        let keys = keys.to_vec();
        self.inner.look(move |records| records.contains_all(&keys)).await
    }

    async fn write(&self, key: Key, record: Record) -> Result<()> {
        self.inner.write(key, record, When::Always).await.map(drop)
    }

    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        self.inner.write(key, record, When::There(seen)).await
    }

    async fn delete(&self, key: Key) -> Result<bool> {
        Ok(self.delete_many(&[key]).await? > 0)
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<u64> {
        self.inner.change(keys, Records::delete).await
    }

    async fn retain(&self, keys: &[Key], retain: Retain) -> Result<u64> {
        self.inner.change(keys, move |records, keys| records.retain(keys, retain)).await
    }

    /// Looks at the first bytes of every record.
    async fn delete_expired(&self, now: Timestamp) -> Result<u64> {
        let mut deleted = 0;
        let mut next = Some(0);
        while let Some(shard) = next {
            let page = self.inner.look(move |records| records.due_from(shard, now)).await?;
            let delete = move |records: &Records, keys: &[Key]| records.delete_due(keys, now);
            deleted += self.inner.change(&page.items, delete).await?;
            next = page.next;
        }
        Ok(deleted)
    }

    async fn clear(&self) -> Result<()> {
        // In turn with what was asked for before, and with what will be: all before the first wait.
        let shards = (0..=u8::MAX).map(|shard| {
            let records = Arc::clone(&self.inner.records);
            done(self.inner.workers.change(shard, move || upkeep::clear(&records, shard)))
        });
        let shards: Vec<_> = shards.collect();
        let cleared = join_all(shards).await.into_iter().collect();
        let records = Arc::clone(&self.inner.records);
        let removed = self.inner.workers.upkeep(move || {
            records.place.remove_abandoned();
            Ok(())
        });
        done(removed).await.and(cleared)
    }

    fn keys(&self) -> impl Stream<Item = Result<Key>> + Send {
        pages(|shard| self.inner.look(move |records| records.keys_from(shard)))
            .map_ok(|keys| stream::iter(keys).map(Ok))
            .try_flatten()
    }

    fn values(&self) -> impl Stream<Item = Result<(Key, Record)>> + Send {
        let keys = self.keys().try_filter(|key| std::future::ready(key.kind.is_listed()));
        keys.try_chunks(VALUES_AT_ONCE)
            .map_err(|stopped| stopped.1)
            .and_then(|keys| self.inner.look(move |records| records.read_all(&keys)))
            .map_ok(|records| stream::iter(records).map(Ok))
            .try_flatten()
    }

    async fn size(&self) -> Result<u64> {
        let pages = pages(|shard| self.inner.look(move |records| records.keys_from(shard)));
        let listed = |keys: Vec<Key>| keys.into_iter().filter(|key| key.kind.is_listed()).count() as u64;
        pages.try_fold(0, |count, keys| std::future::ready(Ok(count + listed(keys)))).await
    }

    fn max_record_len(&self) -> usize {
        self.inner.records.bound.max_record_len()
    }

    /// A body in a file of its own is not written again where its response is confirmed.
    fn inline_len(&self) -> usize {
        64 << 10 // up to here a second file takes as long as the first, and to write one again takes no longer
    }

    /// Holds it in this process: another one that makes room does not know of it.
    fn hold(&self, chunk: Key, bytes: u64) -> Hold {
        match self.inner.records.bound.max_bytes() {
            Some(most) => self.inner.holds.hold(chunk, bytes, most),
            None => Hold::default(),
        }
    }

    /// Counts all files where that has not been done yet, and where there is no bound.
    async fn usage(&self) -> Result<Usage> {
        let max_bytes = self.inner.records.bound.max_bytes();
        let known = self.inner.records.bound.total().filter(|_| max_bytes.is_some());
        let bytes = match known {
            Some(bytes) => bytes,
            None => self.inner.look(upkeep::count).await?,
        };
        Ok(Usage::new(bytes, max_bytes))
    }

    /// Writes a file, reads it and removes it.
    async fn check(&self) -> Result<()> {
        self.inner.look(|records| records.place.check().map_err(failed_change)).await
    }

    /// Waits for the changes that were asked for and are not done, those of callers that went away included, and writes down when
    /// entries were used.
    async fn close(&self) -> Result<()> {
        let changes = (0..=u8::MAX).map(|shard| done(self.inner.workers.change(shard, || Ok(()))));
        join_all(changes.collect::<Vec<_>>()).await.into_iter().collect::<Result<()>>()?;
        self.inner.write_down_uses();
        done(self.inner.workers.upkeep(|| Ok(()))).await
    }
}

/// A stream of pages, each asked for where the one before ended.
fn pages<T: Send, F>(page: impl Fn(u8) -> F + Send) -> impl Stream<Item = Result<Vec<T>>> + Send
where
    F: Future<Output = Result<Page<T>>> + Send,
{
    stream::try_unfold((page, Some(0)), |(page, next)| async move {
        let Some(shard) = next else { return Ok(None) };
        let Page { items, next } = page(shard).await?;
        Ok(Some((items, (page, next))))
    })
}

impl fmt::Debug for DirectoryStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectoryStorage")
            .field("max_bytes", &self.inner.records.bound.max_bytes())
            .finish_non_exhaustive()
    }
}
