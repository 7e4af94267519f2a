//! The store itself: each operation is one request for each record.

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
use super::failure::{no_runtime, strange};
use super::item;
use super::listing::{WRITES, Wanted};
use super::naming::{Item, STAMP, UNTIL};
use super::source::DynamoDbSource;
use super::table::Table;
use crate::error::Result;
use crate::storage::contract::{Retain, Storage};
use crate::storage::key::{Key, Kind};
use crate::storage::record::{Record, Stamp};
use crate::time::Timestamp;

/// The longest body within its response's record. With the fields the record is one unit of reading (4 KB), so that a hit
/// costs one; a chunk would cost a second. A longer body would be written again, at a unit for each KB, whenever the origin
/// confirms the response: a unit of writing costs as much as five of reading.
const INLINE: usize = 3 << 10;

/// How many requests of one operation are under way at the same time.
const AT_ONCE: usize = 16;

/// Responses in a table of DynamoDB. See the [module](crate::storage::dynamodb) for what it promises.
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
}

impl DynamoDbStorage {
    /// Connects to this DynamoDB, with the default settings. One that cannot be reached now is no error, since requests
    /// go on without it: an event tells of it, and [`check`](DynamoDbStorage::check) tells why.
    ///
    /// # Errors
    /// As [`DynamoDbStorageBuilder::connect`].
    pub async fn connect(source: impl Into<DynamoDbSource>) -> Result<Self> {
        Self::builder(source).connect().await
    }

    /// Sets up a store in this DynamoDB: an address, the environment's, the driver's own settings or a ready client.
    pub fn builder(source: impl Into<DynamoDbSource>) -> DynamoDbStorageBuilder {
        DynamoDbStorageBuilder::new(source.into())
    }

    /// Asks DynamoDB whether it would answer; makes the table where it is missing and may be made.
    ///
    /// # Errors
    /// Why not: [`Unavailable`](crate::ErrorKind::Unavailable) or [`Timeout`](crate::ErrorKind::Timeout) where it cannot
    /// be reached, [`Denied`](crate::ErrorKind::Denied) where it refuses the credentials, there are none or they give
    /// no right to read, [`Config`](crate::ErrorKind::Config) where the table is missing or has other keys.
    pub async fn check(&self) -> Result<()> {
        self.find(Key::head([0; 16]), true).await.map(drop)
    }

    pub(super) fn new(table: Table) -> Self {
        Self { table: Arc::new(table) }
    }

    async fn get(&self, key: Key) -> Result<Option<Record>> {
        let consistent = self.table.consistent;
        let mut item = self.find(key, consistent).await?;
        // What names a chunk was written after it, and may have been seen before it: a body must not end for that.
        if item.is_none() && !consistent && key.kind == Kind::Chunk {
            item = self.find(key, true).await?;
        }
        Ok(item.and_then(item::decode))
    }

    async fn find(&self, key: Key, consistent: bool) -> Result<Option<Item>> {
        let answer = self.table.run(false, |client, naming| {
            let request = client.get_item().table_name(&naming.table).set_key(Some(naming.key(key)));
            request.consistent_read(consistent).send()
        });
        Ok(answer.await?.item)
    }

    /// Writes where the condition is met; else gives what is there, as it was found by the comparison itself.
    async fn put(&self, item: &Item, condition: Condition) -> Result<Put> {
        let answer = self.table.ask(true, |client, naming| {
            let request = client.put_item().table_name(&naming.table).set_item(Some(item.clone()));
            match condition {
                Condition::None => request,
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
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
        });
        Ok(match answer.await? {
            Ok(_) => Put::Done,
            Err(PutItemError::ConditionalCheckFailedException(refusal)) => Put::Refused(refusal.item),
            Err(_) => Put::Refused(None),
        })
    }

    /// Deletes what is there and, with `now`, due by then.
    async fn remove(&self, key: Key, now: Option<Timestamp>) -> Result<bool> {
        let answer: std::result::Result<_, DeleteItemError> = self
            .table
            .ask(true, |client, naming| {
                let request = client.delete_item().table_name(&naming.table).set_key(Some(naming.key(key)));
                match now {
                    None => request
                        .condition_expression("attribute_exists(#p)")
                        .expression_attribute_names("#p", &naming.partition),
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

    /// Moves the time of one record; says whether it was there.
    async fn shift(&self, key: Key, retain: Retain) -> Result<bool> {
        let (condition, time) = match retain {
            Retain::AtLeast(time) => ("#until < :until", time),
            Retain::AtMost(time) => ("#until > :until", time),
        };
        let expires = item::expires(time);
        let answer = self.table.ask(true, |client, naming| {
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
            Err(UpdateItemError::ConditionalCheckFailedException(refusal)) => refusal.item.is_some(),
            Err(_) => false,
        })
    }
}

/// What must be there for a write.
enum Condition {
    None,
    Absent,
    Unstamped,
    Stamp(AttributeValue),
}

enum Put {
    Done,
    Refused(Option<Item>),
}

/// How many of these are true, a few being asked at the same time.
async fn sum<F: Future<Output = Result<bool>>>(asked: impl Stream<Item = Result<F>>) -> Result<u64> {
    asked.try_buffer_unordered(AT_ONCE).try_fold(0, |sum, one| async move { Ok(sum + u64::from(one)) }).await
}

fn different(keys: &[Key]) -> Vec<Key> {
    let mut seen = HashSet::with_capacity(keys.len());
    keys.iter().copied().filter(|key| seen.insert(*key)).collect()
}

// As provided: `contains`, which costs what a read does; `hold`, since nothing is evicted; `usage`, since DynamoDB counts a
// table every six hours, and tells only users with one right more; `close`, since a write is done when it returns.
impl Storage for DynamoDbStorage {
    async fn read(&self, key: Key) -> Result<Option<Record>> {
        self.get(key).await
    }

    async fn contains_all(&self, _: &[Key]) -> Result<bool> {
        Ok(true) // looking would cost as much as reading them all, and nothing drops a part before what names it
    }

    async fn write(&self, key: Key, record: Record) -> Result<()> {
        let item = item::encode(&self.table.naming, key, &record)?;
        match self.put(&item, Condition::None).await? {
            Put::Done => Ok(()),
            Put::Refused(_) => Err(strange()),
        }
    }

    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        let item = item::encode(&self.table.naming, key, &record)?;
        let condition = seen.map_or(Condition::Absent, |seen| Condition::Stamp(item::stamp(seen)));
        let there = match self.put(&item, condition).await? {
            Put::Done => return Ok(true),
            Put::Refused(None) => return Ok(false), // it was to replace what is gone
            Put::Refused(Some(there)) => there,
        };
        let stamp = there.get(STAMP).cloned();
        match item::decode(there) {
            Some(there) => return Ok(there.stamp() == record.stamp()),
            None if seen.is_some() => return Ok(false),
            None => {}
        }
        // What is there is damaged, and counts as absent.
        let condition = stamp.map_or(Condition::Unstamped, Condition::Stamp);
        Ok(matches!(self.put(&item, condition).await?, Put::Done))
    }

    async fn delete(&self, key: Key) -> Result<bool> {
        self.remove(key, None).await
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<u64> {
        sum(stream::iter(different(keys)).map(|key| Ok(self.remove(key, None)))).await
    }

    async fn retain(&self, keys: &[Key], retain: Retain) -> Result<u64> {
        let (store, keys) = (self.clone(), keys.to_vec());
        let shift = async move { sum(stream::iter(keys).map(|key| Ok(store.shift(key, retain)))).await };
        // A long body's chunks take longer than who asks may wait. None must go before what names it, so all are moved.
        match Handle::try_current() {
            Ok(runtime) => runtime.spawn(shift).await.unwrap_or_else(|_| Err(no_runtime())),
            Err(_) => shift.await,
        }
    }

    async fn delete_expired(&self, now: Timestamp) -> Result<u64> {
        sum(self.table.keys(Wanted::Expired(now)).map_ok(|key| self.remove(key, Some(now)))).await
    }

    async fn clear(&self) -> Result<()> {
        let batches = self.table.keys(Wanted::Keys).try_chunks(WRITES).map_err(|failed| failed.1);
        batches.try_for_each_concurrent(4, |batch| async move { self.table.sweep(&batch).await }).await
    }

    fn keys(&self) -> impl Stream<Item = Result<Key>> + Send {
        self.table.keys(Wanted::Keys)
    }

    fn values(&self) -> impl Stream<Item = Result<(Key, Record)>> + Send {
        let read = |item: Item| self.table.naming.read(&item).zip(item::decode(item));
        self.table.items(Wanted::ListedItems).try_filter_map(move |item| std::future::ready(Ok(read(item))))
    }

    async fn size(&self) -> Result<u64> {
        let keys = self.table.keys(Wanted::ListedKeys);
        keys.try_fold(0, |size, key| async move { Ok(size + u64::from(key.kind.is_listed())) }).await
    }

    fn max_record_len(&self) -> usize {
        item::LONGEST
    }

    fn inline_len(&self) -> usize {
        INLINE
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
