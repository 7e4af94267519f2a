//! The MongoDB storage. Each of its operations is one command.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use ::mongodb::bson::{Bson, Document, RawDocument, RawDocumentBuf, doc};
use futures_core::Stream;
use futures_util::{TryStreamExt, stream};

use super::builder::MongoDbStorageBuilder;
use super::connection::Connection;
use super::document::{self, LISTED_KINDS};
use super::error::{convert, is_duplicate_key};
use super::server::MongoDbServer;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::contract::{Retain, Storage};
use crate::storage::key::Key;
use crate::storage::recent_records::RecentRecords;
use crate::storage::record::{Record, Stamp};
use crate::time::Timestamp;

/// The longest record, in bytes.
///
/// MongoDB limits a document to 16 MiB. Half of that leaves room for the other fields, and is far above the
/// length of a chunk.
const MAX_RECORD_LEN: usize = 8 << 20;
/// The length up to which a body is stored with its head.
///
/// A second read takes longer than the transfer of so much. Longer than on Redis, as a command takes longer here.
const INLINE_LEN: usize = 64 << 10;
/// The most keys in one command.
///
/// A key takes about 90 bytes, so this many take 2 MB of the 48 MB that a command may have.
const MAX_KEYS_PER_COMMAND: usize = 20_000;
/// The keys in one page of a listing. They are short, so that a page is still small.
const KEYS_PER_PAGE: i64 = 1000;
/// The records in one page of a listing.
///
/// Each of them may hold a short body.
const RECORDS_PER_PAGE: i64 = 32;
/// How often a write is tried that collides with writes or deletions of other processes.
///
/// Each further attempt needs another collision between two commands, so more than two are rare.
const MAX_ATTEMPTS: usize = 4;

/// A storage in MongoDB, which processes on many machines can share.
///
/// See the [module](crate::storage::mongodb) for its guarantees.
///
/// ```no_run
/// use tower_response_cache::CacheLayer;
/// use tower_response_cache::storage::MongoDbStorage;
///
/// # async fn open() -> tower_response_cache::Result<()> {
/// let storage = MongoDbStorage::connect("mongodb://127.0.0.1/app").await?;
/// let layer = CacheLayer::new(storage);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MongoDbStorage {
    connection: Arc<Connection>,
    recent: Arc<RecentRecords>,
}

impl MongoDbStorage {
    /// Connects to a MongoDB server with the default settings.
    ///
    /// A server that cannot be reached now is not an error, since requests are answered without it. An event
    /// reports it, and [`check`](MongoDbStorage::check) returns the reason.
    ///
    /// # Errors
    /// Returns the errors of [`MongoDbStorageBuilder::connect`].
    pub async fn connect(server: impl Into<MongoDbServer>) -> Result<Self> {
        Self::builder(server).connect().await
    }

    /// Returns a builder for a storage on a MongoDB server.
    ///
    /// The server is given by an address, the driver's own options or a ready client.
    pub fn builder(server: impl Into<MongoDbServer>) -> MongoDbStorageBuilder {
        MongoDbStorageBuilder::new(server.into())
    }

    /// Asks the server whether it can be used.
    ///
    /// # Errors
    /// Returns [`Unavailable`](ErrorKind::Unavailable) or [`Timeout`](ErrorKind::Timeout) if the server
    /// cannot be reached, and [`Denied`](ErrorKind::Denied) if it refuses the credentials or they do not
    /// permit reading.
    pub async fn check(&self) -> Result<()> {
        self.read(Key::head([0; 16])).await.map(drop)
    }

    pub(super) fn new(connection: Connection) -> Self {
        Self { connection: Arc::new(connection), recent: Arc::new(RecentRecords::new()) }
    }

    /// Finds the document of this key, and returns what `read` makes of it.
    ///
    /// `read` gets it in the buffer in which it came. `find_one` would copy it.
    async fn find<T>(&self, key: Key, read: impl FnOnce(&RawDocument) -> T + Send) -> Result<Option<T>> {
        let filter = id_filter(key);
        self.connection
            .read(&[key], |collection| async move {
                // A negative limit asks for a single batch, as `find_one` does.
                let mut found = collection.find(filter).limit(-1).await?;
                Ok(if found.advance().await? { Some(read(found.current())) } else { None })
            })
            .await
    }

    /// Replaces the document of this key if it matches, and returns whether it did.
    async fn replace(&self, key: Key, filter: Document, document: Arc<RawDocumentBuf>) -> Result<bool> {
        let replaced = self
            .connection
            .write(&[key], |collection| async move { collection.replace_one(filter, document).await })
            .await?;
        Ok(replaced.matched_count > 0)
    }

    /// Writes a record if none exists at its key.
    ///
    /// A document that is not a record is replaced.
    async fn write_new(&self, key: Key, record: &Record, document: Arc<RawDocumentBuf>) -> Result<bool> {
        // The document that prevents the insert may be gone when it is read, or changed when it is replaced.
        for _ in 0..MAX_ATTEMPTS {
            let new = Arc::clone(&document);
            let inserted = self
                .connection
                .try_write(&[key], |collection| async move { collection.insert_one(new).await })
                .await?;
            match inserted {
                Ok(_) => return Ok(true),
                Err(error) if is_duplicate_key(&error) => {}
                Err(error) => return Err(convert(&error, true)),
            }
            let present = |found: &RawDocument| {
                document::decode_copy(found).ok_or_else(|| document::unchanged_filter(found))
            };
            let unchanged = match self.find(key, present).await? {
                None => continue,
                // The same stamp: the driver repeated the insert after a lost answer.
                Some(Ok(present)) => return Ok(present.stamp() == record.stamp()),
                Some(Err(unchanged)) => unchanged,
            };
            // A damaged document counts as absent, but only as long as it is the one that was read.
            if self.replace(key, unchanged, Arc::clone(&document)).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Lists the documents that match, in the order of their ids and in pages.
    ///
    /// Each page is a query of its own that begins after the last id of the page before, so that no cursor
    /// stays open while the caller is slow.
    fn pages(
        &self,
        filter: Document,
        projection: Document,
        page_len: i64,
    ) -> impl Stream<Item = Result<RawDocumentBuf>> + Send + use<'_> {
        // Every id sorts after the empty string.
        let begin = Some(String::new());
        stream::try_unfold(begin, move |after| {
            let (mut filter, projection) = (filter.clone(), projection.clone());
            async move {
                let Some(after) = after else { return Ok(None) };
                filter.insert("_id", doc! { "$gt": after });
                let documents: Vec<RawDocumentBuf> = self
                    .connection
                    .read(&[], |collection| async move {
                        let found = collection.find(filter).projection(projection).sort(doc! { "_id": 1 });
                        // One batch holds the whole page, which closes the cursor.
                        found.limit(page_len).batch_size(page_len as u32).await?.try_collect().await
                    })
                    .await?;
                let last = documents.last().and_then(|last| last.get_str("_id").ok()).map(str::to_owned);
                let next = last.filter(|_| documents.len() as i64 == page_len);
                Ok::<_, Error>(Some((stream::iter(documents.into_iter().map(Ok)), next)))
            }
        })
        .try_flatten()
    }
}

/// Returns a filter for the document of this key.
fn id_filter(key: Key) -> Document {
    doc! { "_id": key.to_string() }
}

/// Returns a filter for the documents of these keys.
fn ids_filter(keys: &[Key]) -> Document {
    doc! { "_id": { "$in": keys.iter().map(|key| Bson::from(key.to_string())).collect::<Vec<_>>() } }
}

/// Returns a filter for the records that count as stored responses.
fn listed_filter() -> Document {
    doc! { "kind": { "$in": LISTED_KINDS.to_vec() } }
}

/// Returns the document of a record, shared by the attempts to write it.
fn encode(key: Key, record: &Record) -> Result<Arc<RawDocumentBuf>> {
    let bytes = record.to_bytes();
    if bytes.len() > MAX_RECORD_LEN {
        return Err(Error::new(ErrorKind::TooLarge, "the record is longer than the storage accepts"));
    }
    Ok(Arc::new(document::encode(key, record, &bytes)))
}

// These methods keep their provided version: `hold`, because the server drops no record before its time;
// `usage`, because the server reports the size of its disk, other databases included; `close`, because a
// write has arrived when it returns.
impl Storage for MongoDbStorage {
    async fn read(&self, key: Key) -> Result<Option<Record>> {
        let record =
            |found: &RawDocument| document::decode(found, |bytes| self.recent.read_slice(key, bytes));
        Ok(self.find(key, record).await?.flatten())
    }

    async fn stamps(&self, keys: &[Key]) -> Result<Vec<Option<(Stamp, Timestamp)>>> {
        let mut found = HashMap::with_capacity(keys.len());
        for group in keys.chunks(MAX_KEYS_PER_COMMAND) {
            let filter = ids_filter(group);
            let projection = doc! { "stamp": 1, "until": 1 };
            let documents: Vec<RawDocumentBuf> = self
                .connection
                .read(group, |collection| async move {
                    collection.find(filter).projection(projection).await?.try_collect().await
                })
                .await?;
            let stamps = documents.iter();
            found.extend(
                stamps.filter_map(|document| document::key(document).zip(document::stamp_of(document))),
            );
        }
        Ok(keys.iter().map(|key| found.get(key).copied()).collect())
    }

    async fn contains_all(&self, keys: &[Key]) -> Result<bool> {
        // Without repetitions, since the server counts a document once.
        let keys: Vec<Key> = keys.iter().copied().collect::<HashSet<_>>().into_iter().collect();
        for group in keys.chunks(MAX_KEYS_PER_COMMAND) {
            let filter = ids_filter(group);
            // Not `count_documents`, which is an aggregation: not every server uses the index of the ids for it.
            let present: Vec<RawDocumentBuf> = self
                .connection
                .read(group, |collection| async move {
                    collection.find(filter).projection(doc! { "_id": 1 }).await?.try_collect().await
                })
                .await?;
            if present.len() != group.len() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn write(&self, key: Key, record: Record) -> Result<()> {
        let document = encode(key, &record)?;
        for attempt in 1.. {
            let (filter, new) = (id_filter(key), Arc::clone(&document));
            let written = self
                .connection
                .try_write(&[key], |collection| async move {
                    collection.replace_one(filter, new).upsert(true).await
                })
                .await?;
            match written {
                Ok(_) => break,
                // An upsert is not atomic where no document exists: of two writes that found none, both
                // insert. The one that is refused finds the document of the other one now.
                Err(error) if is_duplicate_key(&error) && attempt < MAX_ATTEMPTS => {}
                Err(error) => return Err(convert(&error, true)),
            }
        }
        Ok(())
    }

    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        let document = encode(key, &record)?;
        let Some(seen) = seen else { return self.write_new(key, &record, document).await };
        let mut filter = id_filter(key);
        filter.insert("stamp", document::stamp(seen));
        if self.replace(key, filter, document).await? {
            return Ok(true);
        }
        // The comparison also fails if an earlier attempt of this very write has arrived, such as one that
        // the driver repeated after a lost answer. Then the record has the stamp of this write.
        let mut filter = id_filter(key);
        filter.insert("stamp", document::stamp(record.stamp()));
        let written = self
            .connection
            .read(&[key], |collection| async move { collection.count_documents(filter).await })
            .await?;
        Ok(written > 0)
    }

    async fn delete(&self, key: Key) -> Result<bool> {
        Ok(self.delete_many(&[key]).await? > 0)
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<u64> {
        let mut deleted = 0;
        for group in keys.chunks(MAX_KEYS_PER_COMMAND) {
            let filter = ids_filter(group);
            let result = self
                .connection
                .write_many(group, |collection| {
                    let filter = filter.clone();
                    async move { collection.delete_many(filter).await }
                })
                .await?;
            deleted += result.deleted_count;
        }
        Ok(deleted)
    }

    async fn retain(&self, keys: &[Key], retain: Retain) -> Result<u64> {
        let mut present = 0;
        for group in keys.chunks(MAX_KEYS_PER_COMMAND) {
            let (filter, update) = (ids_filter(group), document::retention_update(retain));
            let result = self
                .connection
                .write_many(group, |collection| {
                    let (filter, update) = (filter.clone(), update.clone());
                    async move { collection.update_many(filter, update).await }
                })
                .await?;
            present += result.matched_count;
        }
        Ok(present)
    }

    async fn delete_expired(&self, now: Timestamp) -> Result<u64> {
        let expired = document::expired_filter(now);
        let result = self
            .connection
            .write_many(&[], |collection| {
                let expired = expired.clone();
                async move { collection.delete_many(expired).await }
            })
            .await?;
        Ok(result.deleted_count)
    }

    async fn clear(&self) -> Result<()> {
        // Not `drop`, which would remove the indexes, too, and needs a permission of its own.
        self.connection
            .write_many(&[], |collection| async move { collection.delete_many(doc! {}).await })
            .await
            .map(drop)
    }

    fn keys(&self) -> impl Stream<Item = Result<Key>> + Send {
        let pages = self.pages(doc! {}, doc! { "_id": 1 }, KEYS_PER_PAGE);
        pages.try_filter_map(|document| std::future::ready(Ok(document::key(&document))))
    }

    fn values(&self) -> impl Stream<Item = Result<(Key, Record)>> + Send {
        self.pages(listed_filter(), doc! {}, RECORDS_PER_PAGE).try_filter_map(|document| {
            let value = document::key(&document).zip(document::decode_copy(&document));
            std::future::ready(Ok(value))
        })
    }

    async fn size(&self) -> Result<u64> {
        let listed = listed_filter();
        self.connection.read(&[], |collection| async move { collection.count_documents(listed).await }).await
    }

    fn max_record_len(&self) -> usize {
        MAX_RECORD_LEN
    }

    fn inline_len(&self) -> usize {
        INLINE_LEN
    }

    fn keeps_records(&self) -> bool {
        false
    }

    async fn check(&self) -> Result<()> {
        Self::check(self).await
    }
}

impl fmt::Debug for MongoDbStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoDbStorage").finish_non_exhaustive()
    }
}
