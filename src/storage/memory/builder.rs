//! The settings of a [`MemoryStorage`].

use super::storage::MemoryStorage;

/// A builder for [`MemoryStorage`].
///
/// Created by [`MemoryStorage::builder`].
#[derive(Clone, Debug)]
#[must_use]
pub struct MemoryStorageBuilder {
    max_bytes: u64,
}

impl MemoryStorageBuilder {
    /// Sets the bound on the memory of all records, in bytes.
    ///
    /// The storage counts everything that it has allocated, including header fields and its own tables. A small response
    /// takes about 2.5 kB. An entry takes at most half of the bound. With a bound of a few kilobytes nothing can be stored.
    ///
    /// Default: 64 MiB.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Creates the storage.
    #[must_use]
    pub fn build(self) -> MemoryStorage {
        MemoryStorage::bounded(self.max_bytes)
    }
}

impl Default for MemoryStorageBuilder {
    fn default() -> Self {
        Self { max_bytes: 64 * 1024 * 1024 }
    }
}
