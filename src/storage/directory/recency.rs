//! When entries were last used: written down as the time at which the file of the head, or of the group's value, was
//! changed. Where there is no bound nothing is noted, and files stay as they are.

use std::fs::OpenOptions;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::place::Place;
use crate::storage::Key;
use crate::storage::uses::Uses;

/// How often the uses are written down.
const EVERY: Duration = Duration::from_secs(5 * 60);

pub(super) struct Recency {
    uses: Uses<SystemTime>,
    written: Mutex<Instant>,
}

impl Recency {
    pub(super) fn new() -> Self {
        Self { uses: Uses::new(), written: Mutex::new(Instant::now()) }
    }

    /// Notes that an entry is used now.
    pub(super) fn touch(&self, entry: [u8; 16]) {
        self.uses.note(entry, SystemTime::now);
    }

    /// When an entry was used, if that is noted.
    pub(super) fn used(&self, entry: [u8; 16]) -> Option<SystemTime> {
        self.uses.of(entry)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.uses.is_empty()
    }

    /// True once every five minutes.
    pub(super) fn is_due(&self) -> bool {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = written.elapsed() >= EVERY;
        if is_due {
            *written = Instant::now();
        }
        is_due
    }

    /// Writes down all that is noted.
    pub(super) fn write_down(&self, place: &Place) {
        for (entry, used) in self.uses.take() {
            // Gone, or not ours to change: then it is as old as its files say.
            let open = |key: Key| OpenOptions::new().write(true).open(place.record(key));
            let Ok(file) = open(Key::head(entry)).or_else(|_| open(Key::group(entry))) else { continue };
            let changed = file.metadata().and_then(|file| file.modified());
            if changed.is_ok_and(|changed| changed < used) {
                let _ = file.set_modified(used);
            }
        }
    }
}
