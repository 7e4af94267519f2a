//! The storage itself. Each operation goes to the writer or to the readers.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_core::Stream;
use futures_util::{StreamExt, TryStreamExt, stream};
use rusqlite::Connection;

use super::builder::SqliteStorageBuilder;
use super::eviction::Recency;
use super::expiry::BatchSize;
use super::open::Opened;
use super::operation::{Condition, Operation};
use super::readers::Readers;
use super::reopen::Reopener;
use super::stall_budget::StallBudget;
use super::tables::{EncodedRecord, ROW_OVERHEAD};
use super::writer::{Writer, too_large};
use super::{queries, vacuum, wal};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Hold;
use crate::storage::contract::{Retain, Storage, Usage};
use crate::storage::holds::Holds;
use crate::storage::key::Key;
use crate::storage::record::{Record, Stamp};
use crate::time::{Clock, Timestamp};

/// The most bytes of a record. SQLite refuses a value of more than 1,000,000,000 bytes (`SQLITE_MAX_LENGTH`), and a record is
/// in memory as a whole.
const MAX_RECORD_LEN: u64 = 512 << 20;
/// How many keys a listing reads with one query. After it, other queries have their turn.
const KEYS_PER_PAGE: u32 = 512;
/// How many records a listing reads with one query. They are in memory together.
const VALUES_PER_PAGE: u32 = 32;
/// How many stamps are read in the task. More of them take as long as a long record.
const MAX_STAMPS_IN_TASK: usize = 16;
/// The length of a body up to which it is part of its response's record. Up to there, a separate row would double the time of a
/// read, and a write with the body takes no longer than one without. A longer body has rows of its own, which are not written
/// again when its response is revalidated.
const INLINE_LEN: usize = 64 << 10;
/// How long dropping the last clone waits outside of a runtime. A disk that hangs must not hang the program's end.
const DROP_TIMEOUT: Duration = Duration::from_secs(5);

/// A storage in one SQLite file, which several processes may share.
///
/// The [module](crate::storage::sqlite) describes its guarantees, its settings and the file. Clones share one storage.
///
/// ```
/// use tower_response_cache::Timestamp;
/// use tower_response_cache::storage::{Key, Record, SqliteStorage, Storage};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tower_response_cache::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("responses.sqlite");
/// let storage = SqliteStorage::open(path).await?;
/// let key = Key::head([7; 16]);
/// storage.write(key, Record::new("payload", Timestamp::NEVER)).await?;
/// assert!(storage.contains(key).await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SqliteStorage {
    inner: Arc<Inner>,
}

struct Inner {
    writer: Writer,
    /// `None` if one connection serves everything.
    readers: Option<Readers>,
    recency: Arc<Recency>,
    holds: Arc<Holds>,
    max_bytes: u64,
    max_record_len: usize,
    read_only: bool,
}

impl SqliteStorage {
    /// Opens the storage at a path with the default settings.
    ///
    /// [`builder`](SqliteStorage::builder) opens it with other settings.
    ///
    /// # Errors
    ///
    /// As [`SqliteStorageBuilder::open`].
    pub async fn open(cache_name: impl Into<PathBuf>) -> Result<Self> {
        Self::builder(cache_name).open().await
    }

    /// Returns a builder, which opens a storage with settings.
    ///
    /// The cache name is one of:
    ///
    /// - a path, in which a leading `~/` is the home directory. Missing directories are created.
    /// - a [URI filename](https://www.sqlite.org/uri.html) such as `file:…?mode=ro`, which is passed to SQLite unchanged.
    /// - `:memory:`, for a storage that ends with its last clone.
    pub fn builder(cache_name: impl Into<PathBuf>) -> SqliteStorageBuilder {
        SqliteStorageBuilder::new(cache_name.into())
    }

    /// Returns whether the file is read-only.
    ///
    /// If it is, stored responses are served, and nothing is stored.
    pub fn is_read_only(&self) -> bool {
        self.inner.read_only
    }

    /// Returns the file's free space to the disk.
    ///
    /// Returns by how many bytes the file became shorter. Records that were evicted, deleted or replaced leave free space,
    /// which later writes fill again. So this is worthwhile after a [`clear`](Storage::clear) or with a lower bound, but not
    /// regularly.
    ///
    /// It works in small steps, and other writes, also those of other processes, take their turns in between. If at most 4096
    /// pages (16 MiB) are in use, the rest is done in one step. A file that another program created, with
    /// `auto_vacuum = NONE`, is rewritten as a whole while other writes wait.
    ///
    /// # Errors
    ///
    /// Returns [`ReadOnly`](ErrorKind::ReadOnly) if the file cannot be written, [`Timeout`](ErrorKind::Timeout) if a step
    /// found no turn, and [`Full`](ErrorKind::Full) if there is no room for the log, which moving pages needs. The space
    /// returned until then stays returned.
    pub async fn vacuum(&self) -> Result<u64> {
        self.inner.check_writable()?;
        let mut freed = 0;
        loop {
            let step = self.inner.writer.query(vacuum::step).await?;
            freed += step.freed;
            if step.is_last {
                break;
            }
        }
        // The file becomes shorter when the WAL is merged. If readers are in the way, the next merge does it.
        self.inner.writer.query(|connection| wal::truncate(connection, wal::TRUNCATE_TIMEOUT)).await?;
        Ok(freed)
    }

    /// Closes the storage, for all of its clones.
    ///
    /// Completes all pending writes, merges the WAL into the file and closes the connections. Operations that begin later
    /// fail with [`Unavailable`](ErrorKind::Unavailable). If other processes have the file open, its WAL stays for them.
    ///
    /// # Errors
    ///
    /// Returns an error if merging the WAL fails. Nothing is lost then: the next process to open the file merges it. It is
    /// no error if other processes are reading from the WAL, so that it cannot be merged now.
    pub async fn close(&self) -> Result<()> {
        let merge = !self.inner.read_only;
        if merge {
            self.inner.writer.flush_uses();
        }
        let close_readers = self.inner.readers.as_ref().map(Readers::close);
        self.inner.writer.close(merge, move || close_readers.into_iter().for_each(|close| close())).await
    }

    pub(super) fn new(
        opened: Opened,
        stall_budget: Option<StallBudget>,
        busy_timeout: Duration,
        max_bytes: i64,
        clock: Clock,
    ) -> Result<Self> {
        let (recency, holds) = (Arc::new(Recency::new(clock)), Arc::default());
        let reopener = Arc::new(Reopener::new(opened.options, opened.path));
        let readers = match opened.readers.is_empty() && opened.in_task_readers.is_empty() {
            true => None,
            false => Some(Readers::start(
                opened.readers,
                opened.in_task_readers,
                stall_budget,
                busy_timeout,
                &reopener,
            )?),
        };
        let max_record_len = (max_bytes.unsigned_abs() / 2).saturating_sub(ROW_OVERHEAD).min(MAX_RECORD_LEN);
        let inner = Inner {
            writer: Writer::new(
                opened.writer,
                Arc::clone(&recency),
                Arc::clone(&holds),
                max_bytes,
                busy_timeout,
                reopener,
            ),
            readers,
            recency,
            holds,
            max_bytes: max_bytes.unsigned_abs(),
            max_record_len: usize::try_from(max_record_len).unwrap_or(usize::MAX),
            read_only: opened.read_only,
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl Inner {
    fn check_writable(&self) -> Result<()> {
        match self.read_only {
            true => {
                Err(Error::new(ErrorKind::ReadOnly, "the cache's file is read-only, so nothing is stored"))
            }
            false => Ok(()),
        }
    }

    async fn change(&self, operation: Operation) -> Result<u64> {
        self.check_writable()?;
        let generation = self.writer.generation();
        self.report_damage(generation, self.writer.execute(operation).await)
    }

    /// Reports damage that an operation on the file of this generation has found. Returns the operation's result.
    ///
    /// The generation is read before the operation begins, so that a file that replaces the damaged one is not reported.
    fn report_damage<T>(&self, generation: u64, result: Result<T>) -> Result<T> {
        if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Corrupt) {
            self.writer.report_damage(generation);
        }
        result
    }

    async fn write(&self, key: Key, condition: Condition, record: Record) -> Result<bool> {
        let value = record.to_bytes();
        if value.len() > self.max_record_len {
            return Err(too_large());
        }
        let until = queries::encode_time(record.retain_until());
        let record = EncodedRecord { stamp: record.stamp(), until, value };
        Ok(self.change(Operation::Write { key, condition, record }).await? > 0)
    }

    /// Runs a query on a thread that reads.
    ///
    /// If there is none, it takes its turn with the writes.
    async fn query<T: Send + 'static>(
        &self,
        query: impl Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let generation = self.writer.generation();
        let answer = match &self.readers {
            Some(readers) if readers.has_threads() => readers.query(query).await,
            _ => self.writer.query(query).await,
        };
        self.report_damage(generation, answer)
    }

    /// Remembers that an entry is used, if a record was found. Once in a while, writes the times of all uses.
    fn touch(&self, key: Key, found: &Result<Option<Record>>) {
        if self.read_only || !matches!(found, Ok(Some(_))) {
            return;
        }
        self.recency.touch(key.entry);
        if self.recency.flush_is_due() {
            self.writer.flush_uses();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.read_only {
            self.writer.flush_uses();
        }
        // On the writer's thread, since the task that drops the last clone must not block. The readers close before the
        // writer: of two connections that close at the same time, neither would be the last one, which merges the WAL.
        let close_readers = self.readers.as_ref().map(Readers::close);
        let (done, is_done) = std::sync::mpsc::channel();
        let posted = self.writer.post(move |connection| {
            close_readers.into_iter().for_each(|close| close());
            // If readers of other processes are in the way, the last connection to close merges the WAL.
            let _ = wal::truncate(connection, wal::TRUNCATE_TIMEOUT);
            // Fails inside a runtime, where the drop does not wait.
            let _ = done.send(());
        });
        if posted.is_ok() && tokio::runtime::Handle::try_current().is_err() {
            let _ = is_done.recv_timeout(DROP_TIMEOUT);
        }
    }
}

impl Storage for SqliteStorage {
    async fn read(&self, key: Key) -> Result<Option<Record>> {
        if let Some(found) = self.read_now(key) {
            return found;
        }
        let found = match &self.inner.readers {
            Some(readers) => self.inner.query(readers.read_query(key)).await,
            None => self.inner.query(move |connection| queries::read(connection, key)).await,
        };
        self.inner.touch(key, &found);
        found
    }

    fn read_now(&self, key: Key) -> Option<Result<Option<Record>>> {
        let readers = self.inner.readers.as_ref()?;
        let generation = self.inner.writer.generation();
        let found = readers.read_in_task(key)?;
        let found = self.inner.report_damage(generation, found);
        self.inner.touch(key, &found);
        Some(found)
    }

    async fn contains(&self, key: Key) -> Result<bool> {
        self.inner.query(move |connection| Ok(queries::read(connection, key)?.is_some())).await
    }

    async fn stamps(&self, keys: &[Key]) -> Result<Vec<Option<(Stamp, Timestamp)>>> {
        let stamps = |keys: &[Key], connection: &Connection| {
            keys.iter().map(|key| queries::stamp(connection, *key)).collect::<rusqlite::Result<Vec<_>>>()
        };
        if !self.inner.read_only {
            // A copy is compared for a reader, so this is a use of its entry.
            keys.iter().for_each(|key| self.inner.recency.touch(key.entry));
        }
        if keys.len() <= MAX_STAMPS_IN_TASK
            && let Some(readers) = &self.inner.readers
        {
            let generation = self.inner.writer.generation();
            if let Some(found) = readers.run_in_task(|connection| stamps(keys, connection).map(Some)) {
                return self.inner.report_damage(generation, found);
            }
        }
        let keys = keys.to_vec();
        self.inner.query(move |connection| stamps(&keys, connection)).await
    }

    async fn contains_all(&self, _: &[Key]) -> Result<bool> {
        // Eviction removes whole entries.
        Ok(true)
    }

    async fn write(&self, key: Key, record: Record) -> Result<()> {
        self.inner.write(key, Condition::Always, record).await.map(drop)
    }

    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        self.inner.write(key, Condition::Stamp(seen), record).await
    }

    async fn delete(&self, key: Key) -> Result<bool> {
        Ok(self.inner.change(Operation::Delete(vec![key])).await? > 0)
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<u64> {
        self.inner.change(Operation::Delete(keys.to_vec())).await
    }

    async fn retain(&self, keys: &[Key], retain: Retain) -> Result<u64> {
        self.inner.change(Operation::Retain(keys.to_vec(), retain)).await
    }

    async fn delete_expired(&self, now: Timestamp) -> Result<u64> {
        let mut deleted = self.inner.change(Operation::RebuildWithoutExpired(now)).await?;
        let mut batch = BatchSize::new();
        loop {
            let begun = Instant::now();
            let in_batch = self.inner.change(Operation::DeleteExpired(now, batch.get())).await?;
            deleted += in_batch;
            if in_batch < u64::from(batch.get()) {
                return Ok(deleted);
            }
            batch.adapt(begun.elapsed());
        }
    }

    async fn clear(&self) -> Result<()> {
        self.inner.change(Operation::Clear).await.map(drop)
    }

    fn keys(&self) -> impl Stream<Item = Result<Key>> + Send {
        pages(move |after| {
            self.inner.query(move |connection| queries::keys_after(connection, after, KEYS_PER_PAGE))
        })
    }

    fn values(&self) -> impl Stream<Item = Result<(Key, Record)>> + Send {
        pages(move |after| {
            self.inner.query(move |connection| queries::values_after(connection, after, VALUES_PER_PAGE))
        })
    }

    async fn size(&self) -> Result<u64> {
        self.inner.query(queries::count_listed).await
    }

    fn change_count(&self, _: Key, max_silence: Duration) -> Option<u64> {
        self.inner.readers.as_ref()?.change_count(max_silence)
    }

    fn max_record_len(&self) -> usize {
        self.inner.max_record_len
    }

    fn inline_len(&self) -> usize {
        INLINE_LEN
    }

    fn keeps_records(&self) -> bool {
        false
    }

    /// Holds the entry against evictions by this process. Other processes do not know about it.
    fn hold(&self, chunk: Key, bytes: u64) -> Hold {
        self.inner.holds.hold(chunk, bytes, self.inner.max_bytes)
    }

    async fn usage(&self) -> Result<Usage> {
        let bytes = self.inner.query(queries::total_bytes).await?;
        Ok(Usage::new(bytes.unsigned_abs(), Some(self.inner.max_bytes)))
    }

    /// Checks that the file can be read. If it is not read-only, also checks that a transaction can begin.
    async fn check(&self) -> Result<()> {
        self.inner.query(queries::total_bytes).await?;
        if self.inner.read_only {
            return Ok(());
        }
        let begin = |connection: &Connection| connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK");
        let generation = self.inner.writer.generation();
        self.inner.report_damage(generation, self.inner.writer.query(begin).await)
    }

    async fn close(&self) -> Result<()> {
        Self::close(self).await
    }
}

/// Returns a stream of the rows of pages. Each page begins after the last key of the one before.
fn pages<T: Send, F>(page: impl Fn(Option<Key>) -> F + Send) -> impl Stream<Item = Result<T>> + Send
where
    F: Future<Output = Result<queries::Page<T>>> + Send,
{
    stream::try_unfold(Some((page, None)), |state| async move {
        let Some((page, after)) = state else { return Ok(None) };
        let (rows, last) = page(after).await?;
        let next = last.map(|last| (page, Some(last)));
        Ok(Some((stream::iter(rows).map(Ok), next)))
    })
    .try_flatten()
}

impl fmt::Debug for SqliteStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStorage").field("read_only", &self.inner.read_only).finish_non_exhaustive()
    }
}
