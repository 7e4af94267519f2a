//! What the files are called.
//!
//! Promises: each key has one name, and a name that is not exactly the one of a key is nobody's; names are lower case
//! hexadecimal digits, words and hyphens, and short, so that every file system takes them and none takes two for one.

use crate::hex;
use crate::storage::Key;
use crate::storage::naming::RecordName;

/// The folder of what is not a record: locks, and files that are not finished.
pub(super) const WORK: &str = ".work";
/// Begins the name of a file that is being written.
pub(super) const NEW: &str = "new-";
/// Begins the name of an entry's folder that is being removed.
pub(super) const GONE: &str = "gone-";
/// The lock of those who make room.
pub(super) const SWEEP: &str = "lock-sweep";

/// As many digits as usual bodies need, so that a listing is in their order.
const RECORD: RecordName = RecordName { separator: '-', digits: 5 };

pub(super) fn shard(number: u8) -> String {
    hex::text(&[number])
}

pub(super) fn lock(shard: u8) -> String {
    format!("lock-{}", self::shard(shard))
}

/// A name in the work folder that nobody else has.
pub(super) fn unique(begin: &str) -> String {
    format!("{begin}{}", hex::text(&crate::storage::random_id()))
}

pub(super) fn entry(entry: [u8; 16]) -> String {
    hex::text(&entry)
}

pub(super) fn record(key: Key) -> String {
    let mut name = String::new();
    RECORD.push(&mut name, key);
    name
}

/// The entry of a folder of this name within a shard.
pub(super) fn parse_entry(shard: u8, name: &str) -> Option<[u8; 16]> {
    hex::read(name).filter(|entry: &[u8; 16]| entry[0] == shard)
}

/// The key of a file of this name within an entry's folder.
pub(super) fn parse_record(entry: [u8; 16], name: &str) -> Option<Key> {
    RECORD.read(entry, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Kind;

    #[test]
    fn names_are_short_and_plain_and_come_back() {
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
    fn other_names_are_nobodys() {
        for name in ["notes.md", ".work", "new-1", "head-", "chunk:0"] {
            assert_eq!(parse_record([1; 16], name), None, "{name}");
        }
        assert_eq!(parse_entry(1, &entry([2; 16])), None);
        assert_eq!(parse_entry(0xab, &"AB".repeat(16)), None);
        assert_eq!(parse_entry(0, "0"), None);
    }
}
