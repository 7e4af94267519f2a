//! How long the records of an entry are retained beyond the response itself.

use std::time::Duration;

use crate::time::Timestamp;

/// The time by which chunks outlive the record that names them.
///
/// It lets slow readers of a replaced body finish.
///
/// An hour is enough to read 512 MiB, the longest body by default, at 150 KB a second.
pub(crate) const GRACE: Duration = Duration::from_secs(60 * 60);
/// The time for which a tombstone stays.
///
/// It is longer than [`LOOKUP_LIMIT`], so that a tombstone outlives every fetch that began before it and may
/// still be stored.
pub(crate) const TOMBSTONE: Duration = Duration::from_secs(10 * 60);
/// The time within which a fetch stores its response if its lookup found nothing.
///
/// After this, a tombstone that was written later than the lookup may have expired already, so that the fetch
/// would no longer find it. The minute less than [`TOMBSTONE`] leaves room for a slow write and for clocks
/// that differ.
pub(crate) const LOOKUP_LIMIT: Duration = Duration::from_secs(9 * 60);

/// The least and the most by which [`with_slack`] extends a retention time.
///
/// At least an hour, so that a response with a short lifetime does not have its chunks moved at each
/// confirmation. At most a week, so that chunks that nothing names any more do not stay for months.
const SLACK: [Duration; 2] = [GRACE, Duration::from_secs(7 * 24 * 60 * 60)];

/// Returns a retention time for a record that is needed until `needed`.
///
/// It is later than `needed` by a quarter of the time that remains until then.
///
/// Each confirmation by the origin makes a response needed for longer. Many storages write the whole record
/// to move its retention time, and some of them bill by the byte, so times are moved rarely and far.
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
