//! Clause 12, about dropped futures.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

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
        let storage = open(harness, &[12]).await;
        for polls in 0..MAX_POLLS {
            let old = Record::new(vec![b'o'; 100_000], OLD);
            let new = record(vec![b'n'; 150_000]);
            let key = head(polls);
            storage.write(key, old.clone()).await;
            let running = drop_after(polls, run(&storage, operation, key, &old, &new));
            let ended = storage.ends(operation, running).await;
            let outcome = outcome_at(&storage, key, &old, &new).await;
            demand!([12]; allowed.contains(&outcome),
                "an operation whose future is dropped takes effect completely or not at all";
                "`{operation}` dropped after {polls} polls left the record {outcome:?}, where {allowed:?} is right";
                cause "the operation consists of several steps with an await point between them: \
                       do them in one transaction, or in a task of their own");
            let other = head(MAX_POLLS).sibling(Kind::Lease, [polls; 16], 0);
            demand_usable(&storage, other, &format!("after `{operation}` was dropped after {polls} polls"))
                .await;
            if ended {
                break;
            }
        }
    }
}

async fn run<S: Storage>(storage: &Tested<S>, operation: &str, key: Key, old: &Record, new: &Record) {
    let is_right = match operation {
        "read" => storage.read(key).await.is_some(),
        "contains" => storage.contains(key).await,
        "contains_all" => storage.contains_all(&[key]).await,
        "keys" => storage.keys().await.contains(&key),
        "values" => storage.values().await.iter().any(|(listed, _)| *listed == key),
        "size" => storage.size().await > 0,
        "write" => {
            storage.write(key, new.clone()).await;
            true
        }
        "write_if" => storage.write_if(key, Some(old.stamp()), new.clone()).await,
        "write_if, a wrong stamp" => !storage.write_if(key, None, new.clone()).await,
        "delete" => storage.delete(key).await,
        "delete_many" => storage.delete_many(&[key]).await == 1,
        "retain, at least" => storage.retain(&[key], Retain::AtLeast(Timestamp::NEVER)).await == 1,
        "retain, at most" => storage.retain(&[key], Retain::AtMost(LATER)).await == 1,
        "delete_expired" => storage.delete_expired(OLD).await > 0,
        "clear" => {
            storage.clear().await;
            true
        }
        _ => panic!("unknown operation {operation}"),
    };
    demand!([12]; is_right, "an operation does the same after others were dropped";
        "`{operation}` of a record that was just written returns the answer of an absent one");
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
    polled.await
}

/// Returns what there is at the key.
async fn outcome_at<S: Storage>(storage: &Tested<S>, key: Key, old: &Record, new: &Record) -> Outcome {
    let Some(read) = storage.read(key).await else { return Outcome::Absent };
    let (written, outcome) =
        if read.stamp() == new.stamp() { (new, Outcome::New) } else { (old, Outcome::Old) };
    demand!([12]; read.stamp() == written.stamp() && read.payload() == written.payload(),
        "after a dropped operation, the key has a record that was written"; "{}, which never was", described(Some(&read)));
    if read.retain_until() == written.retain_until() { outcome } else { Outcome::Retained }
}
