//! How long the origin and the storage take, for the administration service.
//!
//! # Invariants
//!
//! - A hit that needs no waiting is not measured, so that it costs nothing.
//! - Memory is constant: durations are counted in buckets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The number of buckets. The last one is for everything above 2²³ µs, which is 8 seconds.
const BUCKETS: usize = 25;

/// The durations of one kind of operation since the cache was built.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    /// The bucket with index n counts the durations below 2ⁿ microseconds, and not below half of that.
    buckets: [AtomicU64; BUCKETS],
    micros: AtomicU64,
}

/// The numbers of a [`Latency`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LatencyCounts {
    /// The sum of all durations, in microseconds.
    pub(crate) micros: u64,
    /// The number of durations in each bucket.
    pub(crate) buckets: [u64; BUCKETS],
}

/// Measures a duration, from when it was made.
#[derive(Debug)]
pub(crate) struct Stopwatch<'a> {
    latency: &'a Latency,
    began: Instant,
}

impl Latency {
    pub(super) fn start(&self) -> Stopwatch<'_> {
        Stopwatch { latency: self, began: Instant::now() }
    }

    fn add(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        // Relaxed: the counters publish no other memory.
        self.buckets[bucket.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Returns the numbers so far.
    pub(crate) fn counts(&self) -> LatencyCounts {
        LatencyCounts {
            micros: self.micros.load(Ordering::Relaxed),
            buckets: self.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed)),
        }
    }
}

impl Stopwatch<'_> {
    /// Counts the time that has passed. Without this call nothing is counted.
    pub(crate) fn stop(&self) {
        self.latency.add(self.began.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_counted_in_their_buckets() {
        let latency = Latency::default();
        for micros in [0, 1, 2, 3, 1000, u64::MAX] {
            latency.add(Duration::from_micros(micros));
        }
        let counts = latency.counts();
        assert_eq!((counts.buckets[0], counts.buckets[1], counts.buckets[2]), (1, 1, 2));
        assert_eq!((counts.buckets[10], counts.buckets[BUCKETS - 1]), (1, 1));
        assert_eq!(counts.buckets.iter().sum::<u64>(), 6);
        assert_eq!(counts.micros, 1005); // the sum wraps
    }
}
