//! The names in DynamoDB: of the table, of the attributes, and of the records within an entry.
//!
//! Promises: a name is read back as the key that it was made for, and no other name is; the names of a body's chunks
//! are in the order of the body; table and attribute names that DynamoDB does not take are refused.

use std::fmt::Write;

use aws_sdk_dynamodb::types::AttributeValue;

use super::item::Item;
use crate::error::Result;
use crate::hex;
use crate::storage::address::config;
use crate::storage::key::{Key, Kind};

const KINDS: [(Kind, &str); 6] = [
    (Kind::Head, "head"),
    (Kind::Variant, "variant"),
    (Kind::Chunk, "chunk"),
    (Kind::Lease, "lease"),
    (Kind::Group, "group"),
    (Kind::Index, "index"),
];

pub(super) const STAMP: &str = "stamp";
pub(super) const UNTIL: &str = "until";
pub(super) const VALUE: &str = "value";

/// The table, and the attributes whose names may be chosen.
#[derive(Clone, Debug)]
pub(super) struct Naming {
    pub(super) table: String,
    pub(super) partition: String,
    pub(super) sort: String,
    pub(super) expires: String,
}

impl Naming {
    pub(super) fn new(table: String, partition: String, sort: String, expires: String) -> Result<Self> {
        let plain = |sign: char| sign.is_ascii_alphanumeric() || matches!(sign, '_' | '-' | '.');
        if !(3..=255).contains(&table.len()) || !table.chars().all(plain) {
            return Err(config(
                "a cache name in dynamodb is a table's: 3 to 255 letters, digits, dots, hyphens and underscores",
            ));
        }
        let names = [&*partition, &*sort, &*expires, STAMP, UNTIL, VALUE];
        if names.iter().any(|name| name.is_empty() || name.len() > 255) {
            return Err(config("an attribute's name in dynamodb has 1 to 255 bytes"));
        }
        if (1..names.len()).any(|at| names[..at].contains(&names[at])) {
            return Err(config(
                "the attributes in dynamodb need names of their own: stamp, until and value are taken",
            ));
        }
        Ok(Self { table, partition, sort, expires })
    }

    /// The two attributes that name a record.
    pub(super) fn key(&self, key: Key) -> Item {
        Item::from([
            (self.partition.clone(), AttributeValue::S(hex::text(&key.entry))),
            (self.sort.clone(), AttributeValue::S(sort(key))),
        ])
    }

    /// The key of an item of this crate; `None` for anything else.
    pub(super) fn read(&self, item: &Item) -> Option<Key> {
        let partition = item.get(&self.partition)?.as_s().ok()?;
        let name = item.get(&self.sort)?.as_s().ok()?;
        let mut words = name.split(':');
        let word = words.next()?;
        let (kind, _) = KINDS.iter().find(|(_, text)| *text == word)?;
        let slot = words.next().map_or(Some([0; 16]), hex::read)?;
        let part = words.next().map_or(Some(0), |part| part.parse().ok())?;
        let key = Key { entry: hex::read(partition)?, kind: *kind, slot, part };
        (sort(key) == *name).then_some(key)
    }
}

/// `<kind>[:<slot>[:<part>]]`.
fn sort(key: Key) -> String {
    let mut name = KINDS.iter().find(|(kind, _)| *kind == key.kind).map_or("", |(_, text)| text).to_owned();
    let has_part = key.part != 0 || key.kind == Kind::Chunk;
    if has_part || key.slot != [0; 16] {
        name.push(':');
        let _ = hex::write(&mut name, &key.slot);
    }
    if has_part {
        let _ = write!(name, ":{:010}", key.part);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn naming(table: &str, partition: &str, sort: &str) -> Result<Naming> {
        Naming::new(table.into(), partition.into(), sort.into(), "expires".into())
    }

    #[test]
    fn a_name_is_read_back_as_its_key_and_anything_else_is_none() {
        let naming = naming("app", "entry", "record").unwrap();
        for (kind, _) in KINDS {
            for slot in [[0; 16], [0xa7; 16]] {
                for part in [0, 1, u32::MAX] {
                    let key = Key { entry: [0x3f; 16], kind, slot, part };
                    assert_eq!(naming.read(&naming.key(key)), Some(key));
                }
            }
        }
        let zeros = "0".repeat(32);
        for text in [
            String::new(),
            "other".into(),
            "head:".into(),
            format!("head:{zeros}"),
            format!("chunk:{zeros}"),
            format!("chunk:{zeros}:1"),
            format!("chunk:{zeros}:0000000001:1"),
            format!("variant:{}", "A".repeat(32)),
        ] {
            let mut item = naming.key(Key::head([0; 16]));
            item.insert("record".into(), AttributeValue::S(text.clone()));
            assert_eq!(naming.read(&item), None, "{text}");
        }
    }

    #[test]
    fn chunks_are_named_in_the_order_of_their_body() {
        let name = |part| sort(Key { entry: [0; 16], kind: Kind::Chunk, slot: [7; 16], part });
        let names: Vec<String> = [0, 2, 10, 99, 100, u32::MAX].map(name).to_vec();
        assert!(names.is_sorted(), "{names:?}");
    }

    #[test]
    fn names_that_dynamodb_does_not_take_are_refused() {
        for table in ["", "ab", "a b", "a/b", "naïve", &"n".repeat(256)] {
            assert_eq!(naming(table, "entry", "record").unwrap_err().kind(), ErrorKind::Config, "{table}");
        }
        for (partition, sort) in
            [("", "b"), ("a", "a"), ("value", "b"), ("a", "expires"), (&*"n".repeat(256), "b")]
        {
            assert_eq!(naming("app", partition, sort).unwrap_err().kind(), ErrorKind::Config);
        }
    }
}
