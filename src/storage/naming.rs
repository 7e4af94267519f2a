//! The name of a record among those of its entry: `<kind>[:<slot>[:<part>]]`, for storages that name records by text.
//!
//! # Invariants
//! - A name is read back as the key that it was made for.
//! - No other text is read as a key: no further zeros, no sign, no capital letters.

use std::fmt::Write;

use super::key::{Key, Kind};
use crate::hex;

/// How a storage writes such names.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordName {
    /// What stands between kind, slot and part.
    pub(super) separator: char,
    /// How many digits a part has at least, so that names are in the order of parts.
    pub(super) digits: usize,
}

impl RecordName {
    /// Appends the name of this record.
    pub(super) fn push(self, name: &mut String, key: Key) {
        name.push_str(key.kind.name());
        let has_part = key.part != 0 || key.kind == Kind::Chunk;
        if has_part || key.slot != [0; 16] {
            name.push(self.separator);
            let _ = hex::write(name, &key.slot); // a String takes all
        }
        if has_part {
            let _ = write!(name, "{}{:0digits$}", self.separator, key.part, digits = self.digits);
        }
    }

    /// Reads a name; `None` for one that [`push`](RecordName::push) does not write.
    pub(super) fn read(self, entry: [u8; 16], name: &str) -> Option<Key> {
        let mut words = name.split(self.separator);
        let kind = Kind::from_name(words.next()?)?;
        let slot = words.next().map_or(Some([0; 16]), hex::read)?;
        let part = words.next().map_or(Some(0), |part| part.parse().ok())?;
        let key = Key { entry, kind, slot, part };
        let mut own = String::with_capacity(name.len());
        self.push(&mut own, key);
        (own == name).then_some(key)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ENTRY: [u8; 16] = [0x3f; 16];

    fn name(how: RecordName, key: Key) -> String {
        let mut name = String::new();
        how.push(&mut name, key);
        name
    }

    #[test]
    fn every_key_comes_back_from_its_own_name() {
        for (separator, digits) in [(':', 1), (':', 10), ('-', 5)] {
            let how = RecordName { separator, digits };
            let mut names = BTreeSet::new();
            for kind in Kind::ALL {
                for slot in [[0; 16], [1; 16], [0xff; 16]] {
                    for part in [0, 1, 99_999, 100_000, u32::MAX] {
                        let key = Key { entry: ENTRY, kind, slot, part };
                        let name = name(how, key);
                        assert_eq!(how.read(ENTRY, &name), Some(key), "{name}");
                        assert!(names.insert(name));
                    }
                }
            }
        }
    }

    #[test]
    fn other_text_names_no_record() {
        let how = RecordName { separator: ':', digits: 5 };
        let slot = "0a".repeat(16);
        for text in ["", "head ", "Head", "head.txt", "head~", "head:", "heads", "chunk", "other"] {
            assert_eq!(how.read(ENTRY, text), None, "{text}");
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
            assert_eq!(how.read(ENTRY, &text), None, "{text}");
        }
    }

    #[test]
    fn chunks_sort_in_the_order_of_their_body() {
        let how = RecordName { separator: ':', digits: 10 };
        let chunk = |part| name(how, Key { entry: ENTRY, kind: Kind::Chunk, slot: [7; 16], part });
        assert!([0, 2, 10, 99, 100, u32::MAX].map(chunk).is_sorted());
    }
}
