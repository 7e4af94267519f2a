//! Clauses 8, 9 and 10, about how long records are kept.

use super::*;

const KEPT: &str =
    "a record is kept at least until its retention time, which `read` returns as it was written";
const NEVER: &str = "a record with `Timestamp::NEVER` does not expire";
const FAR: &str = "a late time overflows in a signed number or in seconds, and becomes an early one";
const ONLY_THE_TIME: &str = "`retain` changes the retention time, and neither the payload nor the stamp";
const DIRECTION: &str = "`AtLeast` never shortens the retention and `AtMost` never lengthens it";
const COUNTS: &str = "`retain` skips absent records, and returns how many records there were";
const EXPIRED: &str = "`delete_expired(now)` removes the records of every kind whose retention time is at or before `now`, and counts them";
const NO_OTHER: &str = "`delete_expired(now)` removes no record whose retention time is after `now`";

/// Returns a time so many seconds after [`LATER`].
fn until(secs: u64) -> Timestamp {
    Timestamp::from_secs(4_000_000_000 + secs)
}

/// Checks that the retention time is kept to the millisecond (clause 8).
pub async fn retention_time_is_exact<H: Harness>(harness: &H) {
    let storage = open(harness, &[8]).await;
    for millis in [4_000_000_000_001, 4_000_000_000_999, 9_000_000_000_000] {
        let time = Timestamp::from_millis(millis);
        storage.write(head(1), Record::new("x", time)).await;
        demand!([8]; storage.existing(head(1)).await.retain_until() => time, KEPT; cause "the time is kept in seconds");
    }
}

/// Checks the latest and the earliest retention times (clause 8).
///
/// A storage that counts in signed numbers or in seconds must not turn a late time into an early one. A late time may become a
/// later one; a record with an early time may be hidden.
pub async fn extreme_retention_times_are_kept<H: Harness>(harness: &H) {
    let storage = open(harness, &[8]).await;
    let last = i64::MAX as u64;
    let far = [last / 1000, last / 1000 + 1, last - 1, last, last + 1, u64::MAX - 1];
    for (number, millis) in (0..).zip(far) {
        let time = Timestamp::from_millis(millis);
        storage.write(head(number), Record::new("far", time)).await;
        let kept = storage.read(head(number)).await;
        demand!([8]; kept.as_ref().is_some_and(|read| read.retain_until() >= time), KEPT;
            "{} after a record until {time:?} was written", described(kept.as_ref()); cause FAR);
    }
    for (number, millis) in (100..).zip([0, 1, 999, 1000]) {
        let time = Timestamp::from_millis(millis);
        storage.write(head(number), Record::new("early", time)).await;
        let read = storage.read(head(number)).await;
        demand!([8]; read.as_ref().is_none_or(|read| read.retain_until() == time), KEPT;
            "{} after a record until {time:?} was written", described(read.as_ref()));
    }
    let deleted = storage.delete_expired(until(0)).await;
    demand!([8, 10]; deleted <= 4, NO_OTHER; "{deleted} records were removed, of 4 that had expired"; cause FAR);
    demand!([8, 10]; storage.size().await => far.len() as u64, NO_OTHER; cause FAR);
    for number in 100..104 {
        demand!([10]; storage.text(head(number)).await => None, EXPIRED);
    }
}

/// Checks that a record with `Timestamp::NEVER` does not expire (clause 8).
pub async fn never_does_not_expire<H: Harness>(harness: &H) {
    let storage = open(harness, &[8]).await;
    let is_never = async |after: &str| {
        let read = storage.read(head(1)).await;
        demand!([8]; read.as_ref().is_some_and(|read| read.retain_until().is_never()), NEVER;
            "after {after}, {}", described(read.as_ref()); cause FAR);
    };
    storage.write(head(1), Record::new("x", Timestamp::NEVER)).await;
    is_never("`write`").await;
    demand!([8, 10]; storage.delete_expired(until(1_000_000_000)).await => 0, NEVER; cause FAR);
    storage.retain(&[head(1)], Retain::AtLeast(until(1))).await;
    is_never("`retain` with an earlier `AtLeast`").await;
    storage.retain(&[head(1)], Retain::AtMost(until(1))).await;
    storage.retain(&[head(1)], Retain::AtLeast(Timestamp::NEVER)).await;
    is_never("`retain` with `AtLeast(NEVER)`").await;
}

/// Checks that `retain` changes the retention time only (clause 9).
pub async fn retain_changes_only_the_time<H: Harness>(harness: &H) {
    let storage = open(harness, &[9]).await;
    let written = Record::new("payload", until(100));
    storage.write(head(1), written.clone()).await;
    for (retain, expected) in [(Retain::AtLeast(until(200)), 200), (Retain::AtMost(until(50)), 50)] {
        demand!([9]; storage.retain(&[head(1)], retain).await => 1, COUNTS);
        let read = storage.existing(head(1)).await;
        demand!([9]; read.retain_until() => until(expected), "`read` returns the record with the new time after `retain`");
        demand!([9]; read.stamp() => written.stamp(), ONLY_THE_TIME;
            cause "the record is made by `Record::new`, which gives it a new stamp: use `with_retain_until`");
        demand!([9]; read.payload() => "payload", ONLY_THE_TIME);
    }
    demand!([9]; storage.write_if(head(1), Some(written.stamp()), record("next")).await, ONLY_THE_TIME;
        "`write_if` with the stamp from before `retain` returns false");
}

/// Checks that `AtLeast` never shortens and `AtMost` never lengthens (clause 9).
pub async fn retain_respects_its_direction<H: Harness>(harness: &H) {
    let storage = open(harness, &[9]).await;
    storage.write(head(1), Record::new("x", until(100))).await;
    for retain in [Retain::AtLeast(until(10)), Retain::AtMost(until(1000)), Retain::AtMost(Timestamp::NEVER)]
    {
        demand!([9]; storage.retain(&[head(1)], retain).await => 1, COUNTS);
        demand!([9]; storage.existing(head(1)).await.retain_until() => until(100), DIRECTION;
            cause "the time is set without a comparison with the current one: `Retain::apply` compares");
    }
}

/// Checks that `retain` skips absent records, and counts the others (clause 9).
pub async fn retain_counts_existing_records<H: Harness>(harness: &H) {
    let storage = open(harness, &[9]).await;
    for part in 0..5 {
        storage.write(chunk(1, part), Record::new("x", until(1))).await;
    }
    let keys: Vec<Key> = (2..9).map(|part| chunk(1, part)).collect();
    demand!([9]; storage.retain(&keys, Retain::AtLeast(until(9))).await => 3, COUNTS);
    demand!([9]; storage.retain(&[], Retain::AtLeast(until(9))).await => 0, COUNTS);
    demand!([9]; storage.text(chunk(1, 7)).await => None, "`retain` creates no record");
    demand!([9]; storage.existing(chunk(1, 1)).await.retain_until() => until(1), "`retain` changes the records of its keys only");
}

/// Checks that concurrent `retain` and `write_if` calls lose neither change (clauses 4 and 9).
pub async fn concurrent_retain_and_write_if<H: Harness>(harness: &H) {
    let rule = "`retain` and `write_if` at the same time lose neither change";
    let storage = open(harness, &[4, 9]).await;
    for round in 0..20_u64 {
        let first = Record::new("first", until(100));
        storage.write(head(1), first.clone()).await;
        let second = Record::new("second", until(200 + round));
        let (one, other) = (storage.clone(), storage.clone());
        let (seen, record) = (Some(first.stamp()), second.clone());
        let tasks = [
            tokio::spawn(async move { u64::from(one.write_if(head(1), seen, record).await) }),
            tokio::spawn(async move { other.retain(&[head(1)], Retain::AtLeast(until(150))).await }),
        ];
        demand!([4, 9]; join(tasks).await => [1, 1], rule);
        let read = storage.existing(head(1)).await;
        demand!([4, 9]; read.stamp() => second.stamp(), rule;
            cause "`retain` reads the record and writes it back, over the one that was written meanwhile");
        demand!([4, 9]; read.retain_until() => until(200 + round), rule);
    }
}

/// Checks that `delete_expired` removes the expired records and no others (clause 10).
///
/// A record that expires a millisecond later stays.
pub async fn delete_expired_removes_only_expired<H: Harness>(harness: &H) {
    let storage = open(harness, &[10]).await;
    let now = until(100);
    let later = Timestamp::from_millis(now.as_millis() + 1);
    let expired = [head(1), chunk(2, 0), variant(3)];
    for key in expired {
        storage.write(key, Record::new("expired", now)).await;
    }
    for (key, time) in [(head(4), later), (chunk(1, 0), later), (head(5), Timestamp::NEVER)] {
        storage.write(key, Record::new("stays", time)).await;
    }
    demand!([10]; storage.delete_expired(now).await => 3, EXPIRED;
        cause "only heads are looked at; or the comparison leaves out the records whose time is exactly `now`");
    demand!([10]; storage.delete_expired(now).await => 0, EXPIRED);
    for key in expired {
        demand!([10]; storage.text(key).await => None, EXPIRED);
    }
    for key in [head(4), chunk(1, 0), head(5)] {
        demand!([10]; storage.contains(key).await, NO_OTHER; "a record that expires a millisecond later, or never, is gone");
    }
}
