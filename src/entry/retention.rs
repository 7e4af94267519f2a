//! How long the records of an entry are kept beside the response itself.

use std::time::Duration;

use crate::time::Timestamp;

/// Chunks outlive their head by this, so that slow readers of a replaced body finish.
pub(crate) const GRACE: Duration = Duration::from_secs(60 * 60);
/// A tombstone stands for this long: longer than a fetch that began before it may still want to store.
pub(crate) const TOMBSTONE: Duration = Duration::from_secs(10 * 60);
/// A fetch whose lookup saw nothing at all stores only within this time: before a tombstone that it did not see, since
/// it came later, may have expired.
pub(crate) const LOOKUP_LIMIT: Duration = Duration::from_secs(9 * 60);

/// The least and the most that a time is set beyond what is needed.
const SLACK: [Duration; 2] = [GRACE, Duration::from_secs(7 * 24 * 60 * 60)];

/// Returns a time to move a record to that is needed until another one.
///
/// A response that the origin confirms is needed for longer each time. Many storages write the whole record to move its
/// time, and are paid by the byte, so times are moved seldom and far: by a quarter of how long the record is needed.
pub(crate) fn with_slack(needed: Timestamp, now: Timestamp) -> Timestamp {
    let [least, most] = SLACK;
    needed + (needed.since(now) / 4).clamp(least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slack_is_a_quarter_within_bounds() {
        let now = Timestamp::from_secs(1_000_000);
        let slack = |secs| with_slack(now + Duration::from_secs(secs), now).since(now).as_secs() - secs;
        assert_eq!([slack(0), slack(60)], [60 * 60; 2]);
        assert_eq!(slack(7 * 24 * 60 * 60), 42 * 60 * 60);
        assert_eq!(slack(365 * 24 * 60 * 60), 7 * 24 * 60 * 60);
        assert_eq!(with_slack(Timestamp::NEVER, now), Timestamp::NEVER);
        assert_eq!(with_slack(now, now + GRACE), now + GRACE);
    }
}
