//! The recent invalidations and expiries of groups, and the deletions by filter, in this process.
//!
//! A response is not stored if one of them concerns it and was made after its fetch began. Records that are stored already
//! are invalidated in the storage, and are not affected by this.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderName;

use super::bounded_map::BoundedMap;
use crate::storage::{Key, Record};

/// Remembers the groups that this process has invalidated or expired, and its deletions and expiries by filter.
///
/// A lookup takes a [`Mark`]. The response is stored only if, since then, none of its groups was invalidated and no deletion
/// matches it. Both lists are bounded. A response whose fetch began before the oldest deletion that is remembered is not
/// stored, nor is one with groups whose fetch began before the oldest group change that is remembered. After the expiry of a
/// group, a response is stored, and is stale.
///
/// The std `Mutex` guards both lists and their common count, so that a mark is a single number. It is never held across an
/// await or while a filter runs, and no other lock is taken under it.
pub(crate) struct Changes(Mutex<History>);

/// The state under the lock.
struct History {
    /// The number of changes so far.
    count: u64,
    /// The groups that were invalidated.
    invalidated: GroupChanges,
    /// The groups that were expired.
    expired: GroupChanges,
    /// The number of the newest deletion that has been forgotten.
    forgotten_deletions: u64,
    /// The number and the filter of each deletion, the oldest first.
    deletions: VecDeque<(u64, DeletionFilter)>,
}

/// The numbers of the last changes of groups.
struct GroupChanges {
    /// The number of the newest change that has been forgotten.
    forgotten: u64,
    /// The number of the last change of each group.
    groups: BoundedMap<Key, u64>,
}

impl GroupChanges {
    fn new() -> Self {
        Self { forgotten: 0, groups: BoundedMap::new(Changes::MAX_GROUPS) }
    }

    fn add(&mut self, group: Key, count: u64) {
        if let Some(forgotten) = self.groups.insert(group, count) {
            self.forgotten = forgotten;
        }
    }

    fn since(&self, mark: Mark, group: Key) -> bool {
        mark.0 < self.forgotten || self.groups.get(&group).is_some_and(|changed| *changed > mark.0)
    }
}

/// Returns whether a deletion matches the response in a record.
///
/// It gets the key, the record, and the names of the fields that select the response.
pub(crate) type DeletionFilter = Arc<dyn Fn(Key, &Record, &[HeaderName]) -> bool + Send + Sync>;

/// The number of changes at one time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mark(u64);

impl Default for Changes {
    fn default() -> Self {
        Self(Mutex::new(History {
            count: 0,
            invalidated: GroupChanges::new(),
            expired: GroupChanges::new(),
            forgotten_deletions: 0,
            deletions: VecDeque::new(),
        }))
    }
}

impl Changes {
    /// How many groups of each kind of change are remembered. They take about one megabyte.
    const MAX_GROUPS: usize = 10_000;
    /// How many deletions are remembered. Storing a response may run the filter of each of them.
    const MAX_DELETIONS: usize = 64;

    /// Returns a mark that tells later changes from those so far.
    pub(crate) fn mark(&self) -> Mark {
        Mark(self.lock().count)
    }

    /// Adds the invalidation of a group, before it begins.
    pub(super) fn add_group(&self, group: Key) {
        let mut history = self.lock();
        history.count += 1;
        let count = history.count;
        history.invalidated.add(group, count);
    }

    /// Adds the expiry of a group, before it begins.
    pub(super) fn add_expiry(&self, group: Key) {
        let mut history = self.lock();
        history.count += 1;
        let count = history.count;
        history.expired.add(group, count);
    }

    /// Returns whether a group may have been expired since a mark.
    pub(super) fn expired_since(&self, mark: Mark, group: Key) -> bool {
        self.lock().expired.since(mark, group)
    }

    /// Returns whether a group may have been invalidated since a mark.
    pub(super) fn since(&self, mark: Mark, group: Key) -> bool {
        self.lock().invalidated.since(mark, group)
    }

    /// Adds a deletion by filter, before it begins.
    pub(crate) fn add_deletion(&self, filter: DeletionFilter) {
        // Declared before the guard, so that it is dropped after it: a filter owns values of the user, whose `drop` may run
        // any code.
        let forgotten;
        let mut history = self.lock();
        forgotten = match history.deletions.len() >= Self::MAX_DELETIONS {
            true => history.deletions.pop_front(),
            false => None,
        };
        if let Some((before, _)) = &forgotten {
            history.forgotten_deletions = *before;
        }
        history.count += 1;
        let count = history.count;
        history.deletions.push_back((count, filter));
    }

    /// Returns whether there was a deletion by filter since a mark.
    pub(super) fn deletes_since(&self, mark: Mark) -> bool {
        self.lock().deletions.back().is_some_and(|(at, _)| *at > mark.0)
    }

    /// Returns whether a deletion since a mark matches a response.
    pub(super) fn has_deleted(&self, mark: Mark, key: Key, record: &Record, names: &[HeaderName]) -> bool {
        if !self.deletes_since(mark) {
            return false;
        }
        let history = self.lock();
        let is_forgotten = mark.0 < history.forgotten_deletions;
        let filters: Vec<DeletionFilter> = history
            .deletions
            .iter()
            .filter(|(at, _)| *at > mark.0)
            .map(|(_, filter)| Arc::clone(filter))
            .collect();
        // The filters are the user's code, which may be slow, panic, or delete by another filter: they must not run under
        // the lock.
        drop(history);
        is_forgotten || filters.iter().any(|filter| filter(key, record, names))
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").field("count", &self.lock().count).finish_non_exhaustive()
    }
}
