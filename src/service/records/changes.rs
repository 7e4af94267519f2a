//! The invalidations that this process has made: groups, and deletions by a filter.
//!
//! A response whose fetch began before one of them, and which it concerns, is not stored. The records in the storage need
//! none of this.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderName;

use super::bounded_map::BoundedMap;
use crate::storage::{Key, Record};

/// Counts the groups that this process has invalidated, and its deletions by filters.
///
/// A lookup takes a [`Mark`], and the response is stored only if its groups are unchanged since then and no filter has chosen
/// it. Both lists are bounded. A fetch that began before the oldest change that is still known is not stored: if it has
/// groups, for the list of groups, and in any case for that of deletions. What is stored already is not affected.
///
/// The std `Mutex` guards both lists and their common count, so that a mark is a single number. It is never held across an
/// await or while a filter runs, and no other lock is taken under it.
pub(crate) struct Changes(Mutex<History>);

struct History {
    /// The number of changes so far.
    count: u64,
    /// The number of the newest group change that has been forgotten.
    forgotten_groups: u64,
    /// The number of the last change of each group.
    groups: BoundedMap<Key, u64>,
    /// The number of the newest deletion that has been forgotten.
    forgotten_deletions: u64,
    deletions: VecDeque<(u64, Chosen)>,
}

/// Decides whether a filter chooses the response in the record at a key, which is selected by these fields.
pub(crate) type Chosen = Arc<dyn Fn(Key, &Record, &[HeaderName]) -> bool + Send + Sync>;

/// Notes the number of changes at one time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mark(u64);

impl Default for Changes {
    fn default() -> Self {
        Self(Mutex::new(History {
            count: 0,
            forgotten_groups: 0,
            groups: BoundedMap::new(Self::MAX_GROUPS),
            forgotten_deletions: 0,
            deletions: VecDeque::new(),
        }))
    }
}

impl Changes {
    /// How many groups are remembered, which takes about one megabyte.
    const MAX_GROUPS: usize = 10_000;
    /// How many deletions are remembered. Every response that is stored since may run each of their filters.
    const MAX_DELETIONS: usize = 64;

    /// Returns a mark that tells later changes from those so far.
    pub(crate) fn mark(&self) -> Mark {
        Mark(self.lock().count)
    }

    /// Counts the invalidation of a group before it begins.
    pub(super) fn note(&self, group: Key) {
        let mut history = self.lock();
        history.count += 1;
        let count = history.count;
        if let Some(forgotten) = history.groups.insert(group, count) {
            history.forgotten_groups = forgotten;
        }
    }

    /// Returns whether a group may have been invalidated since a mark.
    pub(super) fn since(&self, mark: Mark, group: Key) -> bool {
        let history = self.lock();
        mark.0 < history.forgotten_groups
            || history.groups.get(&group).is_some_and(|changed| *changed > mark.0)
    }

    /// Counts a deletion before it begins.
    pub(crate) fn note_deletion(&self, chosen: Chosen) {
        // Declared before the guard, so that it is dropped after it: a filter owns values of the user's, whose `drop` is
        // unknown code.
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
        history.deletions.push_back((count, chosen));
    }

    /// Returns whether anything was deleted by a filter since a mark.
    pub(super) fn deletes_since(&self, mark: Mark) -> bool {
        self.lock().deletions.back().is_some_and(|(at, _)| *at > mark.0)
    }

    /// Returns whether a deletion since a mark chooses a response that is about to be stored.
    pub(super) fn has_deleted(&self, mark: Mark, key: Key, record: &Record, names: &[HeaderName]) -> bool {
        if !self.deletes_since(mark) {
            return false;
        }
        let history = self.lock();
        let is_forgotten = mark.0 < history.forgotten_deletions;
        let since: Vec<Chosen> = history
            .deletions
            .iter()
            .filter(|(at, _)| *at > mark.0)
            .map(|(_, chosen)| Arc::clone(chosen))
            .collect();
        // The filters are the user's code, which may take its time, panic, or delete by another filter.
        drop(history);
        is_forgotten || since.iter().any(|chosen| chosen(key, record, names))
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
