//! The words by which outcomes and reasons are counted and told.

use super::status::{MissReason, Outcome, Stored};
use crate::policy::{StaleReason, ValidateReason};

impl Outcome {
    /// The outcome and its reason, `none` where there is none to tell.
    pub(crate) fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Hit => ("hit", "none"),
            Self::Stale(reason) => ("stale", stale(reason)),
            Self::Revalidated(reason) => ("revalidated", validated(reason)),
            Self::Miss(reason) => ("miss", missed(reason)),
            Self::Bypass => ("bypass", "none"),
            Self::Refused => ("refused", "none"),
            Self::Failed => ("failed", "none"),
        }
    }
}

impl Stored {
    /// What became of the response, in one word: the reason where it is not stored.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Storing => "storing",
            Self::Freshened => "freshened",
            Self::Unchanged => "unchanged",
            Self::No(reason) => reason.word(),
            Self::Redirected => "redirected",
            Self::TooLarge => "too-large",
            Self::Length => "length",
            Self::Storage => "storage-failed",
            Self::Busy => "storage-busy",
            Self::NoRuntime => "no-runtime",
            Self::ClientHeaders => "client-headers",
        }
    }

    /// Why it is not stored.
    pub(crate) fn reason(self) -> Option<&'static str> {
        match self {
            Self::Storing | Self::Freshened | Self::Unchanged => None,
            _ => Some(self.word()),
        }
    }
}

fn stale(reason: StaleReason) -> &'static str {
    match reason {
        StaleReason::MaxStale => "max-stale",
        StaleReason::WhileRevalidate => "stale-while-revalidate",
        StaleReason::OnError => "stale-if-error",
        StaleReason::Failing => "failing",
        StaleReason::Forced => "force-cache",
    }
}

fn validated(reason: ValidateReason) -> &'static str {
    match reason {
        ValidateReason::Stale => "stale",
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
        MissReason::Storage => "storage-failed",
        MissReason::Method => "method",
    }
}
