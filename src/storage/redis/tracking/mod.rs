//! The signal that records were changed, by client tracking.
//!
//! A connection of its own asks for [tracking](https://redis.io/docs/latest/develop/reference/client-side-caching/) in the mode
//! `BCAST` with the prefix of this cache. The server then sends the name of each key that any client changes, by RESP3. The
//! names are counted by key. The other connections know nothing about it. A cluster has one such connection for each master.
//!
//! `server` and `cluster` are the tasks that keep these connections. `topology` says which node owns a slot, and does no I/O.
//!
//! # Invariants
//!
//! - A count is returned only if the server has answered a ping on that connection that was sent at most `max_silence` ago. All
//!   changes before that ping are in the count, since the server's messages and answers arrive in order.
//! - A connection that is lost, and one that begins, count as a change of every key whose changes it tells.
//! - The tasks end with the last handle of the storage. If their runtime ends, the next call in another one begins new tasks.

mod cluster;
mod server;
mod topology;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, ProtocolVersion, PushInfo, PushKind,
    RedisError, RedisResult, ServerErrorKind, Value, cmd,
};

use self::cluster::Cluster;
use self::server::Server;
use super::connections::Endpoint;
use super::naming::Naming;
use crate::storage::Key;
use crate::storage::key_counters::KeyCounters;

/// How often a connection is tested. Several times within a second, the usual `max_silence`.
const PING_INTERVAL: Duration = Duration::from_millis(200);
/// How long connecting, and the answer to a ping, may take. After it a link that has died silently is given up.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait before connecting again. The pause doubles while that fails, so that many processes do not burden a server
/// that is down.
const MIN_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// How long to wait if the server does not permit tracking, or does not know it.
const REFUSED_INTERVAL: Duration = Duration::from_secs(60);

pub(super) struct Tracking {
    source: Source,
    naming: Naming,
    /// Made for the first call, since they take memory that most storages do not need.
    counters: OnceLock<KeyCounters>,
    started: Instant,
    is_running: AtomicBool,
}

/// There is one for each storage, so its size does not matter.
#[allow(clippy::large_enum_variant)]
enum Source {
    Server(Server),
    Cluster(Cluster),
}

impl Tracking {
    /// Returns the signal of a server or a cluster, or `None` for a cluster whose addresses are not known.
    ///
    /// `master_epoch` is incremented when connections may lead to a node that has lost its slots and does not know it.
    pub(super) fn new(
        endpoint: &Endpoint,
        naming: &Naming,
        master_epoch: &Arc<AtomicU64>,
    ) -> Option<Arc<Self>> {
        let source = match endpoint {
            Endpoint::Cluster(_, seeds) if seeds.is_empty() => return None,
            Endpoint::Cluster(_, seeds) => {
                Source::Cluster(Cluster::new(Arc::clone(seeds), Arc::clone(master_epoch)))
            }
            Endpoint::Server(_) | Endpoint::Sentinel(_) => Source::Server(Server::new(endpoint.clone())),
        };
        Some(Arc::new(Self {
            source,
            naming: naming.clone(),
            counters: OnceLock::new(),
            started: Instant::now(),
            is_running: AtomicBool::new(false),
        }))
    }

    /// Returns the number of changes that may have concerned a key, if the signal is not older than `max_silence`.
    ///
    /// The first call begins the task.
    pub(super) fn count(self: &Arc<Self>, key: Key, max_silence: Duration) -> Option<u64> {
        // Read before the clock and the count, so that the count is at least as new. Acquire pairs with the release of the task,
        // which counts the messages before.
        let (confirmed_at, changes_of_owner) = match &self.source {
            Source::Server(server) => (server.confirmed_at.load(Ordering::Acquire), 0),
            Source::Cluster(cluster) => cluster.confirmed_at(key),
        };
        if confirmed_at == 0 {
            self.start();
            return None;
        }
        let age = self.now().saturating_sub(confirmed_at);
        (u128::from(age) < max_silence.as_millis()).then(|| self.counters().count(key) + changes_of_owner)
    }

    /// Returns the number of the server that has a key, or zero if that is not known.
    pub(super) fn server_of(&self, key: Key) -> u16 {
        match &self.source {
            Source::Server(_) => 0,
            Source::Cluster(cluster) => cluster.server_of(key),
        }
    }

    fn start(self: &Arc<Self>) {
        if self.is_running.load(Ordering::Relaxed) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !self.is_running.swap(true, Ordering::AcqRel) {
            let running = Running(Arc::downgrade(self));
            match &self.source {
                Source::Server(_) => drop(runtime.spawn(server::run(running))),
                Source::Cluster(_) => drop(runtime.spawn(cluster::run(running))),
            }
        }
    }

    fn counters(&self) -> &KeyCounters {
        self.counters.get_or_init(KeyCounters::new)
    }

    /// Returns the time in milliseconds after the start and from one, so that zero stands for no time.
    fn now(&self) -> u64 {
        1 + self.started.elapsed().as_millis() as u64
    }

    /// Counts the keys of a message.
    fn receive(&self, message: &PushInfo) {
        match (&message.kind, message.data.first()) {
            (PushKind::Invalidate, Some(Value::Array(names))) => {
                for name in names {
                    let key = match name {
                        Value::BulkString(name) => std::str::from_utf8(name).ok(),
                        Value::SimpleString(name) => Some(name.as_str()),
                        _ => None,
                    };
                    // A name with the prefix that is no key of this cache belongs to no record.
                    if let Some(key) = key.and_then(|name| self.naming.key(name)) {
                        self.counters().increment(key);
                    }
                }
            }
            // Without names: the whole database was flushed.
            (PushKind::Invalidate, _) => self.counters().increment_all(),
            _ => {}
        }
    }
}

/// The task of a signal. It ends with the storage, and when it ends the signal is lost.
struct Running(Weak<Tracking>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(tracking) = self.0.upgrade() {
            match &tracking.source {
                Source::Server(server) => server.lose(&tracking),
                Source::Cluster(cluster) => cluster.forget_nodes(),
            }
            tracking.is_running.store(false, Ordering::Release);
        }
    }
}

/// Opens a connection on which the server tells of changes. `lost` is called when it ends.
async fn open(
    tracking: &Weak<Tracking>,
    info: &ConnectionInfo,
    lost: impl Fn(&Tracking) + Send + Sync + 'static,
) -> RedisResult<Option<MultiplexedConnection>> {
    let receiver = Weak::clone(tracking);
    // Called within the driver's task, before any later answer of the server is returned.
    let receive = move |message: PushInfo| -> Result<(), ()> {
        let tracking = receiver.upgrade().ok_or(())?;
        match message.kind {
            PushKind::Disconnection => lost(&tracking),
            _ => tracking.receive(&message),
        }
        Ok(())
    };
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let client = Client::open(info.clone().set_redis_settings(settings))?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(TIMEOUT))
        .set_response_timeout(Some(TIMEOUT))
        .set_push_sender(receive);
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    let Some(prefix) = tracking.upgrade().map(|tracking| tracking.naming.prefix().to_owned()) else {
        return Ok(None);
    };
    let mut command = cmd("CLIENT");
    command.arg("TRACKING").arg("ON").arg("BCAST").arg("PREFIX").arg(prefix);
    command.exec_async(&mut connection).await?;
    Ok(Some(connection))
}

/// Reports that a server does not permit what the signal needs.
fn warn_of_refusal() {
    // The error's text may contain names.
    tracing::warn!(
        "this redis does not permit CLIENT TRACKING, so that near copies are compared after their max_lag: \
         give the user +client, and in a cluster +cluster, or use Redis 6 or later"
    );
}

/// Returns whether the server does not know tracking or does not permit it, so that trying again soon is of no use.
fn is_refusal(error: &RedisError) -> bool {
    // Not the other errors of a server, such as that it is loading its data, which pass by themselves.
    matches!(error.kind(), ErrorKind::Server(ServerErrorKind::ResponseError | ServerErrorKind::NoPerm))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lasting_errors_are_refusals() {
        let is_refused = |kind: ErrorKind| is_refusal(&RedisError::from((kind, "scripted")));
        assert!(is_refused(ServerErrorKind::ResponseError.into()));
        assert!(is_refused(ServerErrorKind::NoPerm.into()));
        for passing in [ServerErrorKind::BusyLoading, ServerErrorKind::MasterDown, ServerErrorKind::TryAgain]
        {
            assert!(!is_refused(passing.into()), "{passing:?}");
        }
        assert!(!is_refused(ErrorKind::Io));
    }
}
