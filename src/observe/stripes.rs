//! Counters that many threads add to.
//!
//! Promises: adding is one relaxed addition in a line of memory that few threads share, and allocates nothing; nothing is
//! lost; a reading is the sum of what was added before it began, and perhaps of some that came while it was taken.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::counts::LEN;

/// A few more than threads of a usual runtime that are busy at once would gain little, and cost memory in each cache.
const STRIPES: usize = 8;

pub(super) struct Stripes(Box<[Stripe; STRIPES]>);

/// Two lines of memory at a time are fetched on common processors.
#[repr(align(128))]
struct Stripe([AtomicU64; LEN]);

thread_local! {
    /// The stripe of this thread; one beyond: it has none yet.
    static OWN: Cell<usize> = const { Cell::new(STRIPES) };
}

#[inline]
fn own() -> usize {
    let own = OWN.get();
    if own < STRIPES { own } else { choose() }
}

#[cold]
fn choose() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let own = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES;
    OWN.set(own);
    own
}

impl Stripes {
    #[inline]
    pub(super) fn add(&self, number: usize) {
        self.0[own()].0[number].fetch_add(1, Ordering::Relaxed);
    }

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
    fn what_many_threads_add_is_all_there() {
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
