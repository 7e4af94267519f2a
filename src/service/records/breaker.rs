//! Leaving a storage alone that fails: one breaker for reads, one for writes.
//!
//! Promises: after several failures in a row nothing is asked for a while, and then one caller at a time; events tell of it at most
//! once in [`TOLD_EVERY`], however often it changes.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::time::{Clock, Timestamp};

/// So many failures in a row, and the storage is left alone.
const FAILURES: u32 = 5;
/// For so long; then one caller tries.
pub(crate) const PAUSE: Duration = Duration::from_secs(2);
/// How often events tell that the storage is left alone: a storage at its limit fails and answers many times in a second.
pub(crate) const TOLD_EVERY: Duration = Duration::from_secs(30);

pub(crate) struct Breaker {
    /// `reads` or `writes`.
    what: &'static str,
    clock: Clock,
    failures: AtomicU32,
    /// In milliseconds since the epoch; meaningful once there are failures enough.
    open_until: AtomicU64,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    at: Option<Timestamp>,
    /// The storage was left alone so often since, and no event told it.
    untold: u64,
    /// An event told that the storage is left alone, and none that it answers again.
    is_open: bool,
}

impl Breaker {
    pub(crate) fn new(what: &'static str, clock: Clock) -> Self {
        let (failures, open_until, told) = Default::default();
        Self { what, clock, failures, open_until, told }
    }

    /// Whether the last operation succeeded.
    pub(crate) fn is_well(&self) -> bool {
        self.failures.load(Ordering::Relaxed) == 0
    }

    pub(crate) fn is_open(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= FAILURES
    }

    /// An error while the storage is left alone, except for one caller now and then.
    pub(crate) fn admit(&self) -> Result<()> {
        if !self.is_open() {
            return Ok(());
        }
        let now = self.clock.now();
        let until = self.open_until.load(Ordering::Relaxed);
        // A clock that was set back must not close the storage for longer than the pause.
        let closed = now.as_millis() < until && Timestamp::from_millis(until) <= now + PAUSE;
        let next = (now + PAUSE).as_millis();
        if closed
            || self.open_until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the store failed lately and is left alone for a while",
            ));
        }
        Ok(())
    }

    /// Notes that an operation failed.
    pub(crate) fn failed(&self, operation: &'static str, error: &Error) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        tracing::debug!(operation, kind = ?error.kind(), %error, "a storage operation failed");
        if failures < FAILURES {
            return;
        }
        self.failures.store(FAILURES, Ordering::Relaxed); // it never wraps
        let now = self.clock.now();
        self.open_until.store((now + PAUSE).as_millis(), Ordering::Relaxed);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.untold += u64::from(failures == FAILURES);
        // One that was left alone too soon after the last event is told of later, if it still is.
        if told.is_open || told.at.is_some_and(|at| now >= at && now.since(at) < TOLD_EVERY) {
            return;
        }
        let untold = std::mem::take(&mut told.untold).saturating_sub(1);
        (told.at, told.is_open) = (Some(now), true);
        drop(told);
        let what = self.what;
        tracing::warn!(what, operation, %error, untold, "the storage keeps failing: requests go on without it");
    }

    /// Notes that an operation succeeded; true: the storage was left alone until then.
    pub(crate) fn succeeded(&self) -> bool {
        let was_open = !self.is_well() && self.failures.swap(0, Ordering::Relaxed) >= FAILURES;
        if was_open && std::mem::take(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner).is_open) {
            tracing::info!(what = self.what, "the storage answers again");
        }
        was_open
    }
}
