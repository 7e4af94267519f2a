//! What is done to records, on a thread that may wait.
//!
//! Promises: every change of a record happens while its shard is locked, and is seen whole or not at all; bytes that are
//! no record are absent.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::bound::Bound;
use super::failure::{failed_change, failed_read, found};
use super::place::Place;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::contract::Retain;
use crate::storage::envelope::Envelope;
use crate::storage::{Key, Record, Stamp};
use crate::time::Timestamp;

/// When a record is written.
pub(super) enum When {
    Always,
    /// When the record there has this stamp, or when none is there.
    There(Option<Stamp>),
}

/// How often bytes that are no record, but change while they are looked at, are looked at again.
const LOOKS: u32 = 5;

/// The records of a directory, and what they take.
pub(super) struct Records {
    pub(super) place: Place,
    pub(super) bound: Bound,
}

impl Records {
    pub(super) fn read(&self, key: Key) -> Result<Option<Record>> {
        let path = self.place.record(key);
        look(|| found(fs::read(&path))).map_err(failed_read)
    }

    /// Whether files are there for all of these, without reading them.
    pub(super) fn contains_all(&self, keys: &[Key]) -> Result<bool> {
        for key in keys {
            let file = found(fs::metadata(self.place.record(*key))).map_err(failed_read)?;
            if !file.is_some_and(|file| file.is_file() && file.len() >= Envelope::LEN as u64) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether it was written.
    pub(super) fn write(&self, key: Key, record: &Record, when: &When) -> Result<bool> {
        let bytes = record.to_bytes();
        if bytes.len() > self.bound.max_record_len() {
            return Err(too_large());
        }
        let unfinished = self.place.unfinished(&bytes).map_err(failed_change)?;
        let _lock = self.place.lock(key.entry[0])?;
        if let When::There(seen) = when {
            let there = self.read(key)?.map(|there| there.stamp());
            if there == Some(record.stamp()) {
                return Ok(true);
            }
            if there != *seen {
                return Ok(false);
            }
        }
        let change = self.bound.replace(&self.place, key, bytes.len() as u64).ok_or_else(too_large)?;
        self.place.finish(unfinished, key).map_err(failed_change)?;
        self.bound.note(key, change);
        Ok(true)
    }

    /// Removes records; says how many were there. All are of one shard.
    pub(super) fn delete(&self, keys: &[Key]) -> Result<u64> {
        let Some(first) = keys.first() else { return Ok(0) };
        let _lock = self.place.lock(first.entry[0])?;
        self.remove(keys)
    }

    /// Removes those of these records that are due; says how many. All are of one shard.
    pub(super) fn delete_due(&self, keys: &[Key], now: Timestamp) -> Result<u64> {
        let Some(first) = keys.first() else { return Ok(0) };
        let _lock = self.place.lock(first.entry[0])?;
        let mut due = Vec::new();
        for key in keys {
            if self.until(*key)?.is_some_and(|until| until <= now) {
                due.push(*key);
            }
        }
        self.remove(&due)
    }

    /// Until when a file's record is kept, by its first bytes; `None` for what is no record of this version.
    pub(super) fn until(&self, key: Key) -> Result<Option<Timestamp>> {
        let file = found(File::open(self.place.record(key))).map_err(failed_read)?;
        let Some(mut file) = file else { return Ok(None) };
        Ok(envelope(&mut file).map_err(failed_read)?.map(|envelope| envelope.retain_until()))
    }

    /// Moves the times of records; says how many were there. All are of one shard.
    pub(super) fn retain(&self, keys: &[Key], retain: Retain) -> Result<u64> {
        let Some(first) = keys.first() else { return Ok(0) };
        let _lock = self.place.lock(first.entry[0])?;
        let mut there = 0;
        for key in keys {
            there += u64::from(self.retain_one(&self.place.record(*key), retain).map_err(failed_change)?);
        }
        Ok(there)
    }

    /// Writes the bytes before the payload anew, in place: they are few and together, so that no process that is killed
    /// leaves a part of them. One who reads meanwhile sees by the checksum that he has to read again.
    fn retain_one(&self, path: &Path, retain: Retain) -> io::Result<bool> {
        let Some(mut file) = found(OpenOptions::new().read(true).write(true).open(path))? else {
            return Ok(false);
        };
        let Some(envelope) = envelope(&mut file)? else { return Ok(false) };
        let time = retain.apply(envelope.retain_until());
        if time != envelope.retain_until() {
            let payload_len = file.metadata()?.len().saturating_sub(Envelope::LEN as u64);
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&envelope.with_retain_until(time, payload_len).to_bytes())?;
            if self.place.fsync {
                file.sync_data()?;
            }
        }
        Ok(true)
    }

    /// Removes records while their shard is locked, and the folders that are empty then.
    pub(super) fn remove(&self, keys: &[Key]) -> Result<u64> {
        let mut removed = 0;
        for (at, key) in keys.iter().enumerate() {
            let path = self.place.record(*key);
            let less = self.bound.removal(&path);
            if found(fs::remove_file(path)).map_err(failed_change)?.is_some() {
                self.bound.note(*key, less);
                removed += 1;
            }
            if keys.get(at + 1).is_none_or(|next| next.entry != key.entry) {
                self.tidy(key.entry).map_err(failed_change)?;
            }
        }
        Ok(removed)
    }

    /// Removes an entry's folder and its shard's where nothing is left in them. The shard is locked.
    fn tidy(&self, entry: [u8; 16]) -> io::Result<()> {
        for folder in [self.place.entry(entry), self.place.shard(entry[0])] {
            let less = self.bound.removal(&folder);
            // What is not empty refuses.
            if fs::remove_dir(folder).is_err() {
                break;
            }
            self.bound.note(Key::head(entry), less);
        }
        self.place.settle(&self.place.entry(entry))
    }
}

/// The record of the bytes that this gives, which may change from one time to the next.
fn look(mut bytes: impl FnMut() -> io::Result<Option<Vec<u8>>>) -> io::Result<Option<Record>> {
    let mut before = None;
    for _ in 0..LOOKS {
        let Some(bytes) = bytes()? else { return Ok(None) };
        let begin = bytes.first_chunk::<{ Envelope::LEN }>().copied();
        match Record::from_bytes(bytes) {
            Ok(record) => return Ok(Some(record)),
            // Its time was moved between two of our bytes, or it is damaged: then it stays as it is.
            Err(_) if begin.is_none() || begin == before => break,
            Err(_) => before = begin,
        }
    }
    Ok(None)
}

/// The bytes before a file's payload; `None`: it is no record of this version.
fn envelope(file: &mut File) -> io::Result<Option<Envelope>> {
    let mut bytes = [0; Envelope::LEN];
    match file.read_exact(&mut bytes) {
        Ok(()) => Ok(Envelope::from_bytes(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        // A folder, where opening one is no error.
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
    fn what_changes_while_it_is_read_is_read_again_and_what_stays_damaged_is_not() {
        let record = Record::new("payload", Timestamp::from_secs(1));
        let (old, new) = (record.to_bytes(), record.with_retain_until(Timestamp::from_secs(2)).to_bytes());
        let torn = |at: usize| [&new[..at], &old[at..]].concat();
        let look = |all: &[Vec<u8>]| {
            let mut looks = 0;
            let found = look(|| {
                looks += 1;
                Ok(all.get(looks - 1).or(all.last()).cloned())
            });
            (found.unwrap().map(|record| record.to_bytes()), looks)
        };
        assert_eq!(look(&[old.to_vec()]), (Some(old.clone()), 1));
        assert_eq!(look(&[torn(3), new.to_vec()]), (Some(new.clone()), 2));
        assert_eq!(look(&[torn(3), torn(5), torn(28), new.to_vec()]), (Some(new.clone()), 4));
        assert_eq!(look(&[torn(5)]), (None, 2));
        assert_eq!(look(&[vec![1; 28]]), (None, 1));
        assert_eq!(look(&[vec![]]), (None, 1));
        let endless: Vec<Vec<u8>> = (0..100_u8).map(|n| vec![n; 40]).collect();
        assert_eq!(look(&endless), (None, LOOKS as usize));
    }
}
