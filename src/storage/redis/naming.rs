//! The names of the records in Redis.
//!
//! # Invariants
//!
//! - A name is parsed as the key that it was made from, and no other name is parsed as a key.
//! - All names of an entry have the same hash tag, so a cluster keeps them on one node.
//! - No name of one cache begins like the names of another cache.

use crate::error::{Error, ErrorKind, Result};
use crate::hex;
use crate::storage::key::Key;
use crate::storage::naming::RecordName;

/// Parts have no leading zeros, since nothing sorts the names.
const RECORD: RecordName = RecordName { separator: ':', digits: 1 };

/// Makes and parses the names of one cache.
#[derive(Clone, Debug)]
pub(super) struct Naming {
    /// The cache name and a colon.
    prefix: Box<str>,
}

impl Naming {
    /// # Errors
    ///
    /// Returns `Config` if the name is empty or contains braces, which would change the hash tag.
    pub(super) fn new(cache_name: &str) -> Result<Self> {
        if cache_name.is_empty() || cache_name.contains(['{', '}']) {
            return Err(Error::new(
                ErrorKind::Config,
                "the cache name in redis must not be empty or contain braces, which delimit hash tags",
            ));
        }
        Ok(Self { prefix: format!("{cache_name}:").into() })
    }

    /// Returns the name of a record, `<cache_name>:{<entry>}:<kind>[:<slot>[:<part>]]`.
    pub(super) fn name(&self, key: Key) -> String {
        // The name is allocated once.
        let mut name = String::with_capacity(self.max_name_len());
        name.push_str(&self.prefix);
        name.push('{');
        // Writing to a `String` never fails.
        let _ = hex::write(&mut name, &key.entry);
        name.push_str("}:");
        RECORD.push(&mut name, key);
        name
    }

    /// Returns what all names of this cache begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the length that no name exceeds.
    pub(super) fn max_name_len(&self) -> usize {
        // The longest name takes 90 bytes after the prefix.
        self.prefix.len() + 90
    }

    /// Parses a name of this cache. Returns `None` for any other name.
    pub(super) fn key(&self, name: &str) -> Option<Key> {
        let rest = name.strip_prefix(&*self.prefix)?.strip_prefix('{')?;
        let (entry, rest) = rest.split_once("}:")?;
        RECORD.read(hex::read(entry)?, rest)
    }

    /// Returns the pattern for `SCAN`, which only matches the names of this cache.
    pub(super) fn pattern(&self) -> String {
        let mut pattern = String::new();
        for letter in self.prefix.chars() {
            if matches!(letter, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
                pattern.push('\\');
            }
            pattern.push(letter);
        }
        pattern.push_str("{*");
        pattern
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::key::Kind;

    #[test]
    fn name_roundtrips_in_its_own_cache_only() {
        let (app, other) = (Naming::new("app").unwrap(), Naming::new("app:x").unwrap());
        let head = Key::head([0x3f; 16]);
        for key in [head, head.sibling(Kind::Chunk, [0xa7; 16], 1)] {
            let name = app.name(key);
            assert_eq!(app.key(&name), Some(key), "{name}");
            assert_eq!(other.key(&name), None);
            assert_eq!(app.key(&other.name(key)), None);
        }
    }

    #[test]
    fn other_names_are_not_keys() {
        let naming = Naming::new("app").unwrap();
        let entry = "0".repeat(32);
        assert!(naming.key(&format!("app:{{{entry}}}:head")).is_some());
        for text in [
            "app:x".to_owned(),
            format!("app:{{{entry}}}"),
            format!("app:{{{entry}}}:"),
            format!("app:{{{entry}}}:chunk:{entry}:01"),
            format!("app:{{{}}}:head", "A".repeat(32)),
        ] {
            assert_eq!(naming.key(&text), None, "{text}");
        }
    }

    #[test]
    fn pattern_escapes_glob_characters() {
        assert_eq!(Naming::new("a*[b]?").unwrap().pattern(), r"a\*\[b\]\?:{*");
        assert_eq!(
            Naming::new("a").unwrap().name(Key::head([0; 16])),
            format!("a:{{{}}}:head", "0".repeat(32))
        );
    }

    #[test]
    fn cache_name_with_braces_is_refused() {
        for name in ["", "{", "a}b", "{a}"] {
            assert_eq!(Naming::new(name).unwrap_err().kind(), ErrorKind::Config);
        }
    }
}
