//! The two indexes of the collection.
//!
//! # Invariants
//! - No operation waits for an index, or fails because one cannot be created.
//! - An existing index on the same field is used, whatever its name is.
//! - If the user may not create indexes, exactly one event reports it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use ::mongodb::bson::{RawDocumentBuf, doc};
use ::mongodb::options::IndexOptions;
use ::mongodb::{Collection, IndexModel};
use futures_util::TryStreamExt;

use super::error::{code, convert};
use crate::error::ErrorKind;

/// The code of an index that exists with another name or other options (IndexOptionsConflict).
const INDEX_OPTIONS_CONFLICT: i32 = 85;

/// Whether the indexes have been created, as far as this process knows.
#[derive(Debug, Default)]
pub(super) struct Indexes {
    is_requested: AtomicBool,
    has_warned: AtomicBool,
}

impl Indexes {
    /// Creates the indexes in the background, unless that has been requested already.
    pub(super) fn ensure_created(
        self: &Arc<Self>,
        collection: &Collection<RawDocumentBuf>,
        timeout: Duration,
    ) {
        // Every write passes here. The load keeps the cache line shared among the cores; the swap lets one
        // caller through. Relaxed, because the flag guards no other memory.
        if self.is_requested.load(Relaxed) || self.is_requested.swap(true, Relaxed) {
            return;
        }
        let (indexes, collection) = (Arc::clone(self), collection.clone());
        // Spawned, because building an index over an existing collection can take longer than a write may.
        tokio::spawn(async move {
            // Each in a command of its own, so that a conflict of one does not prevent the other.
            for model in [expiry_index(), kind_index()] {
                let created =
                    tokio::time::timeout(timeout, collection.create_index(model).into_future()).await;
                match created {
                    Ok(Ok(_)) => {}
                    // Another process is creating it, or it exists under another name.
                    Ok(Err(error))
                        if code(&error) == Some(INDEX_OPTIONS_CONFLICT)
                            && has_expiry_index(&collection).await => {}
                    Ok(Err(error)) => indexes.creation_failed(&convert(&error, true)),
                    // The server continues to build it.
                    Err(_) => {}
                }
            }
        });
    }

    /// Has the next write create the indexes again.
    ///
    /// For a server that was unavailable and may have come back without its data.
    pub(super) fn forget(&self) {
        self.is_requested.store(false, Relaxed);
    }

    fn creation_failed(&self, error: &crate::Error) {
        if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) {
            self.forget();
        } else if !self.has_warned.swap(true, Relaxed) {
            tracing::warn!(
                %error,
                "an index in mongodb cannot be created: create it by hand, or call delete_expired \
                 regularly"
            );
        }
    }
}

/// The index by which the server's TTL monitor deletes records at the time in `expires`.
fn expiry_index() -> IndexModel {
    let options = IndexOptions::builder().expire_after(Duration::ZERO).build();
    IndexModel::builder().keys(doc! { "expires": 1 }).options(options).build()
}

/// The index by which responses are listed in pages and counted.
fn kind_index() -> IndexModel {
    IndexModel::builder().keys(doc! { "kind": 1, "_id": 1 }).build()
}

/// Returns whether an index exists that deletes records at the time in `expires`.
async fn has_expiry_index(collection: &Collection<RawDocumentBuf>) -> bool {
    let Ok(indexes) = collection.list_indexes().await else { return false };
    let Ok(indexes) = indexes.try_collect::<Vec<_>>().await else { return false };
    indexes.iter().any(|index| {
        let after = index.options.as_ref().and_then(|options| options.expire_after);
        index.keys == doc! { "expires": 1 } && after == Some(Duration::ZERO)
    })
}
