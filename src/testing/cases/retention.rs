//! Clauses 8, 9 and 10, about how long records are kept.

use futures_util::future::join_all;

use super::*;
use crate::storage::Retain;

/// Returns a time so many seconds after [`LATER`].
fn until(secs: u64) -> Timestamp {
    Timestamp::from_secs(4_000_000_000 + secs)
}

/// Checks that the retention time is kept to the millisecond (clause 8).
pub async fn retention_time_is_exact<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    for millis in [4_000_000_000_001, 4_000_000_000_999, 9_000_000_000_000] {
        let time = Timestamp::from_millis(millis);
        storage.write(head(1), Record::new("x", time)).await.unwrap();
        assert_eq!(storage.read(head(1)).await.unwrap().unwrap().retain_until(), time);
    }
}

/// Checks the latest and the earliest retention times (clause 8).
///
/// A storage that counts in signed numbers or in seconds must not turn a late time into an early one. A late time may become a
/// later one; a record with an early time may be hidden.
pub async fn extreme_retention_times_are_kept<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    let last = i64::MAX as u64;
    let far = [last / 1000, last / 1000 + 1, last - 1, last, last + 1, u64::MAX - 1];
    for (number, millis) in (0..).zip(far) {
        let time = Timestamp::from_millis(millis);
        storage.write(head(number), Record::new("far", time)).await.unwrap();
        assert!(storage.read(head(number)).await.unwrap().unwrap().retain_until() >= time);
    }
    for (number, millis) in (100..).zip([0, 1, 999, 1000]) {
        let time = Timestamp::from_millis(millis);
        storage.write(head(number), Record::new("early", time)).await.unwrap();
        let read = storage.read(head(number)).await.unwrap();
        assert!(read.is_none_or(|read| read.retain_until() == time));
    }
    assert!(storage.delete_expired(until(0)).await.unwrap() <= 4);
    assert_eq!(storage.size().await.unwrap(), far.len() as u64);
    for number in 100..104 {
        assert!(storage.read(head(number)).await.unwrap().is_none());
    }
}

/// Checks that a record with `Timestamp::NEVER` does not expire (clause 8).
pub async fn never_does_not_expire<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    storage.write(head(1), Record::new("x", Timestamp::NEVER)).await.unwrap();
    assert!(storage.read(head(1)).await.unwrap().unwrap().retain_until().is_never());
    assert_eq!(storage.delete_expired(until(1_000_000_000)).await.unwrap(), 0);
    storage.retain(&[head(1)], Retain::AtLeast(until(1))).await.unwrap();
    assert!(storage.read(head(1)).await.unwrap().unwrap().retain_until().is_never());
    storage.retain(&[head(1)], Retain::AtMost(until(1))).await.unwrap();
    storage.retain(&[head(1)], Retain::AtLeast(Timestamp::NEVER)).await.unwrap();
    assert!(storage.read(head(1)).await.unwrap().unwrap().retain_until().is_never());
}

/// Checks that `retain` changes the retention time only (clause 9).
pub async fn retain_changes_only_the_time<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    let written = Record::new("payload", until(100));
    storage.write(head(1), written.clone()).await.unwrap();
    for (retain, expected) in [(Retain::AtLeast(until(200)), 200), (Retain::AtMost(until(50)), 50)] {
        assert_eq!(storage.retain(&[head(1)], retain).await.unwrap(), 1);
        let read = storage.read(head(1)).await.unwrap().unwrap();
        assert_eq!((read.retain_until(), read.stamp()), (until(expected), written.stamp()));
        assert_eq!(read.payload(), "payload");
    }
    assert!(storage.write_if(head(1), Some(written.stamp()), record("next")).await.unwrap());
}

/// Checks that `AtLeast` never shortens and `AtMost` never lengthens (clause 9).
pub async fn retain_respects_its_direction<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    storage.write(head(1), Record::new("x", until(100))).await.unwrap();
    for retain in [Retain::AtLeast(until(10)), Retain::AtMost(until(1000)), Retain::AtMost(Timestamp::NEVER)]
    {
        assert_eq!(storage.retain(&[head(1)], retain).await.unwrap(), 1);
        assert_eq!(storage.read(head(1)).await.unwrap().unwrap().retain_until(), until(100));
    }
}

/// Checks that `retain` skips absent records, and counts the others (clause 9).
pub async fn retain_counts_existing_records<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    for part in 0..5 {
        storage.write(chunk(1, part), Record::new("x", until(1))).await.unwrap();
    }
    let keys: Vec<Key> = (2..9).map(|part| chunk(1, part)).collect();
    assert_eq!(storage.retain(&keys, Retain::AtLeast(until(9))).await.unwrap(), 3);
    assert_eq!(storage.retain(&[], Retain::AtLeast(until(9))).await.unwrap(), 0);
    assert!(storage.read(chunk(1, 7)).await.unwrap().is_none(), "retain created a record");
    assert_eq!(storage.read(chunk(1, 1)).await.unwrap().unwrap().retain_until(), until(1));
}

/// Checks that concurrent `retain` and `write_if` calls lose neither change (clauses 4 and 9).
pub async fn concurrent_retain_and_write_if<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    for round in 0..20_u64 {
        let first = Record::new("first", until(100));
        storage.write(head(1), first.clone()).await.unwrap();
        let second = Record::new("second", until(200 + round));
        let (one, other) = (storage.clone(), storage.clone());
        let (seen, record) = (Some(first.stamp()), second.clone());
        let tasks = [
            tokio::spawn(async move { u64::from(one.write_if(head(1), seen, record).await.unwrap()) }),
            tokio::spawn(async move { other.retain(&[head(1)], Retain::AtLeast(until(150))).await.unwrap() }),
        ];
        let done: Vec<u64> = join_all(tasks).await.into_iter().map(|done| done.unwrap()).collect();
        assert_eq!(done, [1, 1]);
        let read = storage.read(head(1)).await.unwrap().unwrap();
        assert_eq!(read.stamp(), second.stamp(), "retain restored the older record");
        assert_eq!(read.retain_until(), until(200 + round));
    }
}

/// Checks that `delete_expired` removes the expired records and no others (clause 10).
///
/// A record that expires a millisecond later stays.
pub async fn delete_expired_removes_only_expired<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    let now = until(100);
    let later = Timestamp::from_millis(now.as_millis() + 1);
    let expired = [head(1), chunk(2, 0), head(3).sibling(Kind::Variant, [1; 16], 0)];
    for key in expired {
        storage.write(key, Record::new("expired", now)).await.unwrap();
    }
    for (key, time) in [(head(4), later), (chunk(1, 0), later), (head(5), Timestamp::NEVER)] {
        storage.write(key, Record::new("stays", time)).await.unwrap();
    }
    assert_eq!(storage.delete_expired(now).await.unwrap(), 3);
    assert_eq!(storage.delete_expired(now).await.unwrap(), 0);
    for key in expired {
        assert!(storage.read(key).await.unwrap().is_none());
    }
    for key in [head(4), chunk(1, 0), head(5)] {
        assert!(storage.contains(key).await.unwrap());
    }
}
