//! The store itself: each operation is one command.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use ::mongodb::bson::{Bson, Document, doc};
use futures_core::Stream;
use futures_util::{TryStreamExt, stream};

use super::builder::MongoDbStorageBuilder;
use super::document::{self, LISTED};
use super::failure::{failed, is_duplicate};
use super::link::Link;
use super::server::MongoDbServer;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::contract::{Retain, Storage};
use crate::storage::key::Key;
use crate::storage::record::{Record, Stamp};
use crate::storage::remote::INLINE_LEN;
use crate::time::Timestamp;

/// A document has at most 16 MiB.
const LONGEST: usize = 8 << 20;
/// How many keys one command names: some megabytes of the 48 that a command may have.
const TOGETHER: usize = 20_000;
/// How many keys, and how many records, a listing asks for at once.
const KEYS: i64 = 1000;
const RECORDS: i64 = 32;
/// How often a write meets another one's that came or went in between, before it gives up.
const ATTEMPTS: usize = 4;

/// Responses in MongoDB, which many machines may share. See the [module](crate::storage::mongodb) for what it promises.
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
    link: Arc<Link>,
}

impl MongoDbStorage {
    /// Connects to the MongoDB at this address, with the default settings. A server that cannot be reached now is no
    /// error, since requests go on without it: an event tells of it, and [`check`](MongoDbStorage::check) tells why.
    ///
    /// # Errors
    /// As [`MongoDbStorageBuilder::connect`].
    pub async fn connect(server: impl Into<MongoDbServer>) -> Result<Self> {
        Self::builder(server).connect().await
    }

    /// Sets up a store in this MongoDB: an address, the driver's own options, or a ready client.
    pub fn builder(server: impl Into<MongoDbServer>) -> MongoDbStorageBuilder {
        MongoDbStorageBuilder::new(server.into())
    }

    /// Asks the server whether it would answer.
    ///
    /// # Errors
    /// Why not: [`Unavailable`](ErrorKind::Unavailable) or [`Timeout`](ErrorKind::Timeout) where it cannot be reached,
    /// [`Denied`](ErrorKind::Denied) where it refuses the credentials or they give no right to read.
    pub async fn check(&self) -> Result<()> {
        self.read(Key::head([0; 16])).await.map(drop)
    }

    pub(super) fn new(link: Link) -> Self {
        Self { link: Arc::new(link) }
    }

    async fn find(&self, key: Key) -> Result<Option<Document>> {
        let filter = place(key);
        self.link.read(&[key], |records| async move { records.find_one(filter).await }).await
    }

    async fn replace(&self, key: Key, filter: Document, document: Document) -> Result<bool> {
        let replaced = self
            .link
            .write(&[key], |records| async move { records.replace_one(filter, document).await })
            .await?;
        Ok(replaced.matched_count > 0)
    }

    /// Writes where nothing is, or what is no record.
    async fn write_new(&self, key: Key, record: &Record, document: Document) -> Result<bool> {
        for _ in 0..ATTEMPTS {
            let new = document.clone();
            match self.link.try_write(&[key], |records| async move { records.insert_one(new).await }).await? {
                Ok(_) => return Ok(true),
                Err(error) if is_duplicate(&error) => {}
                Err(error) => return Err(failed(&error, true)),
            }
            let Some(there) = self.find(key).await? else { continue };
            let same = document::same(&there);
            if let Some(there) = document::decode(there) {
                return Ok(there.stamp() == record.stamp());
            }
            if self.replace(key, same, document.clone()).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The documents that match, in the order of their ids, page by page: those of each page begin after the last one.
    fn pages(
        &self,
        filter: Document,
        projection: Document,
        page: i64,
    ) -> impl Stream<Item = Result<Document>> + Send + use<'_> {
        let begin = Some(String::new());
        stream::try_unfold(begin, move |after| {
            let (mut filter, projection) = (filter.clone(), projection.clone());
            async move {
                let Some(after) = after else { return Ok(None) };
                filter.insert("_id", doc! { "$gt": after });
                let documents: Vec<Document> = self
                    .link
                    .read(&[], |records| async move {
                        let found = records.find(filter).projection(projection).sort(doc! { "_id": 1 });
                        found.limit(page).batch_size(page as u32).await?.try_collect().await
                    })
                    .await?;
                let last = documents.last().and_then(|last| last.get_str("_id").ok()).map(str::to_owned);
                let next = last.filter(|_| documents.len() as i64 == page);
                Ok::<_, Error>(Some((stream::iter(documents.into_iter().map(Ok)), next)))
            }
        })
        .try_flatten()
    }
}

fn place(key: Key) -> Document {
    doc! { "_id": key.to_string() }
}

fn places(keys: &[Key]) -> Document {
    doc! { "_id": { "$in": keys.iter().map(|key| Bson::from(key.to_string())).collect::<Vec<_>>() } }
}

fn encode(key: Key, record: &Record) -> Result<Document> {
    let bytes = record.to_bytes();
    if bytes.len() > LONGEST {
        return Err(Error::new(ErrorKind::TooLarge, "the record is longer than this store takes"));
    }
    Ok(document::encode(key, record, bytes.into()))
}

// As provided: `hold`, since the server drops nothing before its time; `usage`, since it counts what its disk has, with what
// others keep there; `close`, since a write is the server's when it returns.
impl Storage for MongoDbStorage {
    async fn read(&self, key: Key) -> Result<Option<Record>> {
        Ok(self.find(key).await?.and_then(document::decode))
    }

    async fn contains_all(&self, keys: &[Key]) -> Result<bool> {
        let keys: Vec<Key> = keys.iter().copied().collect::<HashSet<_>>().into_iter().collect();
        for group in keys.chunks(TOGETHER) {
            let filter = places(group);
            let there =
                self.link.read(group, |records| async move { records.count_documents(filter).await }).await?;
            if there != group.len() as u64 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn write(&self, key: Key, record: Record) -> Result<()> {
        let document = encode(key, &record)?;
        for attempt in 1.. {
            let (filter, new) = (place(key), document.clone());
            let written =
                self.link
                    .try_write(&[key], |records| async move {
                        records.replace_one(filter, new).upsert(true).await
                    })
                    .await?;
            match written {
                Ok(_) => break,
                // Two that found nothing there both insert: the second finds the first one's now.
                Err(error) if is_duplicate(&error) && attempt < ATTEMPTS => {}
                Err(error) => return Err(failed(&error, true)),
            }
        }
        Ok(())
    }

    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        let document = encode(key, &record)?;
        let Some(seen) = seen else { return self.write_new(key, &record, document).await };
        let mut filter = place(key);
        filter.insert("stamp", document::stamp(seen));
        if self.replace(key, filter, document).await? {
            return Ok(true);
        }
        let mut filter = place(key);
        filter.insert("stamp", document::stamp(record.stamp()));
        let there =
            self.link.read(&[key], |records| async move { records.count_documents(filter).await }).await?;
        Ok(there > 0)
    }

    async fn delete(&self, key: Key) -> Result<bool> {
        Ok(self.delete_many(&[key]).await? > 0)
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<u64> {
        let mut deleted = 0;
        for group in keys.chunks(TOGETHER) {
            let filter = places(group);
            let result =
                self.link.write(group, |records| async move { records.delete_many(filter).await }).await?;
            deleted += result.deleted_count;
        }
        Ok(deleted)
    }

    async fn retain(&self, keys: &[Key], retain: Retain) -> Result<u64> {
        let mut there = 0;
        for group in keys.chunks(TOGETHER) {
            let (filter, update) = (places(group), document::moved(retain));
            let result = self
                .link
                .write(group, |records| async move { records.update_many(filter, update).await })
                .await?;
            there += result.matched_count;
        }
        Ok(there)
    }

    async fn delete_expired(&self, now: Timestamp) -> Result<u64> {
        let due = document::due(now);
        let result = self.link.write(&[], |records| async move { records.delete_many(due).await }).await?;
        Ok(result.deleted_count)
    }

    async fn clear(&self) -> Result<()> {
        self.link.write(&[], |records| async move { records.delete_many(doc! {}).await }).await.map(drop)
    }

    fn keys(&self) -> impl Stream<Item = Result<Key>> + Send {
        let pages = self.pages(doc! {}, doc! { "_id": 1 }, KEYS);
        pages.try_filter_map(|document| std::future::ready(Ok(document::key(&document))))
    }

    fn values(&self) -> impl Stream<Item = Result<(Key, Record)>> + Send {
        let listed = doc! { "kind": { "$in": LISTED.to_vec() } };
        self.pages(listed, doc! {}, RECORDS).try_filter_map(|document| {
            let value = document::key(&document).zip(document::decode(document));
            std::future::ready(Ok(value))
        })
    }

    async fn size(&self) -> Result<u64> {
        let listed = doc! { "kind": { "$in": LISTED.to_vec() } };
        self.link.read(&[], |records| async move { records.count_documents(listed).await }).await
    }

    fn max_record_len(&self) -> usize {
        LONGEST
    }

    fn inline_len(&self) -> usize {
        INLINE_LEN
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
