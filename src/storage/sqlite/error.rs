//! Maps SQLite's errors to this crate's, and retries while the database is locked.
//!
//! # Invariants
//!
//! - Neither the message nor the source of a returned error says that the database is locked.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, ffi};

use super::location::with_suffix;
use crate::error::{Error, ErrorKind};
use crate::storage::backoff::Backoff;

const READ_ONLY: &str = "the cache's file cannot be written: check its permissions and its file system";

/// Returns whether another connection was in the way, so that a retry may succeed.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    let busy = [ErrorCode::DatabaseBusy, ErrorCode::DatabaseLocked, ErrorCode::FileLockingProtocolFailed];
    error.sqlite_error_code().is_some_and(|code| busy.contains(&code))
}

/// Returns whether the disk, or the database by its own limit, is full.
pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    // SQLite does not say why growing the WAL's index (the `-shm` file) failed. A full disk is the only known cause.
    let extended = error.sqlite_error().map(|error| error.extended_code);
    error.sqlite_error_code() == Some(ErrorCode::DiskFull) || extended == Some(ffi::SQLITE_IOERR_SHMSIZE)
}

/// A newer version of this crate has migrated the file while it was open here.
#[derive(Debug)]
struct NewerLayout;

impl fmt::Display for NewerLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the file has the layout of another version")
    }
}

impl std::error::Error for NewerLayout {}

/// Returns the error of a transaction in a file that a newer version has migrated.
pub(super) fn newer_layout() -> rusqlite::Error {
    // Transactions fail with rusqlite's error type. This variant carries an error of our own, which `map_error` looks for.
    rusqlite::Error::ToSqlConversionFailure(Box::new(NewerLayout))
}

/// Maps the error of an operation to the one that its caller gets.
pub(super) fn map_error(error: rusqlite::Error) -> Error {
    if matches!(&error, rusqlite::Error::ToSqlConversionFailure(source) if source.is::<NewerLayout>()) {
        let message = "a newer version of this crate has migrated the cache's file, so this process only reads it: \
                       upgrade this program, or use another file";
        return Error::new(ErrorKind::ReadOnly, message);
    }
    if is_busy(&error) {
        // Without the source, which says that the database is locked.
        return busy();
    }
    if is_full(&error) {
        let message = "the disk of the cache's file is full, or the file has reached its own limit";
        return Error::new(ErrorKind::Full, message).with_source(error);
    }
    let (kind, message) = match error.sqlite_error_code() {
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => (ErrorKind::ReadOnly, READ_ONLY),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            (ErrorKind::Corrupt, "the cache's file is damaged: remove it, and a new one is made")
        }
        Some(ErrorCode::TooBig) => (ErrorKind::TooLarge, "the record is longer than SQLite's limit"),
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => {
            (ErrorKind::Unavailable, "the cache's file could not be read or written")
        }
        _ => (ErrorKind::Other, "the database returned an error"),
    };
    Error::new(kind, message).with_source(error)
}

/// Maps the error of a change to the one that its caller gets.
///
/// As [`map_error`], except for a file that became read-only after it was opened: SQLite reports that as an I/O error.
pub(super) fn map_write_error(error: rusqlite::Error, connection: &Connection) -> Error {
    let is_read_only = error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure)
        && connection.path().is_some_and(|path| is_write_denied(Path::new(path)));
    match is_read_only {
        true => Error::new(ErrorKind::ReadOnly, READ_ONLY).with_source(error),
        false => map_error(error),
    }
}

/// Returns whether the file or its WAL cannot be written.
///
/// Only the WAL is opened. On Unix, closing the database file would release every lock that this process has on it, and
/// another process could then take itself for the last one and delete the WAL that is in use.
fn is_write_denied(path: &Path) -> bool {
    let is_read_only = std::fs::metadata(path).is_ok_and(|file| file.permissions().readonly());
    let wal = std::fs::OpenOptions::new().append(true).open(with_suffix(path, "-wal"));
    is_read_only
        || wal.is_err_and(|error| {
            matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
        })
}

/// Returns the error of an operation that had no turn within the busy timeout.
fn busy() -> Error {
    let message = "the cache's file is busy: other connections kept it for longer than the busy timeout";
    Error::new(ErrorKind::Timeout, message)
}

/// Returns the error of an operation on a storage that was closed.
pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the storage is closed")
}

/// Repeats an attempt while other connections are in its way, for at most `timeout`.
///
/// Sleeps between the attempts, so it must not be called on a worker of the runtime.
pub(super) fn retry_while_busy<T>(
    timeout: Duration,
    mut attempt: impl FnMut() -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let mut backoff = Backoff::new(timeout);
    loop {
        match attempt() {
            Err(error) if is_busy(&error) && backoff.wait() => {}
            result => return result,
        }
    }
}
