//! Clause 4, about `write_if`.

use super::*;
use crate::storage::Stamp;

const COMPARES: &str = "`write_if` writes and returns true only if the current record has the stamp `seen`, or `seen` is `None` and there is no record";
const ONE_WINNER: &str =
    "of several concurrent `write_if` calls with the same `seen`, exactly one returns true";

/// Checks that `write_if` writes only if the stamp is the current one (clause 4).
pub async fn write_if_compares_current_stamp<H: Harness>(harness: &H) {
    let storage = open(harness, &[4]).await;
    let (first, second) = (record("first"), record("second"));
    storage.write(head(1), first.clone()).await;
    for wrong in [None, Some(Stamp::random()), Some(second.stamp())] {
        let written = storage.write_if(head(1), wrong, record("wrong")).await;
        demand!([4]; !written, COMPARES; "true with `seen` of {wrong:?}, where the stamp is {:?}", first.stamp());
        demand!([4]; storage.text(head(1)).await.as_deref() => Some("first"),
            "`write_if` changes nothing if it returns false");
    }
    let written = storage.write_if(head(1), Some(first.stamp()), second.clone()).await;
    demand!([4]; written, COMPARES; "false with the stamp of the current record");
    demand!([4]; storage.text(head(1)).await.as_deref() => Some("second"), COMPARES);
    let written = storage.write_if(head(1), Some(first.stamp()), record("again")).await;
    demand!([4]; !written, COMPARES; "true with the stamp of the previous record");
    demand!([4]; storage.existing(head(1)).await.stamp() => second.stamp(), COMPARES);
}

/// Checks that `write_if` creates a record only if `seen` is `None` (clause 4).
pub async fn write_if_creates_absent_record<H: Harness>(harness: &H) {
    let storage = open(harness, &[4]).await;
    let written = storage.write_if(head(1), Some(Stamp::random()), record("x")).await;
    demand!([4]; !written, COMPARES; "true with a stamp, where there is no record");
    demand!([4]; storage.text(head(1)).await => None, "`write_if` changes nothing if it returns false");
    let written = storage.write_if(head(1), None, record("x")).await;
    demand!([4]; written, COMPARES; "false with `None`, where there is no record");
    demand!([4]; storage.text(head(1)).await.as_deref() => Some("x"), COMPARES);
}

/// Checks that `write_if` returns true if its record is already stored (clause 4).
///
/// A driver may send a write twice.
pub async fn write_if_accepts_repeated_write<H: Harness>(harness: &H) {
    let storage = open(harness, &[4]).await;
    let own = record("own");
    for seen in [None, None, Some(Stamp::random()), Some(own.stamp())] {
        demand!([4]; storage.write_if(head(1), seen, own.clone()).await,
            "`write_if` returns true if the current record already has the stamp of the new one";
            "false with `seen` of {seen:?}";
            cause "only `seen` is compared: compare with the stamp of the new record too, because a driver may repeat a write");
    }
    demand!([4]; storage.size().await => 1, "a repeated `write_if` adds no record");
}

/// Checks that a deleted record counts as absent (clause 4).
pub async fn write_if_after_delete<H: Harness>(harness: &H) {
    let storage = open(harness, &[4]).await;
    let deleted = record("deleted");
    storage.write(head(1), deleted.clone()).await;
    storage.delete(head(1)).await;
    let written = storage.write_if(head(1), Some(deleted.stamp()), record("x")).await;
    demand!([4]; !written, COMPARES; "true with the stamp of a deleted record");
    let written = storage.write_if(head(1), None, record("y")).await;
    demand!([4]; written, COMPARES; "false with `None`, where the record was deleted");
}

/// Checks that one of 32 concurrent `write_if` calls wins (clause 4).
///
/// If the harness shares names, the calls go through two handles that were opened separately.
pub async fn concurrent_write_if_has_one_winner<H: Harness>(harness: &H) {
    let handles = match open_twice(harness, &[4]).await {
        Some((one, other)) => [one, other],
        None => {
            let storage = open(harness, &[4]).await;
            [storage.clone(), storage]
        }
    };
    let mut seen = None;
    for _ in 0..5 {
        let tasks = (0..32_u8).map(|number| {
            let (storage, record) = (handles[usize::from(number % 2)].clone(), record(vec![number]));
            tokio::spawn(async move {
                let won = storage.write_if(head(1), seen, record.clone()).await;
                won.then_some(record)
            })
        });
        let winners: Vec<Record> = join(tasks).await.into_iter().flatten().collect();
        demand!([4]; winners.len() == 1, ONE_WINNER; "{} of 32 return true", winners.len();
            cause "another call writes between the comparison and the write, as with a lock that each handle has for itself: \
                   compare and write in one atomic operation of the engine");
        let current = current_stamp(&handles[0]).await;
        demand!([4]; current => winners.first().map(Record::stamp), "the record of the call that returned true is written");
        seen = current;
    }
}

async fn current_stamp<S: Storage>(storage: &Tested<S>) -> Option<Stamp> {
    storage.read(head(1)).await.map(|record| record.stamp())
}

/// Checks that concurrent tasks lose no increment of a counter (clause 4).
pub async fn concurrent_increments_are_all_counted<H: Harness>(harness: &H) {
    const TASKS: usize = 8;
    const STEPS: usize = 10;
    let storage = open(harness, &[4]).await;
    let tasks = (0..TASKS).map(|_| {
        let storage = storage.clone();
        tokio::spawn(async move {
            // A comparison fails at most once for each write of another task.
            let mut failures = 0..TASKS * STEPS;
            for _ in 0..STEPS {
                loop {
                    let current = storage.read(head(1)).await;
                    let count = current.as_ref().and_then(|record| record.payload().first().copied());
                    let next = record(vec![count.unwrap_or_default() + 1]);
                    if storage.write_if(head(1), current.map(|record| record.stamp()), next).await {
                        break;
                    }
                    demand!([4]; failures.next().is_some(), COMPARES;
                        "false with the stamp that `read` returned, although no other task has written";
                        cause "`read` returns another stamp than the one that was written");
                    tokio::task::yield_now().await;
                }
            }
        })
    });
    join(tasks).await;
    demand!([4]; storage.payload(head(1)).await => Some(vec![80].into()),
        "no write is lost of eight tasks that each increment a counter ten times by `read` and `write_if`");
}

/// Checks that `read` and `write_if` agree on an expired record (clauses 4 and 8).
pub async fn read_and_write_if_agree_on_expired<H: Harness>(harness: &H) {
    let storage = open(harness, &[4, 8]).await;
    let rule = "`read`, `read_now` and `write_if` agree whether an expired record is hidden";
    let expired = Record::new("old", Timestamp::from_secs(1));
    storage.write(head(1), expired).await;
    let seen = current_stamp(&storage).await;
    if let Some(now) = storage.read_now(head(1)) {
        demand!([8, 16]; now.map(|record| record.stamp()) => seen, rule);
    }
    demand!([4, 8]; storage.write_if(head(1), seen, record("new")).await, rule;
        "`read` returns the stamp {seen:?}, with which `write_if` returns false";
        cause "`read` hides an expired record, but `write_if` compares with it, so that the key could not be written again");
    demand!([4, 8]; storage.text(head(1)).await.as_deref() => Some("new"), "`write_if` writes if it returns true");
}
