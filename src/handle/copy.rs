//! Copies what is stored to another storage.
//!
//! Promises: a few responses, and one chunk of each, are in memory at a time; each is counted once. How one is taken there:
//! `destination`.

use std::pin::pin;

use futures_util::TryStreamExt;

use super::destination::{Destination, Outcome};
use super::filter::EntryFilter;
use super::{AT_ONCE, CacheHandle};
use crate::error::Result;
use crate::storage::Storage;

/// What [`CacheHandle::copy_to`] has done so far, in responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// Those that were written.
    pub responses: u64,
    /// The bytes of their bodies.
    pub bytes: u64,
    /// Those that were there already, from the same fetch.
    pub unchanged: u64,
    /// Those left out, since what is there is newer or was invalidated.
    pub skipped: u64,
    /// Those that cannot be copied: a part of the body is gone here, or they are too large for the other storage.
    pub failed: u64,
}

impl<S: Storage> CacheHandle<S> {
    /// Copies the stored responses that a filter chooses to another storage, where a cache with the same partition and secret
    /// finds them. Both may be in use meanwhile. `progress` is called after each response.
    ///
    /// A response that is the second or a later one of its URL takes the first one with it, through which it is found. A copy
    /// that was cut short can be begun again: what is there already is not written again.
    ///
    /// # Errors
    /// As with [`entries`](Self::entries), or the other storage failed; some are copied by then.
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
        mut progress: impl FnMut(&Copied) + Send,
    ) -> Result<Copied> {
        let mut copied = Copied::default();
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
