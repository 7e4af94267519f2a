//! The decision on a stored response: one, for the answer without waiting as for the loop.

use std::time::Duration;

use http::{HeaderName, Response, header, request};

use crate::body::CacheBody;
use crate::control::{Outcome, Stored};
use crate::key::{self, EffectiveUri};
use crate::policy::{self, Freshness, RequestDirectives, StaleReason, ValidateReason, Verdict};
use crate::service::config::Config;
use crate::service::records::{First, usable_head};
use crate::service::respond::{self, Asked, stored_status};
use crate::service::shared::Shared;
use crate::storage::{Storage, random_id};
use crate::time::Timestamp;

/// Says how a stored response serves the request that selected it.
pub(super) enum Decision {
    /// Serve it; `may_refresh`: and let chance decide whether to begin a refresh, since it ends soon.
    Serve {
        may_refresh: bool,
    },
    ServeStale(StaleReason),
    Validate(ValidateReason),
    /// Fetch another one, whatever is stored.
    Reload,
    /// The request wants only what is stored, and that must not be served.
    Refuse,
}

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

/// Answers the usual hit without waiting and without a box: the head is at hand, its inline variant is the request's, fresh
/// and small. Otherwise returns what was read, so that it is not read again.
pub(crate) fn answer_now<S: Storage, B>(
    shared: &Shared<S>,
    parts: &request::Parts,
    asked: Asked<'_>,
    uri: Option<&EffectiveUri<'_>>,
) -> Result<Response<CacheBody<B>>, First> {
    let (config, records) = (&shared.config, &shared.records);
    if !records.in_flight.is_empty() || !records.pending.is_empty() || !config.async_filters.is_empty() {
        return Err(None);
    }
    let Some(uri) = uri else { return Err(None) };
    let at = records.keyer.guess(uri);
    let read = records.store.read_now(at);
    let Some(Ok(Some(record))) = &read else { return Err(read.map(|read| (at, read))) };
    let now = config.clock.now();
    let response = (|| {
        let head = usable_head(record, uri, now).filter(|head| config.tells_apart(head))?;
        let (variant, stored) = (&head.inline, &head.inline.response);
        if variant.until <= now || !records.is_believed(at, &head.key_text, variant) {
            return None;
        }
        // Without credentials, a response that is selected by them alone needs no look-up.
        let by_credentials = |name: &HeaderName| *name == header::AUTHORIZATION || *name == header::COOKIE;
        let plain = !asked.interest.credentials
            && head.names.iter().all(by_credentials)
            && !(asked.interest.host && uri.host_selects(parts))
            && key::rewritten(parts).is_none();
        let selection = if plain { [0; 16] } else { records.selection(&head.names, parts) };
        if selection != variant.selection {
            return None;
        }
        if !stored.groups.is_empty() && records.belongs_now(&stored.groups, now) != Some(true) {
            return None;
        }
        let freshness = stored.freshness(records.number, &config.policy);
        let directives = config.directives_of(parts, asked.interest);
        // A refresh needs a fetcher of its own, which the loop has.
        let Decision::Serve { may_refresh: false } = decide(config, &directives, &freshness, now) else {
            return None;
        };
        let status = stored_status(Outcome::Hit, Stored::Unchanged, &freshness, now);
        respond::inline(shared, asked, stored, status)
    })();
    response.ok_or_else(|| read.map(|read| (at, read)))
}

/// Returns whether a hit may begin a refresh before the response is stale: never in the first half of its lifetime.
fn nears_end(mean: Duration, stored: &Freshness, now: Timestamp) -> bool {
    if mean.is_zero() {
        return false;
    }
    // Further away, the chance is below one in ten million.
    let stretch = mean.saturating_mul(16).min(stored.lifetime / 2);
    stored.lifetime.saturating_sub(stored.age(now)) < stretch
}

/// Returns whether a hit that may begin a refresh does.
///
/// Each decides by chance, so that processes and entries that began together
/// do not refresh together ("Optimal Probabilistic Cache Stampede Prevention", VLDB 2015).
pub(super) fn draws_refresh(mean: Duration, stored: &Freshness, now: Timestamp) -> bool {
    chance() < chance_of(stored.lifetime.saturating_sub(stored.age(now)), mean)
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
    fn chance_of_a_refresh_grows_towards_the_end() {
        let mean = Duration::from_secs(10);
        let at = |left| chance_of(Duration::from_secs(left), mean);
        assert!((at(0) - 1.0).abs() < 1e-9 && (at(10) - 0.367_879).abs() < 1e-6 && at(160) < 2e-7);
        assert!((0..1000).map(|_| chance()).all(|chance| (0.0..1.0).contains(&chance)));
    }
}
