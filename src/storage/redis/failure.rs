//! What the driver's errors mean to a caller.
//!
//! Promises: no message and no source holds an address, a name or a credential. The server's own texts are left out,
//! since some of them repeat the arguments that they complain about.

use deadpool_redis::redis::{ErrorKind as DriverKind, RedisError, ServerErrorKind};

use crate::error::{Error, ErrorKind};

/// The error of an operation. A server that lets nobody write refuses writes alone.
pub(super) fn failed(error: &RedisError, writes: bool) -> Error {
    let (kind, message) = meaning(error, writes);
    Error::new(kind, message).with_source(format!("redis: {}", word(error)))
}

fn meaning(error: &RedisError, writes: bool) -> (ErrorKind, &'static str) {
    if error.is_timeout() {
        return (ErrorKind::Timeout, "redis did not answer in time");
    }
    let within_script = |code: &str| error.detail().is_some_and(|detail| detail.contains(code));
    match (error.kind(), error.code()) {
        (DriverKind::Io, _) => (ErrorKind::Unavailable, "redis cannot be reached, or ended the connection"),
        (_, Some("WRONGTYPE")) => (ErrorKind::Corrupt, "something else than a record has this name in redis"),
        (_, Some("OOM")) => (ErrorKind::Full, "redis is out of memory (maxmemory) and takes no more"),
        (DriverKind::Server(ServerErrorKind::ReadOnly), _) if writes => {
            (ErrorKind::ReadOnly, "this redis is a replica, which takes no writes: connect to its master")
        }
        (_, Some("MISCONF" | "NOREPLICAS")) if writes => {
            (ErrorKind::ReadOnly, "redis takes no writes: it cannot save them, or has too few replicas")
        }
        (DriverKind::Server(ServerErrorKind::NoPerm), _) if writes => {
            (ErrorKind::ReadOnly, "the user has no right to write to redis: see the rights in the docs")
        }
        (DriverKind::Server(ServerErrorKind::NoPerm), _) => {
            (ErrorKind::Denied, "the user has no right to read from redis: see the rights in the docs")
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
            (ErrorKind::Unavailable, "no sentinel knows a master of this name that is up")
        }
        (DriverKind::InvalidClientConfig, _) => (ErrorKind::Config, "the redis driver takes no such address"),
        // Redis 6 wraps what a script's command said.
        _ if within_script("OOM command") => {
            (ErrorKind::Full, "redis is out of memory (maxmemory) and takes no more")
        }
        _ if writes && within_script("READONLY") => {
            (ErrorKind::ReadOnly, "this redis is a replica, which takes no writes: connect to its master")
        }
        _ => (ErrorKind::Other, "redis answered with an error"),
    }
}

/// What the driver or the server calls it: a fixed word.
fn word(error: &RedisError) -> &str {
    match error.code() {
        Some(code) if code.len() <= 16 && code.bytes().all(|byte| byte.is_ascii_uppercase()) => code,
        _ if error.is_connection_refusal() => "connection refused",
        _ if error.is_timeout() => "timed out",
        _ if error.is_connection_dropped() => "connection ended",
        _ => error.category(),
    }
}

/// True when the connection is of no use any more, and another may be.
pub(super) fn is_broken(error: &RedisError) -> bool {
    error.is_unrecoverable_error() || error.is_connection_dropped()
}

/// True when the server takes no writes because another is the master now.
pub(super) fn is_demoted(error: &RedisError) -> bool {
    meaning(error, true).0 == ErrorKind::ReadOnly
        && (error.kind() == DriverKind::Server(ServerErrorKind::ReadOnly) || error.code() == Some("ERR"))
}

/// No connection could be had within the time for it.
pub(super) fn unreachable() -> Error {
    Error::new(ErrorKind::Timeout, "redis gave no connection in time")
}

/// The runtime that the connection lived on is gone.
pub(super) fn no_runtime() -> Error {
    Error::new(ErrorKind::Unavailable, "a connection to redis needs a tokio runtime, and this one has ended")
}
