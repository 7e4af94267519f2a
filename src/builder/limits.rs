//! The settings of limits: how much is stored, and how much runs at once.

use std::time::Duration;

use super::CacheLayerBuilder;
use crate::storage::Storage;

/// # Limits
///
/// How long bodies are, how they are split, and how much runs at once. The storage bounds how much it keeps in all.
impl<S: Storage> CacheLayerBuilder<S> {
    /// Sets the length of the longest body that is stored, in bytes.
    ///
    /// Longer bodies pass through. A storage may have a lower limit of its own.
    ///
    /// Default: 512 MiB.
    pub fn max_body_bytes(mut self, longest: u64) -> Self {
        self.config.max_body_bytes = longest;
        self
    }

    /// Sets the length of the shortest body that is stored, in bytes.
    ///
    /// Shorter bodies pass through.
    ///
    /// Default: 0.
    pub fn min_body_bytes(mut self, shortest: u64) -> Self {
        self.config.min_body_bytes = shortest;
        self
    }

    /// Sets the length of the chunks that long bodies are stored in, in bytes.
    ///
    /// A body of at most this length is one chunk, or part of its head record: see [`inline_bytes`](Self::inline_bytes).
    ///
    /// Default: 128 KiB.
    pub fn chunk_bytes(mut self, len: usize) -> Self {
        self.config.chunk_len = len;
        self
    }

    /// Sets the length of the longest body that is stored within its head record, in bytes.
    ///
    /// Such a body is read together with the head, in one operation. It is also written again with the head, whenever a 304
    /// freshens the response. A body longer than [`chunk_bytes`](Self::chunk_bytes) is never stored so.
    ///
    /// Default: the length that suits the storage ([`Storage::inline_len`](crate::storage::Storage::inline_len)).
    pub fn inline_bytes(mut self, len: usize) -> Self {
        self.config.inline_len = Some(len);
        self
    }

    /// Sets how many entries may be refreshed in the background at once.
    ///
    /// With 0 nothing is refreshed in the background.
    ///
    /// Default: 64.
    pub fn max_background_refreshes(mut self, most: usize) -> Self {
        self.config.max_background_refreshes = most;
        self
    }

    /// Sets how long one background refresh may take.
    ///
    /// Default: 30 s.
    pub fn refresh_timeout(mut self, longest: Duration) -> Self {
        self.config.refresh_timeout = longest;
        self
    }
}
