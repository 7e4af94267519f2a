//! What SQLite's errors mean to a caller, and waiting for one's turn.
//!
//! Promises: no message, and no source of an error, says that the database is locked.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, ffi};

use super::location::beside;
use crate::error::{Error, ErrorKind};
use crate::storage::backoff::Backoff;

const READ_ONLY: &str = "the cache's file cannot be written";

/// True when another connection was in the way, and the same may succeed later.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    let busy = [ErrorCode::DatabaseBusy, ErrorCode::DatabaseLocked, ErrorCode::FileLockingProtocolFailed];
    error.sqlite_error_code().is_some_and(|code| busy.contains(&code))
}

/// True when there was no room on the disk.
pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    // The log's index is lengthened by a call that does not tell why it failed; there is one reason known.
    let extended = error.sqlite_error().map(|error| error.extended_code);
    error.sqlite_error_code() == Some(ErrorCode::DiskFull) || extended == Some(ffi::SQLITE_IOERR_SHMSIZE)
}

/// Another version of this crate has changed the tables since they were opened.
#[derive(Debug)]
struct Upgraded;

impl fmt::Display for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the file has the layout of another version")
    }
}

impl std::error::Error for Upgraded {}

/// The error of a transaction in a file that another version has brought to its layout.
pub(super) fn upgraded() -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(Upgraded))
}

/// The error of an operation, as its caller gets it.
pub(super) fn failed(error: rusqlite::Error) -> Error {
    if matches!(&error, rusqlite::Error::ToSqlConversionFailure(source) if source.is::<Upgraded>()) {
        let message = "a newer version of this crate has changed the cache's file: this process reads it and writes nothing; upgrade it, or name another file";
        return Error::new(ErrorKind::ReadOnly, message);
    }
    if is_busy(&error) {
        return busy();
    }
    if is_full(&error) {
        let message = "the disk of the cache's file, or the file by its own limit, is full";
        return Error::new(ErrorKind::Full, message).with_source(error);
    }
    let (kind, message) = match error.sqlite_error_code() {
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => (ErrorKind::ReadOnly, READ_ONLY),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            (ErrorKind::Corrupt, "the cache's file is damaged: remove it, and a new one is made")
        }
        Some(ErrorCode::TooBig) => (ErrorKind::TooLarge, "the record is longer than SQLite takes"),
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => {
            (ErrorKind::Unavailable, "the cache's file could not be read or written")
        }
        _ => (ErrorKind::Other, "sqlite failed"),
    };
    Error::new(kind, message).with_source(error)
}

/// The error of a change: as [`failed`], and says so where writing is forbidden since the file was opened, which SQLite
/// calls an error of input and output.
pub(super) fn failed_change(error: rusqlite::Error, connection: &Connection) -> Error {
    let is_forbidden = error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure)
        && connection.path().is_some_and(|path| is_write_forbidden(Path::new(path)));
    match is_forbidden {
        true => Error::new(ErrorKind::ReadOnly, READ_ONLY).with_source(error),
        false => failed(error),
    }
}

/// True when the file or its log cannot be opened for writing.
fn is_write_forbidden(path: &Path) -> bool {
    [path, &beside(path, "-wal")].into_iter().any(|path| {
        let opened = std::fs::OpenOptions::new().append(true).open(path);
        opened.is_err_and(|error| {
            matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
        })
    })
}

/// The store had no turn for us within the busy timeout.
pub(super) fn busy() -> Error {
    Error::new(ErrorKind::Timeout, "the store is busy: others kept it for longer than the busy timeout")
}

/// The thread that should answer is gone.
pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the store is closed")
}

/// Repeats what other connections keep from happening, until it happens or the time is over. Sleeps in between: for
/// threads that may.
pub(super) fn patiently<T>(
    patience: Duration,
    mut attempt: impl FnMut() -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let mut backoff = Backoff::new(patience);
    loop {
        match attempt() {
            Err(error) if is_busy(&error) && backoff.wait() => {}
            result => return result,
        }
    }
}
