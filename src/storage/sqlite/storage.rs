//! The store itself: each operation goes to the writer, or to the readers.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_core::Stream;
use futures_util::{StreamExt, TryStreamExt, stream};
use rusqlite::Connection;

use super::builder::SqliteStorageBuilder;
use super::open::Opened;
use super::operation::{Operation, When};
use super::readers::Readers;
use super::recency::Recency;
use super::source::Source;
use super::table::{Encoded, ROW};
use super::writer::{Writer, too_large};
use super::{log, rows, vacuum};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Hold;
use crate::storage::contract::{Retain, Storage, Usage};
use crate::storage::holds::Holds;
use crate::storage::key::Key;
use crate::storage::record::{Record, Stamp};
use crate::time::{Clock, Timestamp};

const LONGEST: u64 = 512 << 20;
const KEYS_AT_ONCE: u32 = 512;
const VALUES_AT_ONCE: u32 = 32;
/// How many expired records one transaction removes, and how long it should take: half of what an operation may.
const FEWEST_EXPIRED: u32 = 1000;
const MOST_EXPIRED: u32 = 64_000;
const TURN: Duration = Duration::from_millis(250);

/// Responses in one SQLite file, which survive the process and which many processes may share. See the
/// [module](crate::storage::sqlite) for what it promises.
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
    /// None where one connection does everything.
    readers: Option<Readers>,
    recency: Arc<Recency>,
    holds: Arc<Holds>,
    max_bytes: u64,
    max_record_len: usize,
    read_only: bool,
}

impl SqliteStorage {
    /// Opens the store at this path with the default settings; see [`builder`](SqliteStorage::builder).
    ///
    /// # Errors
    /// As [`SqliteStorageBuilder::open`].
    pub async fn open(cache_name: impl Into<PathBuf>) -> Result<Self> {
        Self::builder(cache_name).open().await
    }

    /// Opens a store with settings. The cache name is a path, where a leading `~/` is the home directory and the
    /// directories are made; or SQLite's URI filename (`file:…?mode=ro`), taken as it is; or `:memory:`, a store that
    /// ends with its last clone.
    pub fn builder(cache_name: impl Into<PathBuf>) -> SqliteStorageBuilder {
        SqliteStorageBuilder::new(cache_name.into())
    }

    /// True when the file cannot be written: hits are served, nothing is stored.
    pub fn is_read_only(&self) -> bool {
        self.inner.read_only
    }

    /// Gives the file's free space back to the disk; says by how many bytes the file is shorter. What was evicted,
    /// deleted or replaced leaves such space, which later writes fill again: worth while after a
    /// [`clear`](Storage::clear) or under a lower bound, not as a habit.
    ///
    /// Goes in small steps, each in turn with other writes, of other processes too. Where at most 4096 pages (16 MiB) are in use, the
    /// rest goes in one step. A file that was not made by this crate with its own settings (`auto_vacuum = NONE`) is
    /// written anew at once, while others wait.
    ///
    /// # Errors
    /// [`ReadOnly`](ErrorKind::ReadOnly): the file cannot be written. [`Timeout`](ErrorKind::Timeout): a step found no
    /// turn. [`Full`](ErrorKind::Full): moving needs some room for the log. What was given back by then stays so.
    pub async fn vacuum(&self) -> Result<u64> {
        self.inner.may_change()?;
        let mut freed = 0;
        loop {
            let step = self.inner.writer.ask(vacuum::step).await?;
            freed += step.freed;
            if step.is_last {
                break;
            }
        }
        // The file is shortened when the log is merged. Readers in the way: then the next merge does it.
        self.inner.writer.ask(|connection| log::cut(connection, log::WAIT)).await?;
        Ok(freed)
    }

    /// Ends the use of the storage, for all of its clones: everything that was taken is written, the log is merged into the file
    /// and the connections are closed. What is asked of it after that fails as [`Unavailable`](ErrorKind::Unavailable).
    /// Where other processes have the file open, the log stays as theirs.
    ///
    /// # Errors
    /// When the log could not be merged: nothing is lost then, and the next one to open the file merges it.
    pub async fn close(&self) -> Result<()> {
        let merges = !self.inner.read_only;
        if merges {
            self.inner.writer.write_uses();
        }
        let close_readers = self.inner.readers.as_ref().map(Readers::close);
        self.inner.writer.close(merges, move || close_readers.into_iter().for_each(|close| close())).await
    }

    pub(super) fn new(opened: Opened, patience: Duration, max_bytes: i64, clock: Clock) -> Result<Self> {
        let (recency, holds) = (Arc::new(Recency::new(clock)), Arc::default());
        let source = Arc::new(Source::new(opened.plan, opened.path));
        let readers = match opened.readers.is_empty() && opened.in_task.is_empty() {
            true => None,
            false => Some(Readers::start(opened.readers, opened.in_task, patience, &source)?),
        };
        let longest = (max_bytes.unsigned_abs() / 2).saturating_sub(ROW).min(LONGEST);
        let inner = Inner {
            writer: Writer::new(
                opened.writer,
                Arc::clone(&recency),
                Arc::clone(&holds),
                max_bytes,
                patience,
                source,
            ),
            readers,
            recency,
            holds,
            max_bytes: max_bytes.unsigned_abs(),
            max_record_len: usize::try_from(longest).unwrap_or(usize::MAX),
            read_only: opened.read_only,
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl Inner {
    fn may_change(&self) -> Result<()> {
        match self.read_only {
            true => Err(Error::new(ErrorKind::ReadOnly, "the cache's file is read-only: nothing is stored")),
            false => Ok(()),
        }
    }

    async fn change(&self, operation: Operation) -> Result<u64> {
        self.may_change()?;
        let generation = self.writer.generation();
        self.see_to(generation, self.writer.run(operation).await)
    }

    /// Has damage seen to that was found in the file of this generation.
    fn see_to<T>(&self, generation: u64, result: Result<T>) -> Result<T> {
        if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Corrupt) {
            self.writer.recover(generation);
        }
        result
    }

    async fn write(&self, key: Key, when: When, record: Record) -> Result<bool> {
        let value = record.to_bytes();
        if value.len() > self.max_record_len {
            return Err(too_large());
        }
        let until = rows::until(record.retain_until());
        let record = Encoded { stamp: record.stamp(), until, value };
        Ok(self.change(Operation::Write { key, when, record }).await? > 0)
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let generation = self.writer.generation();
        let answer = match &self.readers {
            Some(readers) if readers.has_threads() => readers.ask(question).await,
            _ => self.writer.ask(question).await,
        };
        self.see_to(generation, answer)
    }

    /// Notes a hit; once in a while has the writer write them down.
    fn used(&self, key: Key, found: &Result<Option<Record>>) {
        if self.read_only || !matches!(found, Ok(Some(_))) {
            return;
        }
        self.recency.touch(key.entry);
        if self.recency.is_due() {
            self.writer.write_uses();
        }
    }
}

/// The longest that the last handle's drop waits outside of a runtime.
const FAREWELL: Duration = Duration::from_secs(5);

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.read_only {
            self.writer.write_uses();
        }
        // On the writer's thread, not in the task that drops the last clone; and the writer last: of two connections
        // that close at the same time, neither would merge the log.
        let close_readers = self.readers.as_ref().map(Readers::close);
        let (done, is_done) = std::sync::mpsc::channel();
        let posted = self.writer.post(move |connection| {
            close_readers.into_iter().for_each(|close| close());
            let _ = log::cut(connection, log::WAIT); // readers in the way: the last connection to close merges it
            let _ = done.send(()); // nobody waits in a runtime
        });
        if posted.is_ok() && tokio::runtime::Handle::try_current().is_err() {
            let _ = is_done.recv_timeout(FAREWELL);
        }
    }
}

impl Storage for SqliteStorage {
    async fn read(&self, key: Key) -> Result<Option<Record>> {
        if let Some(found) = self.read_now(key) {
            return found;
        }
        let found = self.inner.ask(move |connection| rows::read(connection, key)).await;
        self.inner.used(key, &found);
        found
    }

    fn read_now(&self, key: Key) -> Option<Result<Option<Record>>> {
        let readers = self.inner.readers.as_ref()?;
        let generation = self.inner.writer.generation();
        let found = readers.now(|connection| rows::read(connection, key))?;
        let found = self.inner.see_to(generation, found);
        self.inner.used(key, &found);
        Some(found)
    }

    async fn contains(&self, key: Key) -> Result<bool> {
        self.inner.ask(move |connection| Ok(rows::read(connection, key)?.is_some())).await
    }

    async fn contains_all(&self, _: &[Key]) -> Result<bool> {
        Ok(true) // an entry goes whole
    }

    async fn write(&self, key: Key, record: Record) -> Result<()> {
        self.inner.write(key, When::Always, record).await.map(drop)
    }

    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        self.inner.write(key, When::There(seen), record).await
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
        let mut deleted = self.inner.change(Operation::KeepLive(now)).await?;
        let mut at_once = FEWEST_EXPIRED;
        loop {
            let begun = Instant::now();
            let some = self.inner.change(Operation::DeleteExpired(now, at_once)).await?;
            deleted += some;
            if some < u64::from(at_once) {
                return Ok(deleted);
            }
            // The more there are at once, the more of them lie on one page; but all others wait for each transaction.
            at_once = match begun.elapsed() {
                short if short < TURN / 2 => (at_once * 2).min(MOST_EXPIRED),
                long if long > TURN => (at_once / 2).max(FEWEST_EXPIRED),
                _ => at_once,
            };
        }
    }

    async fn clear(&self) -> Result<()> {
        self.inner.change(Operation::Clear).await.map(drop)
    }

    fn keys(&self) -> impl Stream<Item = Result<Key>> + Send {
        pages(move |after| {
            self.inner.ask(move |connection| rows::keys_after(connection, after, KEYS_AT_ONCE))
        })
    }

    fn values(&self) -> impl Stream<Item = Result<(Key, Record)>> + Send {
        pages(move |after| {
            self.inner.ask(move |connection| rows::values_after(connection, after, VALUES_AT_ONCE))
        })
    }

    async fn size(&self) -> Result<u64> {
        self.inner.ask(rows::size).await
    }

    fn max_record_len(&self) -> usize {
        self.inner.max_record_len
    }

    /// A longer body is a row of its own, which is not written again where its response is confirmed. Up to this length a
    /// second read takes as long as the first, and to write the row again takes no longer.
    fn inline_len(&self) -> usize {
        64 << 10
    }

    /// Holds it in this process: another one that makes room does not know of it.
    fn hold(&self, chunk: Key, bytes: u64) -> Hold {
        self.inner.holds.hold(chunk, bytes, self.inner.max_bytes)
    }

    async fn usage(&self) -> Result<Usage> {
        let bytes = self.inner.ask(rows::total).await?;
        Ok(Usage::new(bytes.unsigned_abs(), Some(self.inner.max_bytes)))
    }

    /// Reads, and takes the turn to write where the file can be written.
    async fn check(&self) -> Result<()> {
        self.inner.ask(rows::total).await?;
        if self.inner.read_only {
            return Ok(());
        }
        let turn = |connection: &Connection| connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK");
        let generation = self.inner.writer.generation();
        self.inner.see_to(generation, self.inner.writer.ask(turn).await)
    }

    async fn close(&self) -> Result<()> {
        Self::close(self).await
    }
}

/// A stream of pages, each asked for after the last key of the one before.
fn pages<T: Send, F>(page: impl Fn(Option<Key>) -> F + Send) -> impl Stream<Item = Result<T>> + Send
where
    F: Future<Output = Result<rows::Page<T>>> + Send,
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
