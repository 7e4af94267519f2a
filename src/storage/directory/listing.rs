//! Lists the keys and records of the directory, in pages.

use std::fs;

use super::entries::{entries, files};
use super::error::{if_present, read_error};
use super::records::Records;
use crate::error::Result;
use crate::storage::{Key, Record};
use crate::time::Timestamp;

/// Bounds the memory of a listing, and how long it occupies a reading thread.
const PAGE_LEN: usize = 512;

/// A part of a listing, and the shard at which the next part begins.
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    pub(super) next: Option<u8>,
}

impl Records {
    /// Returns the keys from this shard on.
    pub(super) fn keys_from(&self, shard: u8) -> Result<Page<Key>> {
        self.page(shard, |key| Ok(Some(key)))
    }

    /// Returns the keys of the expired records from this shard on.
    pub(super) fn expired_from(&self, shard: u8, now: Timestamp) -> Result<Page<Key>> {
        self.page(shard, |key| Ok(self.retain_until(key)?.is_some_and(|time| time <= now).then_some(key)))
    }

    /// Returns the records at these keys. Absent ones are left out.
    pub(super) fn read_all(&self, keys: &[Key]) -> Result<Vec<(Key, Record)>> {
        let read = |key: &Key| self.read(*key).map(|record| Some((*key, record?))).transpose();
        keys.iter().filter_map(read).collect()
    }

    fn page(&self, first: u8, mut select: impl FnMut(Key) -> Result<Option<Key>>) -> Result<Page<Key>> {
        let mut items = Vec::new();
        for shard in first..=u8::MAX {
            for key in self.keys_of(shard)? {
                items.extend(select(key)?);
            }
            if items.len() >= PAGE_LEN {
                return Ok(Page { items, next: shard.checked_add(1) });
            }
        }
        Ok(Page { items, next: None })
    }

    /// Returns the keys of a shard, in order.
    fn keys_of(&self, shard: u8) -> Result<Vec<Key>> {
        let mut keys = Vec::new();
        if if_present(fs::metadata(self.root.shard(shard))).map_err(read_error)?.is_none() {
            return Ok(keys);
        }
        // Some file systems list a file twice, or not at all, if it is replaced while its folder is read.
        let _lock = self.root.lock_for_listing(shard);
        for entry in entries(&self.root, shard).map_err(read_error)? {
            keys.extend(
                files(&self.root, entry).map_err(read_error)?.into_iter().filter_map(|file| file.key),
            );
        }
        keys.sort_unstable();
        // The lock is optional, and without it a file may have been listed twice.
        keys.dedup();
        Ok(keys)
    }
}
