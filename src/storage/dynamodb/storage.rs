//! The DynamoDB storage. Its operations are one request for each record.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};
use futures_core::Stream;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::runtime::Handle;

use super::builder::DynamoDbStorageBuilder;
use super::error::{runtime_ended, unexpected_condition_failure};
use super::item;
use super::naming::{Item, STAMP, UNTIL};
use super::scan::{MAX_BATCH_LEN, Selection};
use super::source::DynamoDbSource;
use super::table::Table;
use crate::error::Result;
use crate::storage::contract::{Retain, Storage};
use crate::storage::key::{Key, Kind};
use crate::storage::recent_records::RecentRecords;
use crate::storage::record::{Record, Stamp};
use crate::time::Timestamp;

/// The longest body within the record of its response, in bytes.
///
/// With its fields such a record is one read unit (4 KB), so that a hit costs one; a chunk would cost a
/// second. A longer body would be written again whenever the origin confirms the response, at one write unit
/// for each KB, and a write unit costs as much as five read units.
const INLINE_LEN: usize = 3 << 10;

/// The requests of one operation that may be under way at the same time.
///
/// Bounded, so that an operation on a body of thousands of chunks does not take all connections from the others.
const MAX_CONCURRENT_REQUESTS: usize = 16;

/// The batches of deletions that may be under way at the same time.
///
/// A batch costs at least 25 write units, and a partition has 1000 of them a second: many more batches would
/// be throttled.
const MAX_CONCURRENT_BATCHES: usize = 4;

/// A storage in a table of AWS DynamoDB, which processes on many machines can share.
///
/// See the [module](crate::storage::dynamodb) for its guarantees.
///
/// ```no_run
/// use tower_response_cache::CacheLayer;
/// use tower_response_cache::storage::DynamoDbStorage;
///
/// # async fn open() -> tower_response_cache::Result<()> {
/// let config = tower_response_cache::storage::dynamodb::aws_config::load_from_env().await;
/// let storage = DynamoDbStorage::builder(config).cache_name("app").connect().await?;
/// let layer = CacheLayer::new(storage);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct DynamoDbStorage {
    table: Arc<Table>,
    recent: Arc<RecentRecords>,
}

impl DynamoDbStorage {
    /// Connects to DynamoDB with the default settings.
    ///
    /// If DynamoDB cannot be reached now, that is not an error, since requests are answered without it. An
    /// event reports it, and [`check`](DynamoDbStorage::check) returns the reason.
    ///
    /// # Errors
    /// Returns the errors of [`DynamoDbStorageBuilder::connect`].
    pub async fn connect(source: impl Into<DynamoDbSource>) -> Result<Self> {
        Self::builder(source).connect().await
    }

    /// Returns a builder for a storage in DynamoDB.
    ///
    /// The source is an address, the environment, the driver's own settings or a ready client.
    pub fn builder(source: impl Into<DynamoDbSource>) -> DynamoDbStorageBuilder {
        DynamoDbStorageBuilder::new(source.into())
    }

    /// Asks DynamoDB whether the table can be used.
    ///
    /// Creates the table if it is missing and
    /// [`create_if_missing`](DynamoDbStorageBuilder::create_if_missing) is set.
    ///
    /// # Errors
    /// - Returns [`Unavailable`](crate::ErrorKind::Unavailable) or [`Timeout`](crate::ErrorKind::Timeout) if
    ///   DynamoDB cannot be reached.
    /// - Returns [`Denied`](crate::ErrorKind::Denied) if there are no credentials, or if they are refused or
    ///   do not permit reading.
    /// - Returns [`Config`](crate::ErrorKind::Config) if the table is missing or has other keys.
    pub async fn check(&self) -> Result<()> {
        self.get_item(Key::head([0; 16]), true).await.map(drop)
    }

    pub(super) fn new(table: Table) -> Self {
        Self { table: Arc::new(table), recent: Arc::new(RecentRecords::new()) }
    }

    /// Reads a record. A missing chunk is looked for a second time, with strong consistency.
    async fn read_record(&self, key: Key) -> Result<Option<Record>> {
        let consistent = self.table.consistent;
        let mut item = self.get_item(key, consistent).await?;
        // The record that names a chunk is written after it, but an eventually consistent read may see it
        // earlier. The response is under way by then, so that a body would end with an error.
        if item.is_none() && !consistent && key.kind == Kind::Chunk {
            item = self.get_item(key, true).await?;
        }
        Ok(item.and_then(|item| item::decode(item, |bytes| self.recent.read(key, bytes, 0))))
    }

    async fn get_item(&self, key: Key, consistent: bool) -> Result<Option<Item>> {
        let answer = self.table.send(false, |client, naming| {
            let request = client.get_item().table_name(&naming.table).set_key(Some(naming.key(key)));
            request.consistent_read(consistent).send()
        });
        Ok(answer.await?.item)
    }

    /// Writes an item if the condition is met.
    async fn put_item(&self, item: &Item, condition: Condition) -> Result<PutOutcome> {
        let answer = self.table.send_conditional(true, |client, naming| {
            let request = client.put_item().table_name(&naming.table).set_item(Some(item.clone()));
            match condition {
                Condition::Always => request,
                Condition::Absent => request
                    .condition_expression("attribute_not_exists(#p)")
                    .expression_attribute_names("#p", &naming.partition),
                Condition::Unstamped => request
                    .condition_expression("attribute_not_exists(#stamp)")
                    .expression_attribute_names("#stamp", STAMP),
                Condition::Stamp(ref seen) => request
                    .condition_expression("#stamp = :seen")
                    .expression_attribute_names("#stamp", STAMP)
                    .expression_attribute_values(":seen", seen.clone()),
            }
            // The comparison itself returns the item that it found, so no second read can see another one.
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
        });
        Ok(match answer.await? {
            Ok(_) => PutOutcome::Written,
            Err(PutItemError::ConditionalCheckFailedException(refusal)) => PutOutcome::Refused(refusal.item),
            Err(_) => PutOutcome::Refused(None),
        })
    }

    /// Deletes a record, and returns whether it existed.
    ///
    /// With `expired_at`, only a record that has expired at this time is deleted.
    async fn delete_item(&self, key: Key, expired_at: Option<Timestamp>) -> Result<bool> {
        let answer: std::result::Result<_, DeleteItemError> = self
            .table
            .send_conditional(true, |client, naming| {
                let request = client.delete_item().table_name(&naming.table).set_key(Some(naming.key(key)));
                match expired_at {
                    None => request
                        .condition_expression("attribute_exists(#p)")
                        .expression_attribute_names("#p", &naming.partition),
                    // Its time may have been moved since the scan found it.
                    Some(now) => request
                        .condition_expression("#until <= :now")
                        .expression_attribute_names("#until", UNTIL)
                        .expression_attribute_values(":now", item::until(now)),
                }
                .send()
            })
            .await?;
        Ok(answer.is_ok())
    }

    /// Moves the retention time of a record, and returns whether the record exists.
    async fn move_retention(&self, key: Key, retain: Retain) -> Result<bool> {
        // Neither condition is met where no record exists, so the update creates none.
        let (condition, time) = match retain {
            Retain::AtLeast(time) => ("#until < :until", time),
            Retain::AtMost(time) => ("#until > :until", time),
        };
        let expires = item::expires(time);
        let answer = self.table.send_conditional(true, |client, naming| {
            let update = if expires.is_some() {
                "SET #until = :until, #expires = :expires"
            } else {
                "SET #until = :until REMOVE #expires"
            };
            let request = client.update_item().table_name(&naming.table).set_key(Some(naming.key(key)));
            let request = request
                .update_expression(update)
                .condition_expression(condition)
                .expression_attribute_names("#until", UNTIL)
                .expression_attribute_names("#expires", &naming.expires)
                .expression_attribute_values(":until", item::until(time));
            let request = match &expires {
                Some(expires) => request.expression_attribute_values(":expires", expires.clone()),
                None => request,
            };
            request
                .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
                .send()
        });
        Ok(match answer.await? {
            Ok(_) => true,
            // An item that was found has a time that need not be moved.
            Err(UpdateItemError::ConditionalCheckFailedException(refusal)) => refusal.item.is_some(),
            Err(_) => false,
        })
    }
}

/// The condition of a write.
enum Condition {
    Always,
    /// No item exists.
    Absent,
    /// The item has no stamp, if one exists.
    Unstamped,
    /// The item has this stamp.
    Stamp(AttributeValue),
}

enum PutOutcome {
    Written,
    /// The condition was not met by this item, or because no item exists.
    Refused(Option<Item>),
}

/// Counts the requests that return true, of which a few run at the same time.
async fn count_true<F: Future<Output = Result<bool>>>(
    requests: impl Stream<Item = Result<F>>,
) -> Result<u64> {
    requests
        .try_buffer_unordered(MAX_CONCURRENT_REQUESTS)
        .try_fold(0, |count, is_true| async move { Ok(count + u64::from(is_true)) })
        .await
}

fn without_duplicates(keys: &[Key]) -> Vec<Key> {
    let mut seen = HashSet::with_capacity(keys.len());
    keys.iter().copied().filter(|key| seen.insert(*key)).collect()
}

// These methods keep their provided version: `contains`, which costs as much as a read; `hold`, because
// nothing is evicted; `usage`, because DynamoDB updates the size of a table every six hours only, and tells
// it only with one more permission; `close`, because a write has arrived when it returns.
impl Storage for DynamoDbStorage {
    async fn read(&self, key: Key) -> Result<Option<Record>> {
        self.read_record(key).await
    }

    async fn stamps(&self, keys: &[Key]) -> Result<Vec<Option<(Stamp, Timestamp)>>> {
        let stamp = |key: Key| async move {
            let consistent = self.table.consistent;
            let answer = self.table.send(false, |client, naming| {
                let request = client.get_item().table_name(&naming.table).set_key(Some(naming.key(key)));
                request
                    .projection_expression("#stamp, #until")
                    .expression_attribute_names("#stamp", STAMP)
                    .expression_attribute_names("#until", UNTIL)
                    .consistent_read(consistent)
                    .send()
            });
            Ok(answer.await?.item.and_then(|item| item::stamp_of(&item)))
        };
        stream::iter(keys.to_vec()).map(stamp).buffered(MAX_CONCURRENT_REQUESTS).try_collect().await
    }

    async fn contains_all(&self, _: &[Key]) -> Result<bool> {
        // Asking costs as much as reading all the chunks, and DynamoDB deletes none before the record that
        // names it.
        Ok(true)
    }

    async fn write(&self, key: Key, record: Record) -> Result<()> {
        let item = item::encode(&self.table.naming, key, &record)?;
        match self.put_item(&item, Condition::Always).await? {
            PutOutcome::Written => Ok(()),
            PutOutcome::Refused(_) => Err(unexpected_condition_failure()),
        }
    }

    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        let item = item::encode(&self.table.naming, key, &record)?;
        let condition = seen.map_or(Condition::Absent, |seen| Condition::Stamp(item::stamp(seen)));
        let present = match self.put_item(&item, condition).await? {
            PutOutcome::Written => return Ok(true),
            // The record that was to be replaced has been deleted.
            PutOutcome::Refused(None) => return Ok(false),
            PutOutcome::Refused(Some(present)) => present,
        };
        let stamp = present.get(STAMP).cloned();
        match item::decode(present, Record::from_bytes) {
            // The same stamp: the driver repeated this very write after a lost answer.
            Some(present) => return Ok(present.stamp() == record.stamp()),
            None if seen.is_some() => return Ok(false),
            None => {}
        }
        // A damaged item counts as absent, but only as long as it is the one that was found.
        let condition = stamp.map_or(Condition::Unstamped, Condition::Stamp);
        Ok(matches!(self.put_item(&item, condition).await?, PutOutcome::Written))
    }

    async fn delete(&self, key: Key) -> Result<bool> {
        self.delete_item(key, None).await
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<u64> {
        // Not in batches, whose answers do not say which of the records existed.
        count_true(stream::iter(without_duplicates(keys)).map(|key| Ok(self.delete_item(key, None)))).await
    }

    async fn retain(&self, keys: &[Key], retain: Retain) -> Result<u64> {
        let (storage, keys) = (self.clone(), keys.to_vec());
        let moves = async move {
            count_true(stream::iter(keys).map(|key| Ok(storage.move_retention(key, retain)))).await
        };
        // A task of its own, because the chunks of a long body take longer than the caller may wait. All of
        // them must be moved, or DynamoDB could delete a chunk before the record that names it.
        match Handle::try_current() {
            Ok(runtime) => runtime.spawn(moves).await.unwrap_or_else(|_| Err(runtime_ended())),
            Err(_) => moves.await,
        }
    }

    async fn delete_expired(&self, now: Timestamp) -> Result<u64> {
        let expired = self.table.keys(Selection::ExpiredKeys(now));
        count_true(expired.map_ok(|key| self.delete_item(key, Some(now)))).await
    }

    async fn clear(&self) -> Result<()> {
        let batches = self.table.keys(Selection::Keys).try_chunks(MAX_BATCH_LEN).map_err(|failed| failed.1);
        let delete = |batch: Vec<Key>| async move { self.table.delete_batch(&batch).await };
        batches.try_for_each_concurrent(MAX_CONCURRENT_BATCHES, delete).await
    }

    fn keys(&self) -> impl Stream<Item = Result<Key>> + Send {
        self.table.keys(Selection::Keys)
    }

    fn values(&self) -> impl Stream<Item = Result<(Key, Record)>> + Send {
        let read = |item: Item| self.table.naming.read(&item).zip(item::decode(item, Record::from_bytes));
        let items = self.table.items(Selection::ListedItems);
        items.try_filter_map(move |item| std::future::ready(Ok(read(item))))
    }

    async fn size(&self) -> Result<u64> {
        let keys = self.table.keys(Selection::ListedKeys);
        // The filter of the scan compares prefixes, so that items of others may pass it.
        keys.try_fold(0, |size, key| async move { Ok(size + u64::from(key.kind.is_listed())) }).await
    }

    fn max_record_len(&self) -> usize {
        item::MAX_RECORD_LEN
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

impl fmt::Debug for DynamoDbStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoDbStorage").field("table", &self.table).finish()
    }
}
