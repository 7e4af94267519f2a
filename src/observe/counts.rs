//! The list of everything that is counted, which the statistics and the metrics share.
//!
//! Each thing that is counted has a number, the index of its counter.
//!
//! # Invariants
//!
//! - A hit has the number 0, so that counting it needs no search.
//! - A word that is not in one of these lists is counted as the last word of the list.

use crate::control::Outcome;
use crate::storage::tiered::Level;

/// An event that increments a counter.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Count {
    /// A request was answered.
    Answer(Outcome),
    /// A request was answered by the fetch of another request.
    Collapsed,
    /// A request was answered with a copy of a tiered storage's near level.
    Level(Level),
    /// A response was stored.
    Stored,
    /// A stored response was freshened.
    Freshened,
    /// A response was not stored, for this reason.
    Unstored(&'static str),
    /// The inner service failed.
    OriginError,
    /// A background refresh ended with this result.
    Refresh(&'static str),
    /// A body broke off, and continuing it had this result.
    Resumption(&'static str),
    /// An entry was invalidated, for this cause.
    Invalidation(&'static str),
}

/// A number that rises and falls.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "metrics"), allow(dead_code))]
pub(crate) enum Gauge {
    /// Requests to the inner service that wait for the head of a response.
    OriginRequests,
    /// Background refreshes that are running.
    Refreshes,
    /// Whether a circuit breaker of the storage is open.
    BreakerOpen,
}

/// The outcomes with their reasons.
pub(super) const OUTCOMES: [(&str, &str); 39] = [
    ("hit", "none"),
    ("stale", "max-stale"),
    ("stale", "stale-while-revalidate"),
    ("stale", "stale-if-error"),
    ("stale", "failing"),
    ("stale", "slow"),
    ("stale", "force-cache"),
    ("revalidated", "stale"),
    ("revalidated", "expired"),
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
    ("miss", "partial"),
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
    ("fallback", "none"),
    ("other", "none"),
];

/// The reasons why responses are not stored.
pub(super) const UNSTORED_REASONS: [&str; 36] = [
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
    "grpc-status",
    "partial-content",
    "content-range",
    "already-stored",
    "too-many-parts",
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

/// The results of background refreshes.
pub(super) const REFRESH_RESULTS: [&str; 4] = ["done", "failed", "timeout", "needless"];

/// The results of continuing bodies that broke off.
pub(super) const RESUMPTION_RESULTS: [&str; 3] = ["done", "changed", "failed"];

/// The causes of invalidations.
pub(super) const INVALIDATION_CAUSES: [&str; 6] = ["method", "head", "group", "manual", "expiry", "other"];

// The numbers follow each other without gaps: first the outcomes, then the single counters, then one range for each list.
const COLLAPSED: usize = OUTCOMES.len();
const NEAR: usize = COLLAPSED + 1;
const NEAR_UNCHECKED: usize = NEAR + 1;
const STORED: usize = NEAR_UNCHECKED + 1;
const FRESHENED: usize = STORED + 1;
const ORIGIN_ERROR: usize = FRESHENED + 1;
const UNSTORED: usize = ORIGIN_ERROR + 1;
const REFRESH: usize = UNSTORED + UNSTORED_REASONS.len();
const RESUMPTION: usize = REFRESH + REFRESH_RESULTS.len();
const INVALIDATION: usize = RESUMPTION + RESUMPTION_RESULTS.len();
/// The number of counters.
pub(super) const LEN: usize = INVALIDATION + INVALIDATION_CAUSES.len();

impl Count {
    /// Returns the index of the counter.
    #[inline]
    pub(super) fn number(self) -> usize {
        match self {
            // By far the most frequent: it must not search the list.
            Self::Answer(Outcome::Hit) => 0,
            Self::Answer(outcome) => index_in(&OUTCOMES, outcome.words()),
            Self::Collapsed => COLLAPSED,
            Self::Level(Level::Near) => NEAR,
            Self::Level(Level::NearUnchecked) => NEAR_UNCHECKED,
            Self::Stored => STORED,
            Self::Freshened => FRESHENED,
            Self::OriginError => ORIGIN_ERROR,
            Self::Unstored(reason) => UNSTORED + index_in(&UNSTORED_REASONS, reason),
            Self::Refresh(end) => REFRESH + index_in(&REFRESH_RESULTS, end),
            Self::Resumption(result) => RESUMPTION + index_in(&RESUMPTION_RESULTS, result),
            Self::Invalidation(cause) => INVALIDATION + index_in(&INVALIDATION_CAUSES, cause),
        }
    }
}

/// Returns the index of a word in a list.
///
/// Returns the last index for a word that is not listed.
fn index_in<T: PartialEq>(list: &[T], word: T) -> usize {
    list.iter().position(|listed| *listed == word).unwrap_or(list.len() - 1)
}

/// Returns the name and the labels of the metric with a number.
#[cfg(feature = "metrics")]
pub(super) fn series(number: usize) -> (&'static str, Vec<(&'static str, &'static str)>) {
    match number {
        COLLAPSED => ("http_cache_requests_collapsed_total", Vec::new()),
        NEAR => ("http_cache_near_copies_served_total", vec![("checked", "true")]),
        NEAR_UNCHECKED => ("http_cache_near_copies_served_total", vec![("checked", "false")]),
        STORED => ("http_cache_responses_stored_total", Vec::new()),
        FRESHENED => ("http_cache_responses_freshened_total", Vec::new()),
        ORIGIN_ERROR => ("http_cache_origin_errors_total", Vec::new()),
        answer if answer < COLLAPSED => {
            let (outcome, reason) = OUTCOMES[answer];
            ("http_cache_requests_total", vec![("outcome", outcome), ("reason", reason)])
        }
        unstored if unstored < REFRESH => {
            ("http_cache_responses_not_stored_total", vec![("reason", UNSTORED_REASONS[unstored - UNSTORED])])
        }
        refresh if refresh < RESUMPTION => {
            ("http_cache_background_refreshes_total", vec![("result", REFRESH_RESULTS[refresh - REFRESH])])
        }
        resumption if resumption < INVALIDATION => {
            let result = RESUMPTION_RESULTS[resumption - RESUMPTION];
            ("http_cache_body_resumptions_total", vec![("result", result)])
        }
        cause => {
            let cause = INVALIDATION_CAUSES.get(cause - INVALIDATION).unwrap_or(&"other");
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
    fn each_outcome_has_its_own_number() {
        use MissReason::*;
        let reasons =
            [ValidateReason::Stale, ValidateReason::Expired, ValidateReason::NoCache, ValidateReason::Vary];
        let stale = [StaleReason::MaxStale, StaleReason::WhileRevalidate, StaleReason::IfError];
        let stale = stale
            .into_iter()
            .chain([StaleReason::Forced, StaleReason::Failing, StaleReason::Slow])
            .map(Outcome::Stale);
        let reasons = reasons.into_iter().chain([ValidateReason::Request]).map(Outcome::Revalidated);
        let replaced = Replaced(ValidateReason::Stale);
        let misses =
            [Absent, Vary, Invalidated, Expired, replaced, Reload, BodyGone, Partial, StorageFailed, Method];
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
        let others = [Outcome::Hit, Outcome::Refused, Outcome::Failed, Outcome::Fallback];
        let mut numbers: Vec<_> = stale.chain(reasons).chain(misses).chain(others).collect::<Vec<_>>();
        assert_eq!(numbers.len(), OUTCOMES.len() - 1);
        numbers.sort_by_key(|outcome| Count::Answer(*outcome).number());
        numbers.dedup_by_key(|outcome| Count::Answer(*outcome).number());
        assert_eq!(numbers.len(), OUTCOMES.len() - 1);
        assert!(numbers.iter().all(|outcome| Count::Answer(*outcome).number() < OUTCOMES.len() - 1));
    }

    #[test]
    fn stored_reasons_are_in_the_list() {
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
            assert!(UNSTORED_REASONS[..33].contains(&stored.word()), "{stored:?}");
            assert!(stored.reason().is_some());
        }
        assert_eq!((Stored::Storing.reason(), Stored::Unchanged.reason()), (None, None));
    }
}
