//! The driver's errors, converted to this crate's.
//!
//! # Invariants
//! - No message and no source contains an address, a name or a credential.
//! - The server's own texts are left out, because some of them repeat the documents that they complain about. The
//!   numbers of its errors are kept.

use std::io;

use ::mongodb::error::{Error as DriverError, ErrorKind as DriverKind, WriteFailure};

use crate::error::{Error, ErrorKind};

/// Converts the error of an operation.
///
/// `is_write` matters for missing permissions: a user who may not write can still read, so the storage is
/// read-only.
pub(super) fn convert(error: &DriverError, is_write: bool) -> Error {
    let (kind, message) = classify(error, is_write);
    let source = match code(error) {
        Some(code) => format!("mongodb: code {code}"),
        None => format!("mongodb: {}", category(error)),
    };
    Error::new(kind, message).with_source(source)
}

/// Returns the number that the server gives its error.
pub(super) fn code(error: &DriverError) -> Option<i32> {
    match &*error.kind {
        DriverKind::Command(error) => Some(error.code),
        DriverKind::Write(WriteFailure::WriteError(error)) => Some(error.code),
        DriverKind::Write(WriteFailure::WriteConcernError(error)) => Some(error.code),
        // The driver wraps the server's error when a connection is authenticated.
        DriverKind::Authentication { .. } => wrapped(error).and_then(code),
        _ => None,
    }
}

fn wrapped(error: &DriverError) -> Option<&DriverError> {
    std::error::Error::source(error)?.downcast_ref()
}

/// Returns whether the error says that a document with this `_id` exists already.
pub(super) fn is_duplicate_key(error: &DriverError) -> bool {
    code(error) == Some(11000)
}

/// Returns what an error means to a caller.
///
/// The names of the server's codes are those of its `mongo/base/error_codes.yml`.
fn classify(error: &DriverError, is_write: bool) -> (ErrorKind, &'static str) {
    match (&*error.kind, code(error)) {
        // UserNotFound, AuthenticationFailed.
        (DriverKind::Authentication { .. }, _) | (_, Some(11 | 18)) => {
            (ErrorKind::Denied, "mongodb refuses the user name or the password")
        }
        // Unauthorized, AtlasError.
        (_, Some(13 | 8000)) if is_write => (
            ErrorKind::ReadOnly,
            "the user has no permission to write to mongodb: see the permissions in the documentation",
        ),
        (_, Some(13 | 8000)) => (
            ErrorKind::Denied,
            "the user has no permission to read from mongodb: see the permissions in the documentation",
        ),
        // OutOfDiskSpace, and a used-up quota.
        (_, Some(14031 | 12501)) => {
            (ErrorKind::Full, "mongodb has no disk space left and accepts no more records")
        }
        // LockTimeout, LockBusy, MaxTimeMSExpired, WriteConcernTimeout, NetworkInterfaceExceededTimeLimit,
        // ExceededTimeLimit.
        (_, Some(24 | 46 | 50 | 64 | 202 | 262)) => (ErrorKind::Timeout, "mongodb did not answer in time"),
        // UnknownReplWriteConcern, UnsatisfiableWriteConcern.
        (_, Some(79 | 100)) => {
            (ErrorKind::Config, "mongodb does not have the members that the write concern requires")
        }
        // InvalidNamespace.
        (_, Some(73)) => {
            (ErrorKind::Config, "mongodb does not accept the name of the database or the collection")
        }
        // DatabaseDifferCase.
        (_, Some(13297)) => (
            ErrorKind::Config,
            "mongodb has a database whose name differs only in letter case: choose another cache name",
        ),
        // BSONObjectTooLarge.
        (_, Some(10334)) => (ErrorKind::TooLarge, "the record is longer than mongodb accepts"),
        // HostUnreachable, HostNotFound, NetworkTimeout, ShutdownInProgress, FailedToSatisfyReadPreference,
        // ReadConcernMajorityNotAvailableYet, PrimarySteppedDown, SocketException, LegacyNotPrimary,
        // NotWritablePrimary, InterruptedAtShutdown, InterruptedDueToReplStateChange, NotPrimaryNoSecondaryOk,
        // NotPrimaryOrSecondary: an election or a restart is going on, after which the operation succeeds.
        (
            _,
            Some(6 | 7 | 89 | 91 | 133 | 134 | 189 | 9001 | 10058 | 10107 | 11600 | 11602 | 13435 | 13436),
        ) => (ErrorKind::Unavailable, "mongodb has no primary at the moment that could answer"),
        (DriverKind::Io(error), _) if error.kind() == io::ErrorKind::TimedOut => {
            (ErrorKind::Timeout, "mongodb did not answer in time")
        }
        (DriverKind::Io(_) | DriverKind::ConnectionPoolCleared { .. }, _) => {
            (ErrorKind::Unavailable, "mongodb cannot be reached, or closed the connection")
        }
        (DriverKind::ServerSelection { message, .. }, _) => (ErrorKind::Unavailable, unreachable(message)),
        (DriverKind::DnsResolve { .. }, _) => (
            ErrorKind::Unavailable,
            "the host name of the mongodb cluster cannot be resolved: check its spelling and its SRV records",
        ),
        (DriverKind::Shutdown, _) => (ErrorKind::Unavailable, "the mongodb client was shut down"),
        (DriverKind::InvalidArgument { .. } | DriverKind::InvalidTlsConfig { .. }, _) => {
            (ErrorKind::Config, "the mongodb driver does not accept the address or the settings")
        }
        (DriverKind::IncompatibleServer { .. }, _) => {
            (ErrorKind::Config, "the mongodb server is too old for the driver: use version 4.4 or later")
        }
        _ => (ErrorKind::Other, "mongodb answered with an error"),
    }
}

/// Returns why no server could be selected.
///
/// The driver keeps the errors of the single servers only as a part of this text.
fn unreachable(topology: &str) -> &'static str {
    let contains = |part: &str| topology.contains(part);
    if contains("Secondary") || contains("Arbiter") {
        // Others of the servers can be reached.
        "no primary of mongodb can be reached"
    } else if contains("failed to lookup address") || contains("No such host is known") {
        "the host name of mongodb cannot be resolved: check its spelling, and the name server of this machine"
    } else if contains("invalid peer certificate") {
        "the certificate of mongodb is not trusted: it must be valid now, issued for the host name of the address, and by \
         an authority that this machine trusts, or one that the option tlsCAFile names"
    } else if contains("corrupt message") {
        "mongodb does not answer by TLS on this port: check the port, or connect without the option tls"
    } else if contains("refused") {
        "nothing listens where mongodb should: check the address, and that mongodb runs"
    } else if contains("I/O error") {
        "mongodb does not answer, or closes the connection: check that it is mongodb that listens there, that no firewall \
         is in between, and whether it expects TLS (option tls=true)"
    } else {
        "no primary of mongodb can be reached"
    }
}

/// Returns the driver's category of an error, for errors without a code.
///
/// It is a fixed word.
fn category(error: &DriverError) -> &'static str {
    match &*error.kind {
        DriverKind::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => "connection refused",
        DriverKind::Io(error) if error.kind() == io::ErrorKind::TimedOut => "timed out",
        DriverKind::Io(_) => "input or output",
        DriverKind::ServerSelection { .. } => "server selection",
        DriverKind::ConnectionPoolCleared { .. } => "connection pool cleared",
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

/// Returns the error of an operation that the response timeout ended.
pub(super) fn timed_out() -> Error {
    Error::new(ErrorKind::Timeout, "mongodb did not answer in time")
}
