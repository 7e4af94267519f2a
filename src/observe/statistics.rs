//! What a cache has done so far: [`Statistics`].

use std::fmt;

use super::counts::{ANSWERS, Count, LEN};
use crate::control::{BypassReason, MissReason, Outcome};
use crate::policy::StaleReason;

/// What a cache has done since it was built, from [`CacheLayer::statistics`](crate::CacheLayer::statistics). Its text form
/// is one line of `name=number`.
///
/// The numbers only grow, and wrap at 2⁶⁴. They are read one after the other while the cache runs, so that their sums may
/// differ by what was just going on.
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

    fn of(&self, count: Count) -> u64 {
        self.counts[count.number()]
    }

    fn answers(&self, word: &str) -> u64 {
        let all = ANSWERS.iter().zip(&self.counts);
        all.filter(|((outcome, _), _)| *outcome == word).map(|(_, count)| count).sum()
    }

    /// Requests that got a response. One whose inner service failed with an error, and that nothing stored stood in for,
    /// got none.
    pub fn requests(&self) -> u64 {
        self.counts[..ANSWERS.len()].iter().sum()
    }

    /// Answered from the storage, fresh.
    pub fn hits(&self) -> u64 {
        self.of(Count::Answer(Outcome::Hit))
    }

    /// Answered from the storage, though stale.
    pub fn stale(&self) -> u64 {
        self.answers("stale")
    }

    /// Answered from the storage, though stale, for this reason.
    pub fn stale_by(&self, reason: StaleReason) -> u64 {
        self.of(Count::Answer(Outcome::Stale(reason)))
    }

    /// Answered from the storage, after the origin confirmed it.
    pub fn revalidated(&self) -> u64 {
        self.answers("revalidated")
    }

    /// Answered by the origin, since nothing stored could be used.
    pub fn misses(&self) -> u64 {
        self.answers("miss")
    }

    /// Answered by the origin, for this reason. All [`Replaced`](MissReason::Replaced) are one reason here, whatever made
    /// the stored response be validated.
    pub fn misses_by(&self, reason: MissReason) -> u64 {
        self.of(Count::Answer(Outcome::Miss(reason)))
    }

    /// Answered by the origin, since no cache answers such a request.
    pub fn bypassed(&self) -> u64 {
        self.answers("bypass")
    }

    /// Answered by the origin, since the request passed the cache by for this reason.
    pub fn bypassed_by(&self, reason: BypassReason) -> u64 {
        self.of(Count::Answer(Outcome::Bypass(reason)))
    }

    /// Answered with 504: only what is stored was wanted, and that was not there.
    pub fn refused(&self) -> u64 {
        self.of(Count::Answer(Outcome::Refused))
    }

    /// Answered with 503: the store failed, and the cache is set to fail closed.
    pub fn failed(&self) -> u64 {
        self.of(Count::Answer(Outcome::Failed))
    }

    /// Answered by another request's fetch; these count among the others too.
    pub fn collapsed(&self) -> u64 {
        self.of(Count::Collapsed)
    }

    /// Responses that the storage took.
    pub fn stored(&self) -> u64 {
        self.of(Count::Stored)
    }

    /// Stored responses that were freshened by the origin's word, and written so.
    pub fn freshened(&self) -> u64 {
        self.of(Count::Freshened)
    }

    /// Responses that were not stored, since something else was written to their place, or that was invalidated, while
    /// they came.
    pub fn superseded(&self) -> u64 {
        self.of(Count::Unstored("superseded")) + self.of(Count::Unstored("invalidated"))
    }

    /// Responses that were not stored, since the storage failed, refused them or was too slow.
    pub fn storage_failures(&self) -> u64 {
        self.of(Count::Unstored("storage-failed"))
    }

    /// How often the inner service failed with an error, in background refreshes too.
    pub fn origin_errors(&self) -> u64 {
        self.of(Count::OriginError)
    }

    /// Background refreshes that came to an end, whatever came of them.
    pub fn refreshes(&self) -> u64 {
        super::counts::ENDS.iter().map(|end| self.of(Count::Refresh(end))).sum()
    }

    /// Entries that were invalidated.
    pub fn invalidations(&self) -> u64 {
        super::counts::CAUSES.iter().map(|cause| self.of(Count::Invalidation(cause))).sum()
    }

    fn all(&self) -> [(&'static str, u64); 16] {
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
            ("stored", self.stored()),
            ("freshened", self.freshened()),
            ("superseded", self.superseded()),
            ("storage_failures", self.storage_failures()),
            ("origin_errors", self.origin_errors()),
            ("refreshes", self.refreshes()),
            ("invalidations", self.invalidations()),
        ]
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for (name, number) in self.all() {
            write!(f, "{between}{name}={number}")?;
            between = " ";
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
