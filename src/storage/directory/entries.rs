//! What entries are made of and take on the disk, by the names of their files.
//!
//! # Invariants
//! - Files and folders that are not exactly named as a record's are neither listed nor counted.
//! - What vanishes while it is looked at is not there.

use std::fs::{self, DirEntry, Metadata};
use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::failure::found;
use super::naming;
use super::place::Place;
use crate::storage::Key;

/// What a file takes on a disk is a multiple of it, about everywhere; so much is assumed before a file or folder is made.
pub(super) const BLOCK: u64 = 4096;

/// What an entry takes.
pub(super) struct Usage {
    /// Of its records and its folder; 0 where it has no record.
    pub(super) size: u64,
    /// When one of its files was written last, or its time moved.
    pub(super) changed: SystemTime,
    /// Whether there are files that are not ours, which stay.
    pub(super) has_others: bool,
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

/// What a file or folder takes.
pub(super) fn taken(of: &Metadata) -> u64 {
    // In units of 512 bytes, whatever the file system's own blocks are.
    #[cfg(unix)]
    return std::os::unix::fs::MetadataExt::blocks(of).saturating_mul(512);
    #[cfg(not(unix))]
    return of.len().max(1).div_ceil(BLOCK).saturating_mul(BLOCK);
}
