//! The decision of the user's rules on a response.
//!
//! It is combined here with what the response itself states. RFC 9111 §5.2.3 permits such an extension of a cache.
//!
//! # Invariants
//! - An override takes precedence over the response, and the response over a default.
//! - `min_ttl` and `max_ttl` limit what the response states and what the heuristic gives, never what the user states.
//! - A lifetime alone does not store a response that forbids storing, nor an error that says nothing about caching.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::directives::ResponseDirectives;
use super::freshness::{Freshness, RuleTtl, explicit_lifetime, is_heuristic};
use super::not_stored::NotStored;
use super::options::Options;
use crate::time::Timestamp;

/// A time to live that the user gives to a response.
///
/// It counts from when the response was received. A [`Duration`] and a [`Timestamp`] convert into it.
///
/// ```
/// use std::time::Duration;
/// use tower_response_cache::Ttl;
///
/// assert_eq!(Ttl::from(Duration::from_millis(1500)), Ttl::For(Duration::from_millis(1500)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ttl {
    /// The response is fresh for this long, to the millisecond.
    ///
    /// Zero means that it is stale at once, as with [`Revalidate`](Self::Revalidate).
    For(Duration),
    /// The response is fresh until this time. If that is in the past, the response is stale at once.
    Until(Timestamp),
    /// The response never becomes stale. The storage keeps it until it needs the room.
    Forever,
    /// The response is not stored.
    DoNotStore,
    /// The response is stale at once, but stored to be validated.
    ///
    /// Each use asks the origin, which may answer 304.
    Revalidate,
}

impl From<Duration> for Ttl {
    fn from(lifetime: Duration) -> Self {
        Self::For(lifetime)
    }
}

impl From<Timestamp> for Ttl {
    fn from(end: Timestamp) -> Self {
        Self::Until(end)
    }
}

impl Ttl {
    /// Returns the lifetime from when the response was received (replaces RFC 9111 §4.2.1).
    ///
    /// `None` if the response is not stored.
    pub(crate) fn lifetime(self, received: Timestamp) -> Option<Duration> {
        match self {
            Self::For(lifetime) => Some(lifetime),
            // `Timestamp::NEVER` is no time to count to. A lifetime says forever by `Duration::MAX`.
            Self::Until(end) if end.is_never() => Some(Duration::MAX),
            Self::Until(end) => Some(end.since(received)),
            Self::Forever => Some(Duration::MAX),
            Self::Revalidate => Some(Duration::ZERO),
            Self::DoNotStore => None,
        }
    }
}

/// The prohibitions of a response that do not keep it from being stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoreDespite {
    /// `no-store` of the response (RFC 9111 §5.2.2.5).
    pub(crate) no_store: bool,
    /// `private` in a shared cache (RFC 9111 §5.2.2.7).
    pub(crate) private: bool,
    /// Authorization of the request in a shared cache (RFC 9111 §3.5).
    pub(crate) authorization: bool,
    /// `Vary: *` (RFC 9111 §4.1).
    pub(crate) vary_any: bool,
}

/// The decision of the rules on one response to one request (RFC 9111 §5.2.3).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RuleDecision {
    /// The time to live whatever the response states.
    pub(crate) override_ttl: Option<Ttl>,
    /// The time to live if the response states none.
    pub(crate) default_ttl: Option<Ttl>,
    /// The least lifetime that is the response's own or a heuristic one.
    pub(crate) min_ttl: Option<Duration>,
    /// The greatest lifetime that is the response's own or a heuristic one.
    pub(crate) max_ttl: Option<Duration>,
    /// Whether the rules say that the response's status is stored. `None` if they do not speak about it.
    pub(crate) stores_status: Option<bool>,
    pub(crate) despite: StoreDespite,
}

impl RuleDecision {
    /// Returns the lifetime that the rules give to a response (a cache extension, RFC 9111 §5.2.3).
    ///
    /// `None` if the response keeps its own or heuristic lifetime (§4.2.1, §4.2.2).
    ///
    /// # Errors
    /// Returns [`NotStored::Rule`] if the rules say that the response is not stored.
    pub(crate) fn rule_ttl(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        directives: &ResponseDirectives,
        freshness: &Freshness,
        options: &Options,
    ) -> Result<Option<RuleTtl>, NotStored> {
        let has_ttl = self.override_ttl.is_some() || self.default_ttl.is_some();
        if !has_ttl && self.min_ttl.is_none() && self.max_ttl.is_none() {
            return Ok(None);
        }
        let received = freshness.response_time;
        let is_explicit = explicit_lifetime(headers, directives, received, options).is_some();
        let is_marked_cacheable = directives.public || directives.private;
        // A lifetime of an hour for every response is not meant for the 502 of a gateway. An error counts if a rule
        // names its status, or if the response says that it may be stored.
        let is_meant =
            self.stores_status == Some(true) || is_explicit || is_marked_cacheable || is_heuristic(status);
        let give = |ttl: Ttl, overrides| match ttl.lifetime(received) {
            Some(lifetime) => Ok(is_meant.then_some(RuleTtl { lifetime, overrides })),
            None => Err(NotStored::Rule),
        };
        if let Some(ttl) = self.override_ttl {
            return give(ttl, true);
        }
        if let Some(ttl) = self.default_ttl.filter(|_| !is_explicit) {
            return give(ttl, false);
        }
        let own = freshness.lifetime.saturating_sub(freshness.initial_age);
        let has_lifetime = is_explicit || !freshness.lifetime.is_zero();
        let limited = own.max(self.min_ttl.unwrap_or_default()).min(self.max_ttl.unwrap_or(Duration::MAX));
        // `min_ttl` does not give a lifetime to a response that has none at all.
        Ok((has_lifetime && limited != own).then_some(RuleTtl { lifetime: limited, overrides: false }))
    }
}
