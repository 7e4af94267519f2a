//! The delays between retries.

use std::time::Duration;

use crate::storage::record::random_id;

/// The longest first delay, in milliseconds.
///
/// It is a few round trips to DynamoDB in the same region.
const FIRST_DELAY_MS: u64 = 25;
/// The longest delay, in milliseconds.
///
/// DynamoDB counts the capacity of a partition by the second, so a longer wait gains nothing.
const MAX_DELAY_MS: u64 = 800;

/// Exponential backoff with jitter.
///
/// The delays are random, so that requests that were throttled together do not come back together.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    retries: u32,
}

impl Backoff {
    /// Returns the delay before the next retry.
    ///
    /// The delay is between half and all of a limit that doubles with each retry.
    pub(super) fn next_delay(&mut self) -> Duration {
        // The shift is bounded so that it cannot overflow; the limit is reached long before.
        let longest = MAX_DELAY_MS.min(FIRST_DELAY_MS << self.retries.min(10));
        self.retries += 1;
        let [byte, ..] = random_id();
        Duration::from_millis(longest / 2 + longest / 2 * u64::from(byte) / 256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_up_to_a_limit() {
        let mut backoff = Backoff::default();
        for longest in [25, 50, 100, 200, 400, 800, 800, 800] {
            let delay = backoff.next_delay().as_millis();
            assert!((longest / 2..=longest).contains(&delay), "{delay} of {longest}");
        }
        assert!((0..100).all(|_| backoff.next_delay() <= Duration::from_millis(MAX_DELAY_MS)));
    }
}
