//! Maps the driver's errors to this crate's.
//!
//! # Invariants
//!
//! - Neither the message nor the source of a returned error contains an address, a name or a credential. The server's own
//!   texts are left out, since some of them repeat the arguments that they complain about.

use deadpool_redis::redis::{ErrorKind as DriverKind, RedisError, ServerErrorKind};

use crate::error::{Error, ErrorKind};

/// Maps the error of a command to the one that its caller gets.
///
/// A server that refuses all writes may still serve reads, so the kind depends on whether the command writes.
pub(super) fn map_error(error: &RedisError, writes: bool) -> Error {
    let (kind, message) = classify(error, writes);
    Error::new(kind, message).with_source(format!("redis: {}", code(error)))
}

fn classify(error: &RedisError, writes: bool) -> (ErrorKind, &'static str) {
    if error.is_timeout() {
        return (ErrorKind::Timeout, "redis did not answer in time");
    }
    let contains = |text: &str| error.detail().is_some_and(|detail| detail.contains(text));
    match (error.kind(), error.code()) {
        (DriverKind::Io, _) => (ErrorKind::Unavailable, "redis cannot be reached, or closed the connection"),
        (_, Some("WRONGTYPE")) => (ErrorKind::Corrupt, "the value at this key in redis is not a record"),
        (_, Some("OOM")) => (ErrorKind::Full, OUT_OF_MEMORY),
        (DriverKind::Server(ServerErrorKind::ReadOnly), _) if writes => (ErrorKind::ReadOnly, REPLICA),
        (_, Some("MISCONF" | "NOREPLICAS")) if writes => (
            ErrorKind::ReadOnly,
            "redis refuses writes, since it cannot save them or has too few replicas: see its log",
        ),
        (DriverKind::Server(ServerErrorKind::NoPerm), _) if writes => {
            (ErrorKind::ReadOnly, "the redis user may not write: see the permissions in the documentation")
        }
        (DriverKind::Server(ServerErrorKind::NoPerm), _) => {
            (ErrorKind::Denied, "the redis user may not read: see the permissions in the documentation")
        }
        (DriverKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => {
            (ErrorKind::Denied, "redis refuses the user or the password")
        }
        (_, Some("MOVED" | "ASK" | "CROSSSLOT")) => (
            ErrorKind::Config,
            "this redis is a node of a cluster: connect by redis+cluster://, or give the builder a ClusterClient",
        ),
        (DriverKind::Server(ServerErrorKind::BusyLoading), _) => {
            (ErrorKind::Unavailable, "redis is still loading its data")
        }
        (
            DriverKind::Server(
                ServerErrorKind::ClusterDown | ServerErrorKind::TryAgain | ServerErrorKind::MasterDown,
            )
            | DriverKind::ClusterConnectionNotFound,
            _,
        ) => (ErrorKind::Unavailable, "a part of the redis cluster is down"),
        (DriverKind::MasterNameNotFoundBySentinel | DriverKind::NoValidReplicasFoundBySentinel, _) => {
            (ErrorKind::Unavailable, "no sentinel knows a running master of this name")
        }
        (DriverKind::InvalidClientConfig, _) => {
            (ErrorKind::Config, "the redis driver does not accept this address")
        }
        // Redis 6 reports the error of a command within a script as an error of the script, which repeats its text.
        _ if contains("OOM command") => (ErrorKind::Full, OUT_OF_MEMORY),
        _ if writes && contains("READONLY") => (ErrorKind::ReadOnly, REPLICA),
        _ => (ErrorKind::Other, "redis returned an error"),
    }
}

const OUT_OF_MEMORY: &str =
    "redis has reached its maxmemory and refuses writes: raise it, or set a maxmemory-policy that evicts";
const REPLICA: &str = "this redis is a replica, which refuses writes: connect to its master";

/// Returns the name that the driver or the server has for the error. It is one of a fixed set of words.
fn code(error: &RedisError) -> &str {
    match error.code() {
        // Anything else may be an argument that the server repeats.
        Some(code) if code.len() <= 16 && code.bytes().all(|byte| byte.is_ascii_uppercase()) => code,
        _ if error.is_connection_refusal() => "connection refused",
        _ if error.is_timeout() => "timed out",
        _ if error.is_connection_dropped() => "connection ended",
        _ => error.category(),
    }
}

/// Returns whether the connection cannot be used any more, while a new one may work.
pub(super) fn is_broken(error: &RedisError) -> bool {
    error.is_unrecoverable_error() || error.is_connection_dropped()
}

/// Returns whether the keys of a command are on two nodes, since their slot is moving.
pub(super) fn is_torn(error: &RedisError) -> bool {
    error.kind() == DriverKind::Server(ServerErrorKind::TryAgain)
}

/// Returns whether the server refuses writes because another server is the master now.
pub(super) fn is_demoted(error: &RedisError) -> bool {
    // The code `ERR` is that of an error within a script.
    classify(error, true).0 == ErrorKind::ReadOnly
        && (error.kind() == DriverKind::Server(ServerErrorKind::ReadOnly) || error.code() == Some("ERR"))
}

/// Returns the error of an operation that got no connection in time.
pub(super) fn no_connection() -> Error {
    Error::new(ErrorKind::Timeout, "connecting to redis took too long")
}

/// Returns the error of an operation whose runtime has ended.
pub(super) fn no_runtime() -> Error {
    Error::new(ErrorKind::Unavailable, "a connection to redis needs a tokio runtime, and there is none")
}

/// Returns the error of an answer that the command does not have.
pub(super) fn unexpected_answer() -> Error {
    Error::new(ErrorKind::Other, "redis returned an answer of an unexpected type")
}
