//! What is counted, each with a number of its own: the same for the statistics and for the metrics.
//!
//! Promises: a hit has the number 0, so that counting it looks nothing up; a word that is not in these lists counts as
//! the last of them.

use crate::control::Outcome;

/// Something that happened.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Count {
    /// A request was answered.
    Answer(Outcome),
    /// It was answered by another one's fetch.
    Collapsed,
    /// A response was stored.
    Stored,
    /// A stored response was freshened.
    Freshened,
    /// A response was not stored, for this reason.
    Unstored(&'static str),
    /// The inner service failed.
    OriginError,
    /// A background refresh came to this end.
    Refresh(&'static str),
    /// An entry was invalidated, for this cause.
    Invalidation(&'static str),
}

/// What is under way, or holds, at a time.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "metrics"), allow(dead_code))]
pub(crate) enum Gauge {
    OriginRequests,
    Refreshes,
    /// The breaker is open.
    LeftAlone,
}

/// The outcomes with their reasons.
pub(super) const ANSWERS: [(&str, &str); 35] = [
    ("hit", "none"),
    ("stale", "max-stale"),
    ("stale", "stale-while-revalidate"),
    ("stale", "stale-if-error"),
    ("stale", "failing"),
    ("stale", "force-cache"),
    ("revalidated", "stale"),
    ("revalidated", "no-cache"),
    ("revalidated", "vary"),
    ("revalidated", "request"),
    ("miss", "absent"),
    ("miss", "vary"),
    ("miss", "invalidated"),
    ("miss", "expired"),
    ("miss", "replaced"),
    ("miss", "reload"),
    ("miss", "body-gone"),
    ("miss", "storage-failed"),
    ("miss", "method"),
    ("bypass", "method"),
    ("bypass", "no-host"),
    ("bypass", "malformed-host"),
    ("bypass", "no-resource"),
    ("bypass", "content"),
    ("bypass", "unknown-body"),
    ("bypass", "not-replayable"),
    ("bypass", "content-too-long"),
    ("bypass", "upgrade"),
    ("bypass", "condition"),
    ("bypass", "disabled"),
    ("bypass", "filtered"),
    ("bypass", "axum"),
    ("refused", "none"),
    ("failed", "none"),
    ("other", "none"),
];

/// Why responses are not stored.
pub(super) const REASONS: [&str; 32] = [
    "method",
    "bypassed",
    "request-no-store",
    "no-store",
    "private",
    "authorization",
    "vary-any",
    "set-cookie",
    "status",
    "status-of-request",
    "must-understand",
    "partial-content",
    "no-freshness",
    "stale",
    "rule",
    "filtered",
    "too-small",
    "read-only",
    "too-many-fields",
    "too-many-groups",
    "group-invalidated",
    "redirected",
    "too-large",
    "storage-failed",
    "storage-busy",
    "no-runtime",
    "client-headers",
    "incomplete",
    "length",
    "superseded",
    "invalidated",
    "other",
];

/// How background refreshes end.
pub(super) const ENDS: [&str; 4] = ["done", "failed", "timeout", "needless"];

/// Why entries are invalidated.
pub(super) const CAUSES: [&str; 5] = ["method", "head", "group", "hand", "other"];

const COLLAPSED: usize = ANSWERS.len();
const STORED: usize = COLLAPSED + 1;
const FRESHENED: usize = STORED + 1;
const ORIGIN_ERROR: usize = FRESHENED + 1;
const UNSTORED: usize = ORIGIN_ERROR + 1;
const REFRESH: usize = UNSTORED + REASONS.len();
const INVALIDATION: usize = REFRESH + ENDS.len();
/// How many numbers there are.
pub(super) const LEN: usize = INVALIDATION + CAUSES.len();

impl Count {
    #[inline]
    pub(super) fn number(self) -> usize {
        match self {
            Self::Answer(Outcome::Hit) => 0,
            Self::Answer(outcome) => among(&ANSWERS, outcome.words()),
            Self::Collapsed => COLLAPSED,
            Self::Stored => STORED,
            Self::Freshened => FRESHENED,
            Self::OriginError => ORIGIN_ERROR,
            Self::Unstored(reason) => UNSTORED + among(&REASONS, reason),
            Self::Refresh(end) => REFRESH + among(&ENDS, end),
            Self::Invalidation(cause) => INVALIDATION + among(&CAUSES, cause),
        }
    }
}

fn among<T: PartialEq>(all: &[T], one: T) -> usize {
    all.iter().position(|other| *other == one).unwrap_or(all.len() - 1)
}

/// The metric of a number, and its labels.
#[cfg(feature = "metrics")]
pub(super) fn series(number: usize) -> (&'static str, Vec<(&'static str, &'static str)>) {
    match number {
        COLLAPSED => ("http_cache_requests_collapsed_total", Vec::new()),
        STORED => ("http_cache_responses_stored_total", Vec::new()),
        FRESHENED => ("http_cache_responses_freshened_total", Vec::new()),
        ORIGIN_ERROR => ("http_cache_origin_errors_total", Vec::new()),
        answer if answer < COLLAPSED => {
            let (outcome, reason) = ANSWERS[answer];
            ("http_cache_requests_total", vec![("outcome", outcome), ("reason", reason)])
        }
        unstored if unstored < REFRESH => {
            ("http_cache_responses_not_stored_total", vec![("reason", REASONS[unstored - UNSTORED])])
        }
        refresh if refresh < INVALIDATION => {
            ("http_cache_background_refreshes_total", vec![("result", ENDS[refresh - REFRESH])])
        }
        cause => {
            let cause = CAUSES.get(cause - INVALIDATION).unwrap_or(&"other");
            ("http_cache_invalidations_total", vec![("cause", cause)])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{BypassReason, MissReason, Stored};
    use crate::policy::{NotStored, StaleReason, ValidateReason};

    #[test]
    fn each_outcome_has_a_number_of_its_own() {
        use MissReason::*;
        let reasons = [ValidateReason::Stale, ValidateReason::NoCache, ValidateReason::Vary];
        let stale = [StaleReason::MaxStale, StaleReason::WhileRevalidate, StaleReason::IfError];
        let stale = stale.into_iter().chain([StaleReason::Forced, StaleReason::Failing]).map(Outcome::Stale);
        let reasons = reasons.into_iter().chain([ValidateReason::Request]).map(Outcome::Revalidated);
        let replaced = Replaced(ValidateReason::Stale);
        let misses = [Absent, Vary, Invalidated, Expired, replaced, Reload, BodyGone, StorageFailed, Method];
        let misses = misses.into_iter().map(Outcome::Miss);
        let bypasses = [
            BypassReason::Method,
            BypassReason::NoHost,
            BypassReason::MalformedHost,
            BypassReason::NoResource,
            BypassReason::Content,
            BypassReason::UnknownBody,
            BypassReason::NotReplayable,
            BypassReason::ContentTooLong,
            BypassReason::Upgrade,
            BypassReason::Condition,
            BypassReason::Disabled,
            BypassReason::Filtered,
            BypassReason::Axum,
        ];
        let misses = misses.chain(bypasses.into_iter().map(Outcome::Bypass));
        let others = [Outcome::Hit, Outcome::Refused, Outcome::Failed];
        let mut numbers: Vec<_> = stale.chain(reasons).chain(misses).chain(others).collect::<Vec<_>>();
        assert_eq!(numbers.len(), ANSWERS.len() - 1);
        numbers.sort_by_key(|outcome| Count::Answer(*outcome).number());
        numbers.dedup_by_key(|outcome| Count::Answer(*outcome).number());
        assert_eq!(numbers.len(), ANSWERS.len() - 1);
        assert!(numbers.iter().all(|outcome| Count::Answer(*outcome).number() < ANSWERS.len() - 1));
    }

    #[test]
    fn reasons_that_are_told_are_in_the_list() {
        let all = [
            Stored::No(NotStored::Redirected),
            Stored::No(NotStored::TooLarge),
            Stored::No(NotStored::LengthMismatch),
            Stored::No(NotStored::StorageFailed),
            Stored::No(NotStored::StorageBusy),
            Stored::No(NotStored::NoRuntime),
        ];
        let last = [
            Stored::No(NotStored::ClientHeaders),
            Stored::No(NotStored::StatusOfRequest),
            Stored::No(NotStored::Rule),
        ];
        for stored in all.into_iter().chain(last) {
            assert!(REASONS[..29].contains(&stored.word()), "{stored:?}");
            assert!(stored.reason().is_some());
        }
        assert_eq!((Stored::Storing.reason(), Stored::Unchanged.reason()), (None, None));
    }
}
