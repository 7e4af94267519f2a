//! When entries were last used.
//!
//! The times are kept in memory, and are written from time to time as the modification time of the file of the head, or of the
//! group's value. A storage without a bound records nothing, and leaves the times of its files alone.

use std::fs::OpenOptions;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::root::Root;
use crate::storage::Key;
use crate::storage::last_uses::LastUses;

/// How often the times are written. A process that is killed loses the uses of so long, which only affects evictions.
const WRITE_INTERVAL: Duration = Duration::from_secs(5 * 60);

pub(super) struct Recency {
    uses: LastUses<SystemTime>,
    written: Mutex<Instant>,
}

impl Recency {
    pub(super) fn new() -> Self {
        Self { uses: LastUses::new(), written: Mutex::new(Instant::now()) }
    }

    /// Records that an entry is used now.
    pub(super) fn touch(&self, entry: [u8; 16]) {
        self.uses.record(entry, SystemTime::now);
    }

    /// Returns the time of the last use of an entry, if it has not been written yet.
    pub(super) fn last_use(&self, entry: [u8; 16]) -> Option<SystemTime> {
        self.uses.get(entry)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.uses.is_empty()
    }

    /// Returns true once in every interval.
    pub(super) fn is_due(&self) -> bool {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = written.elapsed() >= WRITE_INTERVAL;
        if is_due {
            *written = Instant::now();
        }
        is_due
    }

    /// Writes all recorded times.
    pub(super) fn write(&self, root: &Root) {
        for (entry, used) in self.uses.take() {
            // A file that was removed, or cannot be written, is skipped: its entry is then as old as its files say.
            let open = |key: Key| OpenOptions::new().write(true).open(root.record(key));
            let Ok(file) = open(Key::head(entry)).or_else(|_| open(Key::group(entry))) else { continue };
            // Another process may have written a later use.
            let changed = file.metadata().and_then(|file| file.modified());
            if changed.is_ok_and(|changed| changed < used) {
                let _ = file.set_modified(used);
            }
        }
    }
}
