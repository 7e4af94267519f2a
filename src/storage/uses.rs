//! When entries were last used, kept in memory so that a hit writes nothing.
//!
//! # Invariants
//! - At most 65,536 entries are noted; further ones are not, until all are written down.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

const MOST: usize = 65_536;

/// The last use of each entry, in the time that the storage reckons by.
#[derive(Debug)]
pub(super) struct Uses<T>(Mutex<HashMap<[u8; 16], T>>);

impl<T: Copy> Uses<T> {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    /// Notes that an entry is used now. The time is taken under the lock, so that a later use has a later time.
    pub(super) fn note(&self, entry: [u8; 16], now: impl FnOnce() -> T) {
        let mut noted = self.lock();
        if noted.len() < MOST || noted.contains_key(&entry) {
            noted.insert(entry, now());
        }
    }

    /// When an entry was used, if that is noted.
    pub(super) fn of(&self, entry: [u8; 16]) -> Option<T> {
        self.lock().get(&entry).copied()
    }

    /// Takes all that is noted.
    pub(super) fn take(&self) -> HashMap<[u8; 16], T> {
        std::mem::take(&mut *self.lock())
    }

    #[cfg(feature = "directory")]
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 16], T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_entries_are_noted_and_the_last_use_of_each() {
        let uses = Uses::new();
        let entry = |number: usize| (number as u128).to_be_bytes();
        for number in 0..MOST + 10 {
            uses.note(entry(number), || number);
        }
        uses.note(entry(1), || 7);
        assert_eq!((uses.of(entry(1)), uses.of(entry(2)), uses.of(entry(MOST))), (Some(7), Some(2), None));
        assert_eq!((uses.take().len(), uses.of(entry(1))), (MOST, None));
        uses.note(entry(MOST), || 1);
        assert_eq!(uses.of(entry(MOST)), Some(1));
    }
}
