//! What the files are called.
//!
//! Promises: each key has one name, and a name that is not exactly the one of a key is nobody's; names are lower case
//! hexadecimal digits, words and hyphens, and short, so that every file system takes them and none takes two for one.

use crate::hex;
use crate::storage::{Key, Kind};

/// The folder of what is not a record: locks, and files that are not finished.
pub(super) const WORK: &str = ".work";
/// Begins the name of a file that is being written.
pub(super) const NEW: &str = "new-";
/// Begins the name of an entry's folder that is being removed.
pub(super) const GONE: &str = "gone-";
/// The lock of those who make room.
pub(super) const SWEEP: &str = "lock-sweep";

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
    let kind = match key.kind {
        Kind::Head => "head",
        Kind::Variant => "variant",
        Kind::Chunk => "chunk",
        Kind::Lease => "lease",
        Kind::Group => "group",
        Kind::Index => "index",
    };
    let slot = hex::text(&key.slot);
    match key.part {
        0 if key.kind != Kind::Chunk && key.slot == [0; 16] => kind.to_owned(),
        0 if key.kind != Kind::Chunk => format!("{kind}-{slot}"),
        // As many digits as usual bodies need, so that a listing is in their order.
        part => format!("{kind}-{slot}-{part:05}"),
    }
}

/// The entry of a folder of this name within a shard.
pub(super) fn parse_entry(shard: u8, name: &str) -> Option<[u8; 16]> {
    hex::read(name).filter(|entry: &[u8; 16]| entry[0] == shard)
}

/// The key of a file of this name within an entry's folder.
pub(super) fn parse_record(entry: [u8; 16], name: &str) -> Option<Key> {
    let mut parts = name.split('-');
    let kind = match parts.next()? {
        "head" => Kind::Head,
        "variant" => Kind::Variant,
        "chunk" => Kind::Chunk,
        "lease" => Kind::Lease,
        "group" => Kind::Group,
        "index" => Kind::Index,
        _ => return None,
    };
    let slot = parts.next().map_or(Some([0; 16]), hex::read)?;
    let part = parts.next().map_or(Some(0), |part| part.parse().ok())?;
    let key = Key { entry, kind, slot, part };
    // Nothing but the name that it would be given: no sign, no further zeros, no other case.
    (record(key) == name).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_name_of_its_own_and_comes_back_from_it() {
        let kinds = [Kind::Head, Kind::Variant, Kind::Chunk, Kind::Lease, Kind::Group, Kind::Index];
        let mut names = std::collections::BTreeSet::new();
        for kind in kinds {
            for slot in [[0; 16], [1; 16], [0xff; 16]] {
                for part in [0, 1, 99_999, 100_000, u32::MAX] {
                    let key = Key { entry: [0xab; 16], kind, slot, part };
                    let name = record(key);
                    assert!(
                        name.len() < 60
                            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                    );
                    assert_eq!(parse_record(key.entry, &name), Some(key), "{name}");
                    assert!(names.insert(name));
                }
            }
        }
        assert_eq!(record(Key::head([1; 16])), "head");
        let chunk = Key::head([1; 16]).sibling(Kind::Chunk, [0x0a; 16], 3);
        assert_eq!(record(chunk), "chunk-0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a-00003");
        assert_eq!(parse_entry(0xab, &entry([0xab; 16])), Some([0xab; 16]));
    }

    #[test]
    fn other_names_are_nobodys() {
        let slot = "0a".repeat(16);
        for name in [
            "", "head ", "Head", "head.txt", "head~", "head-", "heads", "chunk", "notes.md", ".work", "new-1",
        ] {
            assert_eq!(parse_record([1; 16], name), None, "{name}");
        }
        for name in [
            format!("chunk-{slot}"),
            format!("chunk-{slot}-3"),
            format!("chunk-{slot}-000003"),
            format!("chunk-{slot}-+0003"),
            format!("chunk-{slot}-99999999999"),
            format!("chunk-{slot}-00003-1"),
            format!("variant-{}", slot.to_uppercase()),
            format!("variant-{}", &slot[1..]),
            format!("variant-{slot}-00000"),
            format!("head-{}", "00".repeat(16)),
        ] {
            assert_eq!(parse_record([1; 16], &name), None, "{name}");
        }
        assert_eq!(parse_entry(1, &entry([2; 16])), None);
        assert_eq!(parse_entry(0xab, &"AB".repeat(16)), None);
        assert_eq!(parse_entry(0, "0"), None);
    }
}
