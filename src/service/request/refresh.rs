//! Refreshing before the end: what is asked for often is refreshed while it is still fresh.
//!
//! Promises: a hit never waits for it; nothing is refreshed in the first half of its lifetime; processes and entries that
//! began together do not refresh together, for each hit decides by chance (as in "Optimal Probabilistic Cache Stampede
//! Prevention", VLDB 2015).

use std::time::Duration;

use super::core::Core;
use crate::policy::Freshness;
use crate::storage::{Storage, random_id};
use crate::time::Timestamp;

impl<S: Storage> Core<S> {
    /// Whether a hit now may begin a refresh; costs nothing where that is switched off.
    pub(crate) fn may_refresh_early(&self, stored: &Freshness, now: Timestamp) -> bool {
        let mean = self.config.refresh_early;
        if mean.is_zero() {
            return false;
        }
        // Further away, the chance is below one in ten million.
        let stretch = mean.saturating_mul(16).min(stored.lifetime / 2);
        stored.lifetime.saturating_sub(stored.age(now)) < stretch
    }

    /// Whether this hit begins it.
    pub(crate) fn draws_refresh(&self, stored: &Freshness, now: Timestamp) -> bool {
        self.may_refresh_early(stored, now) && {
            let left = stored.lifetime.saturating_sub(stored.age(now));
            chance() < chance_of(left, self.config.refresh_early)
        }
    }
}

/// The exponential distribution: on average `mean` before the end.
fn chance_of(left: Duration, mean: Duration) -> f64 {
    (-left.as_secs_f64() / mean.as_secs_f64()).exp()
}

/// Evenly between 0 and 1.
fn chance() -> f64 {
    let [a, b, c, d, ..] = random_id();
    f64::from(u32::from_le_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chance_grows_towards_the_end() {
        let mean = Duration::from_secs(10);
        let at = |left| chance_of(Duration::from_secs(left), mean);
        assert!((at(0) - 1.0).abs() < 1e-9 && (at(10) - 0.367_879).abs() < 1e-6 && at(160) < 2e-7);
        assert!((0..1000).map(|_| chance()).all(|chance| (0.0..1.0).contains(&chance)));
    }
}
