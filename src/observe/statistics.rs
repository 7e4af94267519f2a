//! The numbers of a cache so far: [`Statistics`].

use std::fmt;

use super::counts::{Count, LEN, OUTCOMES};
use crate::control::{BypassReason, MissReason, Outcome};
use crate::policy::StaleReason;
use crate::storage::tiered::Level;

/// The numbers of a cache since it was built.
///
/// [`CacheLayer::statistics`](crate::CacheLayer::statistics) returns them. They are displayed as one line of `name=number`.
///
/// The numbers only grow, and wrap at 2⁶⁴. They are read one after another while the cache runs, so that sums may differ by
/// the requests that are answered meanwhile.
///
/// ```
/// # #[cfg(feature = "memory")] {
/// use tower_response_cache::{CacheLayer, storage::MemoryStorage};
///
/// let layer = CacheLayer::new(MemoryStorage::new());
/// let statistics = layer.statistics();
/// assert_eq!((statistics.requests(), statistics.hits()), (0, 0));
/// println!("{statistics}"); // requests=0 hits=0 stale=0 …
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Statistics {
    counts: [u64; LEN],
}

impl Statistics {
    pub(super) fn new(counts: [u64; LEN]) -> Self {
        Self { counts }
    }

    /// Returns the number of one event.
    fn of(&self, count: Count) -> u64 {
        self.counts[count.number()]
    }

    /// Returns the number of responses with an outcome, for all of its reasons.
    fn answers(&self, word: &str) -> u64 {
        let all = OUTCOMES.iter().zip(&self.counts);
        all.filter(|((outcome, _), _)| *outcome == word).map(|(_, count)| count).sum()
    }

    /// Returns the number of requests that got a response.
    ///
    /// A request gets no response if the inner service failed with an error and no stale response could be served instead.
    pub fn requests(&self) -> u64 {
        self.counts[..OUTCOMES.len()].iter().sum()
    }

    /// Returns the number of requests that were answered with a fresh stored response.
    pub fn hits(&self) -> u64 {
        self.of(Count::Answer(Outcome::Hit))
    }

    /// Returns the number of requests that were answered with a stale stored response.
    pub fn stale(&self) -> u64 {
        self.answers("stale")
    }

    /// Returns the number of requests that were answered with a stale response for a reason.
    pub fn stale_by(&self, reason: StaleReason) -> u64 {
        self.of(Count::Answer(Outcome::Stale(reason)))
    }

    /// Returns the number of requests answered with a stored response that the origin confirmed.
    pub fn revalidated(&self) -> u64 {
        self.answers("revalidated")
    }

    /// Returns the number of requests for which no stored response could be used.
    pub fn misses(&self) -> u64 {
        self.answers("miss")
    }

    /// Returns the number of misses for a reason.
    ///
    /// All [`Replaced`](MissReason::Replaced) are counted together, whatever the reason for the validation was.
    pub fn misses_by(&self, reason: MissReason) -> u64 {
        self.of(Count::Answer(Outcome::Miss(reason)))
    }

    /// Returns the number of requests that bypassed the cache.
    pub fn bypassed(&self) -> u64 {
        self.answers("bypass")
    }

    /// Returns the number of requests that bypassed the cache for a reason.
    pub fn bypassed_by(&self, reason: BypassReason) -> u64 {
        self.of(Count::Answer(Outcome::Bypass(reason)))
    }

    /// Returns the number of requests that were answered with 504 (Gateway Timeout).
    ///
    /// They accept only a stored response (`only-if-cached`), and none could be used.
    pub fn refused(&self) -> u64 {
        self.of(Count::Answer(Outcome::Refused))
    }

    /// Returns the number of requests that were answered with 503 (Service Unavailable).
    ///
    /// The storage failed, and [`fail_closed`](crate::CacheLayerBuilder::fail_closed) is set.
    pub fn failed(&self) -> u64 {
        self.of(Count::Answer(Outcome::Failed))
    }

    /// Returns the number of requests that were answered by the function of
    /// [`fallback_after`](crate::CacheLayerBuilder::fallback_after), since the inner service took too long.
    pub fn fallbacks(&self) -> u64 {
        self.of(Count::Answer(Outcome::Fallback))
    }

    /// Returns the number of requests that were answered by another request's fetch.
    ///
    /// Each of them is counted by its outcome as well, for example as a miss.
    pub fn collapsed(&self) -> u64 {
        self.of(Count::Collapsed)
    }

    /// Returns the number of requests that were answered with a copy of a tiered storage's near level.
    ///
    /// Each of them is counted by its outcome as well, for example as a hit.
    pub fn near(&self) -> u64 {
        self.of(Count::Level(Level::Near)) + self.near_unchecked()
    }

    /// Returns the number of these for which the far level could not be asked.
    pub fn near_unchecked(&self) -> u64 {
        self.of(Count::Level(Level::NearUnchecked))
    }

    /// Returns the number of responses that were stored.
    pub fn stored(&self) -> u64 {
        self.of(Count::Stored)
    }

    /// Returns the number of stored responses that were freshened by the origin and written again.
    pub fn freshened(&self) -> u64 {
        self.of(Count::Freshened)
    }

    /// Returns the number of responses not stored because of a change during their fetch.
    ///
    /// Another response was stored under their key meanwhile, or the entry was invalidated.
    pub fn superseded(&self) -> u64 {
        self.of(Count::Unstored("superseded")) + self.of(Count::Unstored("invalidated"))
    }

    /// Returns the number of responses that were not stored because the storage failed.
    ///
    /// A storage also fails if it refuses a record, or does not answer in time.
    pub fn storage_failures(&self) -> u64 {
        self.of(Count::Unstored("storage-failed"))
    }

    /// Returns the number of errors of the inner service, including those of background refreshes.
    pub fn origin_errors(&self) -> u64 {
        self.of(Count::OriginError)
    }

    /// Returns the number of background refreshes that ended, whatever their result.
    pub fn refreshes(&self) -> u64 {
        super::counts::REFRESH_RESULTS.iter().map(|end| self.of(Count::Refresh(end))).sum()
    }

    /// Returns the number of bodies that broke off and were continued.
    ///
    /// [`resume`](crate::CacheLayerBuilder::resume) switches that on. A body that breaks off twice is counted twice.
    pub fn resumed(&self) -> u64 {
        self.of(Count::Resumption("done"))
    }

    /// Returns the number of invalidations.
    pub fn invalidations(&self) -> u64 {
        super::counts::INVALIDATION_CAUSES.iter().map(|cause| self.of(Count::Invalidation(cause))).sum()
    }

    /// Returns the numbers of answered requests by outcome and reason.
    #[cfg(feature = "admin")]
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        OUTCOMES.iter().zip(self.counts).map(|((outcome, reason), count)| (*outcome, *reason, count))
    }

    /// Returns the numbers of responses that were not stored, by reason.
    #[cfg(feature = "admin")]
    pub(crate) fn unstored(&self) -> impl Iterator<Item = (&'static str, u64)> {
        super::counts::UNSTORED_REASONS.iter().map(|reason| (*reason, self.of(Count::Unstored(reason))))
    }

    /// Returns all numbers under their names.
    pub(crate) fn all(&self) -> [(&'static str, u64); 19] {
        [
            ("requests", self.requests()),
            ("hits", self.hits()),
            ("stale", self.stale()),
            ("revalidated", self.revalidated()),
            ("misses", self.misses()),
            ("bypassed", self.bypassed()),
            ("refused", self.refused()),
            ("failed", self.failed()),
            ("collapsed", self.collapsed()),
            ("near", self.near()),
            ("near_unchecked", self.near_unchecked()),
            ("stored", self.stored()),
            ("freshened", self.freshened()),
            ("superseded", self.superseded()),
            ("storage_failures", self.storage_failures()),
            ("origin_errors", self.origin_errors()),
            ("refreshes", self.refreshes()),
            ("resumed", self.resumed()),
            ("invalidations", self.invalidations()),
        ]
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, number) in self.all() {
            write!(f, "{separator}{name}={number}")?;
            separator = " ";
        }
        Ok(())
    }
}

impl fmt::Debug for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Statistics");
        for (name, number) in self.all() {
            fields.field(name, &number);
        }
        fields.finish()
    }
}
