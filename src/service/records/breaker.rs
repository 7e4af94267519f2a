//! A circuit breaker for a failing storage. Reads and writes have one each.
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

/// How many failures in a row open the breaker. A single slow answer or closed connection must not open it.
const FAILURES: u32 = 5;
/// How long an open breaker refuses operations before it admits a probe. It is several times the default deadline of an
/// operation: while a storage hangs, one request per pause waits for it, and a storage that has recovered is used again
/// within two seconds.
pub(crate) const PAUSE: Duration = Duration::from_secs(2);
/// The minimum time between two events about one breaker. An overloaded storage fails and recovers many times in a second.
pub(crate) const EVENT_INTERVAL: Duration = Duration::from_secs(30);

/// Counts failures in a row, and refuses operations while there are too many.
///
/// The atomics are Relaxed: they publish no other memory. A task that reads an old value sends a failing storage one more
/// operation, or refuses one operation of a storage that has just recovered.
pub(crate) struct Breaker {
    /// `reads` or `writes`.
    what: &'static str,
    clock: Clock,
    failures: AtomicU32,
    /// Until when operations are refused, in milliseconds since the epoch. Valid while the breaker is open.
    open_until: AtomicU64,
    /// The state that the events have reported. A std `Mutex`, locked only when the breaker changes, or an operation fails while it is
    /// open.
    events: Mutex<Events>,
}

/// The state of one breaker that its events have reported.
#[derive(Default)]
struct Events {
    /// The time of the last event.
    last: Option<Timestamp>,
    /// How often the breaker opened since the last event.
    unreported: u64,
    /// The last event said that the breaker is open.
    is_open: bool,
}

impl Breaker {
    /// Returns a closed breaker for `reads` or `writes`.
    pub(crate) fn new(what: &'static str, clock: Clock) -> Self {
        let (failures, open_until, events) = Default::default();
        Self { what, clock, failures, open_until, events }
    }

    /// Returns whether the last operation succeeded.
    pub(crate) fn is_healthy(&self) -> bool {
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
        // If the clock was set back, the end of the pause is too far away and does not count.
        let is_paused = now.as_millis() < until && Timestamp::from_millis(until) <= now + PAUSE;
        let next = (now + PAUSE).as_millis();
        // Of several tasks that find the pause over, the one whose exchange succeeds is the probe. The next pause begins with
        // the probe, not with its result, so that a probe that is cancelled or hangs delays the next one by at most a pause.
        if is_paused
            || self.open_until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the storage failed repeatedly and is not used for a while",
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
        // Capped, so that the count never wraps to zero. This may overwrite a success of another task: the breaker is then
        // open for one pause too long.
        self.failures.store(FAILURES, Ordering::Relaxed);
        let now = self.clock.now();
        self.open_until.store((now + PAUSE).as_millis(), Ordering::Relaxed);
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.unreported += u64::from(failures == FAILURES);
        // If the last event is too recent, a later failure reports that the breaker is open, if it still is.
        if events.is_open || events.last.is_some_and(|at| now >= at && now.since(at) < EVENT_INTERVAL) {
            return;
        }
        let unreported = std::mem::take(&mut events.unreported).saturating_sub(1);
        (events.last, events.is_open) = (Some(now), true);
        drop(events); // a tracing subscriber is the user's code, and must not run under the lock
        let what = self.what;
        tracing::warn!(what, operation, %error, unreported, "the storage keeps failing: requests go on without it");
    }

    /// Closes the breaker after a successful operation, and returns whether it was open.
    pub(crate) fn succeeded(&self) -> bool {
        // Loaded before it is swapped: the usual success only reads, and does not take the cache line from other cores.
        // Relaxed, as everywhere in this file.
        let was_open = !self.is_healthy() && self.failures.swap(0, Ordering::Relaxed) >= FAILURES;
        // Reported only if the opening was reported. The guard is dropped before the event is sent.
        let was_reported = was_open
            && std::mem::take(&mut self.events.lock().unwrap_or_else(PoisonError::into_inner).is_open);
        if was_reported {
            tracing::info!(what = self.what, "the storage answers again");
        }
        was_open
    }
}
