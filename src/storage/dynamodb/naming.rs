//! The names in DynamoDB: of the table, of the attributes, and of the records within an entry.
//!
//! Promises: a name is read back as the key that it was made for, and no other name is; the names of a body's chunks
//! are in the order of the body; table and attribute names that DynamoDB does not take are refused.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::error::Result;
use crate::hex;
use crate::storage::address::config;
use crate::storage::key::Key;
use crate::storage::naming::RecordName;

/// `<kind>[:<slot>[:<part>]]`.
const RECORD: RecordName = RecordName { separator: ':', digits: 10 };

pub(super) type Item = HashMap<String, AttributeValue>;

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
        let mut record = String::new();
        RECORD.push(&mut record, key);
        Item::from([
            (self.partition.clone(), AttributeValue::S(hex::text(&key.entry))),
            (self.sort.clone(), AttributeValue::S(record)),
        ])
    }

    /// The key of an item of this crate; `None` for anything else.
    pub(super) fn read(&self, item: &Item) -> Option<Key> {
        let partition = item.get(&self.partition)?.as_s().ok()?;
        let name = item.get(&self.sort)?.as_s().ok()?;
        RECORD.read(hex::read(partition)?, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::storage::key::Kind;

    fn naming(table: &str, partition: &str, sort: &str) -> Result<Naming> {
        Naming::new(table.into(), partition.into(), sort.into(), "expires".into())
    }

    #[test]
    fn a_name_is_read_back_as_its_key_and_anything_else_is_none() {
        let naming = naming("app", "entry", "record").unwrap();
        let key = Key::head([0x3f; 16]).sibling(Kind::Chunk, [0xa7; 16], 1);
        assert_eq!(naming.read(&naming.key(key)), Some(key));
        for (name, text) in [("record", "heads"), ("entry", &*"3F".repeat(16)), ("entry", "")] {
            let mut item = naming.key(key);
            item.insert(name.into(), AttributeValue::S(text.into()));
            assert_eq!(naming.read(&item), None, "{text}");
            item.remove(name);
            assert_eq!(naming.read(&item), None, "{text}");
        }
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
