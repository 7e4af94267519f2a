//! How a store is opened.

use std::path::PathBuf;
use std::time::Duration;

use super::bound::LEAST;
use super::place::Place;
use super::store::DirectoryStorage;
use super::workers::{Workers, done};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::path::expanded;

/// Opens a [`DirectoryStorage`].
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

    /// Sets how many bytes the entries may take on the disk.
    ///
    /// What the file system allocates counts, for files and for their folders: a short response takes 8 KiB on most.
    /// An entry takes at most half. What is more goes soon after it was written, not before: see the
    /// [module](crate::storage::directory). At least 16 KiB.
    ///
    /// Default: 1 GiB.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Keeps every record until it is deleted or expires, for recorded responses.
    ///
    /// [`max_bytes`](Self::max_bytes) does not count then, and only writes change a file.
    ///
    /// Default: `false`.
    pub fn unbounded(mut self, unbounded: bool) -> Self {
        self.unbounded = unbounded;
        self
    }

    /// Whether every change is on the disk before its caller is answered, so that a machine that loses power loses
    /// nothing; each then takes as long as the disk does, many times longer. Without it the last changes may be lost:
    /// what was cut short counts as absent. A process that dies loses nothing either way. Default: false.
    pub fn fsync(mut self, fsync: bool) -> Self {
        self.fsync = fsync;
        self
    }

    /// How many threads read, and how many write: so many of each, from 1 to 64. Changes of one entry are made by one of
    /// them, in their order. Default: 2.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// How long a change waits for its turn while other processes change the same part of the directory (one of 256).
    /// Default: 5 seconds.
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// Opens the store, on a thread of its own; makes the directory and those above it if they are not there.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config): the path or the bound is wrong, or there is no directory and none can be made.
    /// [`Unavailable`](ErrorKind::Unavailable): no thread can be started.
    pub async fn open(self) -> Result<DirectoryStorage> {
        let max_bytes = Some(self.max_bytes).filter(|_| !self.unbounded);
        if max_bytes.is_some_and(|most| most < LEAST) {
            let message = "max_bytes is below 16384: nothing could be stored";
            return Err(Error::new(ErrorKind::Config, message));
        }
        let path = expanded(&self.path, std::env::home_dir(), "the directory's path")?;
        let workers = Workers::start(self.threads)?;
        let (fsync, patience) = (self.fsync, self.lock_timeout);
        let open = move || {
            // The same directory, whatever the working directory is later.
            let place = Place::open(std::path::absolute(&path).unwrap_or(path), fsync, patience)?;
            place.remove_abandoned();
            Ok(place)
        };
        let place = done(workers.upkeep(open)).await?;
        Ok(DirectoryStorage::new(workers, place, max_bytes))
    }
}
