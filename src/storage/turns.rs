//! Waiting for one's turn among threads and processes, where nothing tells when it has come.

use std::time::{Duration, Instant};

const SHORTEST: Duration = Duration::from_micros(125);
const LONGEST: Duration = Duration::from_millis(4);

/// The pauses between attempts, until the time is over. A wait for a lock has no end of its own, so it is asked again
/// and again. Sleeps: for threads that may.
pub(super) struct Turns {
    begun: Instant,
    patience: Duration,
    pause: Duration,
}

impl Turns {
    pub(super) fn new(patience: Duration) -> Self {
        Self { begun: Instant::now(), patience, pause: SHORTEST }
    }

    /// Sleeps before the next attempt; false when the time is over.
    #[must_use]
    pub(super) fn wait(&mut self) -> bool {
        if self.begun.elapsed() >= self.patience {
            return false;
        }
        std::thread::sleep(self.pause);
        // Soon short again: a thread that has waited long must not ask less often than one that has just come.
        self.pause = if self.pause < LONGEST { self.pause * 2 } else { SHORTEST };
        true
    }
}
