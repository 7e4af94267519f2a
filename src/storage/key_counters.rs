//! Counters of changes by key.
//!
//! # Invariants
//! - The count of a key only grows.
//! - They take a fixed amount of memory, however many keys there are.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Key;

/// How many counters there are. Keys that share one cause needless checks of each other's copies. With this many, twenty
/// thousand changes per second make a copy be checked every three seconds. They take 512 KiB.
const COUNTERS: usize = 1 << 16;

pub(super) struct KeyCounters {
    counters: Box<[AtomicU64]>,
    /// Changes of all keys.
    of_all: AtomicU64,
}

impl KeyCounters {
    pub(super) fn new() -> Self {
        Self { counters: (0..COUNTERS).map(|_| AtomicU64::new(0)).collect(), of_all: AtomicU64::new(0) }
    }

    /// Returns the number of changes that may have concerned this key.
    pub(super) fn count(&self, key: Key) -> u64 {
        // Acquire here and release below: a task that sees the new count also sees what was written before. The sum grows
        // whenever one of the two does, so that it never returns to an earlier value.
        self.of_all.load(Ordering::Acquire) + self.counter(key).load(Ordering::Acquire)
    }

    /// Counts a change of a key, and returns the count with it.
    pub(super) fn increment(&self, key: Key) -> u64 {
        self.counter(key).fetch_add(1, Ordering::AcqRel) + 1 + self.of_all.load(Ordering::Acquire)
    }

    /// Counts a change of every key.
    pub(super) fn increment_all(&self) {
        self.of_all.fetch_add(1, Ordering::Release);
    }

    fn counter(&self, key: Key) -> &AtomicU64 {
        // The entry and the slot are hashes or random, so a few of their bits are as good as a hash of the whole key.
        let [first, second, ..] = key.entry;
        let [slot_first, slot_second, ..] = key.slot;
        let bits = u16::from_ne_bytes([first ^ slot_first, second ^ slot_second]);
        &self.counters[usize::from(bits ^ (key.part as u16)) % COUNTERS]
    }
}
