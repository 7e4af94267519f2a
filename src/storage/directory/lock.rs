//! Locks among processes. Each is a file, which is locked as long as it is open.
//!
//! # Invariants
//! - At most one holder has a lock at a time, among the threads of one process as well.
//! - A process that dies releases its locks.
//! - Waiting for a lock ends at the time limit.
//! - A lock on a file that was removed or replaced is never returned.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::Duration;

use fs4::{FileExt, TryLockError};

use crate::storage::backoff::Backoff;

/// A lock, which is released when it is dropped, because that closes the file.
#[must_use]
pub(super) struct Lock {
    _file: File,
}

/// Locks a file, and creates it if it does not exist.
///
/// Returns `None` if the lock was held by others until the time limit.
pub(super) fn acquire(path: &Path, time_limit: Duration) -> io::Result<Option<Lock>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    lock(path, &options, time_limit)
}

/// Locks a file that exists, without writing anything.
///
/// Returns `None` if the lock was held by others until the time limit.
pub(super) fn acquire_existing(path: &Path, time_limit: Duration) -> io::Result<Option<Lock>> {
    lock(path, OpenOptions::new().read(true), time_limit)
}

fn lock(path: &Path, options: &OpenOptions, time_limit: Duration) -> io::Result<Option<Lock>> {
    let mut backoff = Backoff::new(time_limit);
    loop {
        // Opened again for each attempt, since the file may have been removed or replaced during the pause.
        let file = options.open(path)?;
        match FileExt::try_lock(&file) {
            Ok(()) if is_at(&file, path)? => return Ok(Some(Lock { _file: file })),
            // Removed or replaced between the opening and the locking: a lock on it keeps no other process out.
            Ok(()) | Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
        if !backoff.wait() {
            return Ok(None);
        }
    }
}

/// Returns whether the open file is the one at this path.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let (open, named) = (file.metadata()?, super::error::if_present(std::fs::metadata(path))?);
    Ok(named.is_some_and(|named| (named.dev(), named.ino()) == (open.dev(), open.ino())))
}

/// On other systems, a file that is open cannot be removed or replaced.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}
