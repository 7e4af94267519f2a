//! When entries were last used.
//!
//! The uses are kept in memory, so that a hit does not write to the disk.
//!
//! # Invariants
//! - At most 65,536 entries are recorded. The uses of further ones are lost until the recorded ones are written.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bounds the memory to a few megabytes, however many entries are used between two writes.
const MAX_ENTRIES: usize = 65_536;

/// The last use of each entry. `T` is the time or the counter by which the storage orders uses.
#[derive(Debug)]
pub(super) struct LastUses<T>(Mutex<HashMap<[u8; 16], T>>);

impl<T: Copy> LastUses<T> {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    /// Records that an entry is used now.
    pub(super) fn record(&self, entry: [u8; 16], now: impl FnOnce() -> T) {
        let mut recorded = self.lock();
        let has_room = recorded.len() < MAX_ENTRIES;
        // The time is taken under the lock, so that a later use has a later time.
        match recorded.entry(entry) {
            Entry::Occupied(last) => *last.into_mut() = now(),
            Entry::Vacant(first) if has_room => {
                first.insert(now());
            }
            Entry::Vacant(_) => {}
        }
    }

    /// Returns the time at which an entry was used, if it is recorded.
    pub(super) fn get(&self, entry: [u8; 16]) -> Option<T> {
        self.lock().get(&entry).copied()
    }

    /// Takes all recorded uses.
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
    fn recorded_entries_are_bounded() {
        let uses = LastUses::new();
        let entry = |number: usize| (number as u128).to_be_bytes();
        for number in 0..MAX_ENTRIES + 10 {
            uses.record(entry(number), || number);
        }
        uses.record(entry(1), || 7);
        assert_eq!(
            (uses.get(entry(1)), uses.get(entry(2)), uses.get(entry(MAX_ENTRIES))),
            (Some(7), Some(2), None)
        );
        assert_eq!((uses.take().len(), uses.get(entry(1))), (MAX_ENTRIES, None));
        uses.record(entry(MAX_ENTRIES), || 1);
        assert_eq!(uses.get(entry(MAX_ENTRIES)), Some(1));
    }
}
