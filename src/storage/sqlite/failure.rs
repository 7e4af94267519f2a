//! SQLite's errors as ours.

use rusqlite::ErrorCode;

use crate::error::{Error, ErrorKind};

/// An error of an operation. The driver's own words name statements, never values, and stay its source.
pub(super) fn failed(error: rusqlite::Error) -> Error {
    let (kind, message) = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (ErrorKind::Timeout, "the store was busy for longer than the busy timeout")
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            (ErrorKind::Corrupt, "the SQLite file is damaged: delete it, and the cache begins anew")
        }
        Some(ErrorCode::ReadOnly) => (ErrorKind::ReadOnly, "the SQLite file cannot be written"),
        Some(ErrorCode::TooBig) => (ErrorKind::TooLarge, "the record is longer than SQLite takes"),
        Some(ErrorCode::DiskFull) => (ErrorKind::Unavailable, "the disk is full"),
        _ => (ErrorKind::Unavailable, "the SQLite file could not be used"),
    };
    Error::new(kind, message).with_source(error)
}

/// The thread that does the work has ended.
pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the SQLite storage is closed")
}
