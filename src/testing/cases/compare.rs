//! Clause 4, about `write_if`.

use futures_util::future::join_all;

use super::*;
use crate::storage::Stamp;

/// Checks that `write_if` writes only if the stamp is the current one (clause 4).
pub async fn write_if_compares_current_stamp<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    let (first, second) = (record("first"), record("second"));
    storage.write(head(1), first.clone()).await.unwrap();
    for wrong in [None, Some(Stamp::random()), Some(second.stamp())] {
        assert!(!storage.write_if(head(1), wrong, record("wrong")).await.unwrap());
        assert_eq!(payload(&storage, head(1)).await.unwrap(), "first");
    }
    assert!(storage.write_if(head(1), Some(first.stamp()), second.clone()).await.unwrap());
    assert_eq!(payload(&storage, head(1)).await.unwrap(), "second");
    assert!(!storage.write_if(head(1), Some(first.stamp()), record("again")).await.unwrap());
    assert_eq!(storage.read(head(1)).await.unwrap().unwrap().stamp(), second.stamp());
}

/// Checks that `write_if` creates a record only if `seen` is `None` (clause 4).
pub async fn write_if_creates_absent_record<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    assert!(!storage.write_if(head(1), Some(Stamp::random()), record("x")).await.unwrap());
    assert!(storage.read(head(1)).await.unwrap().is_none());
    assert!(storage.write_if(head(1), None, record("x")).await.unwrap());
    assert_eq!(payload(&storage, head(1)).await.unwrap(), "x");
}

/// Checks that `write_if` returns true if its record is already stored (clause 4).
///
/// A driver may send a write twice.
pub async fn write_if_accepts_repeated_write<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    let own = record("own");
    for seen in [None, None, Some(Stamp::random()), Some(own.stamp())] {
        assert!(storage.write_if(head(1), seen, own.clone()).await.unwrap());
    }
    assert_eq!(storage.size().await.unwrap(), 1);
}

/// Checks that a deleted record counts as absent (clause 4).
pub async fn write_if_after_delete<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    let deleted = record("deleted");
    storage.write(head(1), deleted.clone()).await.unwrap();
    storage.delete(head(1)).await.unwrap();
    assert!(!storage.write_if(head(1), Some(deleted.stamp()), record("x")).await.unwrap());
    assert!(storage.write_if(head(1), None, record("y")).await.unwrap());
}

/// Checks that one of 32 concurrent `write_if` calls wins (clause 4).
pub async fn concurrent_write_if_has_one_winner<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    let mut seen = None;
    for _ in 0..5 {
        let tasks = (0..32_u8).map(|number| {
            let (storage, record) = (storage.clone(), record(vec![number]));
            tokio::spawn(async move {
                let won = storage.write_if(head(1), seen, record.clone()).await.unwrap();
                won.then_some(record)
            })
        });
        let winners: Vec<_> = join_all(tasks).await.into_iter().filter_map(Result::unwrap).collect();
        assert_eq!(winners.len(), 1, "one of the calls with the same stamp must win");
        let current = storage.read(head(1)).await.unwrap().unwrap();
        assert_eq!(current.stamp(), winners[0].stamp());
        seen = Some(current.stamp());
    }
}

/// Checks that concurrent tasks lose no increment of a counter (clause 4).
pub async fn concurrent_increments_are_all_counted<H: Harness>(harness: &H) {
    const TASKS: usize = 8;
    const STEPS: usize = 10;
    let storage = open(harness).await;
    let tasks = (0..TASKS).map(|_| {
        let storage = storage.clone();
        tokio::spawn(async move {
            // A comparison fails at most once for each write of another task.
            let mut failures = 0..TASKS * STEPS;
            for _ in 0..STEPS {
                loop {
                    let current = storage.read(head(1)).await.unwrap();
                    let count = current.as_ref().map_or(0, |record| record.payload()[0]);
                    let next = record(vec![count + 1]);
                    if storage.write_if(head(1), current.map(|record| record.stamp()), next).await.unwrap() {
                        break;
                    }
                    let failed =
                        "write_if fails with the stamp that read returned, although no other task has written";
                    failures.next().expect(failed);
                    tokio::task::yield_now().await;
                }
            }
        })
    });
    join_all(tasks).await.into_iter().for_each(|done| done.unwrap());
    assert_eq!(payload(&storage, head(1)).await.unwrap()[0], 80);
}

/// Checks that `read` and `write_if` agree on an expired record (clauses 4 and 8).
pub async fn read_and_write_if_agree_on_expired<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    let expired = Record::new("old", Timestamp::from_secs(1));
    storage.write(head(1), expired.clone()).await.unwrap();
    let seen = storage.read(head(1)).await.unwrap().map(|record| record.stamp());
    if let Some(now) = storage.read_now(head(1)) {
        assert_eq!(now.unwrap().map(|record| record.stamp()), seen);
    }
    assert!(storage.write_if(head(1), seen, record("new")).await.unwrap());
    assert_eq!(payload(&storage, head(1)).await.unwrap(), "new");
}
