//! The files of the directory's entries, and the disk space that they take.
//!
//! # Invariants
//! - A file or folder that is not named exactly as a record's is neither listed nor counted.
//! - A file or folder that another process removes while it is looked at counts as absent.

use std::fs::{self, DirEntry, Metadata};
use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::error::if_present;
use super::naming;
use super::root::Root;
use crate::storage::Key;

/// The unit in which most file systems allocate. A new file or folder is assumed to take one of them at least.
pub(super) const BLOCK: u64 = 4096;

/// The disk space of an entry.
pub(super) struct Usage {
    /// The space that its records and its folder take. Zero if it has no record.
    pub(super) size: u64,
    /// The latest modification time of its files, which a use also sets.
    pub(super) changed: SystemTime,
    /// Whether its folder contains files that do not belong to the storage, which stay.
    pub(super) has_foreign_files: bool,
}

/// Returns the entries of a shard.
pub(super) fn entries(root: &Root, shard: u8) -> io::Result<Vec<[u8; 16]>> {
    let all = read_folder(&root.shard(shard))?;
    let folders = all.iter().filter(|file| file.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(folders.filter_map(|folder| naming::parse_entry(shard, folder.file_name().to_str()?)).collect())
}

/// A file in an entry's folder.
pub(super) struct EntryFile {
    /// `None` if the file does not belong to the storage.
    pub(super) key: Option<Key>,
    file: DirEntry,
}

impl EntryFile {
    fn metadata(&self) -> io::Result<Option<Metadata>> {
        if_present(self.file.metadata())
    }
}

/// Returns everything that is in an entry's folder.
pub(super) fn files(root: &Root, entry: [u8; 16]) -> io::Result<Vec<EntryFile>> {
    let all = read_folder(&root.entry(entry))?.into_iter();
    let files = all.map(|file| {
        let is_file = file.file_type().is_ok_and(|kind| kind.is_file());
        let name = file.file_name();
        let key = name.to_str().filter(|_| is_file).and_then(|name| naming::parse_record(entry, name));
        EntryFile { key, file }
    });
    Ok(files.collect())
}

/// Returns the disk space of an entry.
pub(super) fn usage(root: &Root, entry: [u8; 16]) -> io::Result<Usage> {
    let mut usage = Usage { size: 0, changed: SystemTime::UNIX_EPOCH, has_foreign_files: false };
    for file in files(root, entry)? {
        if file.key.is_none() {
            usage.has_foreign_files = true;
            continue;
        }
        let Some(metadata) = file.metadata()? else { continue };
        usage.size = usage.size.saturating_add(allocated(&metadata));
        usage.changed = usage.changed.max(metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH));
    }
    if usage.size > 0 {
        usage.size = usage.size.saturating_add(folder(&root.entry(entry)));
    }
    Ok(usage)
}

/// Returns what a folder takes without its files, or zero if there is none.
pub(super) fn folder(path: &Path) -> u64 {
    fs::metadata(path).as_ref().map_or(0, allocated)
}

/// Returns what is in a folder, or nothing if there is none.
fn read_folder(folder: &Path) -> io::Result<Vec<DirEntry>> {
    let Some(all) = if_present(fs::read_dir(folder))? else { return Ok(Vec::new()) };
    all.filter_map(|file| if_present(file).transpose()).collect()
}

/// Returns what the file system has allocated for a file or folder.
pub(super) fn allocated(metadata: &Metadata) -> u64 {
    // `st_blocks` is in units of 512 bytes, whatever the blocks of the file system are.
    #[cfg(unix)]
    return std::os::unix::fs::MetadataExt::blocks(metadata).saturating_mul(512);
    #[cfg(not(unix))]
    return metadata.len().max(1).div_ceil(BLOCK).saturating_mul(BLOCK);
}
