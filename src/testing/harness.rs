//! How the test suite opens storages.

use std::future::Future;
use std::io::Write;
use std::time::Duration;

use crate::error::Result;
use crate::storage::{Key, Record, Storage};
use crate::time::Timestamp;

/// Opens the storages that the cases of the contract test.
///
/// A closure that returns an empty storage implements it, for storages that are not opened by name.
///
/// ```
/// # #[cfg(feature = "sqlite")] {
/// use tower_response_cache::Result;
/// use tower_response_cache::storage::SqliteStorage;
/// use tower_response_cache::testing::{Harness, storage_contract};
///
/// /// Opens each name as a file of one folder.
/// struct Files(tempfile::TempDir);
///
/// impl Harness for Files {
///     type Storage = SqliteStorage;
///
///     async fn open(&self, name: &str) -> Result<SqliteStorage> {
///         SqliteStorage::open(self.0.path().join(name)).await
///     }
///
///     fn shares(&self) -> bool {
///         true
///     }
///
///     fn persists(&self) -> bool {
///         true
///     }
/// }
///
/// storage_contract!(files, Files(tempfile::tempdir().unwrap())); // evaluated anew for each case
/// # }
/// ```
pub trait Harness: Sync {
    /// The storage under test.
    type Storage: Storage;

    /// Opens the storage with this name.
    ///
    /// If [`shares`](Harness::shares) is true, all names are kept side by side in one place (a server, a folder), and opening a
    /// name twice returns two handles to the same storage. Otherwise every call returns a storage of its own.
    ///
    /// # Errors
    /// Returns an error if the storage does not accept the name.
    fn open(&self, name: &str) -> impl Future<Output = Result<Self::Storage>> + Send;

    /// Returns whether opening a name twice opens the same storage.
    ///
    /// `true` declares that processes can share the storage. The suite then opens a name twice and demands what the contract
    /// says of two processes, such as a `write_if` that no other process can interrupt.
    ///
    /// Default: `false`.
    fn shares(&self) -> bool {
        false
    }

    /// Returns whether records remain when all handles are dropped and the storage is reopened.
    ///
    /// Default: `false`.
    fn persists(&self) -> bool {
        false
    }

    /// Opens an empty storage with about this bound, in bytes.
    ///
    /// Default: `None`, for storages without a bound. The cases about bounds then check nothing.
    fn open_bounded(&self, max_bytes: u64) -> impl Future<Output = Option<Self::Storage>> + Send {
        let _ = max_bytes;
        async { None }
    }

    /// Replaces the record at this key by bytes that are not a record.
    ///
    /// It does so without using the storage.
    ///
    /// Returns whether the harness can do this.
    ///
    /// Default: `false`.
    fn damage(&self, storage: &Self::Storage, key: Key) -> impl Future<Output = bool> + Send {
        let _ = (storage, key);
        async { false }
    }

    /// Makes the medium of the storage fail, or work again.
    ///
    /// From when it returns, reads and writes of the medium must fail, until it is called with `false`. It may stop a server,
    /// rename a table, or set a flag that a test double looks at. It may do so to other storages of this harness too. The
    /// storage need not notice by itself when the medium works again.
    ///
    /// Returns whether the harness can do this.
    ///
    /// Default: `false`.
    fn set_failing(&self, storage: &Self::Storage, fails: bool) -> impl Future<Output = bool> + Send {
        let _ = (storage, fails);
        async { false }
    }
}

impl<F, S> Harness for F
where
    F: Fn() -> S + Sync,
    S: Storage,
{
    type Storage = S;

    async fn open(&self, _name: &str) -> Result<S> {
        Ok(self())
    }
}

/// How long a case may take.
///
/// The longest case sends some thousands of requests. With DynamoDB Local that is 10 seconds, and has been more than a
/// minute on a machine that was busy with other tests.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// Runs a case, and panics if it takes longer than five minutes.
///
/// A storage that is too slow then fails its test instead of blocking the suite. A single operation that hangs fails the case
/// earlier, with the number of the clause. `what` completes the message "the storage takes more than 300 s".
///
/// # Panics
/// Panics if the operation takes longer than five minutes.
pub async fn in_time<T>(what: &str, operation: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(TIME_LIMIT, operation).await;
    done.unwrap_or_else(|_| {
        panic!(
            "the storage takes more than {} s {what}, whose docs name the clauses that it checks",
            TIME_LIMIT.as_secs()
        )
    })
}

/// Returns what the suite cannot check with a harness.
///
/// Each text begins with the method of [`Harness`] that would have to be implemented, and names the clauses. A storage that
/// neither shares nor persists, such as one in memory, is right to leave these methods out.
pub async fn unchecked<H: Harness>(harness: &H) -> Vec<String> {
    let mut unchecked = Vec::new();
    let mut lacks = |lacks: bool, method: &str, clauses: &str| {
        if lacks {
            unchecked.push(format!("{method} ({clauses})"));
        }
    };
    lacks(!harness.shares(), "shares", "clauses 2, 4, 9, 10 and 21 among handles and processes, and 15");
    lacks(!harness.persists(), "persists", "clauses 11 and 19 after the storage is opened again");
    let bounded = harness.open_bounded(1 << 20).await;
    lacks(bounded.is_none(), "open_bounded", "clauses 8 and 18 about a bound");
    let (mut damages, mut fails) = (false, false);
    // A storage that cannot be opened or written fails the cases themselves.
    if let Ok(storage) = harness.open("unchecked").await {
        let key = Key::head([1; 16]);
        if storage.write(key, Record::new("x", Timestamp::NEVER)).await.is_ok() {
            damages = harness.damage(&storage, key).await;
            fails = harness.set_failing(&storage, true).await;
            if fails {
                harness.set_failing(&storage, false).await;
            }
            drop(storage.clear().await);
        }
    }
    lacks(!damages, "damage", "clause 14");
    lacks(!fails, "set_failing", "clause 22");
    unchecked
}

/// Prints what the suite cannot check with a harness, for the generated tests.
#[doc(hidden)]
pub async fn report_unchecked<H: Harness>(name: &str, harness: &H) {
    let unchecked = unchecked(harness).await;
    if !unchecked.is_empty() {
        // Written past `eprintln!`, whose text the test runner shows only if the test fails. In one piece, because other tests
        // print at the same time.
        let report = format!(
            "the contract of {name}: the harness lacks {}, so these are not checked\n",
            unchecked.join(", ")
        );
        drop(std::io::stderr().write_all(report.as_bytes()));
    }
}
