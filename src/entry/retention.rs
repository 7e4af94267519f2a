//! How long the records of an entry are kept beside the response itself.

use std::time::Duration;

/// Chunks outlive their head by this, so that slow readers of a replaced body finish.
pub(crate) const GRACE: Duration = Duration::from_secs(60 * 60);
/// A tombstone stands for this long: longer than a fetch that began before it may still want to store.
pub(crate) const TOMBSTONE: Duration = Duration::from_secs(10 * 60);
/// A fetch whose lookup saw nothing at all stores only within this time: before a tombstone that it did not see, since
/// it came later, may have expired.
pub(crate) const LOOKUP_LIMIT: Duration = Duration::from_secs(9 * 60);
