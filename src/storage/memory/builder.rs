//! The settings of a memory storage.

use super::store::MemoryStorage;

/// Settings of a [`MemoryStorage`], from [`MemoryStorage::builder`].
#[derive(Clone, Debug)]
#[must_use]
pub struct MemoryStorageBuilder {
    max_bytes: u64,
}

impl MemoryStorageBuilder {
    /// Sets how many bytes are kept at most.
    ///
    /// The storage counts what it has allocated, headers and its own tables included: a small response takes about two
    /// and a half kilobytes. An entry may take half of the bound. Below some kilobytes nothing is kept.
    ///
    /// Default: 64 MiB.
    pub fn max_bytes(mut self, most: u64) -> Self {
        self.max_bytes = most;
        self
    }

    /// Builds the storage.
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
