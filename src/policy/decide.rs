//! Whether a stored response answers a request (RFC 9111 §4), also stale (§4.2.4, RFC 5861).

use std::fmt;
use std::time::Duration;

use http::StatusCode;

use super::directives::RequestDirectives;
use super::freshness::Freshness;
use super::options::Options;
use crate::time::Timestamp;

/// What to do with a stored response that was selected for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Serve,
    ServeStale(StaleReason),
    Validate(ValidateReason),
    /// The request wants only what is stored, and that must not be served.
    Refuse,
}

/// Why a stale response was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StaleReason {
    /// The request allows it: `max-stale` (RFC 9111 §5.2.1.2).
    MaxStale,
    /// The response allows it while it is refreshed in the background: `stale-while-revalidate` (RFC 5861 §3).
    WhileRevalidate,
    /// The origin failed, and `stale-if-error` allows it (RFC 5861 §4), or it could not be reached, and the cache is
    /// set to serve what it has then (RFC 9111 §4.2.4).
    IfError,
    /// The program asked for what is stored, however stale: [`CacheMode`](crate::CacheMode).
    Forced,
    /// As with [`IfError`](Self::IfError), and the origin failed only a moment ago: it was not asked again, or is asked by one request beside.
    Failing,
}

impl fmt::Display for StaleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MaxStale => "max-stale",
            Self::Forced => "force-cache",
            Self::WhileRevalidate => "stale-while-revalidate",
            Self::IfError | Self::Failing => "stale-if-error",
        })
    }
}

/// Why a stored response had to be validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ValidateReason {
    /// It is stale.
    Stale,
    /// It says `no-cache` (RFC 9111 §5.2.2.4).
    NoCache,
    /// The request's own fields select none of what is stored, and the origin was asked which of it answers (RFC 9111
    /// §4.1).
    Vary,
    /// The request wants it so: `no-cache`, `max-age` or `min-fresh` (RFC 9111 §5.2.1).
    Request,
}

pub(crate) fn decide(asked: &RequestDirectives, stored: &Freshness, now: Timestamp) -> Verdict {
    match reusable(asked, stored, now) {
        Verdict::Validate(_) if asked.only_if_cached => Verdict::Refuse,
        verdict => verdict,
    }
}

fn reusable(asked: &RequestDirectives, stored: &Freshness, now: Timestamp) -> Verdict {
    let age = stored.age(now);
    if asked.force {
        let fresh = stored.lifetime > age && !stored.no_cache;
        return if fresh { Verdict::Serve } else { Verdict::ServeStale(StaleReason::Forced) };
    }
    if stored.no_cache {
        return Verdict::Validate(ValidateReason::NoCache);
    }
    let fresh = stored.lifetime > age;
    let unchanging = stored.immutable && fresh;
    let too_old = asked.max_age.is_some_and(|most| age > most) && !unchanging;
    let too_short = asked.min_fresh.is_some_and(|least| stored.lifetime.saturating_sub(age) < least);
    if asked.no_cache || too_old || too_short {
        return Verdict::Validate(ValidateReason::Request);
    }
    if fresh {
        return Verdict::Serve;
    }
    let staleness = age - stored.lifetime;
    if stored.must_revalidate {
        return Verdict::Validate(ValidateReason::Stale);
    }
    if asked.max_stale.is_some_and(|most| staleness <= most) {
        return Verdict::ServeStale(StaleReason::MaxStale);
    }
    let window = stored.stale_while_revalidate.max(asked.stale_while_revalidate.unwrap_or_default());
    // A request that limits the age wants nothing stale, unless it says so (RFC 9111 §5.2.1.1).
    let wants_fresh = asked.max_age.is_some() || asked.max_stale.is_some();
    if !wants_fresh && window > Duration::ZERO && staleness <= window {
        return Verdict::ServeStale(StaleReason::WhileRevalidate);
    }
    Verdict::Validate(ValidateReason::Stale)
}

/// Whether a stored response may be served since the origin failed (RFC 5861 §4), or could not even be reached
/// (RFC 9111 §4.2.4).
pub(crate) fn stale_on_error(
    asked: &RequestDirectives,
    stored: &Freshness,
    now: Timestamp,
    unreachable: bool,
    options: &Options,
) -> bool {
    if stored.no_cache || stored.must_revalidate || asked.no_cache {
        return false;
    }
    let window = match stored.stale_if_error.max(asked.stale_if_error) {
        Some(window) => window,
        // A request that limits age or staleness has spoken as well.
        None if [asked.max_age, asked.max_stale, asked.min_fresh].iter().any(Option::is_some) => {
            return false;
        }
        None if unreachable && options.stale_when_disconnected => Duration::MAX,
        None => return false,
    };
    window > Duration::ZERO && stored.staleness(now) <= window
}

/// The responses that count as failures of the origin (RFC 5861 §4).
pub(crate) fn is_error_status(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}
