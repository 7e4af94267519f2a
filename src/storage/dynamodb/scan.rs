//! Scans of the table, and batches of deletions.
//!
//! # Invariants
//! - Each page of a scan, and each batch, is one request.
//! - What DynamoDB leaves unprocessed of a batch is requested again, with growing delays.
//! - A batch that makes no progress in [`MAX_FRUITLESS_REQUESTS`] requests in a row is an error.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{AttributeValue, DeleteRequest, WriteRequest};
use futures_core::Stream;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::backoff::Backoff;
use super::error::unprocessed_items;
use super::naming::{Item, Naming, UNTIL};
use super::table::Table;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::key::{Key, Kind};
use crate::time::Timestamp;

/// The most items in one batch, which is the limit of DynamoDB's `BatchWriteItem`.
pub(super) const MAX_BATCH_LEN: usize = 25;
/// The requests in a row that may leave a whole batch unprocessed before it fails.
///
/// The delays between them add up to one to two seconds, in which the capacity of a partition is renewed.
const MAX_FRUITLESS_REQUESTS: u32 = 8;

/// The keys or items that a scan returns.
#[derive(Clone, Copy, Debug)]
pub(super) enum Selection {
    /// The keys of all records.
    Keys,
    /// The keys of the records that count as stored responses.
    ListedKeys,
    /// The records that count as stored responses.
    ListedItems,
    /// The keys of the records that have expired at this time.
    ExpiredKeys(Timestamp),
}

impl Table {
    /// Scans the table for keys. Items of others are left out.
    pub(super) fn keys(&self, selection: Selection) -> impl Stream<Item = Result<Key>> + Send + '_ {
        self.items(selection).try_filter_map(|item| std::future::ready(Ok(self.naming.read(&item))))
    }

    /// Scans the table for items, those of others included.
    pub(super) fn items(&self, selection: Selection) -> impl Stream<Item = Result<Item>> + Send + '_ {
        self.pages(selection).map_ok(|page| stream::iter(page).map(Ok)).try_flatten()
    }

    /// Scans the table page by page. DynamoDB ends a page after 1 MB.
    fn pages(&self, selection: Selection) -> impl Stream<Item = Result<Vec<Item>>> + Send + '_ {
        stream::try_unfold(Some(None), move |at: Option<Option<Item>>| async move {
            let Some(start) = at else { return Ok(None) };
            let page = self.send(false, |client, naming| {
                let scan = client.scan().table_name(&naming.table).consistent_read(self.consistent);
                let scan = scan.set_exclusive_start_key(start.clone());
                let names = [("#p", &naming.partition), ("#s", &naming.sort)];
                let scan = names
                    .into_iter()
                    .fold(scan, |scan, (short, name)| scan.expression_attribute_names(short, name));
                let text = |text: &str| AttributeValue::S(text.to_owned());
                let listed = "#s = :head OR begins_with(#s, :variant)";
                match selection {
                    Selection::Keys => scan.projection_expression("#p, #s"),
                    Selection::ListedKeys => scan
                        .projection_expression("#p, #s")
                        .filter_expression(listed)
                        .expression_attribute_values(":head", text(Kind::Head.name()))
                        .expression_attribute_values(":variant", text(Kind::Variant.name())),
                    // Without a projection `#p` is not used, and DynamoDB refuses names that no expression uses.
                    Selection::ListedItems => {
                        let names = HashMap::from([("#s".to_owned(), naming.sort.clone())]);
                        scan.set_expression_attribute_names(Some(names))
                            .filter_expression(listed)
                            .expression_attribute_values(":head", text(Kind::Head.name()))
                            .expression_attribute_values(":variant", text(Kind::Variant.name()))
                    }
                    Selection::ExpiredKeys(now) => scan
                        .projection_expression("#p, #s")
                        .filter_expression("#u <= :now")
                        .expression_attribute_names("#u", UNTIL)
                        .expression_attribute_values(":now", super::item::until(now)),
                }
                .send()
            });
            let page = page.await?;
            let next = page.last_evaluated_key.filter(|key| !key.is_empty()).map(Some);
            Ok(Some((page.items.unwrap_or_default(), next)))
        })
    }

    /// Deletes at most [`MAX_BATCH_LEN`] different records, whether they exist or not.
    pub(super) async fn delete_batch(&self, keys: &[Key]) -> Result<()> {
        let request = |key: Key| -> Result<WriteRequest> {
            let delete = DeleteRequest::builder().set_key(Some(self.naming.key(key))).build();
            let delete = delete.map_err(|_| {
                Error::new(ErrorKind::Other, "the driver does not accept the key of a record")
            })?;
            Ok(WriteRequest::builder().delete_request(delete).build())
        };
        let mut left = keys.iter().map(|&key| request(key)).collect::<Result<Vec<_>>>()?;
        let (mut backoff, mut fruitless) = (Backoff::default(), 0);
        while !left.is_empty() {
            let before = left.len();
            let answer = self.send(true, |client, naming: &Naming| {
                client.batch_write_item().request_items(&naming.table, left.clone()).send()
            });
            // Under throttling DynamoDB processes a part of a batch, answers with success, and returns the rest.
            left = answer.await?.unprocessed_items.unwrap_or_default().into_values().flatten().collect();
            if left.len() < before {
                (backoff, fruitless) = (Backoff::default(), 0);
            } else {
                fruitless += 1;
            }
            if fruitless == MAX_FRUITLESS_REQUESTS {
                return Err(unprocessed_items());
            }
            if !left.is_empty() {
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
        Ok(())
    }
}
