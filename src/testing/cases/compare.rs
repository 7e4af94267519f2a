//! Clause 4: compare and write.

use futures_util::future::join_all;

use super::*;
use crate::storage::Stamp;

/// 4. The right stamp writes; a wrong one, and none, change nothing.
pub async fn write_if_wants_the_stamp_that_is_there<H: Harness>(harness: &H) {
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

/// 4. Where nothing is, only "nothing" writes.
pub async fn write_if_for_an_empty_place<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    assert!(!storage.write_if(head(1), Some(Stamp::random()), record("x")).await.unwrap());
    assert!(storage.read(head(1)).await.unwrap().is_none());
    assert!(storage.write_if(head(1), None, record("x")).await.unwrap());
    assert_eq!(payload(&storage, head(1)).await.unwrap(), "x");
}

/// 4. A record that is there already was written: a driver may have sent it twice.
pub async fn write_if_says_true_to_its_own_record<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    let own = record("own");
    for seen in [None, None, Some(Stamp::random()), Some(own.stamp())] {
        assert!(storage.write_if(head(1), seen, own.clone()).await.unwrap());
    }
    assert_eq!(storage.size().await.unwrap(), 1);
}

/// 4. What was deleted is absent, and its stamp is no longer there.
pub async fn write_if_after_a_deletion<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    let gone = record("gone");
    storage.write(head(1), gone.clone()).await.unwrap();
    storage.delete(head(1)).await.unwrap();
    assert!(!storage.write_if(head(1), Some(gone.stamp()), record("x")).await.unwrap());
    assert!(storage.write_if(head(1), None, record("y")).await.unwrap());
}

/// 4. Of 32 tasks that compare with the same stamp, or with nothing, one writes.
pub async fn many_compare_and_one_wins<H: Harness>(harness: &H) {
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
        assert_eq!(winners.len(), 1, "of those who compared with the same, one wins");
        let there = storage.read(head(1)).await.unwrap().unwrap();
        assert_eq!(there.stamp(), winners[0].stamp());
        seen = Some(there.stamp());
    }
}

/// 4. A counter that tasks raise by comparing loses no step.
pub async fn compared_increments_are_all_counted<H: Harness>(harness: &H) {
    const TASKS: usize = 8;
    const STEPS: usize = 10;
    let storage = open(harness).await;
    let tasks = (0..TASKS).map(|_| {
        let storage = storage.clone();
        tokio::spawn(async move {
            // A comparison fails where another task has written since, and all of them write so often.
            let mut failures = 0..TASKS * STEPS;
            for _ in 0..STEPS {
                loop {
                    let there = storage.read(head(1)).await.unwrap();
                    let count = there.as_ref().map_or(0, |record| record.payload()[0]);
                    let next = record(vec![count + 1]);
                    if storage.write_if(head(1), there.map(|record| record.stamp()), next).await.unwrap() {
                        break;
                    }
                    let failed =
                        "write_if does not find the stamp that read gives, though no other task has written";
                    failures.next().expect(failed);
                    tokio::task::yield_now().await;
                }
            }
        })
    });
    join_all(tasks).await.into_iter().for_each(|done| done.unwrap());
    assert_eq!(payload(&storage, head(1)).await.unwrap()[0], 80);
}

/// 4, 8. An expired record is seen by both, or by neither.
pub async fn what_read_hides_write_if_counts_as_absent<H: Harness>(harness: &H) {
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
