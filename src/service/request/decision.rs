//! Decides how a stored response may be used for a request.
//!
//! [`plain_hit`](super::plain_hit) and the loop share this decision.

use std::time::Duration;

use crate::policy::{self, Freshness, RequestDirectives, StaleReason, ValidateReason, Verdict};
use crate::service::config::Config;
use crate::storage::random_id;
use crate::time::Timestamp;

/// Tells how a stored response may be used for the request that selected it.
pub(super) enum Decision {
    /// Serve it.
    Serve {
        /// It becomes stale soon, so that chance decides whether this hit begins a refresh.
        may_refresh: bool,
    },
    /// Serve it although it is stale.
    ServeStale(StaleReason),
    /// Ask the origin first whether it is still current.
    Validate(ValidateReason),
    /// Fetch a new response, whatever is stored.
    Reload,
    /// Refuse the request. It accepts only a stored response, and this one must not be served.
    Refuse,
}

/// Returns how a stored response may be used for a request.
pub(super) fn decide(
    config: &Config,
    directives: &RequestDirectives,
    freshness: &Freshness,
    now: Timestamp,
) -> Decision {
    if directives.reload && !directives.only_if_cached {
        return Decision::Reload;
    }
    match policy::decide(directives, freshness, now) {
        Verdict::Serve => Decision::Serve { may_refresh: nears_end(config.refresh_early, freshness, now) },
        Verdict::ServeStale(reason) => Decision::ServeStale(reason),
        Verdict::Validate(reason) => Decision::Validate(reason),
        Verdict::Refuse => Decision::Refuse,
    }
}

/// Returns whether a hit may begin a refresh before the response is stale.
///
/// It may not in the first half of the lifetime, however long `refresh_early` is.
fn nears_end(mean: Duration, stored: &Freshness, now: Timestamp) -> bool {
    if mean.is_zero() {
        return false;
    }
    // Earlier than 16 times the mean, the chance of a refresh is exp(-16), about one in ten million: not worth a draw.
    let lifetime = stored.lifetime_at(now);
    let window = mean.saturating_mul(16).min(lifetime / 2);
    lifetime.saturating_sub(stored.age(now)) < window
}

/// Draws whether a hit that may begin a refresh does so.
///
/// Chance keeps processes and entries that were stored together from being refreshed together (Vattani et al., "Optimal
/// Probabilistic Cache Stampede Prevention", VLDB 2015).
pub(super) fn draws_refresh(mean: Duration, stored: &Freshness, now: Timestamp) -> bool {
    chance() < chance_of(stored.lifetime_at(now).saturating_sub(stored.age(now)), mean)
}

/// Returns the chance that a hit begins a refresh.
///
/// `left` is the rest of the lifetime.
/// It follows the exponential distribution, by which a refresh begins on average `mean` before the end.
fn chance_of(left: Duration, mean: Duration) -> f64 {
    (-left.as_secs_f64() / mean.as_secs_f64()).exp()
}

/// Returns a random number that is uniform in [0, 1).
fn chance() -> f64 {
    let [a, b, c, d, ..] = random_id();
    f64::from(u32::from_le_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_of_a_refresh_grows_towards_the_end() {
        let mean = Duration::from_secs(10);
        let at = |left| chance_of(Duration::from_secs(left), mean);
        assert!((at(0) - 1.0).abs() < 1e-9 && (at(10) - 0.367_879).abs() < 1e-6 && at(160) < 2e-7);
        assert!((0..1000).map(|_| chance()).all(|chance| (0.0..1.0).contains(&chance)));
    }
}
