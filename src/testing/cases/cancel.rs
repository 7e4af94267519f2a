//! Clause 12, about dropped futures.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use futures_util::TryStreamExt;

use super::*;

/// The records that may be at the key after an operation was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Old,
    New,
    Absent,
    /// The old record with another retention time.
    Retained,
}

const OPERATIONS: [(&str, &[Outcome]); 15] = [
    ("read", &[Outcome::Old]),
    ("contains", &[Outcome::Old]),
    ("contains_all", &[Outcome::Old]),
    ("keys", &[Outcome::Old]),
    ("values", &[Outcome::Old]),
    ("size", &[Outcome::Old]),
    ("write", &[Outcome::Old, Outcome::New]),
    ("write_if", &[Outcome::Old, Outcome::New]),
    ("write_if, a wrong stamp", &[Outcome::Old]),
    ("delete", &[Outcome::Old, Outcome::Absent]),
    ("delete_many", &[Outcome::Old, Outcome::Absent]),
    ("retain, at least", &[Outcome::Old, Outcome::Retained]),
    ("retain, at most", &[Outcome::Old, Outcome::Retained]),
    ("delete_expired", &[Outcome::Old, Outcome::Absent]),
    ("clear", &[Outcome::Old, Outcome::Absent]),
];

const OLD: Timestamp = Timestamp::from_secs(4_000_000_100);

/// More polls than any operation needs, including those that make no progress.
const MAX_POLLS: u8 = 100;

/// Checks that every operation can be dropped at each await point (clause 12).
///
/// The operation has taken effect or not, and the storage remains usable. It must give back a lock, a connection or a place in
/// a queue that the operation held.
pub async fn dropped_futures_are_atomic<H: Harness>(harness: &H) {
    for (operation, allowed) in OPERATIONS {
        let storage = open(harness).await;
        for polls in 0..MAX_POLLS {
            let old = Record::new(vec![b'o'; 100_000], OLD);
            let new = record(vec![b'n'; 150_000]);
            let key = head(polls);
            storage.write(key, old.clone()).await.unwrap();
            let ended = drop_after(polls, run(&storage, operation, key, &old, &new)).await;
            let outcome = outcome_at(&storage, key, &old, &new).await;
            assert!(allowed.contains(&outcome), "{operation} dropped after {polls} polls left {outcome:?}");
            in_time(operation, assert_usable(&storage, head(MAX_POLLS).sibling(Kind::Lease, [polls; 16], 0)))
                .await;
            if ended {
                break;
            }
        }
    }
}

async fn run<S: Storage>(storage: &S, operation: &str, key: Key, old: &Record, new: &Record) {
    match operation {
        "read" => drop(storage.read(key).await.unwrap()),
        "contains" => assert!(storage.contains(key).await.unwrap()),
        "contains_all" => assert!(storage.contains_all(&[key]).await.unwrap()),
        "keys" => drop(storage.keys().try_collect::<Vec<_>>().await.unwrap()),
        "values" => drop(storage.values().try_collect::<Vec<_>>().await.unwrap()),
        "size" => assert!(storage.size().await.unwrap() > 0),
        "write" => storage.write(key, new.clone()).await.unwrap(),
        "write_if" => assert!(storage.write_if(key, Some(old.stamp()), new.clone()).await.unwrap()),
        "write_if, a wrong stamp" => assert!(!storage.write_if(key, None, new.clone()).await.unwrap()),
        "delete" => assert!(storage.delete(key).await.unwrap()),
        "delete_many" => assert_eq!(storage.delete_many(&[key]).await.unwrap(), 1),
        "retain, at least" => {
            assert_eq!(storage.retain(&[key], Retain::AtLeast(Timestamp::NEVER)).await.unwrap(), 1);
        }
        "retain, at most" => assert_eq!(storage.retain(&[key], Retain::AtMost(LATER)).await.unwrap(), 1),
        "delete_expired" => assert!(storage.delete_expired(OLD).await.unwrap() > 0),
        "clear" => storage.clear().await.unwrap(),
        _ => panic!("unknown operation {operation}"),
    }
}

/// Polls the operation this many times, each time after it was woken, and drops it.
///
/// Returns whether it ended before.
async fn drop_after(polls: u8, operation: impl Future<Output = ()>) -> bool {
    let (mut operation, mut left) = (pin!(operation), polls);
    let polled = poll_fn(move |context| {
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        match operation.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending if left == 0 => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    });
    in_time("in an operation that is polled when it is woken", polled).await
}

/// Returns what there is at the key.
async fn outcome_at<S: Storage>(storage: &S, key: Key, old: &Record, new: &Record) -> Outcome {
    let Some(read) = storage.read(key).await.unwrap() else { return Outcome::Absent };
    let (written, outcome) =
        if read.stamp() == new.stamp() { (new, Outcome::New) } else { (old, Outcome::Old) };
    assert_eq!(read.stamp(), written.stamp(), "the record was never written");
    assert!(read.payload() == written.payload(), "the record has the payload of another one");
    if read.retain_until() == written.retain_until() { outcome } else { Outcome::Retained }
}
