//! What SQLite's errors mean to a caller, and waiting for one's turn.
//!
//! Promises: no message, and no source of an error, says that the database is locked.

use std::time::{Duration, Instant};

use rusqlite::ErrorCode;

use crate::error::{Error, ErrorKind};

/// True when another connection was in the way, and the same may succeed later.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// The error of an operation, as its caller gets it.
pub(super) fn failed(error: rusqlite::Error) -> Error {
    if is_busy(&error) {
        return busy();
    }
    let (kind, message) = match error.sqlite_error_code() {
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            (ErrorKind::ReadOnly, "the cache's file cannot be written")
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            (ErrorKind::Corrupt, "the cache's file is damaged: remove it while nobody uses it")
        }
        Some(ErrorCode::TooBig) => (ErrorKind::TooLarge, "the record is longer than SQLite takes"),
        Some(ErrorCode::DiskFull) => (ErrorKind::Full, "the disk of the cache's file is full"),
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => {
            (ErrorKind::Unavailable, "the cache's file could not be read or written")
        }
        _ => (ErrorKind::Other, "sqlite failed"),
    };
    Error::new(kind, message).with_source(error)
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
    let begun = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        match attempt() {
            Err(error) if is_busy(&error) && begun.elapsed() < patience => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}
