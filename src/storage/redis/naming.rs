//! The names of the records in Redis.
//!
//! Promises: a name is read back as the key that it was made for, and no other name is; the names of an entry share a
//! hash tag, so that a cluster keeps them on one node; no name of one cache begins like those of another.

use crate::error::{Error, ErrorKind, Result};
use crate::hex;
use crate::storage::key::Key;
use crate::storage::naming::RecordName;

/// What a listing asks the server for at once, and about how long that keeps the server from others: 1 ms.
pub(super) const PAGE: usize = 1000;

const RECORD: RecordName = RecordName { separator: ':', digits: 1 };

/// The names of one cache.
#[derive(Clone, Debug)]
pub(super) struct Naming {
    /// The cache name and a colon.
    prefix: Box<str>,
}

impl Naming {
    pub(super) fn new(cache_name: &str) -> Result<Self> {
        if cache_name.is_empty() || cache_name.contains(['{', '}']) {
            return Err(Error::new(
                ErrorKind::Config,
                "a cache name in redis must not be empty, nor contain braces, which mark hash tags",
            ));
        }
        Ok(Self { prefix: format!("{cache_name}:").into() })
    }

    /// `<cache name>:{<entry>}:<kind>[:<slot>[:<part>]]`.
    pub(super) fn name(&self, key: Key) -> String {
        let mut name = String::with_capacity(self.prefix.len() + 90);
        name.push_str(&self.prefix);
        name.push('{');
        let _ = hex::write(&mut name, &key.entry);
        name.push_str("}:");
        RECORD.push(&mut name, key);
        name
    }

    /// The key of a name of this cache; `None` for anything else.
    pub(super) fn key(&self, name: &str) -> Option<Key> {
        let rest = name.strip_prefix(&*self.prefix)?.strip_prefix('{')?;
        let (entry, rest) = rest.split_once("}:")?;
        RECORD.read(hex::read(entry)?, rest)
    }

    /// What `SCAN` matches: this cache's names and no neighbour's.
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
    fn a_name_is_read_back_as_its_key_and_by_its_own_cache_only() {
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
    fn what_is_not_written_so_is_not_a_key() {
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
    fn the_pattern_takes_glob_signs_as_they_are() {
        assert_eq!(Naming::new("a*[b]?").unwrap().pattern(), r"a\*\[b\]\?:{*");
        assert_eq!(
            Naming::new("a").unwrap().name(Key::head([0; 16])),
            format!("a:{{{}}}:head", "0".repeat(32))
        );
    }

    #[test]
    fn names_that_would_move_the_hash_tag_are_refused() {
        for name in ["", "{", "a}b", "{a}"] {
            assert_eq!(Naming::new(name).unwrap_err().kind(), ErrorKind::Config);
        }
    }
}
