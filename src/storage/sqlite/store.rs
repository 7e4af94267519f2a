//! The storage itself.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_core::Stream;
use futures_util::{StreamExt, TryStreamExt, stream};
use rusqlite::{Connection, params};

use super::builder::{Name, SqliteStorageBuilder};
use super::failure::{closed, failed};
use super::open::{open_reader, open_writer};
use super::reader::{Readers, read};
use super::writer::{Change, Writer, from_sql};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Key, Kind, Record, Retain, Stamp, Storage};
use crate::time::Timestamp;

/// Keeps records in a SQLite file. Clones are handles of the same store.
///
/// ```no_run
/// # async fn example() -> tower_response_cache::Result<()> {
/// use tower_response_cache::{CacheLayer, storage::SqliteStorage};
///
/// let layer = CacheLayer::new(SqliteStorage::open("~/.cache/app/http.sqlite").await?);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SqliteStorage(Arc<Inner>);

struct Inner {
    writer: Writer,
    /// `None`: the writer's connection is the only one.
    readers: Option<Readers>,
    /// Connections for reading in the task that asks.
    in_task: Option<Mutex<Vec<Connection>>>,
    read_only: bool,
    max_bytes: u64,
}

/// SQLite's own limit on a value, less some room.
const LONGEST: u64 = 900_000_000;
/// Lists a page of rows after a key.
type List<T> = fn(&Connection, Option<Key>, usize) -> Result<Vec<(Key, T)>>;

/// So many keys, or values, are listed with one query.
const PAGE_OF_KEYS: usize = 1024;
const PAGE_OF_VALUES: usize = 64;

impl SqliteStorage {
    /// Opens the store at this path with the default settings.
    ///
    /// # Errors
    /// As [`SqliteStorageBuilder::open`].
    pub async fn open(cache_name: impl Into<PathBuf>) -> Result<Self> {
        Self::builder(cache_name).open().await
    }

    /// A store with settings. The name is the file's path (`~` is the user's home directory; missing folders are
    /// made), SQLite's URI (`file:…?mode=ro`), or `:memory:`.
    pub fn builder(cache_name: impl Into<PathBuf>) -> SqliteStorageBuilder {
        SqliteStorageBuilder::new(cache_name.into())
    }

    pub(super) fn open_blocking(mut builder: SqliteStorageBuilder) -> Result<Self> {
        let given = builder.connection.is_some();
        let name = if given { Name::Private(PathBuf::new()) } else { Name::parse(&builder.cache_name)? };
        name.make_parents()?;
        let (connection, read_only) = open_writer(&mut builder, &name)?;
        let (mut readers, mut in_task) = (None, None);
        if !matches!(name, Name::Private(_)) {
            let open =
                || (0..builder.readers).map(|_| open_reader(&builder, &name)).collect::<Result<Vec<_>>>();
            readers = Some(Readers::start(open()?)?);
            if builder.read_in_task {
                in_task = Some(Mutex::new(open()?));
            }
        }
        let max_bytes = builder.max_bytes;
        let writer = Writer::new(tokio_rusqlite::Connection::from(connection), max_bytes);
        Ok(Self(Arc::new(Inner { writer, readers, in_task, read_only, max_bytes })))
    }

    /// Whether the file cannot be written: hits are served, and nothing is stored.
    pub fn is_read_only(&self) -> bool {
        self.0.read_only
    }

    async fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        match &self.0.readers {
            Some(readers) => readers.run(query).await,
            None => self.0.writer.connection().call_raw(query).await.map_err(|_| closed())?,
        }
    }

    /// Reads with a connection that is free, in this task; `None`: there is none.
    fn read_in_task(&self, key: Key) -> Option<Result<Option<Record>>> {
        let pool = self.0.in_task.as_ref()?;
        let connection = pool.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        let record = read(&connection, key);
        pool.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        if let Ok(Some(_)) = &record {
            self.touch(key);
        }
        Some(record)
    }

    fn touch(&self, key: Key) {
        if key.kind == Kind::Head && !self.0.read_only {
            self.0.writer.touch(key.entry);
        }
    }

    async fn apply(&self, change: Change) -> Result<u64> {
        if self.0.read_only {
            return Err(Error::new(ErrorKind::ReadOnly, "the SQLite file cannot be written"));
        }
        self.0.writer.apply(change).await
    }

    async fn put(&self, key: Key, record: &Record, condition: Option<Option<Stamp>>) -> Result<u64> {
        let value: Bytes = record.to_bytes();
        if value.len() > self.max_record_len() {
            return Err(Error::new(ErrorKind::TooLarge, "the record is longer than the store takes"));
        }
        let (stamp, until) = (record.stamp(), record.retain_until());
        self.apply(Change::Write { key, stamp, until, value, condition }).await
    }

    /// Lists pages of rows in the order of keys, so that changes made meanwhile neither repeat nor hide any.
    fn pages<T: Send + 'static>(
        &self,
        page: usize,
        list: List<T>,
    ) -> impl Stream<Item = Result<(Key, T)>> + Send {
        let pages = stream::try_unfold((self.clone(), Some(None)), move |(storage, after)| async move {
            let Some(after) = after else { return Ok::<_, Error>(None) };
            let rows = storage.query(move |connection| list(connection, after, page)).await?;
            let next = if rows.len() < page { None } else { rows.last().map(|(key, _)| Some(*key)) };
            Ok(Some((stream::iter(rows).map(Ok), (storage, next))))
        });
        pages.try_flatten()
    }
}

fn key_of(entry: [u8; 16], kind: u8, slot: [u8; 16], part: u32) -> Option<Key> {
    Some(Key { entry, kind: Kind::from_u8(kind)?, slot, part })
}

const AFTER: &str = "(entry, kind, slot, part) > (?1, ?2, ?3, ?4) ORDER BY entry, kind, slot, part LIMIT ?5";

/// The first key of all, but for its part: nothing is before it.
fn bounds(after: Option<Key>) -> ([u8; 16], u8, [u8; 16], i64) {
    after.map_or(([0; 16], 0, [0; 16], -1), |key| (key.entry, key.kind as u8, key.slot, i64::from(key.part)))
}

fn list_keys(connection: &Connection, after: Option<Key>, page: usize) -> Result<Vec<(Key, ())>> {
    let sql = format!("SELECT entry, kind, slot, part FROM records WHERE {AFTER}");
    let (entry, kind, slot, part) = bounds(after);
    let mut query = connection.prepare_cached(&sql).map_err(failed)?;
    let rows = query.query_map(params![entry, kind, slot, part, page as i64], |row| {
        Ok(key_of(row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    });
    let keys = rows.and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>).map_err(failed)?;
    Ok(keys.into_iter().flatten().map(|key| (key, ())).collect())
}

fn list_values(
    connection: &Connection,
    after: Option<Key>,
    page: usize,
) -> Result<Vec<(Key, Option<Record>)>> {
    let sql =
        format!("SELECT entry, kind, slot, part, until, value FROM records WHERE kind IN (0, 1) AND {AFTER}");
    let (entry, kind, slot, part) = bounds(after);
    let mut query = connection.prepare_cached(&sql).map_err(failed)?;
    let rows = query.query_map(params![entry, kind, slot, part, page as i64], |row| {
        let key = key_of(row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        let (until, value): (i64, Vec<u8>) = (row.get(4)?, row.get(5)?);
        let record = Record::from_bytes(value).ok().map(|record| record.with_retain_until(from_sql(until)));
        Ok(key.map(|key| (key, record)))
    });
    let rows = rows.and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>).map_err(failed)?;
    Ok(rows.into_iter().flatten().collect())
}

impl fmt::Debug for SqliteStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStorage").field("read_only", &self.0.read_only).finish_non_exhaustive()
    }
}

#[deny(clippy::missing_trait_methods)]
impl Storage for SqliteStorage {
    async fn read(&self, key: Key) -> Result<Option<Record>> {
        if let Some(answer) = self.read_in_task(key) {
            return answer;
        }
        let record = self.query(move |connection| read(connection, key)).await?;
        if record.is_some() {
            self.touch(key);
        }
        Ok(record)
    }

    async fn write(&self, key: Key, record: Record) -> Result<()> {
        self.put(key, &record, None).await.map(|_| ())
    }

    async fn delete(&self, key: Key) -> Result<bool> {
        Ok(self.apply(Change::Delete(vec![key])).await? > 0)
    }

    async fn clear(&self) -> Result<()> {
        self.apply(Change::Clear).await.map(|_| ())
    }

    fn keys(&self) -> impl Stream<Item = Result<Key>> + Send {
        self.pages(PAGE_OF_KEYS, list_keys).map_ok(|(key, ())| key)
    }

    fn read_now(&self, key: Key) -> Option<Result<Option<Record>>> {
        self.read_in_task(key)
    }

    async fn contains(&self, key: Key) -> Result<bool> {
        // A damaged record is absent, so its bytes have to be looked at.
        Ok(self.query(move |connection| read(connection, key)).await?.is_some())
    }

    async fn size(&self) -> Result<u64> {
        self.query(|connection| {
            let count = connection
                .query_row("SELECT count(*) FROM records WHERE kind IN (0, 1)", [], |row| {
                    row.get::<_, i64>(0)
                })
                .map_err(failed)?;
            Ok(u64::try_from(count).unwrap_or(0))
        })
        .await
    }

    fn values(&self) -> impl Stream<Item = Result<(Key, Record)>> + Send {
        self.pages(PAGE_OF_VALUES, list_values)
            .try_filter_map(|(key, record)| std::future::ready(Ok(record.map(|record| (key, record)))))
    }

    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        Ok(self.put(key, &record, Some(seen)).await? > 0)
    }

    async fn retain(&self, keys: &[Key], retain: Retain) -> Result<u64> {
        self.apply(Change::Retain(keys.to_vec(), retain)).await
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<u64> {
        self.apply(Change::Delete(keys.to_vec())).await
    }

    async fn delete_expired(&self, now: Timestamp) -> Result<u64> {
        self.apply(Change::DeleteExpired(now)).await
    }

    fn max_record_len(&self) -> usize {
        usize::try_from((self.0.max_bytes / 2).min(LONGEST))
            .unwrap_or(usize::MAX)
            .saturating_sub(super::evict::OVERHEAD)
    }
}
