//! Clause 12: every operation, dropped at each of its awaits.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use futures_util::TryStreamExt;

use super::*;

/// What a dropped operation may leave at the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Old,
    New,
    Nothing,
    /// The old record, kept until another time.
    Moved,
}

const OPERATIONS: [(&str, &[Left]); 15] = [
    ("read", &[Left::Old]),
    ("contains", &[Left::Old]),
    ("contains_all", &[Left::Old]),
    ("keys", &[Left::Old]),
    ("values", &[Left::Old]),
    ("size", &[Left::Old]),
    ("write", &[Left::Old, Left::New]),
    ("write_if", &[Left::Old, Left::New]),
    ("write_if, a wrong stamp", &[Left::Old]),
    ("delete", &[Left::Old, Left::Nothing]),
    ("delete_many", &[Left::Old, Left::Nothing]),
    ("retain, at least", &[Left::Old, Left::Moved]),
    ("retain, at most", &[Left::Old, Left::Moved]),
    ("delete_expired", &[Left::Old, Left::Nothing]),
    ("clear", &[Left::Old, Left::Nothing]),
];

const OLD: Timestamp = Timestamp::from_secs(4_000_000_100);

/// More awaits than any operation has; wakings without progress are counted too.
const MOST: u8 = 100;

/// 12. Dropped after each number of polls until it comes to its end, an operation has happened or has not; a storage
///     that held a lock, a connection or a place in a queue for it goes on.
pub async fn dropped_futures_leave_old_or_new<H: Harness>(harness: &H) {
    for (operation, may_be_left) in OPERATIONS {
        let storage = open(harness).await;
        for polls in 0..MOST {
            let old = Record::new(vec![b'o'; 100_000], OLD);
            let new = record(vec![b'n'; 150_000]);
            let key = head(polls);
            storage.write(key, old.clone()).await.unwrap();
            let ended = drop_after(polls, run(&storage, operation, key, &old, &new)).await;
            let left = left_at(&storage, key, &old, &new).await;
            assert!(may_be_left.contains(&left), "{operation} dropped after {polls} polls left {left:?}");
            in_time(operation, goes_on(&storage, head(MOST).sibling(Kind::Lease, [polls; 16], 0))).await;
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
        _ => panic!("{operation} is not known"),
    }
}

/// Polls the operation this many times, each time after it was woken, and drops it; says whether it ended before.
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

async fn left_at<S: Storage>(storage: &S, key: Key, old: &Record, new: &Record) -> Left {
    let Some(there) = storage.read(key).await.unwrap() else { return Left::Nothing };
    let (is, left) = if there.stamp() == new.stamp() { (new, Left::New) } else { (old, Left::Old) };
    assert_eq!(there.stamp(), is.stamp(), "a record that nobody wrote");
    assert!(there.payload() == is.payload(), "a record with another's payload");
    if there.retain_until() == is.retain_until() { left } else { Left::Moved }
}
