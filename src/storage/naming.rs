//! The name of a record within its entry, for storages that name records by text.
//!
//! A name is `<kind>[:<slot>[:<part>]]`.
//!
//! # Invariants
//! - A name is read as the key that it was written for.
//! - No other text is read as a key: extra zeros, a sign or upper case letters are refused.

use std::fmt::Write;

use super::key::{Key, Kind};
use crate::hex;

/// The format of these names, which each storage chooses for itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordName {
    /// The character between kind, slot and part.
    pub(super) separator: char,
    /// The least number of digits of a part. With enough of them, names sort in the order of the parts.
    pub(super) digits: usize,
}

impl RecordName {
    /// Appends the name of a record.
    pub(super) fn push(self, name: &mut String, key: Key) {
        name.push_str(key.kind.name());
        let has_part = key.part != 0 || key.kind == Kind::Chunk;
        if has_part || key.slot != [0; 16] {
            name.push(self.separator);
            let _ = hex::write(name, &key.slot); // writing to a String cannot fail
        }
        if has_part {
            let _ = write!(name, "{}{:0digits$}", self.separator, key.part, digits = self.digits);
        }
    }

    /// Reads a name. Returns `None` for a text that [`push`](RecordName::push) does not write.
    pub(super) fn read(self, entry: [u8; 16], name: &str) -> Option<Key> {
        let mut parts = name.split(self.separator);
        let kind = Kind::from_name(parts.next()?)?;
        let slot = parts.next().map_or(Some([0; 16]), hex::read)?;
        let part = parts.next().map_or(Some(0), |part| part.parse().ok())?;
        let key = Key { entry, kind, slot, part };
        // Every other way to write the same numbers is refused, so that no two files or fields are one record.
        let mut canonical = String::with_capacity(name.len());
        self.push(&mut canonical, key);
        (canonical == name).then_some(key)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ENTRY: [u8; 16] = [0x3f; 16];

    fn name(format: RecordName, key: Key) -> String {
        let mut name = String::new();
        format.push(&mut name, key);
        name
    }

    #[test]
    fn every_key_is_read_from_its_name() {
        for (separator, digits) in [(':', 1), (':', 10), ('-', 5)] {
            let format = RecordName { separator, digits };
            let mut names = BTreeSet::new();
            for kind in Kind::ALL {
                for slot in [[0; 16], [1; 16], [0xff; 16]] {
                    for part in [0, 1, 99_999, 100_000, u32::MAX] {
                        let key = Key { entry: ENTRY, kind, slot, part };
                        let name = name(format, key);
                        assert_eq!(format.read(ENTRY, &name), Some(key), "{name}");
                        assert!(names.insert(name));
                    }
                }
            }
        }
    }

    #[test]
    fn other_text_is_no_name() {
        let format = RecordName { separator: ':', digits: 5 };
        let slot = "0a".repeat(16);
        for text in ["", "head ", "Head", "head.txt", "head~", "head:", "heads", "chunk", "other"] {
            assert_eq!(format.read(ENTRY, text), None, "{text}");
        }
        for text in [
            format!("chunk:{slot}"),
            format!("chunk:{slot}:3"),
            format!("chunk:{slot}:000003"),
            format!("chunk:{slot}:+0003"),
            format!("chunk:{slot}:99999999999"),
            format!("chunk:{slot}:00003:1"),
            format!("variant:{}", slot.to_uppercase()),
            format!("variant:{}", &slot[1..]),
            format!("variant:{slot}:00000"),
            format!("variant-{slot}"),
            format!("head:{}", "00".repeat(16)),
        ] {
            assert_eq!(format.read(ENTRY, &text), None, "{text}");
        }
    }

    #[test]
    fn padded_names_sort_by_part() {
        let format = RecordName { separator: ':', digits: 10 };
        let chunk = |part| name(format, Key { entry: ENTRY, kind: Kind::Chunk, slot: [7; 16], part });
        assert!([0, 2, 10, 99, 100, u32::MAX].map(chunk).is_sorted());
    }
}
