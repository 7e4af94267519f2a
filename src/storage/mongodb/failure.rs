//! What the driver's errors mean to a caller.
//!
//! Promises: no message and no source holds an address, a name or a credential. The server's own texts are left out,
//! since some of them repeat the documents that they complain about; its codes are numbers and stay.

use std::io;

use ::mongodb::error::{Error as DriverError, ErrorKind as DriverKind, WriteFailure};

use crate::error::{Error, ErrorKind};

/// The error of an operation. A user without the right to write may still read.
pub(super) fn failed(error: &DriverError, writes: bool) -> Error {
    let (kind, message) = meaning(error, writes);
    let source = match code(error) {
        Some(code) => format!("mongodb: code {code}"),
        None => format!("mongodb: {}", word(error)),
    };
    Error::new(kind, message).with_source(source)
}

/// The server's number for what went wrong.
pub(super) fn code(error: &DriverError) -> Option<i32> {
    match &*error.kind {
        DriverKind::Command(error) => Some(error.code),
        DriverKind::Write(WriteFailure::WriteError(error)) => Some(error.code),
        DriverKind::Write(WriteFailure::WriteConcernError(error)) => Some(error.code),
        DriverKind::Authentication { .. } => error_of(error).and_then(code),
        _ => None,
    }
}

/// What the driver wrapped.
fn error_of(error: &DriverError) -> Option<&DriverError> {
    std::error::Error::source(error)?.downcast_ref()
}

/// A document with this `_id` is there.
pub(super) fn is_duplicate(error: &DriverError) -> bool {
    code(error) == Some(11000)
}

fn meaning(error: &DriverError, writes: bool) -> (ErrorKind, &'static str) {
    match (&*error.kind, code(error)) {
        (DriverKind::Authentication { .. }, _) | (_, Some(11 | 18)) => {
            (ErrorKind::Denied, "mongodb refuses the user or the password")
        }
        (_, Some(13 | 8000)) if writes => {
            (ErrorKind::ReadOnly, "the user has no right to write to mongodb: see the rights in the docs")
        }
        (_, Some(13 | 8000)) => {
            (ErrorKind::Denied, "the user has no right to read from mongodb: see the rights in the docs")
        }
        (_, Some(14031 | 12501)) => (ErrorKind::Full, "mongodb has no room on its disk and takes no more"),
        (_, Some(24 | 46 | 50 | 64 | 202 | 262)) => (ErrorKind::Timeout, "mongodb did not answer in time"),
        (_, Some(79 | 100)) => {
            (ErrorKind::Config, "mongodb has not the members that the write concern asks for")
        }
        (_, Some(73)) => (ErrorKind::Config, "mongodb takes no database or collection of this name"),
        (_, Some(13297)) => (
            ErrorKind::Config,
            "mongodb has a database whose name differs in case alone: choose another cache name",
        ),
        (_, Some(10334)) => (ErrorKind::TooLarge, "the record is longer than mongodb takes"),
        (
            _,
            Some(6 | 7 | 89 | 91 | 133 | 134 | 189 | 9001 | 10058 | 10107 | 11600 | 11602 | 13435 | 13436),
        ) => (ErrorKind::Unavailable, "mongodb has no primary now that would answer"),
        (DriverKind::Io(error), _) if error.kind() == io::ErrorKind::TimedOut => {
            (ErrorKind::Timeout, "mongodb did not answer in time")
        }
        (DriverKind::Io(_) | DriverKind::ConnectionPoolCleared { .. }, _) => {
            (ErrorKind::Unavailable, "mongodb cannot be reached, or ended the connection")
        }
        (DriverKind::ServerSelection { .. }, _) => {
            (ErrorKind::Unavailable, "no primary of mongodb can be reached")
        }
        (DriverKind::DnsResolve { .. }, _) => {
            (ErrorKind::Unavailable, "the name that mongodb's servers are listed under cannot be resolved")
        }
        (DriverKind::Shutdown, _) => (ErrorKind::Unavailable, "the mongodb client was shut down"),
        (DriverKind::InvalidArgument { .. } | DriverKind::InvalidTlsConfig { .. }, _) => {
            (ErrorKind::Config, "the mongodb driver takes no such address or settings")
        }
        (DriverKind::IncompatibleServer { .. }, _) => {
            (ErrorKind::Config, "the server is too old for the mongodb driver: it needs 4.4 or later")
        }
        _ => (ErrorKind::Other, "mongodb answered with an error"),
    }
}

/// What the driver calls it: a fixed word.
fn word(error: &DriverError) -> &'static str {
    match &*error.kind {
        DriverKind::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => "connection refused",
        DriverKind::Io(error) if error.kind() == io::ErrorKind::TimedOut => "timed out",
        DriverKind::Io(_) => "input or output",
        DriverKind::ServerSelection { .. } => "server selection",
        DriverKind::ConnectionPoolCleared { .. } => "connections closed",
        DriverKind::Authentication { .. } => "authentication",
        DriverKind::DnsResolve { .. } => "name resolution",
        DriverKind::InvalidTlsConfig { .. } => "tls settings",
        DriverKind::InvalidArgument { .. } => "invalid argument",
        DriverKind::InvalidResponse { .. } => "invalid response",
        DriverKind::IncompatibleServer { .. } => "incompatible server",
        DriverKind::Internal { .. } => "internal",
        _ => "error",
    }
}

/// No answer within the time for it.
pub(super) fn late() -> Error {
    Error::new(ErrorKind::Timeout, "mongodb did not answer in time")
}
