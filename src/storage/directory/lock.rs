//! Locks among processes: a file each, which is locked as long as it is open.
//!
//! Promises: who holds a lock is alone, among the threads of one process too; a process that dies gives its locks up;
//! nobody waits longer than he wants to; a lock file that was removed or replaced locks nothing from then on.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::Duration;

use fs4::{FileExt, TryLockError};

use crate::storage::turns::Turns;

/// Given up when it is dropped, with the file.
#[must_use]
pub(super) struct Lock {
    _file: File,
}

/// Takes the lock that this file is, and makes the file if it is not there; `None` when others kept it for that long.
pub(super) fn take(path: &Path, patience: Duration) -> io::Result<Option<Lock>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    lock(path, &options, patience)
}

/// The same, but makes nothing and writes nothing.
pub(super) fn take_existing(path: &Path, patience: Duration) -> io::Result<Option<Lock>> {
    lock(path, OpenOptions::new().read(true), patience)
}

fn lock(path: &Path, options: &OpenOptions, patience: Duration) -> io::Result<Option<Lock>> {
    let mut turns = Turns::new(patience);
    loop {
        let file = options.open(path)?;
        match FileExt::try_lock(&file) {
            Ok(()) if is_at(&file, path)? => return Ok(Some(Lock { _file: file })),
            // The lock of a file that was removed, or replaced, before it was ours.
            Ok(()) | Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
        if !turns.wait() {
            return Ok(None);
        }
    }
}

/// True when this is the file that has the name.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let (ours, named) = (file.metadata()?, super::failure::found(std::fs::metadata(path))?);
    Ok(named.is_some_and(|named| (named.dev(), named.ino()) == (ours.dev(), ours.ino())))
}

/// Elsewhere a file that is open keeps its name.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}
