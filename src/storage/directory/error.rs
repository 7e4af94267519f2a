//! The meaning of errors of the file system to a caller.

use std::io;

use crate::error::{Error, ErrorKind};

/// Returns the error of an operation that only reads.
pub(super) fn read_error(error: io::Error) -> Error {
    let (kind, message) = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            (ErrorKind::Denied, "the cache's directory cannot be read: check its permissions")
        }
        _ => (ErrorKind::Unavailable, "a file of the cache's directory could not be read"),
    };
    Error::new(kind, message).with_source(error)
}

/// Returns the error of a change.
pub(super) fn change_error(error: io::Error) -> Error {
    let (kind, message) = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => (
            ErrorKind::ReadOnly,
            "the cache's directory cannot be written: check its permissions and its file system",
        ),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => (
            ErrorKind::Full,
            "the disk of the cache's directory, or the user's quota on it, is full: lower max_bytes or free space",
        ),
        io::ErrorKind::FileTooLarge => {
            (ErrorKind::TooLarge, "the record is longer than a file may be on this file system")
        }
        io::ErrorKind::Unsupported => (
            ErrorKind::Unavailable,
            "the file system of the cache's directory does not support locks: use another one",
        ),
        _ => (ErrorKind::Unavailable, "a file of the cache's directory could not be written"),
    };
    Error::new(kind, message).with_source(error)
}

/// Returns the error of a change that could not lock its shard in time.
pub(super) fn lock_timeout_error() -> Error {
    let message = "the storage is busy: other changes held the lock for longer than the lock timeout";
    Error::new(ErrorKind::Timeout, message)
}

/// Returns the error of a call whose thread has ended.
pub(super) fn closed_error() -> Error {
    Error::new(ErrorKind::Unavailable, "the storage is closed")
}

/// Returns `None` if the file or folder is absent.
pub(super) fn if_present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(present) => Ok(Some(present)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns whether the error means that the file or folder is absent.
///
/// A folder where a file should be, or the reverse, does not belong to the storage, and counts as absent.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory
    )
}
