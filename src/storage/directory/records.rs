//! The operations on records. They block, so they run on the threads of `workers`.
//!
//! # Invariants
//! - Every change of a record holds the lock of its shard.
//! - A reader sees a change completely or not at all.
//! - A file whose bytes are not a record counts as absent.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::error::{change_error, if_present, read_error};
use super::quota::Quota;
use super::root::Root;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::contract::Retain;
use crate::storage::record_header::RecordHeader;
use crate::storage::{Key, Record, Stamp};
use crate::time::Timestamp;

/// The condition under which a record is written.
pub(super) enum Condition {
    Always,
    /// The current record has this stamp, or there is none.
    Stamp(Option<Stamp>),
}

/// How often a file is read that is no record but changes between the attempts.
const MAX_READ_ATTEMPTS: u32 = 5;

/// The records of a directory, and the space that they take.
pub(super) struct Records {
    pub(super) root: Root,
    pub(super) quota: Quota,
}

impl Records {
    pub(super) fn read(&self, key: Key) -> Result<Option<Record>> {
        let path = self.root.record(key);
        read_stable(|| if_present(fs::read(&path))).map_err(read_error)
    }

    /// Returns whether there are files for all of these keys, without reading them.
    pub(super) fn contains_all(&self, keys: &[Key]) -> Result<bool> {
        for key in keys {
            let file = if_present(fs::metadata(self.root.record(*key))).map_err(read_error)?;
            if !file.is_some_and(|file| file.is_file() && file.len() >= RecordHeader::LEN as u64) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes a record if the condition holds. Returns whether it is written.
    pub(super) fn write(&self, key: Key, record: &Record, condition: &Condition) -> Result<bool> {
        let bytes = record.to_bytes();
        if bytes.len() > self.quota.max_record_len() {
            return Err(too_large());
        }
        // Written before the lock is taken, so that other changes of the shard need not wait for the disk.
        let unfinished = self.root.write_unfinished(&bytes).map_err(change_error)?;
        let _lock = self.root.lock(key.entry[0])?;
        if let Condition::Stamp(seen) = condition {
            let current = self.read(key)?.map(|current| current.stamp());
            if current == Some(record.stamp()) {
                return Ok(true);
            }
            if current != *seen {
                return Ok(false);
            }
        }
        let change = self.quota.change_of_write(&self.root, key, bytes.len() as u64).ok_or_else(too_large)?;
        self.root.finish(unfinished, key).map_err(change_error)?;
        self.quota.record(key, change);
        Ok(true)
    }

    /// Removes records of one shard. Returns how many there were.
    pub(super) fn delete(&self, keys: &[Key]) -> Result<u64> {
        let Some(first) = keys.first() else { return Ok(0) };
        let _lock = self.root.lock(first.entry[0])?;
        self.remove(keys)
    }

    /// Removes those of these records of one shard that are expired. Returns how many it removed.
    pub(super) fn delete_expired(&self, keys: &[Key], now: Timestamp) -> Result<u64> {
        let Some(first) = keys.first() else { return Ok(0) };
        let _lock = self.root.lock(first.entry[0])?;
        let mut expired = Vec::new();
        for key in keys {
            // Checked again under the lock, since the record may have been written again since it was listed.
            if self.retain_until(*key)?.is_some_and(|time| time <= now) {
                expired.push(*key);
            }
        }
        self.remove(&expired)
    }

    /// Reads the retention time of a record from the first bytes of its file.
    ///
    /// Returns `None` if there is no file, or if it is not a record of this version.
    pub(super) fn retain_until(&self, key: Key) -> Result<Option<Timestamp>> {
        Ok(self.header(key)?.map(|header| header.retain_until()))
    }

    /// Reads the stamps and the retention times of records from the first bytes of their files.
    pub(super) fn stamps(&self, keys: &[Key]) -> Result<Vec<Option<(Stamp, Timestamp)>>> {
        let stamp = |key: &Key| Ok(self.header(*key)?.map(|header| (header.stamp(), header.retain_until())));
        keys.iter().map(stamp).collect()
    }

    fn header(&self, key: Key) -> Result<Option<RecordHeader>> {
        let file = if_present(File::open(self.root.record(key))).map_err(read_error)?;
        let Some(mut file) = file else { return Ok(None) };
        read_header(&mut file).map_err(read_error)
    }

    /// Changes the retention times of records of one shard. Returns how many there were.
    pub(super) fn retain(&self, keys: &[Key], retain: Retain) -> Result<u64> {
        let Some(first) = keys.first() else { return Ok(0) };
        let _lock = self.root.lock(first.entry[0])?;
        let mut found = 0;
        for key in keys {
            found += u64::from(self.retain_one(&self.root.record(*key), retain).map_err(change_error)?);
        }
        Ok(found)
    }

    /// Overwrites the header of a record in place. Returns whether there is a record.
    ///
    /// The header is short and written by one call, so a process that is killed does not leave a part of it. A reader that
    /// reads meanwhile notices by the checksum that it has to read again.
    fn retain_one(&self, path: &Path, retain: Retain) -> io::Result<bool> {
        let Some(mut file) = if_present(OpenOptions::new().read(true).write(true).open(path))? else {
            return Ok(false);
        };
        let Some(header) = read_header(&mut file)? else { return Ok(false) };
        let time = retain.apply(header.retain_until());
        if time != header.retain_until() {
            let payload_len = file.metadata()?.len().saturating_sub(RecordHeader::LEN as u64);
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&header.with_retain_until(time, payload_len).to_bytes())?;
            if self.root.fsync {
                file.sync_data()?;
            }
        }
        Ok(true)
    }

    /// Removes records, and the folders that are empty then. The caller holds the lock of the shard.
    pub(super) fn remove(&self, keys: &[Key]) -> Result<u64> {
        let mut removed = 0;
        for (at, key) in keys.iter().enumerate() {
            let path = self.root.record(*key);
            let change = self.quota.change_of_removal(&path);
            if if_present(fs::remove_file(path)).map_err(change_error)?.is_some() {
                self.quota.record(*key, change);
                removed += 1;
            }
            if keys.get(at + 1).is_none_or(|next| next.entry != key.entry) {
                self.remove_empty_folders(key.entry).map_err(change_error)?;
            }
        }
        Ok(removed)
    }

    /// Removes the folder of an entry, and that of its shard, if they are empty. The caller holds the lock of the shard.
    fn remove_empty_folders(&self, entry: [u8; 16]) -> io::Result<()> {
        for folder in [self.root.entry(entry), self.root.shard(entry[0])] {
            let change = self.quota.change_of_removal(&folder);
            // The system refuses to remove a folder that is not empty.
            if fs::remove_dir(folder).is_err() {
                break;
            }
            self.quota.record(Key::head(entry), change);
        }
        self.root.sync_folders(&self.root.entry(entry))
    }
}

/// Reads a record from a file that may be changed while it is read. `read` returns the bytes of the file.
fn read_stable(mut read: impl FnMut() -> io::Result<Option<Vec<u8>>>) -> io::Result<Option<Record>> {
    let mut before = None;
    for _ in 0..MAX_READ_ATTEMPTS {
        let Some(bytes) = read()? else { return Ok(None) };
        let header = bytes.first_chunk::<{ RecordHeader::LEN }>().copied();
        match Record::from_bytes(bytes) {
            Ok(record) => return Ok(Some(record)),
            // Either the header was overwritten during the read, or the file is damaged. A damaged file does not change.
            Err(_) if header.is_none() || header == before => break,
            Err(_) => before = header,
        }
    }
    Ok(None)
}

/// Reads the header of a record. Returns `None` if the file is not a record of this version.
fn read_header(file: &mut File) -> io::Result<Option<RecordHeader>> {
    let mut bytes = [0; RecordHeader::LEN];
    match file.read_exact(&mut bytes) {
        Ok(()) => Ok(RecordHeader::from_bytes(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        // Some systems open a folder as a file, and fail when it is read.
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => Ok(None),
        Err(error) => Err(error),
    }
}

fn too_large() -> Error {
    Error::new(
        ErrorKind::TooLarge,
        "the entry would take more than half of the directory's bound: raise its max_bytes to keep such entries",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changing_file_is_read_again_but_damaged_one_is_not() {
        let record = Record::new("payload", Timestamp::from_secs(1));
        let (old, new) = (record.to_bytes(), record.with_retain_until(Timestamp::from_secs(2)).to_bytes());
        let torn = |at: usize| [&new[..at], &old[at..]].concat();
        let read = |all: &[Vec<u8>]| {
            let mut attempts = 0;
            let found = read_stable(|| {
                attempts += 1;
                Ok(all.get(attempts - 1).or(all.last()).cloned())
            });
            (found.unwrap().map(|record| record.to_bytes()), attempts)
        };
        assert_eq!(read(&[old.to_vec()]), (Some(old.clone()), 1));
        assert_eq!(read(&[torn(3), new.to_vec()]), (Some(new.clone()), 2));
        assert_eq!(read(&[torn(3), torn(5), torn(28), new.to_vec()]), (Some(new.clone()), 4));
        assert_eq!(read(&[torn(5)]), (None, 2));
        assert_eq!(read(&[vec![1; 28]]), (None, 1));
        assert_eq!(read(&[vec![]]), (None, 1));
        let endless: Vec<Vec<u8>> = (0..100_u8).map(|n| vec![n; 40]).collect();
        assert_eq!(read(&endless), (None, MAX_READ_ATTEMPTS as usize));
    }
}
