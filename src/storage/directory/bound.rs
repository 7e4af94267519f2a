//! How much the records take, about: what the file system allocates for files of every kind and for their folders.
//!
//! Promises: an entry takes at most half of the bound; the total is right when it was counted, and since then for what
//! this process wrote; what other processes wrote is noticed at the next count, at the latest when this one has written
//! a sixteenth of the bound.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::entries::{BLOCK, taken, usage};
use super::place::Place;
use crate::storage::Key;

/// The longest record where there is no bound.
const LONGEST: u64 = 512 << 20;
/// Below that nothing could be stored.
pub(super) const LEAST: u64 = 4 * BLOCK;
/// How many entries' sizes are remembered.
const MOST_SIZES: usize = 1024;

pub(super) struct Bound {
    max_bytes: Option<u64>,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    /// None before the first count.
    total: Option<u64>,
    /// How much was written since the last count.
    written: u64,
    /// What entries take that were written to lately.
    sizes: HashMap<[u8; 16], u64>,
}

impl Bound {
    pub(super) fn new(max_bytes: Option<u64>) -> Self {
        Self { max_bytes, counts: Mutex::default() }
    }

    pub(super) fn max_bytes(&self) -> Option<u64> {
        self.max_bytes
    }

    pub(super) fn max_record_len(&self) -> usize {
        // Beside the entry's folder.
        let longest = self.max_bytes.map_or(LONGEST, |most| (max_entry(most) - BLOCK).min(LONGEST));
        usize::try_from(longest).unwrap_or(usize::MAX)
    }

    /// By how much more the directory takes with a record of this length at the key; `None`: its entry would be too large.
    pub(super) fn replace(&self, place: &Place, key: Key, len: u64) -> Option<i64> {
        let Some(most) = self.max_bytes else { return Some(0) };
        let there = fs::metadata(place.record(key)).ok();
        let is_missing = |folder: &Path| there.is_none() && fs::metadata(folder).is_err();
        let folder = if is_missing(&place.entry(key.entry)) { BLOCK } else { 0 };
        let shard = if folder > 0 && is_missing(&place.shard(key.entry[0])) { BLOCK } else { 0 };
        let change = signed(len.div_ceil(BLOCK).saturating_mul(BLOCK) + folder)
            - signed(there.as_ref().map_or(0, taken));
        if change <= 0 {
            return Some(change);
        }
        let is_too_large = |size: u64| size.saturating_add_signed(change) > max_entry(most);
        let known = self.counts().sizes.get(&key.entry).copied();
        if known.is_none_or(is_too_large) {
            // Not known, or changed by another process since.
            let size = usage(place, key.entry).map_or(0, |usage| usage.size);
            let mut counts = self.counts();
            if counts.sizes.len() >= MOST_SIZES {
                counts.sizes.clear();
            }
            counts.sizes.insert(key.entry, size);
            drop(counts);
            if is_too_large(size) {
                return None;
            }
        }
        Some(change + signed(shard))
    }

    /// By how much less the directory takes without the file or folder at this path.
    pub(super) fn removal(&self, path: &Path) -> i64 {
        if self.max_bytes.is_some() { -signed(fs::metadata(path).as_ref().map_or(0, taken)) } else { 0 }
    }

    /// Notes a change that was made.
    pub(super) fn note(&self, key: Key, change: i64) {
        if self.max_bytes.is_none() {
            return;
        }
        let mut counts = self.counts();
        counts.total = counts.total.map(|total| total.saturating_add_signed(change));
        counts.written = counts.written.saturating_add(u64::try_from(change).unwrap_or(0));
        if let Some(size) = counts.sizes.get_mut(&key.entry) {
            *size = size.saturating_add_signed(change);
        }
    }

    /// A count begins: what is written from now on may be missed by it.
    pub(super) fn count_begins(&self) {
        self.counts().written = 0;
    }

    /// Notes what was counted; says whether something was written meanwhile.
    pub(super) fn counted(&self, total: u64) -> bool {
        let mut counts = self.counts();
        // Counted twice rather than not at all.
        counts.total = Some(total.saturating_add(counts.written));
        counts.sizes.clear();
        counts.written > 0
    }

    /// Much went: the next write has all counted anew.
    pub(super) fn forget(&self) {
        *self.counts() = Counts::default();
    }

    /// What was counted last, with what changed since; `None`: nothing was counted yet.
    pub(super) fn total(&self) -> Option<u64> {
        self.counts().total
    }

    /// Whether it is time to count, and to make room.
    pub(super) fn is_due(&self) -> bool {
        let Some(most) = self.max_bytes else { return false };
        let counts = self.counts();
        match counts.total {
            None => counts.written > 0,
            Some(total) => total > most || counts.written > most / 16,
        }
    }

    /// Whether so much was written beyond the bound that no more should come before room is made.
    pub(super) fn is_exceeded(&self) -> bool {
        let Some(most) = self.max_bytes else { return false };
        self.counts().total.is_some_and(|total| total > most.saturating_add(most / 16))
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Half of the bound, in whole blocks.
fn max_entry(most: u64) -> u64 {
    most / 2 / BLOCK * BLOCK
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
