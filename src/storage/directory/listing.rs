//! The keys and records of the directory, some at a time.

use std::fs;

use super::entries::{entries, files};
use super::failure::{failed_read, found};
use super::records::Records;
use crate::error::Result;
use crate::storage::{Key, Record};
use crate::time::Timestamp;

const KEYS_AT_ONCE: usize = 512;

/// Some of a listing, and the shard that it goes on with.
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    pub(super) next: Option<u8>,
}

impl Records {
    /// The keys from this shard on.
    pub(super) fn keys_from(&self, shard: u8) -> Result<Page<Key>> {
        self.page(shard, |key| Ok(Some(key)))
    }

    /// The keys of records that are due, from this shard on.
    pub(super) fn due_from(&self, shard: u8, now: Timestamp) -> Result<Page<Key>> {
        self.page(shard, |key| Ok(self.until(key)?.is_some_and(|until| until <= now).then_some(key)))
    }

    /// The records at these keys that are there.
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
            if items.len() >= KEYS_AT_ONCE {
                return Ok(Page { items, next: shard.checked_add(1) });
            }
        }
        Ok(Page { items, next: None })
    }

    /// The keys of a shard, in order. While its names are listed nobody changes them: some file systems list a file
    /// twice, or not at all, that is replaced meanwhile.
    fn keys_of(&self, shard: u8) -> Result<Vec<Key>> {
        let mut keys = Vec::new();
        if found(fs::metadata(self.place.shard(shard))).map_err(failed_read)?.is_none() {
            return Ok(keys);
        }
        let _lock = self.place.lock_to_look(shard);
        for entry in entries(&self.place, shard).map_err(failed_read)? {
            keys.extend(
                files(&self.place, entry).map_err(failed_read)?.into_iter().filter_map(|file| file.key),
            );
        }
        keys.sort_unstable();
        keys.dedup();
        Ok(keys)
    }
}
