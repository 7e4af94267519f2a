//! Copies stored responses to another storage.
//!
//! `destination` writes one response.
//!
//! # Invariants
//! - At most [`AT_ONCE`] responses, and one chunk of each, are in memory at a time.
//! - Each response is counted once.

use std::pin::pin;

use futures_util::TryStreamExt;

use super::destination::{Destination, Outcome};
use super::filter::EntryFilter;
use super::{AT_ONCE, CacheHandle};
use crate::error::Result;
use crate::storage::Storage;

/// The number of responses that [`CacheHandle::copy_to`] has handled so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyReport {
    /// Responses that were written.
    pub responses: u64,
    /// The length of their bodies, in bytes.
    pub bytes: u64,
    /// Responses that the other storage had already, from the same fetch.
    pub unchanged: u64,
    /// Responses left out.
    ///
    /// The other storage has a newer one, or a tombstone; or the response answers several queries
    /// ([`no_vary_search`](crate::CacheLayerBuilder::no_vary_search)), and would not be found there.
    pub skipped: u64,
    /// Responses that have lost a part of their body, or are too large for the other storage.
    pub failed: u64,
}

impl<S: Storage> CacheHandle<S> {
    /// Copies the stored responses that a filter chooses to another storage.
    ///
    /// A cache with the same partition and key secret finds them there. Both storages may be in use meanwhile. `progress` is
    /// called after each response.
    ///
    /// A variant is found through the first response of its URL, which is therefore copied along with it. If a copy was
    /// interrupted, start it again: responses that are there already are not written again.
    ///
    /// # Errors
    /// Returns the errors of [`entries`](Self::entries), or the other storage's error. Some responses are copied by then.
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// use tower_response_cache::{CacheLayer, EntryFilter, storage::MemoryStorage};
    ///
    /// let layer = CacheLayer::new(MemoryStorage::new());
    /// let other = MemoryStorage::new(); // or SQLite, Redis …
    /// let copied = layer.handle().copy_to(&other, &EntryFilter::new(), |_| {}).await?;
    /// assert_eq!((copied.responses, copied.skipped, copied.failed), (0, 0, 0));
    /// # Ok::<_, tower_response_cache::Error>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub async fn copy_to<T: Storage>(
        &self,
        to: &T,
        filter: &EntryFilter,
        mut progress: impl FnMut(&CopyReport) + Send,
    ) -> Result<CopyReport> {
        let mut copied = CopyReport::default();
        let to = Destination::new(self, to);
        let all = self.entries(filter).map_ok(|entry| to.take_with_head(entry));
        let mut all = pin!(all.try_buffer_unordered(AT_ONCE));
        while let Some((outcome, bytes)) = all.try_next().await? {
            match outcome {
                Outcome::Written => {
                    copied.responses += 1;
                    copied.bytes += bytes;
                }
                Outcome::There => copied.unchanged += 1,
                Outcome::Skipped => copied.skipped += 1,
                Outcome::Failed => copied.failed += 1,
            }
            progress(&copied);
        }
        Ok(copied)
    }
}
