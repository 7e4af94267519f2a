//! The status of a response: [`CacheStatus`].
//!
//! # Invariants
//! - Every response that went through the cache has one.
//! - It is `Copy` and allocates nothing.
//! - Its text is the parameters of a member of Cache-Status (RFC 9211).

use std::fmt;
use std::time::Duration;

use super::PartialBody;
use crate::policy::{NotStored, StaleReason, ValidateReason};
use crate::storage::tiered::Level;

/// The outcome of one request in the cache, with the reasons.
///
/// It is in the extensions of every response, and in [`CacheBody::status`](crate::CacheBody::status).
///
/// ```
/// use tower_response_cache::CacheStatus;
///
/// fn report<B>(response: &http::Response<B>) {
///     if let Some(status) = response.extensions().get::<CacheStatus>() {
///         println!("{status}"); // hit; ttl=42
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheStatus {
    pub(crate) outcome: Outcome,
    pub(crate) stored: Stored,
    // Both are short, since each response has a status.
    /// In milliseconds. `u64::MAX` if it is not known.
    pub(crate) age_ms: u64,
    /// In seconds, of which those of 68 years say enough.
    pub(crate) ttl: Option<i32>,
    pub(crate) origin_status: Option<u16>,
    pub(crate) collapsed: bool,
    /// The level of a tiered storage, if a copy was served.
    pub(crate) level: Option<Level>,
    /// The storage has acknowledged the write that this response caused.
    pub(crate) is_stored: bool,
    /// The response was fetched in the background: no request gets it.
    pub(crate) is_background: bool,
    /// The stored response would be fresh, had it not been expired by hand.
    pub(crate) is_expired: bool,
    /// The stored amount of the body when the response began, if it is stored in parts.
    pub(crate) partial: Option<PartialBody>,
}

/// The source of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The storage: a fresh response.
    Hit,
    /// The storage: a stale response that may be served.
    Stale(StaleReason),
    /// The storage: a response that the origin confirmed by 304.
    Revalidated(ValidateReason),
    /// The origin: no stored response could be used.
    Miss(MissReason),
    /// The origin: the request bypassed the cache.
    Bypass(BypassReason),
    /// The cache itself, by 504: the request accepts only a stored response, and there is none.
    Refused,
    /// The cache itself, by 503: the storage failed, and the cache is set to [fail closed](crate::CacheLayerBuilder::fail_closed).
    Failed,
    /// The cache itself, by a function of the user: the origin took longer than
    /// [`fallback_after`](crate::CacheLayerBuilder::fallback_after).
    Fallback,
}

/// The reason why a request bypassed the cache.
///
/// Four of them are usually a mistake in the setup of the cache: [`NoHost`](Self::NoHost),
/// [`UnknownBody`](Self::UnknownBody), [`NotReplayable`](Self::NotReplayable) and [`Axum`](Self::Axum). A layer logs each
/// of these once, as a warning of `tracing` that says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BypassReason {
    /// The method is not one of the cache's [`methods`](crate::CacheLayerBuilder::methods).
    Method,
    /// The request names no host, neither in its URI nor in a Host field (RFC 9110 §7.1), and the layer has no
    /// [`default_authority`](crate::CacheLayerBuilder::default_authority).
    NoHost,
    /// The Host field is malformed or repeated (RFC 9112 §3.2), or the URI has an invalid host.
    MalformedHost,
    /// The target is not a resource: `*`, or an authority alone.
    NoResource,
    /// The request is a GET or HEAD with content.
    Content,
    /// The request is a GET or HEAD whose body does not say whether it is empty.
    ///
    /// `is_end_stream` is false, and `size_hint` is not exact.
    UnknownBody,
    /// The content is part of the key, and could not be sent again after it was read.
    ///
    /// The body's type needs `CacheLayerBuilder::replay_content` (feature `content-keys`), or a reqwest body is a stream.
    NotReplayable,
    /// The content is part of the key, and could not be read whole.
    ///
    /// It is longer than `CacheLayerBuilder::max_content_bytes` (feature `content-keys`), has trailers, or failed.
    ContentTooLong,
    /// The request asks for another protocol by Upgrade.
    Upgrade,
    /// The request has a condition that only the origin can evaluate: If-Match or If-Unmodified-Since (RFC 9111 §4.3.2).
    ///
    /// If content is part of the key, it is any condition, and a range.
    Condition,
    /// The cache is switched off for the request: [`CacheLayer::disable`](crate::CacheLayer::disable),
    /// [`scope::disabled`](crate::scope::disabled) or [`CacheMode::NoStore`](crate::CacheMode::NoStore).
    Disabled,
    /// A [filter](crate::CacheLayerBuilder::filter_request) returned `false` for the request.
    Filtered,
    /// The body is axum's, and the cache cannot see the path that the client asked for.
    ///
    /// The feature `axum` is off, or for another version of axum.
    Axum,
}

/// The reason why no stored response could be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MissReason {
    /// Nothing is stored for this URI.
    Absent,
    /// The stored responses are for requests with other fields (Vary) or other credentials.
    Vary,
    /// The stored response was invalidated, or is being written.
    Invalidated,
    /// The stored response is too old to be kept, even for revalidation.
    Expired,
    /// The stored response had to be validated, and the origin sent a new one.
    Replaced(ValidateReason),
    /// The request asks for a new response ([`CacheMode::Reload`](crate::CacheMode::Reload)).
    Reload,
    /// The stored response has lost its body.
    BodyGone,
    /// Only a part of the wanted bytes is stored. The origin is asked for the others.
    Partial,
    /// The storage failed or was too slow, or is not asked for a while because it did before.
    StorageFailed,
    /// The method is unsafe, so that the request goes to the origin.
    Method,
}

/// The result of storing a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stored {
    /// The response is stored once its body has ended cleanly, if the storage takes it then.
    Storing,
    /// The stored response was freshened.
    Freshened,
    /// The response comes from the storage, and nothing was written.
    Unchanged,
    /// The response is not stored, for this reason.
    No(NotStored),
}

impl CacheStatus {
    pub(crate) fn new(outcome: Outcome, stored: Stored) -> Self {
        Self {
            outcome,
            stored,
            age_ms: u64::MAX,
            ttl: None,
            origin_status: None,
            collapsed: false,
            level: None,
            is_stored: false,
            is_background: false,
            is_expired: false,
            partial: None,
        }
    }

    /// Returns the source of the response.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Returns the result of storing the response.
    pub fn stored(&self) -> Stored {
        self.stored
    }

    /// Returns whether the response came from the storage, fresh or stale, without the origin.
    pub fn is_hit(&self) -> bool {
        matches!(self.outcome, Outcome::Hit | Outcome::Stale(_))
    }

    /// Returns whether the response came from the storage and is stale.
    pub fn is_stale(&self) -> bool {
        matches!(self.outcome, Outcome::Stale(_))
    }

    /// Returns whether the served response is stale only because it was [expired](crate::CacheHandle::expire) by hand.
    ///
    /// [`ValidateReason::Expired`] says it of a response that was validated.
    pub fn is_expired(&self) -> bool {
        self.is_expired
    }

    /// Returns whether the origin confirmed the stored response.
    pub fn is_revalidated(&self) -> bool {
        matches!(self.outcome, Outcome::Revalidated(_))
    }

    /// Returns whether the response came from the origin.
    pub fn is_miss(&self) -> bool {
        matches!(self.outcome, Outcome::Miss(_) | Outcome::Bypass(_))
    }

    /// Returns the age of the response (RFC 9111 §4.2.3), or `None` if it is not from the storage.
    pub fn age(&self) -> Option<Duration> {
        (self.age_ms != u64::MAX).then(|| Duration::from_millis(self.age_ms))
    }

    pub(crate) fn set_age(&mut self, age: Duration) {
        self.age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX - 1);
    }

    /// Returns the remaining freshness lifetime in seconds, or `None` if it is not known.
    ///
    /// It is negative once the response is stale.
    pub fn ttl(&self) -> Option<i64> {
        self.ttl.map(i64::from)
    }

    pub(crate) fn set_ttl(&mut self, ttl: i64) {
        self.ttl = Some(ttl.clamp(i32::MIN.into(), i32::MAX.into()) as i32);
    }

    /// Returns whether the fetch of another request answered this one too (RFC 9211 §2.7).
    pub fn is_collapsed(&self) -> bool {
        self.collapsed
    }

    /// Returns the level of a [`TieredStorage`](crate::storage::TieredStorage) that the stored response came from.
    ///
    /// `None` if it came from the far one, from a storage of one level, or not from a storage.
    pub fn level(&self) -> Option<Level> {
        self.level
    }

    /// Returns how much of the body was stored when the response began, if it is stored in
    /// [parts](crate::CacheLayerBuilder::store_parts).
    ///
    /// As text, a status has it as `detail`, unless that says why nothing was stored.
    pub fn partial(&self) -> Option<PartialBody> {
        self.partial
    }

    /// Returns the outcome as one word.
    ///
    /// It is `hit`, `stale`, `revalidated`, `miss`, `bypass`, `refused` or `failed`.
    pub fn word(&self) -> &'static str {
        self.outcome.words().0
    }
}

impl CacheStatus {
    /// Returns the time to live of a hit whose text is `hit; ttl=` and this number.
    ///
    /// Returns `None` for any other status.
    pub(crate) fn plain_hit_ttl(&self) -> Option<i64> {
        let is_plain = self.outcome == Outcome::Hit && self.stored == Stored::Unchanged;
        let has_more = self.origin_status.is_some()
            || self.is_stored
            || self.collapsed
            || self.level.is_some()
            || self.partial.is_some();
        self.ttl().filter(|_| is_plain && !has_more)
    }
}

impl fmt::Display for CacheStatus {
    /// Writes the parameters of RFC 9211 §2: `hit`, or `fwd` with its reason, then `ttl`, `stored` and `detail`.
    ///
    /// `stored` says that the storage has the response (§2.5). It is absent while the body is still to come, which may break
    /// off. After a 304 it is present if the storage acknowledged the write at once.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.outcome {
            // Not a hit, since the origin was asked (RFC 9211 §2.1).
            Outcome::Stale(StaleReason::IfError | StaleReason::Slow) => f.write_str("fwd=stale")?,
            Outcome::Hit | Outcome::Stale(_) => f.write_str("hit")?,
            Outcome::Revalidated(reason) => write!(f, "fwd={}", forward(reason))?,
            Outcome::Miss(reason) => f.write_str(match reason {
                MissReason::Absent | MissReason::Invalidated | MissReason::StorageFailed => "fwd=uri-miss",
                MissReason::Vary => "fwd=vary-miss",
                MissReason::Expired | MissReason::BodyGone => "fwd=miss",
                MissReason::Partial => "fwd=partial",
                MissReason::Method => "fwd=method",
                MissReason::Reload | MissReason::Replaced(ValidateReason::Request) => "fwd=request",
                MissReason::Replaced(_) => "fwd=stale",
            })?,
            Outcome::Bypass(_) => f.write_str("fwd=bypass")?,
            Outcome::Refused | Outcome::Failed => {}
            Outcome::Fallback => f.write_str("fwd=miss")?,
        }
        if let Some(status) = self.origin_status {
            write!(f, "; fwd-status={status}")?;
        }
        if let Some(ttl) = self.ttl {
            write!(f, "; ttl={ttl}")?;
        }
        if self.is_stored {
            f.write_str("; stored")?;
        }
        if self.collapsed {
            f.write_str("; collapsed")?;
        }
        match (self.outcome, self.stored) {
            (Outcome::Refused, _) => f.write_str("detail=only-if-cached"),
            (Outcome::Failed, _) => f.write_str("detail=storage-failed"),
            (Outcome::Fallback, _) => f.write_str("; detail=fallback"),
            (Outcome::Hit, _) if self.level == Some(Level::Near) => f.write_str("; detail=near"),
            (Outcome::Hit, _) if self.level.is_some() => f.write_str("; detail=near-unchecked"),
            (Outcome::Stale(reason), _) if self.is_expired => write!(f, "; detail=\"expired, {reason}\""),
            (Outcome::Stale(reason), _) => write!(f, "; detail={reason}"),
            (Outcome::Bypass(reason), _) => write!(f, "; detail={}", reason.word()),
            (_, Stored::No(reason)) => write!(f, "; detail={reason}"),
            (Outcome::Miss(MissReason::StorageFailed), _) => f.write_str("; detail=storage-failed"),
            _ => self.partial.map_or(Ok(()), |partial| write!(f, "; detail=\"{partial}\"")),
        }
    }
}

fn forward(reason: ValidateReason) -> &'static str {
    match reason {
        ValidateReason::Request => "request",
        ValidateReason::Vary => "vary-miss",
        ValidateReason::Stale | ValidateReason::Expired | ValidateReason::NoCache => "stale",
    }
}
