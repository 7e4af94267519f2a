//! The [`DirectoryStorage`] type, which sends each operation to a thread that may block.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_core::Stream;
use futures_util::future::join_all;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::builder::DirectoryStorageBuilder;
use super::error::change_error;
use super::listing::Page;
use super::maintenance;
use super::quota::Quota;
use super::recency::Recency;
use super::records::{Condition, Records};
use super::root::Root;
use super::workers::{Workers, await_answer};
use crate::error::Result;
use crate::storage::contract::{Retain, Storage, Usage};
use crate::storage::holds::Holds;
use crate::storage::{Hold, Key, Kind, Record, Stamp};
use crate::time::Timestamp;

/// How many records a listing reads at once. Each may be as long as the body that it contains, so there are fewer than keys.
const VALUES_PAGE_LEN: usize = 32;

/// A storage in files of a directory.
///
/// Responses survive the process, several processes can share them, and a person can look into the directory, copy it or
/// commit it. The [module](crate::storage::directory) describes the layout, and what the storage guarantees.
///
/// Clones are handles to the same storage.
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
    /// The bodies that this process reads.
    holds: Arc<Holds>,
    /// Whether a sweep is queued that has not begun. There is no use in a second one.
    sweep_requested: Arc<AtomicBool>,
}

impl DirectoryStorage {
    /// Opens the storage in this directory with the default settings.
    ///
    /// See [`builder`](DirectoryStorage::builder) for other settings, and for the path.
    ///
    /// # Errors
    /// Returns an error in the same cases as [`DirectoryStorageBuilder::open`].
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self> {
        Self::builder(path).open().await
    }

    /// Creates a builder for a storage with other settings.
    ///
    /// A leading `~/` of the path stands for the home directory.
    pub fn builder(path: impl Into<PathBuf>) -> DirectoryStorageBuilder {
        DirectoryStorageBuilder::new(path.into())
    }

    /// Returns the path of the directory.
    pub fn path(&self) -> &Path {
        self.inner.records.root.path()
    }

    pub(super) fn new(workers: Workers, root: Root, max_bytes: Option<u64>) -> Self {
        let records = Records { root, quota: Quota::new(max_bytes) };
        let inner = Inner {
            workers,
            records: Arc::new(records),
            recency: Arc::new(Recency::new()),
            holds: Arc::default(),
            sweep_requested: Arc::default(),
        };
        Self { inner: Arc::new(inner) }
    }
}

impl Inner {
    /// Runs an operation on a reading thread.
    async fn read<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&Records) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let records = Arc::clone(&self.records);
        self.workers.read(move || operation(&records)).await
    }

    /// Writes a record on its shard's thread, and makes room if that is due.
    async fn write(&self, key: Key, record: Record, condition: Condition) -> Result<bool> {
        let (records, recency) = (Arc::clone(&self.records), Arc::clone(&self.recency));
        let holds = Arc::clone(&self.holds);
        let written = self.workers.change(key.entry[0], move || {
            let written = records.write(key, &record, &condition);
            // A writer that is faster than the maintenance thread makes room itself, or waits for the thread that does.
            if records.quota.is_exceeded() {
                maintenance::sweep(&records, &recency, &holds);
            }
            written
        });
        let written = await_answer(written).await;
        self.request_sweep_if_due();
        written
    }

    /// Changes records, those of one shard together. Returns the sum of the counts that the changes return.
    ///
    /// All changes are queued before the first wait, so that dropping the future does not leave some of them out.
    async fn change(
        &self,
        keys: &[Key],
        change: impl Fn(&Records, &[Key]) -> Result<u64> + Copy + Send + 'static,
    ) -> Result<u64> {
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        let changes = keys.chunk_by(|one, next| one.entry[0] == next.entry[0]).map(|keys| {
            let (records, shard, keys) = (Arc::clone(&self.records), keys[0].entry[0], keys.to_vec());
            await_answer(self.workers.change(shard, move || change(&records, &keys)))
        });
        let changes: Vec<_> = changes.collect();
        join_all(changes).await.into_iter().sum()
    }

    /// Queues a sweep on the maintenance thread if one is due. No caller waits for it.
    fn request_sweep_if_due(&self) {
        if !self.records.quota.is_due() || self.sweep_requested.swap(true, Ordering::AcqRel) {
            return;
        }
        let (records, recency) = (Arc::clone(&self.records), Arc::clone(&self.recency));
        let holds = Arc::clone(&self.holds);
        let sweep_requested = Arc::clone(&self.sweep_requested);
        drop(self.workers.maintain(move || {
            // Before the sweep: a write that it may miss must be able to request another one.
            sweep_requested.store(false, Ordering::Release);
            maintenance::sweep(&records, &recency, &holds);
            Ok(())
        }));
    }

    /// Records a use in memory, and queues the writing of all uses when due.
    fn record_use(&self, key: Key) {
        if self.records.quota.max_bytes().is_none() || !(key.kind.is_listed() || key.kind == Kind::Group) {
            return;
        }
        self.recency.touch(key.entry);
        if self.recency.is_due() {
            self.write_uses();
        }
    }

    /// Queues the writing of all recorded uses.
    fn write_uses(&self) {
        let (records, recency) = (Arc::clone(&self.records), Arc::clone(&self.recency));
        drop(self.workers.maintain(move || {
            recency.write(&records.root);
            Ok(())
        }));
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The threads finish their queues before they end, so the uses of a program that ends are not lost.
        if !self.recency.is_empty() {
            self.write_uses();
        }
    }
}

impl Storage for DirectoryStorage {
    async fn read(&self, key: Key) -> Result<Option<Record>> {
        let found = self.inner.read(move |records| records.read(key)).await?;
        if found.is_some() {
            self.inner.record_use(key);
        }
        Ok(found)
    }

    fn read_now(&self, _: Key) -> Option<Result<Option<Record>>> {
        None // reading a file may block
    }

    async fn contains(&self, key: Key) -> Result<bool> {
        self.inner.read(move |records| Ok(records.read(key)?.is_some())).await
    }

    /// Looks for each file, since a person may have removed one.
    async fn contains_all(&self, keys: &[Key]) -> Result<bool> {
        let keys = keys.to_vec();
        self.inner.read(move |records| records.contains_all(&keys)).await
    }

    async fn stamps(&self, keys: &[Key]) -> Result<Vec<Option<(Stamp, Timestamp)>>> {
        // A copy is compared for a reader, so this is a use of its entry.
        keys.iter().for_each(|key| self.inner.record_use(*key));
        let keys = keys.to_vec();
        self.inner.read(move |records| records.stamps(&keys)).await
    }

    async fn write(&self, key: Key, record: Record) -> Result<()> {
        self.inner.write(key, record, Condition::Always).await.map(drop)
    }

    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        self.inner.write(key, record, Condition::Stamp(seen)).await
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

    /// Reads the first bytes of every record.
    async fn delete_expired(&self, now: Timestamp) -> Result<u64> {
        let mut deleted = 0;
        let mut next = Some(0);
        while let Some(shard) = next {
            let page = self.inner.read(move |records| records.expired_from(shard, now)).await?;
            let delete = move |records: &Records, keys: &[Key]| records.delete_expired(keys, now);
            deleted += self.inner.change(&page.items, delete).await?;
            next = page.next;
        }
        Ok(deleted)
    }

    async fn clear(&self) -> Result<()> {
        // Queued behind the changes of each shard, and all before the first wait: changes that were called before are
        // cleared, and those that are called later stay.
        let shards = (0..=u8::MAX).map(|shard| {
            let records = Arc::clone(&self.inner.records);
            await_answer(self.inner.workers.change(shard, move || maintenance::clear(&records, shard)))
        });
        let shards: Vec<_> = shards.collect();
        let cleared = join_all(shards).await.into_iter().collect();
        let records = Arc::clone(&self.inner.records);
        let removed = self.inner.workers.maintain(move || {
            records.root.remove_abandoned();
            Ok(())
        });
        await_answer(removed).await.and(cleared)
    }

    fn keys(&self) -> impl Stream<Item = Result<Key>> + Send {
        pages(|shard| self.inner.read(move |records| records.keys_from(shard)))
            .map_ok(|keys| stream::iter(keys).map(Ok))
            .try_flatten()
    }

    fn values(&self) -> impl Stream<Item = Result<(Key, Record)>> + Send {
        let keys = self.keys().try_filter(|key| std::future::ready(key.kind.is_listed()));
        keys.try_chunks(VALUES_PAGE_LEN)
            .map_err(|stopped| stopped.1)
            .and_then(|keys| self.inner.read(move |records| records.read_all(&keys)))
            .map_ok(|records| stream::iter(records).map(Ok))
            .try_flatten()
    }

    async fn size(&self) -> Result<u64> {
        let pages = pages(|shard| self.inner.read(move |records| records.keys_from(shard)));
        let listed = |keys: Vec<Key>| keys.into_iter().filter(|key| key.kind.is_listed()).count() as u64;
        pages.try_fold(0, |count, keys| std::future::ready(Ok(count + listed(keys)))).await
    }

    fn max_record_len(&self) -> usize {
        self.inner.records.quota.max_record_len()
    }

    /// Returns 64 KiB. Up to this length, a second file takes longer to read than the bytes, and no longer to write again.
    ///
    /// A longer body has a file of its own, which is not written again when its response is confirmed.
    fn inline_len(&self) -> usize {
        64 << 10
    }

    fn keeps_records(&self) -> bool {
        false
    }

    /// Holds the entry in this process. A sweep of another process may still evict it.
    fn hold(&self, chunk: Key, bytes: u64) -> Hold {
        match self.inner.records.quota.max_bytes() {
            Some(max_bytes) => self.inner.holds.hold(chunk, bytes, max_bytes),
            None => Hold::default(),
        }
    }

    /// Returns the last count, with this process's changes since.
    ///
    /// Counts all files if they were not counted yet, and always if there is no bound.
    async fn usage(&self) -> Result<Usage> {
        let max_bytes = self.inner.records.quota.max_bytes();
        let known = self.inner.records.quota.total().filter(|_| max_bytes.is_some());
        let bytes = match known {
            Some(bytes) => bytes,
            None => self.inner.read(maintenance::count).await?,
        };
        Ok(Usage::new(bytes, max_bytes))
    }

    /// Writes a file, reads it, and removes it.
    async fn check(&self) -> Result<()> {
        self.inner.read(|records| records.root.check().map_err(change_error)).await
    }

    /// Waits for all queued changes, and writes when entries were used.
    ///
    /// This includes the changes of callers that did not wait for them.
    async fn close(&self) -> Result<()> {
        // An operation behind all others of a queue is answered when they are done.
        let changes = (0..=u8::MAX).map(|shard| await_answer(self.inner.workers.change(shard, || Ok(()))));
        join_all(changes.collect::<Vec<_>>()).await.into_iter().collect::<Result<()>>()?;
        self.inner.write_uses();
        await_answer(self.inner.workers.maintain(|| Ok(()))).await
    }
}

/// Returns a stream of pages, each of which begins where the one before ended.
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
            .field("max_bytes", &self.inner.records.quota.max_bytes())
            .finish_non_exhaustive()
    }
}
