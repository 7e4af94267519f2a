//! Tells a thread that waited, as for the disk, from one that the system suspended to let others run.
//!
//! Both take the same time. But only a wait counts as a voluntary switch of the thread, and is a reason to read elsewhere.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// How old a mark may be when a read begins. A read before that may have waited, too, which would be taken for a wait of the
/// later one. A new mark takes some 500 ns.
const MAX_AGE: Duration = Duration::from_micros(500);

thread_local! {
    /// The last mark of this thread, and when it was made.
    static LAST: Cell<Option<(Instant, Mark)>> = const { Cell::new(None) };
}

/// Remembers how often a thread had waited at one moment, and how long it had run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark(Option<Usage>);

#[derive(Clone, Copy, Debug)]
struct Usage {
    /// How often the thread has waited since it began.
    waits: std::ffi::c_long,
    /// How long it has run.
    ran: Duration,
}

impl Mark {
    /// Returns a new mark of this thread.
    pub(super) fn new() -> Self {
        Self(usage())
    }

    /// Returns a mark of this thread that is at most half a millisecond older than `now`.
    pub(super) fn recent(now: Instant) -> Self {
        if let Some((made, mark)) = LAST.get()
            && now.saturating_duration_since(made) <= MAX_AGE
        {
            return mark;
        }
        let mark = Self::new();
        LAST.set(Some((now, mark)));
        mark
    }

    /// Returns whether this thread has not waited since the mark, and has run for less than `limit`.
    ///
    /// Returns `false` where the system does not tell.
    pub(super) fn was_suspended(self, limit: Duration) -> bool {
        let (Some(then), Some(now)) = (self.0, usage()) else { return false };
        now.waits == then.waits && now.ran.saturating_sub(then.ran) < limit
    }
}

/// Returns how often this thread has waited so far, and how long it has run.
#[cfg(target_os = "linux")]
fn usage() -> Option<Usage> {
    use nix::sys::resource::{UsageWho, getrusage};
    use nix::time::{ClockId, clock_gettime};

    let waits = getrusage(UsageWho::RUSAGE_THREAD).ok()?.voluntary_context_switches();
    // Not the time in the usage, which may lag behind by a tick of the scheduler.
    let ran = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).ok()?;
    Some(Usage { waits, ran: ran.into() })
}

#[cfg(not(target_os = "linux"))]
const fn usage() -> Option<Usage> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(1);

    #[test]
    fn waiting_is_no_suspension() {
        let mark = Mark::recent(Instant::now());
        std::thread::sleep(LIMIT);
        assert!(!mark.was_suspended(LIMIT));
    }

    #[test]
    fn running_is_no_suspension() {
        let mark = Mark::recent(Instant::now());
        let usage = usage().unwrap();
        while super::usage().unwrap().ran - usage.ran < LIMIT {
            std::hint::spin_loop();
        }
        assert!(!mark.was_suspended(LIMIT));
    }

    #[test]
    fn other_threads_suspend_a_thread() {
        // More threads than cores, until the system has suspended this one for a millisecond.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let ends = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 * cores {
                scope.spawn(|| {
                    while !ends.load(std::sync::atomic::Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            loop {
                let begun = Instant::now();
                let mark = Mark::recent(begun);
                while begun.elapsed() < Duration::from_micros(10) {}
                if begun.elapsed() >= LIMIT && mark.was_suspended(LIMIT) {
                    break;
                }
            }
            ends.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}
