//! The time by which lags are measured.

use std::time::{Duration, Instant};

use crate::time::{Clock, Timestamp};

pub(super) struct Time {
    clock: Clock,
    /// `None` with a mock clock, by which tests measure lags as well.
    started: Option<Instant>,
}

impl Time {
    pub(super) fn new(clock: Clock) -> Self {
        let started = clock.is_system().then(Instant::now);
        Self { clock, started }
    }

    /// Returns the current time in milliseconds, which never goes back with the system's clock.
    pub(super) fn now(&self) -> u64 {
        match self.started {
            Some(started) => millis(started.elapsed()),
            None => self.clock.now().as_millis(),
        }
    }

    /// Returns the time at which a record has expired, as [`now`](Time::now) would return it.
    pub(super) fn of_expiry(&self, retain_until: Timestamp, now: u64) -> u64 {
        if retain_until.is_never() {
            return u64::MAX;
        }
        now.saturating_add(millis(retain_until.since(self.clock.now())))
    }
}

/// Returns a duration in whole milliseconds.
pub(super) fn millis(time: Duration) -> u64 {
    (Timestamp::EPOCH + time).as_millis()
}
