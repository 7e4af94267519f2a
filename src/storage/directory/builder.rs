//! The settings of a [`DirectoryStorage`].

use std::path::PathBuf;
use std::time::Duration;

use super::quota::MIN_BYTES;
use super::root::Root;
use super::storage::DirectoryStorage;
use super::workers::{Workers, await_answer};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::path::expand_home;

/// A builder for [`DirectoryStorage`].
///
/// Created by [`DirectoryStorage::builder`].
///
/// ```
/// use std::time::Duration;
/// use tower_response_cache::storage::DirectoryStorage;
///
/// # async fn open() -> tower_response_cache::Result<DirectoryStorage> {
/// DirectoryStorage::builder("tests/recorded")
///     .unbounded(true)
///     .lock_timeout(Duration::from_secs(2))
///     .open()
///     .await
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct DirectoryStorageBuilder {
    path: PathBuf,
    max_bytes: u64,
    unbounded: bool,
    fsync: bool,
    threads: usize,
    lock_timeout: Duration,
}

impl DirectoryStorageBuilder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            max_bytes: 1 << 30,
            unbounded: false,
            fsync: false,
            threads: 2,
            lock_timeout: Duration::from_secs(5),
        }
    }

    /// Sets the bound on the disk space of all entries, in bytes.
    ///
    /// The storage counts what the file system allocates for files and folders: on most file systems a short response takes
    /// 8 KiB. An entry takes at most half of the bound. The bound is enforced soon after a write, not before it; see the
    /// [module](crate::storage::directory#the-bound). The least value is 16 KiB.
    ///
    /// Default: 1 GiB.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets whether every record is kept until it is deleted or expires, for recorded responses.
    ///
    /// Nothing is then evicted, and [`max_bytes`](Self::max_bytes) has no effect. Reading changes neither a file nor its times.
    ///
    /// Default: `false`.
    pub fn unbounded(mut self, unbounded: bool) -> Self {
        self.unbounded = unbounded;
        self
    }

    /// Sets whether a change is on the disk before its call returns.
    ///
    /// A machine that loses power then loses no change whose call has returned, but each change takes as long as the disk
    /// needs, which is many times longer. Without it such a machine may lose the last changes, and truncated files count as
    /// absent records. A process that is killed loses nothing in either case.
    ///
    /// Default: `false`.
    pub fn fsync(mut self, fsync: bool) -> Self {
        self.fsync = fsync;
        self
    }

    /// Sets how many threads read, and how many other threads write.
    ///
    /// The number is limited to the range from 1 to 64. Changes of one entry are made by one of the threads, in order.
    ///
    /// Default: 2.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Sets how long a change waits for other changes of the same part.
    ///
    /// The directory has 256 parts, each with a lock that all processes share. A change that waited for so long fails with [`Timeout`](ErrorKind::Timeout).
    ///
    /// Default: 5 seconds.
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// Opens the storage, and creates the directory if it does not exist.
    ///
    /// The directory above it is created as well, if that is missing. A path of which more is missing, or whose first
    /// directory is missing, is probably mistyped. All of this happens on a thread of the storage's own.
    ///
    /// # Errors
    /// Returns [`Config`](ErrorKind::Config) if the path or the bound is wrong, or if the directory can be neither read nor
    /// created. Returns [`Unavailable`](ErrorKind::Unavailable) if no thread can be started.
    pub async fn open(self) -> Result<DirectoryStorage> {
        let max_bytes = Some(self.max_bytes).filter(|_| !self.unbounded);
        if max_bytes.is_some_and(|bytes| bytes < MIN_BYTES) {
            let message = "max_bytes is below 16384, so that nothing could be stored: raise it";
            return Err(Error::new(ErrorKind::Config, message));
        }
        let path = expand_home(&self.path, std::env::home_dir(), "the directory's path")?;
        let workers = Workers::start(self.threads)?;
        let (fsync, lock_timeout) = (self.fsync, self.lock_timeout);
        let open = move || {
            // Absolute, so that it stays the same directory when the program changes its working directory.
            let root = Root::open(std::path::absolute(&path).unwrap_or(path), fsync, lock_timeout)?;
            root.remove_abandoned();
            Ok(root)
        };
        let root = await_answer(workers.maintain(open)).await?;
        Ok(DirectoryStorage::new(workers, root, max_bytes))
    }
}
