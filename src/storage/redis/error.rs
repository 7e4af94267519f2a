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

/// How a connection is made, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Plain,
    Tls,
    Socket,
    /// The clients of clusters and sentinels, and ready pools, do not tell.
    Unknown,
}

/// Maps the error of a connection that could not be made.
///
/// Nothing was sent yet but the handshake, so the error tells more about the address than that of a command.
pub(super) fn map_connect_error(error: &RedisError, link: Link) -> Error {
    match classify_connect(error, link) {
        Some((kind, message)) => Error::new(kind, message),
        None => map_error(error, false),
    }
}

fn classify_connect(error: &RedisError, link: Link) -> Option<(ErrorKind, &'static str)> {
    // Of a node of a cluster that could not be connected to, the driver keeps only this text, not the error.
    let text = error.to_string();
    let contains = |part: &str| text.contains(part);
    if contains("Address does not point to a sentinel") {
        return Some((
            ErrorKind::Config,
            "this server is no sentinel: name the sentinels, whose port is usually 26379, or connect by redis://",
        ));
    }
    if contains("switch database") && contains("permission") {
        return Some((ErrorKind::Denied, "the redis user may not select the database of the address"));
    }
    if error.kind() != DriverKind::Io {
        return None;
    }
    let is_timeout = error.is_timeout() || contains("timed out");
    let is_missing = error.is_connection_refusal() && !contains("refused");
    Some(if contains("AuthenticationFailed") {
        (ErrorKind::Denied, WRONG_PASSWORD)
    } else if contains("failed to lookup address") || contains("No such host is known") {
        (
            ErrorKind::Unavailable,
            "the host name of redis cannot be resolved: check its spelling, and the name server of this machine",
        )
    } else if link == Link::Socket && is_missing {
        (
            ErrorKind::Unavailable,
            "the unix socket of redis does not exist: check its path, and that redis runs and has it as unixsocket",
        )
    } else if link == Link::Socket && contains("Permission denied") {
        (ErrorKind::Denied, "the unix socket of redis may not be opened: see unixsocketperm of redis")
    } else if contains("refused") {
        (ErrorKind::Unavailable, "nothing listens where redis should: check the address, and that redis runs")
    } else if contains("invalid peer certificate") {
        (
            ErrorKind::Unavailable,
            "the certificate of redis is not trusted: it must be valid now, issued for the host name of the address, \
             and by an authority that this machine trusts",
        )
    } else if contains("corrupt message") {
        (ErrorKind::Unavailable, NO_TLS)
    } else if is_timeout && link == Link::Tls {
        // A server without TLS waits for the rest of what it takes for a command.
        (ErrorKind::Timeout, NO_TLS)
    } else if is_timeout {
        (
            ErrorKind::Timeout,
            "redis did not answer in time: check that no firewall is in between, and that it expects no TLS other than \
             the address says (rediss:// is with TLS, redis:// without)",
        )
    } else if link == Link::Tls {
        (
            ErrorKind::Unavailable,
            "redis ended the TLS handshake: check that it speaks TLS on this port and demands no certificate of its \
             clients",
        )
    } else if link == Link::Socket {
        return None;
    } else {
        (
            ErrorKind::Unavailable,
            "redis closed the connection as it was made: if it expects TLS, connect by rediss:// (feature redis-tls), \
             and otherwise by redis://",
        )
    })
}

const WRONG_PASSWORD: &str = "redis refuses the user or the password";
const NO_TLS: &str = "redis does not answer by TLS on this port: check the port, or connect without TLS by redis:// in place of rediss://";
const CLUSTER_NODE: &str =
    "this redis is a node of a cluster: connect by redis+cluster://, or give the builder a ClusterClient";

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
            (ErrorKind::Denied, WRONG_PASSWORD)
        }
        (_, Some("MOVED" | "ASK" | "CROSSSLOT")) => (ErrorKind::Config, CLUSTER_NODE),
        _ if contains("not allowed in cluster mode") => (ErrorKind::Config, CLUSTER_NODE),
        _ if contains("cluster support disabled") => (
            ErrorKind::Config,
            "this redis is no cluster: connect by redis:// in place of redis+cluster://, or set its cluster-enabled",
        ),
        _ if contains("DB index is out of range") => (
            ErrorKind::Config,
            "redis has no database of this number: choose a lower one, or raise the databases in its settings",
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

/// Returns whether another node of the cluster has the key.
pub(super) fn is_redirection(error: &RedisError) -> bool {
    matches!(error.code(), Some("MOVED" | "ASK" | "CROSSSLOT"))
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
