//! A bound on the records of new responses that wait for the storage.
//!
//! Where responses come faster than the storage takes them, every write would be late in the end, and none would be stored
//! within its deadline. So a response beyond the bound is not stored, and the others are in time. The limit adapts as a TCP
//! window does: it is halved when a write is late, and grows by one when [`WRITES_PER_STEP`] writes were in time.
//!
//! # Invariants
//!
//! - At most [`MAX_RECORDS`] records hold a place, and at most [`MAX_BYTES`] of them together; a longer record is alone.
//! - The limit is never below [`MIN_RECORDS`], so that a storage that recovers is noticed.
//! - A place is given back when its [`Waiting`] is dropped, also when the write is cancelled.
//!
//! Only new responses and the chunks of bodies take a place. Tombstones, placeholders and groups do not: they
//! are small, and correctness depends on them. Nor do freshened responses, of which there is one for each 304.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::breaker::EVENT_INTERVAL;
use crate::error::{Error, ErrorKind};
use crate::time::{Clock, Timestamp};

/// The largest limit. A storage on this machine takes this many small records in a twentieth of an operation's deadline.
const MAX_RECORDS: u32 = 512;
/// The smallest limit: few enough for a slow storage to take within one deadline, enough to see that it has recovered.
const MIN_RECORDS: u32 = 8;
/// Bounds the memory of all that waits. A single record may be longer, and is then written alone.
const MAX_BYTES: u64 = 64 << 20;
/// How many writes in time raise the limit by one. Slow growth keeps a storage at its limit from being overrun again.
const WRITES_PER_STEP: u32 = 16;

/// Counts the records that wait for the storage.
///
/// The counters are Relaxed: each is a bound by itself, no other memory is published by them, and a reader that is late by
/// one record admits or refuses one too many.
pub(crate) struct Backlog {
    clock: Clock,
    count: AtomicU32,
    bytes: AtomicU64,
    /// The limit, in units of one [`WRITES_PER_STEP`]th of a record.
    limit: AtomicU32,
    /// The number of responses that were not stored since the last event.
    shed: AtomicU64,
    /// The time of the last event. A std `Mutex` that is held for a comparison, and only after a response was shed: it keeps
    /// two tasks from sending the same event.
    last_event: Mutex<Option<Timestamp>>,
}

/// Holds the place of one record until the storage has answered.
pub(crate) struct Waiting {
    backlog: Arc<Backlog>,
    bytes: u64,
}

impl Backlog {
    pub(crate) fn new(clock: Clock) -> Self {
        let (count, bytes, shed, last_event) = Default::default();
        Self { clock, count, bytes, limit: AtomicU32::new(MAX_RECORDS * WRITES_PER_STEP), shed, last_event }
    }

    /// Returns whether every place is taken.
    pub(crate) fn is_full(&self) -> bool {
        self.count.load(Ordering::Relaxed) >= self.limit.load(Ordering::Relaxed) / WRITES_PER_STEP
            || self.bytes.load(Ordering::Relaxed) >= MAX_BYTES
    }

    /// Reserves a place for a record of a length.
    ///
    /// # Errors
    ///
    /// Returns `Busy` if there is no place.
    pub(crate) fn enter(self: &Arc<Self>, bytes: usize) -> Result<Waiting, Error> {
        let bytes = bytes as u64;
        // Counted first and checked afterwards: two tasks that checked first could both take the last place.
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let all = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // Owns what was counted, so that a refusal gives it back.
        let waiting = Waiting { backlog: Arc::clone(self), bytes };
        let is_many = count >= self.limit.load(Ordering::Relaxed) / WRITES_PER_STEP;
        if is_many || (all > 0 && all.saturating_add(bytes) > MAX_BYTES) {
            drop(waiting);
            return Err(Error::new(
                ErrorKind::Busy,
                "responses come faster than the storage takes them: this one is not stored",
            ));
        }
        Ok(waiting)
    }

    /// Raises the limit by a step after a write in time.
    pub(crate) fn taken(&self) {
        // Two tasks may both pass this check, so that the limit ends a step above its maximum for each: harmless.
        if self.limit.load(Ordering::Relaxed) < MAX_RECORDS * WRITES_PER_STEP {
            self.limit.fetch_add(1, Ordering::Relaxed);
        }
        // Sends the event about the end of a burst, which came too soon after the event about its beginning.
        if self.shed.load(Ordering::Relaxed) > 0 {
            self.report_shed();
        }
    }

    /// Halves the limit after a write that was late or refused for load.
    pub(crate) fn late(&self) {
        let half = |limit: u32| Some((limit / 2).max(MIN_RECORDS * WRITES_PER_STEP));
        let _ = self.limit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, half);
    }

    /// Counts a response that was not stored because there was no place.
    pub(crate) fn note_shed(&self) {
        self.shed.fetch_add(1, Ordering::Relaxed);
        self.report_shed();
    }

    /// Sends an event with the number of responses that were not stored, unless the last event is recent.
    fn report_shed(&self) {
        let now = self.clock.now();
        let mut last_event = self.last_event.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back must not silence the events until it has caught up.
        if last_event.is_some_and(|at| now >= at && now.since(at) < EVENT_INTERVAL) {
            return;
        }
        let shed = self.shed.swap(0, Ordering::Relaxed);
        if shed == 0 {
            return;
        }
        *last_event = Some(now);
        drop(last_event); // a subscriber of tracing runs the user's code
        tracing::warn!(shed, "more responses come than the storage takes: some are not stored");
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.backlog.count.fetch_sub(1, Ordering::Relaxed);
        self.backlog.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_halves_when_late_and_recovers() {
        let backlog = Arc::new(Backlog::new(Clock::system()));
        let fill = || {
            let mut waiting = Vec::new();
            while let Ok(one) = backlog.enter(10) {
                waiting.push(one);
            }
            assert!(backlog.is_full());
            waiting.len() as u32
        };
        assert_eq!(fill(), MAX_RECORDS);
        assert!(!backlog.is_full());
        (0..100).for_each(|_| backlog.late());
        assert_eq!(fill(), MIN_RECORDS);
        (0..WRITES_PER_STEP).for_each(|_| backlog.taken());
        assert_eq!(fill(), MIN_RECORDS + 1);
        (0..WRITES_PER_STEP * 2 * MAX_RECORDS).for_each(|_| backlog.taken());
        assert_eq!(fill(), MAX_RECORDS);
        assert_eq!((backlog.count.load(Ordering::Relaxed), backlog.bytes.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn waiting_bytes_are_bounded() {
        let backlog = Arc::new(Backlog::new(Clock::system()));
        let long = backlog.enter(usize::MAX / 4).map_err(drop).expect("it is alone");
        assert_eq!(backlog.enter(1).map(drop).map_err(|error| error.kind()), Err(ErrorKind::Busy));
        drop(long);
        let mib = || backlog.enter(1 << 20).ok();
        let waiting: Vec<_> = std::iter::from_fn(mib).collect();
        assert_eq!(waiting.len() as u64, MAX_BYTES >> 20);
    }
}
