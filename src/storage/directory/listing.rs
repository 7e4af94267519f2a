//! What is in the directory, by the names of its files.
//!
//! Promises: files and folders that are not exactly named as a record's are nobody's business: they are neither listed
//! nor counted. What vanishes while it is looked at is not there.

use std::fs::{self, DirEntry, Metadata};
use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::bound::taken;
use super::failure::{failed_read, found};
use super::naming;
use super::place::Place;
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

/// What an entry takes.
pub(super) struct Usage {
    /// Of its records and its folder; 0 where it has no record.
    pub(super) size: u64,
    /// When one of its files was written last, or its time moved.
    pub(super) changed: SystemTime,
    /// Whether there are files that are not ours, which stay.
    pub(super) has_others: bool,
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

/// The entries of a shard.
pub(super) fn entries(place: &Place, shard: u8) -> io::Result<Vec<[u8; 16]>> {
    let all = names(&place.shard(shard))?;
    let folders = all.iter().filter(|file| file.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(folders.filter_map(|folder| naming::parse_entry(shard, folder.file_name().to_str()?)).collect())
}

/// A file in an entry's folder.
pub(super) struct Found {
    /// None where it is not ours.
    pub(super) key: Option<Key>,
    file: DirEntry,
}

impl Found {
    fn metadata(&self) -> io::Result<Option<Metadata>> {
        found(self.file.metadata())
    }
}

/// Whatever is in an entry's folder.
pub(super) fn files(place: &Place, entry: [u8; 16]) -> io::Result<Vec<Found>> {
    let all = names(&place.entry(entry))?.into_iter();
    let found = all.map(|file| {
        let is_file = file.file_type().is_ok_and(|kind| kind.is_file());
        let name = file.file_name();
        let key = name.to_str().filter(|_| is_file).and_then(|name| naming::parse_record(entry, name));
        Found { key, file }
    });
    Ok(found.collect())
}

/// What an entry takes, and since when.
pub(super) fn usage(place: &Place, entry: [u8; 16]) -> io::Result<Usage> {
    let mut usage = Usage { size: 0, changed: SystemTime::UNIX_EPOCH, has_others: false };
    for file in files(place, entry)? {
        if file.key.is_none() {
            usage.has_others = true;
            continue;
        }
        let Some(metadata) = file.metadata()? else { continue };
        usage.size = usage.size.saturating_add(taken(&metadata));
        usage.changed = usage.changed.max(metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH));
    }
    if usage.size > 0 {
        usage.size = usage.size.saturating_add(folder(&place.entry(entry)));
    }
    Ok(usage)
}

/// What a folder takes by itself; 0 where it is none.
pub(super) fn folder(path: &Path) -> u64 {
    fs::metadata(path).as_ref().map_or(0, taken)
}

/// What is in a folder; nothing where there is none.
fn names(folder: &Path) -> io::Result<Vec<DirEntry>> {
    let Some(all) = found(fs::read_dir(folder))? else { return Ok(Vec::new()) };
    all.filter_map(|file| found(file).transpose()).collect()
}
