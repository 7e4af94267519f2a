//! A circuit breaker for a storage that fails. Reads and writes have one each.
//!
//! # Invariants
//!
//! - After [`FAILURES`] failures in a row the breaker is open: operations fail at once for [`PAUSE`].
//! - An open breaker admits one operation per [`PAUSE`] as a probe. The first success closes it.
//! - An event says at most once per [`EVENT_INTERVAL`] that the breaker opened, however often it does.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::time::{Clock, Timestamp};

/// How many failures in a row open the breaker. A single slow answer or a connection that was closed must not.
const FAILURES: u32 = 5;
/// How long an open breaker refuses operations before it admits a probe. Several times the default deadline of an operation:
/// while a storage hangs, one request per pause waits for it, and a storage that is back is used again within two seconds.
pub(crate) const PAUSE: Duration = Duration::from_secs(2);
/// The least time between two events about one breaker. A storage at its limit fails and answers many times in a second.
pub(crate) const EVENT_INTERVAL: Duration = Duration::from_secs(30);

/// Counts failures in a row, and refuses operations while there are too many.
///
/// The atomics are Relaxed: no other memory is published by them. A task that reads an old value asks a failing storage once
/// more, or refuses one operation of a storage that has just recovered.
pub(crate) struct Breaker {
    /// `reads` or `writes`.
    what: &'static str,
    clock: Clock,
    failures: AtomicU32,
    /// Until when operations are refused, in milliseconds since the epoch. Valid while the breaker is open.
    open_until: AtomicU64,
    /// The state that the events have told. A std `Mutex`, taken only when the breaker changes or an operation fails while it is open.
    events: Mutex<Events>,
}

#[derive(Default)]
struct Events {
    last: Option<Timestamp>,
    /// How often the breaker opened since then without an event.
    unreported: u64,
    /// The last event said that the breaker is open.
    is_open: bool,
}

impl Breaker {
    pub(crate) fn new(what: &'static str, clock: Clock) -> Self {
        let (failures, open_until, events) = Default::default();
        Self { what, clock, failures, open_until, events }
    }

    /// Returns whether the last operation succeeded.
    pub(crate) fn is_well(&self) -> bool {
        self.failures.load(Ordering::Relaxed) == 0
    }

    /// Returns whether operations are refused.
    pub(crate) fn is_open(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= FAILURES
    }

    /// Admits an operation, or refuses it while the breaker is open.
    ///
    /// # Errors
    ///
    /// Returns `Unavailable` if the breaker is open and another operation is the probe.
    pub(crate) fn admit(&self) -> Result<()> {
        if !self.is_open() {
            return Ok(());
        }
        let now = self.clock.now();
        let until = self.open_until.load(Ordering::Relaxed);
        // A clock that was set back must not make the pause longer.
        let is_paused = now.as_millis() < until && Timestamp::from_millis(until) <= now + PAUSE;
        let next = (now + PAUSE).as_millis();
        // Of several tasks that find the pause over, the one that moves its end is the probe. The pause begins anew with it,
        // not with its result: a probe that is cancelled or hangs delays the next one by no more than a pause.
        if is_paused
            || self.open_until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the storage failed repeatedly and is not asked for a while",
            ));
        }
        Ok(())
    }

    /// Counts a failed operation, and opens the breaker if there are too many.
    pub(crate) fn failed(&self, operation: &'static str, error: &Error) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        tracing::debug!(operation, kind = ?error.kind(), %error, "a storage operation failed");
        if failures < FAILURES {
            return;
        }
        // Capped, so that the count never wraps to zero. A success in between may be overwritten by this: the breaker is then
        // open for one pause too many.
        self.failures.store(FAILURES, Ordering::Relaxed);
        let now = self.clock.now();
        self.open_until.store((now + PAUSE).as_millis(), Ordering::Relaxed);
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.unreported += u64::from(failures == FAILURES);
        // A breaker that opens too soon after the last event is reported by a later failure, if it is still open then.
        if events.is_open || events.last.is_some_and(|at| now >= at && now.since(at) < EVENT_INTERVAL) {
            return;
        }
        let untold = std::mem::take(&mut events.unreported).saturating_sub(1);
        (events.last, events.is_open) = (Some(now), true);
        drop(events); // a subscriber of tracing runs the user's code
        let what = self.what;
        tracing::warn!(what, operation, %error, untold, "the storage keeps failing: requests go on without it");
    }

    /// Closes the breaker after a successful operation. Returns whether it was open.
    pub(crate) fn succeeded(&self) -> bool {
        // Loaded before it is swapped: the usual success only reads, and does not take the cache line from other cores.
        let was_open = !self.is_well() && self.failures.swap(0, Ordering::Relaxed) >= FAILURES;
        // Reported only if the opening was; the guard is dropped before the event is sent.
        let was_reported = was_open
            && std::mem::take(&mut self.events.lock().unwrap_or_else(PoisonError::into_inner).is_open);
        if was_reported {
            tracing::info!(what = self.what, "the storage answers again");
        }
        was_open
    }
}
