//! Counters that many threads increment.
//!
//! Threads that increment one atomic take its cache line from each other. Here the threads are spread over several copies
//! of the counters, and a reader adds up the copies.
//!
//! # Invariants
//!
//! - An increment is one relaxed addition in a cache line that few threads share, and allocates nothing.
//! - No increment is lost.
//! - A sum contains every increment before the reading began, and may contain some that were made during it.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::counts::LEN;

/// The number of copies. More than the threads that are usually busy at once would gain little, and each costs memory in
/// every cache.
const STRIPES: usize = 8;

/// Counters with a copy for each group of threads.
pub(super) struct Stripes(Box<[Stripe; STRIPES]>);

/// One copy of the counters.
///
/// Common processors fetch two lines of 64 bytes at a time, so that copies closer than 128 bytes would still be shared.
#[repr(align(128))]
struct Stripe([AtomicU64; LEN]);

thread_local! {
    /// The stripe of this thread, or `STRIPES` if it has none yet.
    static THREAD_STRIPE: Cell<usize> = const { Cell::new(STRIPES) };
}

/// Returns the stripe of this thread.
#[inline]
fn thread_stripe() -> usize {
    let stripe = THREAD_STRIPE.get();
    if stripe < STRIPES { stripe } else { assign_stripe() }
}

/// Assigns a stripe to this thread, one after another. Cold, since it runs once for each thread.
#[cold]
fn assign_stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let stripe = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES;
    THREAD_STRIPE.set(stripe);
    stripe
}

impl Stripes {
    /// Increments a counter.
    #[inline]
    pub(super) fn add(&self, number: usize) {
        // Relaxed: the counters publish no other memory.
        self.0[thread_stripe()].0[number].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the sum of each counter over all stripes.
    pub(super) fn sums(&self) -> [u64; LEN] {
        std::array::from_fn(|number| {
            self.0.iter().map(|stripe| stripe.0[number].load(Ordering::Relaxed)).sum()
        })
    }
}

impl Default for Stripes {
    fn default() -> Self {
        Self(Box::new([const { Stripe([const { AtomicU64::new(0) }; LEN]) }; STRIPES]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_increment_is_lost_between_threads() {
        let stripes = Stripes::default();
        std::thread::scope(|scope| {
            for _ in 0..STRIPES * 2 {
                scope.spawn(|| (0..1000).for_each(|_| stripes.add(3)));
            }
        });
        let sums = stripes.sums();
        assert_eq!(
            (sums[3], sums.iter().sum::<u64>()),
            (1000 * 2 * STRIPES as u64, 1000 * 2 * STRIPES as u64)
        );
    }
}
