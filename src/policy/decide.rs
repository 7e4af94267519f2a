//! Whether a stored response answers a request, fresh or stale (RFC 9111 §4 and §4.2.4, RFC 5861).

use std::fmt;
use std::time::Duration;

use http::StatusCode;

use super::directives::RequestDirectives;
use super::freshness::Freshness;
use super::options::Options;
use crate::time::Timestamp;

/// The verdict on the stored response that was selected for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Serve the response, which is fresh.
    Serve,
    /// Serve the response, although it is stale.
    ServeStale(StaleReason),
    /// Ask the origin first.
    Validate(ValidateReason),
    /// Answer 504, since the request forbids asking the origin and the response must not be served.
    Refuse,
}

/// The reason why a stale response was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StaleReason {
    /// The request allows it by `max-stale` (RFC 9111 §5.2.1.2).
    MaxStale,
    /// `stale-while-revalidate` allows it while the response is refreshed in the background (RFC 5861 §3).
    WhileRevalidate,
    /// The origin failed, and the response may be served in that case.
    ///
    /// Either `stale-if-error` allows it (RFC 5861 §4), or the origin could not be reached and the cache is set to
    /// [`stale_when_disconnected`](crate::CacheLayerBuilder::stale_when_disconnected) (RFC 9111 §4.2.4).
    IfError,
    /// The program asked for a stored response of any age, by its [`CacheMode`](crate::CacheMode).
    Forced,
    /// The origin failed a moment ago, and the response may be served as with [`IfError`](Self::IfError).
    ///
    /// This request did not wait for the origin. At most one request asks the origin in the background.
    Failing,
    /// The origin is slow, and the response may be served as with [`IfError`](Self::IfError).
    ///
    /// The setting [`stale_after`](crate::CacheLayerBuilder::stale_after) or
    /// [`fallback_after`](crate::CacheLayerBuilder::fallback_after) ended the waiting. The fetch goes on in the background.
    Slow,
}

impl fmt::Display for StaleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MaxStale => "max-stale",
            Self::Forced => "force-cache",
            Self::WhileRevalidate => "stale-while-revalidate",
            Self::IfError | Self::Failing => "stale-if-error",
            Self::Slow => "slow-origin",
        })
    }
}

/// The reason why a stored response had to be validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ValidateReason {
    /// The response is stale.
    Stale,
    /// The response would be fresh, but was [expired](crate::CacheHandle::expire) by hand.
    Expired,
    /// The response says `no-cache` (RFC 9111 §5.2.2.4).
    NoCache,
    /// No stored variant matches the request's fields, and the origin was asked which one answers (RFC 9111 §4.1).
    Vary,
    /// The request demands it by `no-cache`, `max-age` or `min-fresh` (RFC 9111 §5.2.1).
    Request,
}

/// Decides whether a stored response answers a request (RFC 9111 §4).
pub(crate) fn decide(request: &RequestDirectives, stored: &Freshness, now: Timestamp) -> Verdict {
    match reusable(request, stored, now) {
        // RFC 9111 §5.2.1.7.
        Verdict::Validate(_) if request.only_if_cached => Verdict::Refuse,
        verdict => verdict,
    }
}

/// Decides as if the request permitted asking the origin (RFC 9111 §4, §4.2.4 and §5.2, RFC 5861 §3).
fn reusable(request: &RequestDirectives, stored: &Freshness, now: Timestamp) -> Verdict {
    let (age, lifetime) = (stored.age(now), stored.lifetime_at(now));
    if request.force {
        let is_fresh = lifetime > age && !stored.no_cache;
        return if is_fresh { Verdict::Serve } else { Verdict::ServeStale(StaleReason::Forced) };
    }
    if stored.no_cache {
        return Verdict::Validate(ValidateReason::NoCache);
    }
    let is_fresh = lifetime > age;
    // A reload sends `max-age=0`, which an immutable response ignores while it is fresh (RFC 8246 §2.1).
    let is_immutable = stored.immutable && is_fresh;
    let is_too_old = request.max_age.is_some_and(|longest| age > longest) && !is_immutable;
    let expires_too_soon = request.min_fresh.is_some_and(|shortest| lifetime.saturating_sub(age) < shortest);
    if request.no_cache || is_too_old || expires_too_soon {
        return Verdict::Validate(ValidateReason::Request);
    }
    if is_fresh {
        return Verdict::Serve;
    }
    let staleness = age - lifetime;
    let reason = match stored.is_expired(now) {
        true => ValidateReason::Expired,
        false => ValidateReason::Stale,
    };
    // Before every allowance for stale responses: `must-revalidate` overrides them all (RFC 9111 §5.2.2.2).
    if stored.must_revalidate {
        return Verdict::Validate(reason);
    }
    if request.max_stale.is_some_and(|longest| staleness <= longest) {
        return Verdict::ServeStale(StaleReason::MaxStale);
    }
    let window = stored.stale_while_revalidate.max(request.stale_while_revalidate.unwrap_or_default());
    // A request with `max-age` does not want a stale response unless it says so by `max-stale` (RFC 9111 §5.2.1.1),
    // which was tried above.
    let limits_staleness = request.max_age.is_some() || request.max_stale.is_some();
    if !limits_staleness && window > Duration::ZERO && staleness <= window {
        return Verdict::ServeStale(StaleReason::WhileRevalidate);
    }
    Verdict::Validate(reason)
}

/// Returns whether a stored response may be served because the origin failed (RFC 5861 §4).
///
/// `unreachable` says that there was no response at all. Then a setting may allow it too (RFC 9111 §4.2.4).
pub(crate) fn stale_on_error(
    request: &RequestDirectives,
    stored: &Freshness,
    now: Timestamp,
    unreachable: bool,
    options: &Options,
) -> bool {
    if stored.no_cache || stored.must_revalidate || request.no_cache {
        return false;
    }
    let window = match stored.stale_if_error.max(request.stale_if_error) {
        Some(window) => window,
        // The setting is for requests that say nothing about age or staleness.
        None if [request.max_age, request.max_stale, request.min_fresh].iter().any(Option::is_some) => {
            return false;
        }
        None if unreachable && options.stale_when_disconnected => Duration::MAX,
        None => return false,
    };
    window > Duration::ZERO && stored.staleness(now) <= window
}

/// Returns whether a status counts as a failure of the origin (RFC 5861 §4).
pub(crate) fn is_error_status(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}
