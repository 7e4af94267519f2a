//! What the file system's errors mean to a caller.

use std::io;

use crate::error::{Error, ErrorKind};

/// The error of an operation that only reads.
pub(super) fn failed_read(error: io::Error) -> Error {
    let (kind, message) = match error.kind() {
        io::ErrorKind::PermissionDenied => (ErrorKind::Denied, "the cache's directory cannot be read"),
        _ => (ErrorKind::Unavailable, "a file of the cache's directory could not be read"),
    };
    Error::new(kind, message).with_source(error)
}

/// The error of a change.
pub(super) fn failed_change(error: io::Error) -> Error {
    let (kind, message) = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            (ErrorKind::ReadOnly, "the cache's directory cannot be written")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (ErrorKind::Full, "the disk of the cache's directory, or its user's share, is full")
        }
        io::ErrorKind::FileTooLarge => (ErrorKind::TooLarge, "the record is longer than a file may be there"),
        io::ErrorKind::Unsupported => {
            (ErrorKind::Unavailable, "the file system of the cache's directory has no locks")
        }
        _ => (ErrorKind::Unavailable, "a file of the cache's directory could not be written"),
    };
    Error::new(kind, message).with_source(error)
}

/// Others had the shard for too long.
pub(super) fn busy() -> Error {
    Error::new(ErrorKind::Timeout, "the store is busy: others kept it for longer than the lock timeout")
}

/// The thread that should answer is gone.
pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the store is closed")
}

/// `None` for what is not there.
pub(super) fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Nothing is there, or something that cannot be ours: a folder where a file would be, or the reverse.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory
    )
}
