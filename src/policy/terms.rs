//! What the user's rules say about a response, and how that goes together with what the response says.
//!
//! Promises: what the user says comes before the response where it is an override, and after it where it is a default;
//! limits hold for what the response says or what is guessed, and for nothing that the user said; a lifetime alone
//! stores nothing that a response forbids to store, and no error that says nothing about itself.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::directives::ResponseDirectives;
use super::freshness::{Freshness, Given, explicit, is_heuristic};
use super::not_stored::NotStored;
use super::options::Options;
use crate::time::Timestamp;

/// How long a response is fresh by the user's word, counted from when it was received. A [`Duration`] and a
/// [`Timestamp`] are one as well.
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
    /// For so long, kept to the millisecond. Zero is stale at once, as with [`Revalidate`](Self::Revalidate).
    For(Duration),
    /// Until this moment; if it is past, stale at once.
    Until(Timestamp),
    /// For ever: it never expires, and the store keeps it until it needs the room.
    Forever,
    /// It is not stored.
    DoNotStore,
    /// Stale at once, but kept to be validated: each use asks the origin, which may answer 304.
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
    /// From when the response was received; `None`: it is not stored.
    pub(crate) fn lifetime(self, received: Timestamp) -> Option<Duration> {
        match self {
            Self::For(lifetime) => Some(lifetime),
            Self::Until(end) if end.is_never() => Some(Duration::MAX),
            Self::Until(end) => Some(end.since(received)),
            Self::Forever => Some(Duration::MAX),
            Self::Revalidate => Some(Duration::ZERO),
            Self::DoNotStore => None,
        }
    }
}

/// What is stored though the response forbids it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Despite {
    pub(crate) no_store: bool,
    pub(crate) private: bool,
    pub(crate) authorization: bool,
    pub(crate) vary_any: bool,
}

/// What the rules say about one response to one request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terms {
    /// Whatever the response says.
    pub(crate) over: Option<Ttl>,
    /// Where it says nothing.
    pub(crate) default: Option<Ttl>,
    pub(crate) min: Option<Duration>,
    pub(crate) max: Option<Duration>,
    /// Whether its status is stored by the user's word.
    pub(crate) status: Option<bool>,
    pub(crate) despite: Despite,
}

impl Terms {
    /// The lifetime that the rules give a response; `None`: its own, or the one that is guessed, stands.
    pub(crate) fn settle(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        freshness: &Freshness,
        options: &Options,
    ) -> Result<Option<Given>, NotStored> {
        let received = freshness.response_time;
        let said = ResponseDirectives::of(headers, options);
        let speaks = explicit(headers, &said, received, options).is_some();
        let marked = said.public || said.private;
        // An hour for everything is not meant for a gateway's error.
        let counts = self.status == Some(true) || speaks || marked || is_heuristic(status);
        let give = |ttl: Ttl, overrides| match ttl.lifetime(received) {
            Some(lifetime) => Ok(counts.then_some(Given { lifetime, overrides })),
            None => Err(NotStored::Rule),
        };
        if let Some(ttl) = self.over {
            return give(ttl, true);
        }
        if let Some(ttl) = self.default.filter(|_| !speaks) {
            return give(ttl, false);
        }
        let own = freshness.lifetime.saturating_sub(freshness.initial_age);
        let has_own = speaks || !freshness.lifetime.is_zero();
        let limited = own.max(self.min.unwrap_or_default()).min(self.max.unwrap_or(Duration::MAX));
        Ok((has_own && limited != own).then_some(Given { lifetime: limited, overrides: false }))
    }
}
