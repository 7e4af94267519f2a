//! The names of files and folders.
//!
//! # Invariants
//! - Each key has one name. A name that is not exactly that of a key belongs to no record.
//! - Names consist of lower case letters, digits and hyphens, and are shorter than 60 characters. So every file system accepts
//!   them, and none that ignores case takes two of them for the same.

use crate::hex;
use crate::storage::Key;
use crate::storage::naming::RecordName;

/// The folder of locks and unfinished files.
pub(super) const WORK: &str = ".work";
/// The prefix of a file that is being written.
pub(super) const NEW_PREFIX: &str = "new-";
/// The prefix of an entry's folder that is being removed.
pub(super) const REMOVED_PREFIX: &str = "gone-";
/// The lock of the process that makes room.
pub(super) const SWEEP_LOCK: &str = "lock-sweep";

/// With five digits, a directory listing shows the chunks of usual bodies in order.
const RECORD: RecordName = RecordName { separator: '-', digits: 5 };

pub(super) fn shard(number: u8) -> String {
    hex::text(&[number])
}

pub(super) fn shard_lock(shard: u8) -> String {
    format!("lock-{}", self::shard(shard))
}

/// Returns a name in the work folder that no other process uses.
pub(super) fn unique(prefix: &str) -> String {
    format!("{prefix}{}", hex::text(&crate::storage::random_id()))
}

pub(super) fn entry(entry: [u8; 16]) -> String {
    hex::text(&entry)
}

pub(super) fn record(key: Key) -> String {
    let mut name = String::new();
    RECORD.push(&mut name, key);
    name
}

/// Reads the entry from the name of a folder within a shard.
pub(super) fn parse_entry(shard: u8, name: &str) -> Option<[u8; 16]> {
    hex::read(name).filter(|entry: &[u8; 16]| entry[0] == shard)
}

/// Reads the key from the name of a file within an entry's folder.
pub(super) fn parse_record(entry: [u8; 16], name: &str) -> Option<Key> {
    RECORD.read(entry, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Kind;

    #[test]
    fn names_are_short_and_readable() {
        assert_eq!(record(Key::head([1; 16])), "head");
        let chunk = Key::head([1; 16]).sibling(Kind::Chunk, [0x0a; 16], 3);
        assert_eq!(record(chunk), "chunk-0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a-00003");
        assert_eq!(parse_record([1; 16], &record(chunk)), Some(chunk));
        let longest = record(chunk.sibling(Kind::Variant, [0xff; 16], u32::MAX));
        assert!(
            longest.len() < 60 && longest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        );
        assert_eq!(parse_entry(0xab, &entry([0xab; 16])), Some([0xab; 16]));
    }

    #[test]
    fn other_names_belong_to_no_record() {
        for name in ["notes.md", ".work", "new-1", "head-", "chunk:0"] {
            assert_eq!(parse_record([1; 16], name), None, "{name}");
        }
        assert_eq!(parse_entry(1, &entry([2; 16])), None);
        assert_eq!(parse_entry(0xab, &"AB".repeat(16)), None);
        assert_eq!(parse_entry(0, "0"), None);
    }
}
