//! The records that a storage has read most recently, with their decoded forms.
//!
//! Checking and decoding a record costs more than reading it from a file in memory, or from a server that is near. So a record
//! whose bytes are the same as those that were read before is the record of that time, whose decoded form the cache has made
//! already.
//!
//! # Invariants
//! - Every read asks the file or the server. A record from here has exactly the bytes that were returned.
//! - Memory is bounded by [`SETS`], [`WAYS`], [`MAX_LEN`] and [`MAX_MEMORY`].
//! - No lock is held while bytes are compared or checked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::{Buf, Bytes};

use super::key::Key;
use super::record::{HEADER, Record};
use crate::error::Result;

/// The number of sets. Each key belongs to one of them, so that tasks rarely wait for each other.
const SETS: usize = 128;
/// The number of records of a set. The record that was read least recently makes room for another one.
const WAYS: usize = 4;
/// The longest record that is kept, in bytes. With it, all records together have at most 8 MiB. What is saved hardly depends on
/// the length, while the cost of transferring a record grows with it.
const MAX_LEN: usize = 16 << 10;

/// The most memory of a record with its decoded form, in bytes.
///
/// A response of thousands of empty fields takes 25 times as much when it is decoded. That is not known when the record is read,
/// so each insertion looks at another set. So at most one such record for each set is kept at a time, of 50 MiB in all, if a
/// server returns nothing else.
const MAX_MEMORY: usize = 4 * MAX_LEN;

/// Reads records from bytes, and keeps the ones that it read most recently.
#[derive(Debug)]
pub(super) struct RecentRecords {
    /// The first record of a set is the one that was read last. A std `Mutex`, since it is never held over an await.
    sets: Box<[Mutex<Vec<Recent>>]>,
    /// The set that the next insertion looks at. Relaxed, since it orders nothing.
    checked: AtomicUsize,
}

#[derive(Debug)]
struct Recent {
    key: Key,
    /// Everything before the payload in the bytes from which the record was read.
    header: [u8; HEADER],
    record: Record,
}

impl RecentRecords {
    pub(super) fn new() -> Self {
        Self { sets: (0..SETS).map(|_| Mutex::default()).collect(), checked: AtomicUsize::new(0) }
    }

    /// Reads the record of a key from the part of a value that begins at `start`.
    ///
    /// # Errors
    /// As [`Record::from_bytes`].
    #[cfg_attr(not(any(feature = "redis", feature = "dynamodb")), allow(dead_code))]
    pub(super) fn read(&self, key: Key, value: Vec<u8>, start: usize) -> Result<Record> {
        let header = match self.find(key, value.get(start..).unwrap_or_default()) {
            Ok(known) => return Ok(known),
            Err(header) => header,
        };
        let mut bytes = Bytes::from(value);
        bytes.advance(start.min(bytes.len()));
        self.decode(key, header, bytes)
    }

    /// Reads the record of a key from bytes, which are copied only if the record is not known.
    ///
    /// # Errors
    /// As [`Record::from_bytes`].
    #[cfg_attr(not(any(feature = "sqlite", feature = "mongodb")), allow(dead_code))]
    pub(super) fn read_slice(&self, key: Key, bytes: &[u8]) -> Result<Record> {
        match self.find(key, bytes) {
            Ok(known) => Ok(known),
            Err(header) => self.decode(key, header, Bytes::copy_from_slice(bytes)),
        }
    }

    /// Returns the record that was read from the same bytes.
    ///
    /// # Errors
    /// Returns the header of the bytes if there is none, and the record that is read from them should be kept.
    fn find(&self, key: Key, bytes: &[u8]) -> std::result::Result<Record, Option<[u8; HEADER]>> {
        // Only heads and variants are worth it: the others are decoded quickly or not at all.
        let header =
            bytes.first_chunk::<HEADER>().copied().filter(|_| key.kind.is_listed() && bytes.len() <= MAX_LEN);
        let known = header.and_then(|header| self.get(key, &header));
        known.filter(|known| known.has_payload(&bytes[HEADER..])).ok_or(header)
    }

    /// Reads a record from its bytes, and keeps it if it has a `header`.
    fn decode(&self, key: Key, header: Option<[u8; HEADER]>, bytes: Bytes) -> Result<Record> {
        let record = Record::from_bytes(bytes)?;
        if let Some(header) = header {
            self.insert(Recent { key, header, record: record.clone() });
        }
        Ok(record)
    }

    /// Returns the record that was read from bytes with this header.
    fn get(&self, key: Key, header: &[u8; HEADER]) -> Option<Record> {
        let mut set = self.set(key).lock().unwrap_or_else(PoisonError::into_inner);
        let place = set.iter().position(|recent| recent.key == key && recent.header == *header)?;
        set[..=place].rotate_right(1);
        Some(set[0].record.clone())
    }

    fn insert(&self, recent: Recent) {
        let checked = self.checked.fetch_add(1, Ordering::Relaxed) % SETS;
        self.sets[checked]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|recent| recent.record.memory() <= MAX_MEMORY);
        let mut set = self.set(recent.key).lock().unwrap_or_else(PoisonError::into_inner);
        let place = set.iter().position(|other| other.key == recent.key);
        match place.or_else(|| set.len().checked_sub(1).filter(|last| last + 1 == WAYS)) {
            Some(place) => {
                set[place] = recent;
                set[..=place].rotate_right(1);
            }
            None => set.insert(0, recent),
        }
    }

    fn set(&self, key: Key) -> &Mutex<Vec<Recent>> {
        // Both are hashes or random, so every byte of them is spread evenly.
        &self.sets[usize::from(key.entry[0] ^ key.slot[0]) % SETS]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::key::Kind;
    use super::super::record::Decoded;
    use super::*;
    use crate::time::Timestamp;

    fn key(number: u8) -> Key {
        Key::head([number; 16])
    }

    fn kept(recent: &RecentRecords) -> usize {
        recent.sets.iter().map(|set| set.lock().unwrap().len()).sum()
    }

    /// Returns whether both share their payload, and so their decoded form.
    fn is_same(one: &Record, other: &Record) -> bool {
        one.payload().as_ptr() == other.payload().as_ptr()
    }

    #[test]
    fn equal_bytes_are_the_record_of_the_first_read() {
        let recent = RecentRecords::new();
        let value = [b"12", &Record::new("payload", Timestamp::from_millis(7)).to_bytes()[..]].concat();
        let first = recent.read(key(1), value.clone(), 2).unwrap();
        let again = recent.read(key(1), value.clone(), 2).unwrap();
        assert!(is_same(&first, &again));
        assert_eq!((again.stamp(), again.retain_until()), (first.stamp(), Timestamp::from_millis(7)));
        assert!(!is_same(&first, &recent.read(key(2), value, 2).unwrap()), "another key");
    }

    #[test]
    fn changed_bytes_are_checked_anew() {
        let recent = RecentRecords::new();
        let value = Record::new("payload", Timestamp::NEVER).to_bytes().to_vec();
        recent.read(key(1), value.clone(), 0).unwrap();
        for at in 0..value.len() {
            let mut damaged = value.clone();
            damaged[at] ^= 1;
            assert!(recent.read(key(1), damaged, 0).is_err(), "byte {at}");
            assert!(recent.read(key(1), value[..at].to_vec(), 0).is_err(), "{at} bytes");
        }
        let other = Record::new("payload", Timestamp::NEVER);
        assert_eq!(recent.read(key(1), other.to_bytes().to_vec(), 0).unwrap().stamp(), other.stamp());
        assert_eq!(kept(&recent), 1, "one record for each key");
    }

    #[test]
    fn kept_records_are_bounded() {
        let recent = RecentRecords::new();
        let read = |key: Key, len: usize| {
            let record = Record::new(vec![7; len], Timestamp::NEVER);
            recent.read(key, record.to_bytes().to_vec(), 0).unwrap();
        };
        read(key(1), MAX_LEN);
        read(key(1).sibling(Kind::Chunk, [1; 16], 0), 100);
        assert_eq!(kept(&recent), 0, "neither long records nor chunks are kept");
        for number in 0..u16::MAX {
            let entry = std::array::from_fn(|at| number.to_le_bytes()[at % 2]);
            read(Key::head(entry), 10);
        }
        assert_eq!(kept(&recent), SETS * WAYS);
    }

    #[test]
    fn record_with_a_large_form_is_dropped() {
        struct LargeForm;
        impl Decoded for LargeForm {
            fn encode(&self, _: &mut bytes::BytesMut) {}
            fn weight(&self) -> usize {
                1
            }
            fn memory(&self, _: bool) -> usize {
                MAX_MEMORY
            }
        }
        let recent = RecentRecords::new();
        for number in 0..=u8::MAX {
            let value = Record::new("payload", Timestamp::NEVER).to_bytes().to_vec();
            recent.read(key(number), value, 0).unwrap().set_decoded(Arc::new(LargeForm));
        }
        assert!(kept(&recent) <= SETS);
    }

    #[test]
    fn record_that_is_read_often_stays() {
        let recent = RecentRecords::new();
        let value = Record::new("hot", Timestamp::NEVER).to_bytes().to_vec();
        let hot = recent.read(key(1), value.clone(), 0).unwrap();
        for number in 0..100 {
            let other = Key { entry: [1; 16], kind: Kind::Variant, slot: [0; 16], part: number };
            let bytes = Record::new("cold", Timestamp::NEVER).to_bytes().to_vec();
            recent.read(other, bytes, 0).unwrap();
            assert!(is_same(&hot, &recent.read(key(1), value.clone(), 0).unwrap()));
        }
    }
}
