//! The changes that this handle and its clones make.
//!
//! # Invariants
//! - The count of a key has grown when a change of its record returns, fails or is dropped.
//! - A copy that was read before the end of a change never has the count of a copy that was read after it.

use crate::storage::Key;
use crate::storage::key_counters::KeyCounters;

/// The numbers of changes, by key.
pub(super) struct Changes(KeyCounters);

impl Changes {
    pub(super) fn new() -> Self {
        Self(KeyCounters::new())
    }

    /// Returns the number of changes that may have concerned this key.
    pub(super) fn count(&self, key: Key) -> u64 {
        self.0.count(key)
    }

    /// Begins a change, which is counted when it ends or is dropped.
    pub(super) fn begin(&self, key: Key) -> Change<'_> {
        Change { changes: self, key, before: self.count(key), is_counted: false }
    }

    /// Begins a change of any number of records, which is counted for each of them when it is dropped.
    pub(super) fn begin_all(&self) -> ChangeOfAll<'_> {
        ChangeOfAll(self)
    }
}

/// A change that is under way. It takes effect in the far storage at an unknown time, also if its future is dropped.
pub(super) struct Change<'a> {
    changes: &'a Changes,
    key: Key,
    before: u64,
    is_counted: bool,
}

impl Change<'_> {
    /// Ends a change, and returns the count that a copy of what it has written gets.
    ///
    /// Returns `None` if another change has ended since this one began. It is unknown which of the two was first.
    pub(super) fn end(mut self) -> Option<u64> {
        self.is_counted = true;
        let count = self.changes.0.increment(self.key);
        (count == self.before + 1).then_some(count)
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        if !self.is_counted {
            self.changes.0.increment(self.key);
        }
    }
}

/// A change of all records that is under way.
pub(super) struct ChangeOfAll<'a>(&'a Changes);

impl Drop for ChangeOfAll<'_> {
    fn drop(&mut self) {
        self.0.0.increment_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> Key {
        Key::head([number; 16])
    }

    #[test]
    fn change_that_ends_alone_is_the_current_one() {
        let changes = Changes::new();
        let before = changes.count(key(1));
        let count = changes.begin(key(1)).end().expect("no other change");
        assert!(count > before);
        assert_eq!((count, changes.count(key(2))), (changes.count(key(1)), 0));
    }

    #[test]
    fn of_two_changes_at_the_same_time_the_later_is_unknown() {
        let changes = Changes::new();
        let (one, two) = (changes.begin(key(1)), changes.begin(key(1)));
        let first = two.end().expect("it is the first to end");
        assert_eq!(one.end(), None);
        assert!(changes.count(key(1)) > first, "the copy of the first may be replaced");
    }

    #[test]
    fn dropped_change_is_counted() {
        let changes = Changes::new();
        let copied = changes.begin(key(1)).end().unwrap();
        drop(changes.begin(key(1)));
        assert!(changes.count(key(1)) > copied);
    }

    #[test]
    fn change_of_all_records_concerns_every_key() {
        let changes = Changes::new();
        let under_way = changes.begin(key(1));
        let before = [key(1), key(2)].map(|key| changes.count(key));
        drop(changes.begin_all());
        let after = [key(1), key(2)].map(|key| changes.count(key));
        assert!(after.iter().zip(before).all(|(after, before)| *after > before));
        assert_eq!(under_way.end(), None);
    }
}
