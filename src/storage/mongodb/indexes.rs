//! The two indexes of the collection.
//!
//! Promises: no operation waits for an index or fails for one; one that is there under another name is adopted; who has
//! no right to make them is told of by one event.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use ::mongodb::bson::{Document, doc};
use ::mongodb::options::IndexOptions;
use ::mongodb::{Collection, IndexModel};

use super::failure::{code, failed};
use crate::error::ErrorKind;

#[derive(Debug, Default)]
pub(super) struct Indexes {
    asked: AtomicBool,
    told: AtomicBool,
}

impl Indexes {
    /// Has them made, unless that was done.
    pub(super) fn ensure(self: &Arc<Self>, records: &Collection<Document>, within: Duration) {
        if self.asked.load(Relaxed) || self.asked.swap(true, Relaxed) {
            return;
        }
        let (indexes, records) = (Arc::clone(self), records.clone());
        tokio::spawn(async move {
            // Each alone, so that a conflict of one does not keep the other away.
            for model in [ttl(), kinds()] {
                let made = tokio::time::timeout(within, records.create_index(model).into_future()).await;
                match made {
                    Ok(Ok(_)) => {}
                    // Two that make it at once, or an equal one under another name.
                    Ok(Err(error)) if code(&error) == Some(85) && is_there(&records).await => {}
                    Ok(Err(error)) => indexes.failed(&failed(&error, true)),
                    Err(_) => {} // the server goes on making it
                }
            }
        });
    }

    /// The server was away: they may be gone.
    pub(super) fn forget(&self) {
        self.asked.store(false, Relaxed);
    }

    fn failed(&self, error: &crate::Error) {
        if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) {
            self.forget();
        } else if !self.told.swap(true, Relaxed) {
            tracing::warn!(%error, "an index in mongodb cannot be made: what has expired may stay there");
        }
    }
}

fn ttl() -> IndexModel {
    let options = IndexOptions::builder().expire_after(Duration::ZERO).build();
    IndexModel::builder().keys(doc! { "expires": 1 }).options(options).build()
}

fn kinds() -> IndexModel {
    IndexModel::builder().keys(doc! { "kind": 1, "_id": 1 }).build()
}

/// Whether some index expires records at their time.
async fn is_there(records: &Collection<Document>) -> bool {
    use futures_util::TryStreamExt;
    let Ok(indexes) = records.list_indexes().await else { return false };
    let Ok(indexes) = indexes.try_collect::<Vec<_>>().await else { return false };
    indexes.iter().any(|index| {
        let after = index.options.as_ref().and_then(|options| options.expire_after);
        index.keys == doc! { "expires": 1 } && after == Some(Duration::ZERO)
    })
}
