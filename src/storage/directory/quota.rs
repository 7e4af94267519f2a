//! About how much disk space the records take.
//!
//! It counts what the file system allocates for files of every kind and for their folders.
//!
//! # Invariants
//! - An entry takes at most half of the bound.
//! - The total is exact when it was counted, and includes every change of this process since then.
//! - Changes of other processes are noticed at the next count, at the latest after this process has written a sixteenth of
//!   the bound.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::entries::{BLOCK, allocated, usage};
use super::root::Root;
use crate::storage::Key;

/// The longest record of a storage without a bound. A record is read into memory as a whole.
const MAX_UNBOUNDED_RECORD: u64 = 512 << 20;
/// With less, nothing could be stored. Half of it has room for an entry's folder and one file, of one block each.
pub(super) const MIN_BYTES: u64 = 4 * BLOCK;
/// How many entries' sizes are remembered. Without them, an entry would be measured for each chunk that it gets.
const MAX_SIZES: usize = 1024;

pub(super) struct Quota {
    max_bytes: Option<u64>,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    /// `None` before the first count.
    total: Option<u64>,
    /// How many bytes were written since the last count began.
    written: u64,
    /// The sizes of the entries that were written lately.
    sizes: HashMap<[u8; 16], u64>,
}

impl Quota {
    pub(super) fn new(max_bytes: Option<u64>) -> Self {
        Self { max_bytes, counts: Mutex::default() }
    }

    pub(super) fn max_bytes(&self) -> Option<u64> {
        self.max_bytes
    }

    pub(super) fn max_record_len(&self) -> usize {
        // One block is left for the entry's folder.
        let longest = self
            .max_bytes
            .map_or(MAX_UNBOUNDED_RECORD, |bytes| (max_entry(bytes) - BLOCK).min(MAX_UNBOUNDED_RECORD));
        usize::try_from(longest).unwrap_or(usize::MAX)
    }

    /// Returns by how much a write of this length changes the total.
    ///
    /// Returns `None` if its entry would be too large.
    pub(super) fn change_of_write(&self, root: &Root, key: Key, len: u64) -> Option<i64> {
        let Some(max_bytes) = self.max_bytes else { return Some(0) };
        let current = fs::metadata(root.record(key)).ok();
        let is_missing = |folder: &Path| current.is_none() && fs::metadata(folder).is_err();
        let folder = if is_missing(&root.entry(key.entry)) { BLOCK } else { 0 };
        let shard = if folder > 0 && is_missing(&root.shard(key.entry[0])) { BLOCK } else { 0 };
        let change = signed(len.div_ceil(BLOCK).saturating_mul(BLOCK) + folder)
            - signed(current.as_ref().map_or(0, allocated));
        if change <= 0 {
            return Some(change);
        }
        let is_too_large = |size: u64| size.saturating_add_signed(change) > max_entry(max_bytes);
        let known = self.counts().sizes.get(&key.entry).copied();
        if known.is_none_or(is_too_large) {
            // Another process may have made the entry smaller since it was measured.
            let size = usage(root, key.entry).map_or(0, |usage| usage.size);
            let mut counts = self.counts();
            if counts.sizes.len() >= MAX_SIZES {
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

    /// Returns by how much the removal of a file or folder changes the total.
    pub(super) fn change_of_removal(&self, path: &Path) -> i64 {
        if self.max_bytes.is_some() { -signed(fs::metadata(path).as_ref().map_or(0, allocated)) } else { 0 }
    }

    /// Records a change that was made.
    pub(super) fn record(&self, key: Key, change: i64) {
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

    /// Begins a count, which may miss what is written from now on.
    pub(super) fn begin_count(&self) {
        self.counts().written = 0;
    }

    /// Ends a count. Returns whether anything was written while it ran.
    pub(super) fn end_count(&self, total: u64) -> bool {
        let mut counts = self.counts();
        // The count may have seen these bytes or not. Counting them twice keeps the bound, missing them would not.
        counts.total = Some(total.saturating_add(counts.written));
        counts.sizes.clear();
        counts.written > 0
    }

    /// Forgets the total, so that the next write causes a count.
    pub(super) fn forget(&self) {
        *self.counts() = Counts::default();
    }

    /// Returns the total, or `None` before the first count.
    pub(super) fn total(&self) -> Option<u64> {
        self.counts().total
    }

    /// Returns whether it is time to count, and to make room.
    pub(super) fn is_due(&self) -> bool {
        let Some(max_bytes) = self.max_bytes else { return false };
        let counts = self.counts();
        match counts.total {
            None => counts.written > 0,
            Some(total) => total > max_bytes || counts.written > max_bytes / 16,
        }
    }

    /// Returns whether the bound is exceeded by so much that writers must wait for room.
    pub(super) fn is_exceeded(&self) -> bool {
        let Some(max_bytes) = self.max_bytes else { return false };
        self.counts().total.is_some_and(|total| total > max_bytes.saturating_add(max_bytes / 16))
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // A panic leaves a wrong total at worst, which the next count corrects.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns half of the bound, in whole blocks.
fn max_entry(max_bytes: u64) -> u64 {
    max_bytes / 2 / BLOCK * BLOCK
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
