//! Bounds how much waits for the storage: a response beyond that is not stored, instead of all being late.
//!
//! Promises: the records that are handed to the storage and not taken yet are at most [`MOST`], of [`MOST_BYTES`] together; when
//! the storage does not take them in time, fewer are handed to it at once, until it does.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::breaker::TOLD_EVERY;
use crate::error::{Error, ErrorKind};
use crate::time::{Clock, Timestamp};

/// A storage in this machine takes so many small records in a twentieth of the time that an operation may take.
const MOST: u32 = 512;
const FEWEST: u32 = 8;
/// Bounds the memory of all that waits. A single record may be longer, and is then written alone.
const MOST_BYTES: u64 = 64 << 20;
/// The limit grows by one for so many records that were taken.
const GROWTH: u32 = 16;

pub(crate) struct Backlog {
    clock: Clock,
    count: AtomicU32,
    bytes: AtomicU64,
    /// How many may wait at once, in units of a [`GROWTH`]th.
    limit: AtomicU32,
    /// How many responses were not stored, and no event has told it.
    shed: AtomicU64,
    told: Mutex<Option<Timestamp>>,
}

/// Held by a record until the storage has answered.
pub(crate) struct Waiting {
    backlog: Arc<Backlog>,
    bytes: u64,
}

impl Backlog {
    pub(crate) fn new(clock: Clock) -> Self {
        let (count, bytes, shed, told) = Default::default();
        Self { clock, count, bytes, limit: AtomicU32::new(MOST * GROWTH), shed, told }
    }

    /// Whether nothing more may be handed to the storage now.
    pub(crate) fn is_full(&self) -> bool {
        self.count.load(Ordering::Relaxed) >= self.limit.load(Ordering::Relaxed) / GROWTH
            || self.bytes.load(Ordering::Relaxed) >= MOST_BYTES
    }

    /// Takes a place for a record of so many bytes.
    pub(crate) fn enter(self: &Arc<Self>, bytes: usize) -> Result<Waiting, Error> {
        let bytes = bytes as u64;
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let all = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // Gives the place back where there is none.
        let waiting = Waiting { backlog: Arc::clone(self), bytes };
        let is_many = count >= self.limit.load(Ordering::Relaxed) / GROWTH;
        if is_many || (all > 0 && all.saturating_add(bytes) > MOST_BYTES) {
            drop(waiting);
            return Err(Error::new(
                ErrorKind::Busy,
                "more responses are to be stored than the storage takes: this one is not stored",
            ));
        }
        Ok(waiting)
    }

    /// The storage has taken a record.
    pub(crate) fn taken(&self) {
        if self.limit.load(Ordering::Relaxed) < MOST * GROWTH {
            self.limit.fetch_add(1, Ordering::Relaxed);
        }
        // The last of a burst are told of too.
        if self.shed.load(Ordering::Relaxed) > 0 {
            self.tell_shed();
        }
    }

    /// The storage has not answered in time.
    pub(crate) fn late(&self) {
        let half = |limit: u32| Some((limit / 2).max(FEWEST * GROWTH));
        let _ = self.limit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, half);
    }

    /// Notes a response that is not stored for want of a place.
    pub(crate) fn note_shed(&self) {
        self.shed.fetch_add(1, Ordering::Relaxed);
        self.tell_shed();
    }

    /// Tells how many responses were not stored, unless that was told lately.
    fn tell_shed(&self) {
        let now = self.clock.now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|at| now >= at && now.since(at) < TOLD_EVERY) {
            return;
        }
        let shed = self.shed.swap(0, Ordering::Relaxed);
        if shed == 0 {
            return;
        }
        *told = Some(now);
        drop(told);
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
    fn the_limit_falls_when_the_storage_is_late_and_grows_again() {
        let backlog = Arc::new(Backlog::new(Clock::system()));
        let fill = || {
            let mut waiting = Vec::new();
            while let Ok(one) = backlog.enter(10) {
                waiting.push(one);
            }
            assert!(backlog.is_full());
            waiting.len() as u32
        };
        assert_eq!(fill(), MOST);
        assert!(!backlog.is_full());
        (0..100).for_each(|_| backlog.late());
        assert_eq!(fill(), FEWEST);
        (0..GROWTH).for_each(|_| backlog.taken());
        assert_eq!(fill(), FEWEST + 1);
        (0..GROWTH * 2 * MOST).for_each(|_| backlog.taken());
        assert_eq!(fill(), MOST);
        assert_eq!((backlog.count.load(Ordering::Relaxed), backlog.bytes.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn bytes_are_bounded_and_one_long_record_is_taken() {
        let backlog = Arc::new(Backlog::new(Clock::system()));
        let long = backlog.enter(usize::MAX / 4).map_err(drop).expect("it is alone");
        assert_eq!(backlog.enter(1).map(drop).map_err(|error| error.kind()), Err(ErrorKind::Busy));
        drop(long);
        let mib = || backlog.enter(1 << 20).ok();
        let waiting: Vec<_> = std::iter::from_fn(mib).collect();
        assert_eq!(waiting.len() as u64, MOST_BYTES >> 20);
    }
}
