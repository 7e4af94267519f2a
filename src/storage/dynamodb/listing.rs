//! Walks over a table, and requests that name many records.
//!
//! Promises: pages, of which each is one request; what DynamoDB leaves undone is asked for again, later each time, and
//! is an error when it is still undone at the end.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{AttributeValue, DeleteRequest, WriteRequest};
use futures_core::Stream;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::failure::unprocessed;
use super::naming::{Item, Naming, UNTIL};
use super::pauses::Pauses;
use super::table::Table;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::key::{Key, Kind};
use crate::time::Timestamp;

/// What a batch may write.
pub(super) const WRITES: usize = 25;
/// After so many requests in a row that did nothing it is an error.
const TRIES: u32 = 8;

/// What a walk is after.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    Keys,
    ListedKeys,
    ListedItems,
    Expired(Timestamp),
}

impl Table {
    pub(super) fn keys(&self, wanted: Wanted) -> impl Stream<Item = Result<Key>> + Send + '_ {
        self.items(wanted).try_filter_map(|item| std::future::ready(Ok(self.naming.read(&item))))
    }

    pub(super) fn items(&self, wanted: Wanted) -> impl Stream<Item = Result<Item>> + Send + '_ {
        self.pages(wanted).map_ok(|page| stream::iter(page).map(Ok)).try_flatten()
    }

    fn pages(&self, wanted: Wanted) -> impl Stream<Item = Result<Vec<Item>>> + Send + '_ {
        stream::try_unfold(Some(None), move |at: Option<Option<Item>>| async move {
            let Some(start) = at else { return Ok(None) };
            let page = self.run(false, |client, naming| {
                let scan = client.scan().table_name(&naming.table).consistent_read(self.consistent);
                let scan = scan.set_exclusive_start_key(start.clone());
                let names = [("#p", &naming.partition), ("#s", &naming.sort)];
                let scan = names
                    .into_iter()
                    .fold(scan, |scan, (short, name)| scan.expression_attribute_names(short, name));
                let text = |text: &str| AttributeValue::S(text.to_owned());
                let listed = "#s = :head OR begins_with(#s, :variant)";
                match wanted {
                    Wanted::Keys => scan.projection_expression("#p, #s"),
                    Wanted::ListedKeys => scan
                        .projection_expression("#p, #s")
                        .filter_expression(listed)
                        .expression_attribute_values(":head", text(Kind::Head.name()))
                        .expression_attribute_values(":variant", text(Kind::Variant.name())),
                    // All attributes, so the names are those of the filter.
                    Wanted::ListedItems => {
                        let names = HashMap::from([("#s".to_owned(), naming.sort.clone())]);
                        scan.set_expression_attribute_names(Some(names))
                            .filter_expression(listed)
                            .expression_attribute_values(":head", text(Kind::Head.name()))
                            .expression_attribute_values(":variant", text(Kind::Variant.name()))
                    }
                    Wanted::Expired(now) => scan
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

    /// Deletes at most [`WRITES`] different records, whether they are there or not.
    pub(super) async fn sweep(&self, keys: &[Key]) -> Result<()> {
        let request = |key: Key| -> Result<WriteRequest> {
            let delete = DeleteRequest::builder().set_key(Some(self.naming.key(key))).build();
            let delete = delete.map_err(|_| Error::new(ErrorKind::Other, "the record cannot be named"))?;
            Ok(WriteRequest::builder().delete_request(delete).build())
        };
        let mut left = keys.iter().map(|&key| request(key)).collect::<Result<Vec<_>>>()?;
        let (mut pauses, mut in_vain) = (Pauses::default(), 0);
        while !left.is_empty() {
            let before = left.len();
            let answer = self.run(true, |client, naming: &Naming| {
                client.batch_write_item().request_items(&naming.table, left.clone()).send()
            });
            left = answer.await?.unprocessed_items.unwrap_or_default().into_values().flatten().collect();
            if left.len() < before {
                (pauses, in_vain) = (Pauses::default(), 0);
            } else {
                in_vain += 1;
            }
            if in_vain == TRIES {
                return Err(unprocessed());
            }
            if !left.is_empty() {
                tokio::time::sleep(pauses.next()).await;
            }
        }
        Ok(())
    }
}
