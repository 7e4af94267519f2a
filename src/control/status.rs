//! What the cache tells about a response: [`CacheStatus`].
//!
//! Promises: every response that went through the cache has one; it is `Copy` and allocates nothing; its text form is
//! the value of a `Cache-Status` member (RFC 9211).

use std::fmt;
use std::time::Duration;

use crate::policy::{NotStored, StaleReason, ValidateReason};

/// What the cache did about one request, and why. It is in the extensions of every response, and in
/// [`CacheBody::status`](crate::CacheBody::status).
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
    pub(crate) age: Option<Duration>,
    pub(crate) ttl: Option<i64>,
    pub(crate) origin_status: Option<u16>,
    pub(crate) collapsed: bool,
    /// The storage has acknowledged what this response brought.
    pub(crate) is_stored: bool,
    /// It was fetched for the store alone: no request gets it.
    pub(crate) beside: bool,
}

/// Where the response came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// From the storage, fresh.
    Hit,
    /// From the storage, though stale.
    Stale(StaleReason),
    /// From the storage, after the origin confirmed it (304).
    Revalidated(ValidateReason),
    /// From the origin: nothing stored could be used.
    Miss(MissReason),
    /// From the origin: the cache neither answers such a request nor stores its response.
    Bypass(BypassReason),
    /// From the cache itself (504): the request wants only what is stored, and that is not there.
    Refused,
    /// From the cache itself (503): the store failed, and the cache is set to fail closed.
    Failed,
}

/// Why a request passed the cache by.
///
/// Some are a mistake of the program that sets the cache up ([`NoHost`](Self::NoHost), [`UnknownBody`](Self::UnknownBody),
/// [`NotReplayable`](Self::NotReplayable), [`Axum`](Self::Axum)): a layer tells each of these once, as a warning by
/// `tracing` with what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BypassReason {
    /// The cache answers no request of this method.
    Method,
    /// Neither its URI nor a Host field names a host (RFC 9110 §7.1), and the layer has no
    /// [`default_authority`](crate::CacheLayerBuilder::default_authority).
    NoHost,
    /// Its Host field is malformed or repeated (RFC 9112 §3.2), or its URI names no valid host.
    MalformedHost,
    /// Its target is no resource: `*`, or an authority alone.
    NoResource,
    /// It is a GET or a HEAD with content.
    Content,
    /// It is a GET or a HEAD whose body does not say whether it is empty: `is_end_stream` is false, and `size_hint` is
    /// not exact.
    UnknownBody,
    /// Its content would tell it apart, and cannot be sent anew once it was read: its body's type needs
    /// `CacheLayerBuilder::replay_content` (feature `content-keys`), or a reqwest body is a stream.
    NotReplayable,
    /// Its content would tell it apart, and could not be read whole: it is longer than
    /// `CacheLayerBuilder::max_content_bytes` (feature `content-keys`), has trailers, or failed.
    ContentTooLong,
    /// It asks for another protocol: Upgrade.
    Upgrade,
    /// It has a condition that only the origin can evaluate: If-Match or If-Unmodified-Since (RFC 9111 §4.3.2). For a
    /// request that is told apart by its content, any condition and a range.
    Condition,
    /// The cache is switched off for it: [`CacheLayer::disable`](crate::CacheLayer::disable),
    /// [`scope::disabled`](crate::scope::disabled) or [`CacheMode::NoStore`](crate::CacheMode::NoStore).
    Disabled,
    /// A [filter](crate::CacheLayerBuilder::filter_request) of the user says so.
    Filtered,
    /// Its body is axum's, and the cache cannot see which path was asked for: the feature `axum` is off, or for another
    /// version of axum.
    Axum,
}

/// Why nothing stored could be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MissReason {
    /// Nothing is stored for this URI.
    Absent,
    /// What is stored answers other requests (Vary, or other credentials).
    Vary,
    /// It was invalidated, or is being written.
    Invalidated,
    /// It is too old even to be revalidated.
    Expired,
    /// It had to be revalidated, and the origin sent a new response.
    Replaced(ValidateReason),
    /// The request wants the origin's response: [`CacheMode::Reload`](crate::CacheMode).
    Reload,
    /// The stored body was gone.
    BodyGone,
    /// The store failed, was too slow, or is left alone for a while since it did.
    StorageFailed,
    /// The request's method is not safe: it goes to the origin.
    Method,
}

/// What became of the response in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stored {
    /// It is stored once its body has come to a clean end, if the store takes it then.
    Storing,
    /// What was stored is freshened.
    Freshened,
    /// It comes from the store, which is unchanged.
    Unchanged,
    /// It is not stored, for this reason.
    No(NotStored),
}

impl CacheStatus {
    pub(crate) fn new(outcome: Outcome, stored: Stored) -> Self {
        Self {
            outcome,
            stored,
            age: None,
            ttl: None,
            origin_status: None,
            collapsed: false,
            is_stored: false,
            beside: false,
        }
    }

    /// Where the response came from.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// What became of the response in the store.
    pub fn stored(&self) -> Stored {
        self.stored
    }

    /// True when the response came from the storage without asking the origin, fresh or stale.
    pub fn is_hit(&self) -> bool {
        matches!(self.outcome, Outcome::Hit | Outcome::Stale(_))
    }

    /// True when the response came from the storage though it is stale.
    pub fn is_stale(&self) -> bool {
        matches!(self.outcome, Outcome::Stale(_))
    }

    /// True when the origin confirmed the stored response.
    pub fn is_revalidated(&self) -> bool {
        matches!(self.outcome, Outcome::Revalidated(_))
    }

    /// True when the response is the origin's.
    pub fn is_miss(&self) -> bool {
        matches!(self.outcome, Outcome::Miss(_) | Outcome::Bypass(_))
    }

    /// The age of a stored response (RFC 9111 §4.2.3); `None` for one that is not from the storage.
    pub fn age(&self) -> Option<Duration> {
        self.age
    }

    /// How many seconds the response stays fresh, negative once it is stale; `None` where that is not known.
    pub fn ttl(&self) -> Option<i64> {
        self.ttl
    }

    /// True when another request's fetch answered this one as well (RFC 9211 §2.7).
    pub fn is_collapsed(&self) -> bool {
        self.collapsed
    }

    /// One word: `hit`, `stale`, `revalidated`, `miss`, `bypass`, `refused` or `failed`.
    pub fn word(&self) -> &'static str {
        self.outcome.words().0
    }
}

impl fmt::Display for CacheStatus {
    /// Writes the parameters of RFC 9211 §2: `hit`, or `fwd=…` with its reason, then `ttl`, `stored` and a `detail`.
    ///
    /// `stored` says that the storage has the response (§2.5). A response whose body is still to come does not say it, since
    /// that may break off; a 304 does, where the storage acknowledges at once.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.outcome {
            // The origin was asked, so that this is no hit (RFC 9211 §2.1).
            Outcome::Stale(StaleReason::IfError) => f.write_str("fwd=stale")?,
            Outcome::Hit | Outcome::Stale(_) => f.write_str("hit")?,
            Outcome::Revalidated(reason) => write!(f, "fwd={}", forward(reason))?,
            Outcome::Miss(reason) => f.write_str(match reason {
                MissReason::Absent | MissReason::Invalidated | MissReason::StorageFailed => "fwd=uri-miss",
                MissReason::Vary => "fwd=vary-miss",
                MissReason::Expired | MissReason::BodyGone => "fwd=miss",
                MissReason::Method => "fwd=method",
                MissReason::Reload | MissReason::Replaced(ValidateReason::Request) => "fwd=request",
                MissReason::Replaced(_) => "fwd=stale",
            })?,
            Outcome::Bypass(_) => f.write_str("fwd=bypass")?,
            Outcome::Refused | Outcome::Failed => {}
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
            (Outcome::Stale(reason), _) => write!(f, "; detail={reason}"),
            (Outcome::Bypass(reason), _) => write!(f, "; detail={}", reason.word()),
            (_, Stored::No(reason)) => write!(f, "; detail={reason}"),
            (Outcome::Miss(MissReason::StorageFailed), _) => f.write_str("; detail=storage-failed"),
            _ => Ok(()),
        }
    }
}

fn forward(reason: ValidateReason) -> &'static str {
    match reason {
        ValidateReason::Request => "request",
        ValidateReason::Vary => "vary-miss",
        ValidateReason::Stale | ValidateReason::NoCache => "stale",
    }
}
