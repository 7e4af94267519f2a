//! The words for outcomes and reasons in metrics, events and Cache-Status.

use super::status::{BypassReason, MissReason, Outcome, Stored};
use crate::policy::{StaleReason, ValidateReason};

impl Outcome {
    /// Returns the words for the outcome and its reason, `none` if it has none.
    pub(crate) fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Hit => ("hit", "none"),
            Self::Stale(reason) => ("stale", stale(reason)),
            Self::Revalidated(reason) => ("revalidated", validated(reason)),
            Self::Miss(reason) => ("miss", missed(reason)),
            Self::Bypass(reason) => ("bypass", reason.word()),
            Self::Refused => ("refused", "none"),
            Self::Failed => ("failed", "none"),
            Self::Fallback => ("fallback", "none"),
        }
    }
}

impl Stored {
    /// Returns a word for what became of the response: the reason if it is not stored.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Storing => "storing",
            Self::Freshened => "freshened",
            Self::Unchanged => "unchanged",
            Self::No(reason) => reason.word(),
        }
    }

    /// Returns the word for the reason if the response is not stored.
    pub(crate) fn reason(self) -> Option<&'static str> {
        match self {
            Self::Storing | Self::Freshened | Self::Unchanged => None,
            Self::No(reason) => Some(reason.word()),
        }
    }
}

impl BypassReason {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::NoHost => "no-host",
            Self::MalformedHost => "malformed-host",
            Self::NoResource => "no-resource",
            Self::Content => "content",
            Self::UnknownBody => "unknown-body",
            Self::NotReplayable => "not-replayable",
            Self::ContentTooLong => "content-too-long",
            Self::Upgrade => "upgrade",
            Self::Condition => "condition",
            Self::Disabled => "disabled",
            Self::Filtered => "filtered",
            Self::Axum => "axum",
        }
    }

    /// Returns what to do about the reason, if it is a mistake in the setup of the cache.
    pub(crate) fn advice(self) -> Option<&'static str> {
        Some(match self {
            Self::NoHost => {
                "the URI names no host, and there is no Host field: send one of them, or set `default_authority` on the \
                 builder"
            }
            Self::UnknownBody => {
                "the body of a GET or HEAD request does not say that it is empty: use `Empty`, `Full`, or a body whose \
                 `size_hint` is exact"
            }
            Self::NotReplayable if cfg!(feature = "reqwest") => {
                "the request's content cannot be sent again: set `replay_content` on the builder for its body's type; \
                 with reqwest use a body in memory, not a stream"
            }
            Self::NotReplayable => {
                "the request's content cannot be sent again: set `replay_content` on the builder for its body's type"
            }
            Self::Axum if cfg!(feature = "axum") => {
                "this axum is not the version of the feature `axum`: use the version that the feature names"
            }
            Self::Axum => {
                "a nested router of axum hides the path that was asked for: enable the feature `axum`"
            }
            _ => return None,
        })
    }
}

fn stale(reason: StaleReason) -> &'static str {
    match reason {
        StaleReason::MaxStale => "max-stale",
        StaleReason::WhileRevalidate => "stale-while-revalidate",
        StaleReason::IfError => "stale-if-error",
        StaleReason::Failing => "failing",
        StaleReason::Slow => "slow",
        StaleReason::Forced => "force-cache",
    }
}

fn validated(reason: ValidateReason) -> &'static str {
    match reason {
        ValidateReason::Stale => "stale",
        ValidateReason::Expired => "expired",
        ValidateReason::NoCache => "no-cache",
        ValidateReason::Vary => "vary",
        ValidateReason::Request => "request",
    }
}

fn missed(reason: MissReason) -> &'static str {
    match reason {
        MissReason::Absent => "absent",
        MissReason::Vary => "vary",
        MissReason::Invalidated => "invalidated",
        MissReason::Expired => "expired",
        MissReason::Replaced(_) => "replaced",
        MissReason::Reload => "reload",
        MissReason::BodyGone => "body-gone",
        MissReason::Partial => "partial",
        MissReason::StorageFailed => "storage-failed",
        MissReason::Method => "method",
    }
}
