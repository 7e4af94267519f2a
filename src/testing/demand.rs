//! Fails a case with the clauses that the storage breaks, their text and the observation.

use std::fmt;
use std::panic::resume_unwind;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use tokio::task::JoinHandle;

use crate::error::Result;
use crate::storage::{Hold, Key, Record, Retain, Stamp, Storage, Usage};
use crate::time::Timestamp;

/// The titles of the clauses, in the order of the [contract](crate::storage::Storage#contract).
const TITLES: [&str; 22] = [
    "exact",
    "read your writes",
    "atomic",
    "compare and write",
    "delete",
    "clear",
    "listings",
    "retention",
    "changing the retention",
    "expiry",
    "clones",
    "cancellation",
    "limits",
    "damage",
    "names",
    "read_now",
    "parts",
    "held entries",
    "close",
    "stamps",
    "change count",
    "failures",
];

/// How long one operation may take.
///
/// It is shorter than the limit of a case, so that the operation that hangs is named. With DynamoDB Local on a busy machine,
/// an operation on a thousand records has taken a minute.
const OPERATION_TIME_LIMIT: Duration = Duration::from_secs(200);

/// Fails the case with the clauses, the rule that was broken, the observation, and the usual cause if there is one.
#[track_caller]
pub(super) fn fail(clauses: &[usize], rule: &str, found: impl fmt::Display, cause: &str) -> ! {
    let named: Vec<String> =
        clauses.iter().map(|clause| format!("clause {clause} ({})", TITLES[clause - 1])).collect();
    let hint = if cause.is_empty() { String::new() } else { format!("\n  usual cause: {cause}") };
    panic!("{} of the storage contract: {rule}\n  found: {found}{hint}", named.join(" and "))
}

/// Fails the case unless the storage does what the clauses say.
///
/// - `demand!([7]; condition, "what the contract says"; "what was found: {}", value)`
/// - `demand!([1]; found => expected, "what the contract says")`
///
/// Both take `; cause "the usual cause, and what to do"` at the end.
macro_rules! demand {
    ($clauses:expr; $found:expr => $expected:expr, $rule:expr $(; cause $cause:expr)?) => {
        match (&$found, &$expected) {
            (found, expected) => if *found != *expected {
                let found = format!("{found:?}, instead of {expected:?}");
                $crate::testing::demand::fail(&$clauses, $rule, found, $crate::testing::demand::cause!($($cause)?));
            }
        }
    };
    ($clauses:expr; $holds:expr, $rule:expr; $($found:expr),+ $(; cause $cause:expr)?) => {
        if !$holds {
            $crate::testing::demand::fail(&$clauses, $rule, format!($($found),+), $crate::testing::demand::cause!($($cause)?));
        }
    };
}
pub(super) use demand;

/// Returns the text that it is given, or an empty one.
macro_rules! cause {
    () => {
        ""
    };
    ($cause:expr) => {
        $cause
    };
}
pub(super) use cause;

/// A storage under test, each of whose operations fails the case if it returns an error or hangs.
#[derive(Clone)]
pub(super) struct Tested<S> {
    pub(super) storage: S,
    /// The clauses that the case checks.
    pub(super) clauses: &'static [usize],
}

impl<S: Storage> Tested<S> {
    pub(super) fn new(storage: S, clauses: &'static [usize]) -> Self {
        Self { storage, clauses }
    }

    async fn run<T>(&self, operation: &str, running: impl Future<Output = Result<T>>) -> T {
        match self.ends(operation, running).await {
            Ok(done) => done,
            Err(error) => fail(
                self.clauses,
                &format!("`{operation}` returns no error while the storage works"),
                format!("the error {error:?}"),
                "",
            ),
        }
    }

    /// Waits until an operation ends, and fails the case if it does not.
    pub(super) async fn ends<T>(&self, operation: &str, running: impl Future<Output = T>) -> T {
        let done = tokio::time::timeout(OPERATION_TIME_LIMIT, running).await;
        done.unwrap_or_else(|_| {
            fail(
                self.clauses,
                &format!("`{operation}` ends"),
                format!("the storage hangs: it has not ended in {} s", OPERATION_TIME_LIMIT.as_secs()),
                "a lock, a connection or a place in a queue that another operation has not given back",
            )
        })
    }

    pub(super) async fn read(&self, key: Key) -> Option<Record> {
        self.run("read", self.storage.read(key)).await
    }

    /// Returns the payload of a record.
    pub(super) async fn payload(&self, key: Key) -> Option<Bytes> {
        self.read(key).await.map(|record| record.payload())
    }

    /// Returns the payload of a record as text.
    pub(super) async fn text(&self, key: Key) -> Option<String> {
        self.payload(key).await.map(|payload| String::from_utf8_lossy(&payload).into_owned())
    }

    /// Returns the record that must be at a key.
    pub(super) async fn existing(&self, key: Key) -> Record {
        let read = self.read(key).await;
        read.unwrap_or_else(|| {
            fail(self.clauses, "`read` returns the record that was written", "no record", "")
        })
    }

    pub(super) fn read_now(&self, key: Key) -> Option<Option<Record>> {
        let now = self.storage.read_now(key)?;
        Some(now.unwrap_or_else(|error| {
            let rule = "`read_now` returns no error while the storage works";
            fail(self.clauses, rule, format!("the error {error:?}"), "")
        }))
    }

    pub(super) async fn write(&self, key: Key, record: Record) {
        self.run("write", self.storage.write(key, record)).await;
    }

    pub(super) async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> bool {
        self.run("write_if", self.storage.write_if(key, seen, record)).await
    }

    pub(super) async fn delete(&self, key: Key) -> bool {
        self.run("delete", self.storage.delete(key)).await
    }

    pub(super) async fn delete_many(&self, keys: &[Key]) -> u64 {
        self.run("delete_many", self.storage.delete_many(keys)).await
    }

    pub(super) async fn delete_expired(&self, now: Timestamp) -> u64 {
        self.run("delete_expired", self.storage.delete_expired(now)).await
    }

    pub(super) async fn clear(&self) {
        self.run("clear", self.storage.clear()).await;
    }

    pub(super) async fn contains(&self, key: Key) -> bool {
        self.run("contains", self.storage.contains(key)).await
    }

    pub(super) async fn contains_all(&self, keys: &[Key]) -> bool {
        self.run("contains_all", self.storage.contains_all(keys)).await
    }

    pub(super) async fn stamps(&self, keys: &[Key]) -> Vec<Option<(Stamp, Timestamp)>> {
        self.run("stamps", self.storage.stamps(keys)).await
    }

    pub(super) async fn retain(&self, keys: &[Key], retain: Retain) -> u64 {
        self.run("retain", self.storage.retain(keys, retain)).await
    }

    pub(super) async fn keys(&self) -> Vec<Key> {
        self.run("keys", self.storage.keys().try_collect()).await
    }

    pub(super) async fn values(&self) -> Vec<(Key, Record)> {
        self.run("values", self.storage.values().try_collect()).await
    }

    pub(super) async fn size(&self) -> u64 {
        self.run("size", self.storage.size()).await
    }

    pub(super) async fn usage(&self) -> Usage {
        self.run("usage", self.storage.usage()).await
    }

    pub(super) async fn check(&self) {
        self.run("check", self.storage.check()).await;
    }

    pub(super) async fn close(&self) {
        self.run("close", self.storage.close()).await;
    }

    pub(super) fn hold(&self, chunk: Key, bytes: u64) -> Hold {
        self.storage.hold(chunk, bytes)
    }
}

/// Returns a description of what was read.
pub(super) fn described(record: Option<&Record>) -> String {
    record.map_or("no record".to_owned(), |record| {
        format!(
            "a record of {} bytes with {:?}, kept until {:?}",
            record.payload().len(),
            record.stamp(),
            record.retain_until()
        )
    })
}

/// Waits until all tasks have ended, and fails the case as the first one that failed.
pub(super) async fn join<T>(tasks: impl IntoIterator<Item = JoinHandle<T>>) -> Vec<T> {
    // All of them are started before the first is awaited.
    let tasks: Vec<_> = tasks.into_iter().collect();
    let mut done = Vec::with_capacity(tasks.len());
    for task in tasks {
        // With the message of the task, which names the clause.
        done.push(task.await.unwrap_or_else(|error| resume_unwind(error.into_panic())));
    }
    done
}
