//! The names of the table, of the attributes, and of records within an entry.
//!
//! # Invariants
//! - A name is read back as the key that it was made for, and no other text is read as a key.
//! - The names of the chunks of a body sort in the order of the body.
//! - Names of tables and attributes that DynamoDB does not accept are refused.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::error::Result;
use crate::hex;
use crate::storage::address::config;
use crate::storage::key::Key;
use crate::storage::naming::RecordName;

/// The names in the sort key, such as `chunk:<slot>:<part>`.
///
/// Ten digits hold every part, so that the names sort as the parts do.
const RECORD_NAME: RecordName = RecordName { separator: ':', digits: 10 };

/// The attributes of an item by their names.
pub(super) type Item = HashMap<String, AttributeValue>;

pub(super) const STAMP: &str = "stamp";
pub(super) const UNTIL: &str = "until";
pub(super) const VALUE: &str = "value";

/// The name of the table, and of the attributes that a user can name.
#[derive(Clone, Debug)]
pub(super) struct Naming {
    pub(super) table: String,
    pub(super) partition: String,
    pub(super) sort: String,
    pub(super) expires: String,
}

impl Naming {
    pub(super) fn new(table: String, partition: String, sort: String, expires: String) -> Result<Self> {
        // The limits of DynamoDB, which would itself refuse the name with the first request only.
        let is_accepted = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if !(3..=255).contains(&table.len()) || !table.chars().all(is_accepted) {
            return Err(config(
                "a cache name in dynamodb is the name of a table: use 3 to 255 letters, digits, dots, \
                 hyphens and underscores",
            ));
        }
        let names = [&*partition, &*sort, &*expires, STAMP, UNTIL, VALUE];
        if names.iter().any(|name| name.is_empty() || name.len() > 255) {
            return Err(config("the name of an attribute in dynamodb must have 1 to 255 bytes"));
        }
        if (1..names.len()).any(|at| names[..at].contains(&names[at])) {
            return Err(config(
                "two attributes in dynamodb have the same name: choose different names, other than \
                 stamp, until and value",
            ));
        }
        Ok(Self { table, partition, sort, expires })
    }

    /// Returns the two attributes that identify a record.
    pub(super) fn key(&self, key: Key) -> Item {
        let mut record = String::new();
        RECORD_NAME.push(&mut record, key);
        Item::from([
            (self.partition.clone(), AttributeValue::S(hex::text(&key.entry))),
            (self.sort.clone(), AttributeValue::S(record)),
        ])
    }

    /// Returns the key of an item.
    ///
    /// Returns `None` if the item is not a record of this crate.
    pub(super) fn read(&self, item: &Item) -> Option<Key> {
        let partition = item.get(&self.partition)?.as_s().ok()?;
        let name = item.get(&self.sort)?.as_s().ok()?;
        RECORD_NAME.read(hex::read(partition)?, name)
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
    fn only_own_names_are_read_as_keys() {
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
    fn names_that_dynamodb_does_not_accept_are_refused() {
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
