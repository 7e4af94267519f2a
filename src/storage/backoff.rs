//! The pauses between attempts to take a lock that another thread or process holds.

use std::time::{Duration, Instant};

/// Short, since a lock is usually held for one change only.
const MIN_PAUSE: Duration = Duration::from_micros(125);
/// Bounds for how long a lock that was released stays unnoticed.
const MAX_PAUSE: Duration = Duration::from_millis(4);

/// The pauses between attempts, until a time limit.
///
/// The locks are polled, because the system's calls that wait for them have no time limit. It sleeps, so only threads that
/// may block can use it.
pub(super) struct Backoff {
    begun: Instant,
    time_limit: Duration,
    pause: Duration,
}

impl Backoff {
    pub(super) fn new(time_limit: Duration) -> Self {
        Self { begun: Instant::now(), time_limit, pause: MIN_PAUSE }
    }

    /// Sleeps before the next attempt. Returns false when the time limit has passed.
    #[must_use]
    pub(super) fn wait(&mut self) -> bool {
        if self.begun.elapsed() >= self.time_limit {
            return false;
        }
        std::thread::sleep(self.pause);
        // Starts again after the longest pause: a thread that has waited long must not try less often than a new one.
        self.pause = if self.pause < MAX_PAUSE { self.pause * 2 } else { MIN_PAUSE };
        true
    }
}
