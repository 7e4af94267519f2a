//! When entries were last used, in microseconds by the storage's clock.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::storage::last_uses::LastUses;
use crate::time::Clock;

/// How often the uses are written down, in milliseconds.
const EVERY: u64 = 5 * 60 * 1000;

pub(super) struct Recency {
    clock: Clock,
    uses: LastUses<i64>,
    last: AtomicI64,
    written: AtomicU64,
}

impl Recency {
    pub(super) fn new(clock: Clock) -> Self {
        let written = AtomicU64::new(clock.now().as_millis());
        Self { clock, uses: LastUses::new(), last: AtomicI64::new(0), written }
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Now, in microseconds, and later than every moment told before.
    pub(super) fn tick(&self) -> i64 {
        let now = i64::try_from(self.clock.now().as_millis()).unwrap_or(i64::MAX).saturating_mul(1000);
        let next = |last: i64| Some(now.max(last.saturating_add(1)));
        match self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
            Ok(last) | Err(last) => now.max(last.saturating_add(1)),
        }
    }

    /// Notes that an entry is used now.
    pub(super) fn touch(&self, entry: [u8; 16]) {
        self.uses.record(entry, || self.tick());
    }

    /// When an entry was used, if that is noted and after `used`.
    pub(super) fn since(&self, entry: [u8; 16], used: i64) -> Option<i64> {
        self.uses.get(entry).filter(|&touched| touched > used)
    }

    /// True once every five minutes, when there is something to write down.
    pub(super) fn is_due(&self) -> bool {
        let now = self.clock.now().as_millis();
        let written = self.written.load(Ordering::Relaxed);
        now.saturating_sub(written) >= EVERY
            && self.written.compare_exchange(written, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Takes all that is noted.
    pub(super) fn take(&self) -> Vec<([u8; 16], i64)> {
        self.uses.take().into_iter().collect()
    }
}
