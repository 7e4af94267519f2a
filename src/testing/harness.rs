//! How the suite opens a storage.

use std::future::Future;
use std::time::Duration;

use crate::error::Result;
use crate::storage::{Key, Storage};

/// Opens storages for the contract's cases. A closure that makes an empty storage is one, for storages that are not
/// shared by name.
///
/// ```
/// # #[cfg(feature = "sqlite")] {
/// use tower_response_cache::Result;
/// use tower_response_cache::storage::SqliteStorage;
/// use tower_response_cache::testing::{Harness, storage_contract};
///
/// /// Files side by side in one folder.
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
/// storage_contract!(files, Files(tempfile::tempdir().unwrap())); // each case makes a harness of its own
/// # }
/// ```
pub trait Harness: Sync {
    /// The storage under test.
    type Storage: Storage;

    /// Opens the storage of this name. Where [`shares`](Harness::shares) is true, all names live side by side in one
    /// store, and opening a name twice gives two handles of the same storage; else each is a storage of its own.
    ///
    /// # Errors
    /// A name that the storage cannot take.
    fn open(&self, name: &str) -> impl Future<Output = Result<Self::Storage>> + Send;

    /// Whether names are shared. Provided: false.
    fn shares(&self) -> bool {
        false
    }

    /// Whether a storage that is opened again, after all handles were dropped, has its records. Provided: false.
    fn persists(&self) -> bool {
        false
    }

    /// Opens an empty storage that holds at most so many bytes, about. Provided: `None`, for storages without a bound.
    fn open_bounded(&self, max_bytes: u64) -> impl Future<Output = Option<Self::Storage>> + Send {
        let _ = max_bytes;
        async { None }
    }

    /// Puts bytes that are no record in place of the one at this key, past the storage; false: this harness cannot.
    fn damage(&self, storage: &Self::Storage, key: Key) -> impl Future<Output = bool> + Send {
        let _ = (storage, key);
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

/// The longest that a case, or an operation in one, may take. The slowest storage needs a tenth of it on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a case, and fails it when it takes longer than a minute: a storage that hangs does not hold up the suite.
pub async fn in_time<T>(what: &str, operation: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, operation).await;
    done.unwrap_or_else(|_| panic!("the storage hangs {what}"))
}
