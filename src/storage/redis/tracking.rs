//! The signal that records were changed, by client tracking.
//!
//! A connection of its own asks for [tracking](https://redis.io/docs/latest/develop/reference/client-side-caching/) in the mode
//! `BCAST` with the prefix of this cache. The server then sends the name of each key that any client changes, by RESP3. The
//! names are counted by key. The other connections know nothing about it.
//!
//! # Invariants
//!
//! - A count is returned only if the server has answered a ping on that connection that was sent at most `max_silence` ago. All
//!   changes before that ping are in the count, since the server's messages and answers arrive in order.
//! - A connection that is lost, and one that begins, count as a change of every key.
//! - The task ends with the last handle of the storage. If its runtime ends, the next call in another one begins a new task.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use deadpool_redis::redis::{
    AsyncConnectionConfig, Client, ErrorKind, ProtocolVersion, PushInfo, PushKind, RedisError, RedisResult,
    ServerErrorKind, Value, cmd,
};

use super::connections::Endpoint;
use super::naming::Naming;
use crate::storage::Key;
use crate::storage::key_counters::KeyCounters;

/// How often the connection is tested. Several times within a second, the usual `max_silence`.
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
    endpoint: Endpoint,
    naming: Naming,
    /// Made for the first call, since they take memory that most storages do not need.
    counters: OnceLock<KeyCounters>,
    started: Instant,
    /// When the last ping that was answered was sent, in milliseconds after `started` and from one. Zero: there is no signal.
    confirmed_at: AtomicU64,
    is_running: AtomicBool,
}

impl Tracking {
    /// Returns the signal of a server, or `None` for a cluster, whose nodes would each need a connection.
    pub(super) fn new(endpoint: &Endpoint, naming: &Naming) -> Option<Arc<Self>> {
        if matches!(endpoint, Endpoint::Cluster(_)) {
            return None;
        }
        Some(Arc::new(Self {
            endpoint: endpoint.clone(),
            naming: naming.clone(),
            counters: OnceLock::new(),
            started: Instant::now(),
            confirmed_at: AtomicU64::new(0),
            is_running: AtomicBool::new(false),
        }))
    }

    /// Returns the number of changes that may have concerned a key, if the signal is not older than `max_silence`.
    ///
    /// The first call begins the task.
    pub(super) fn count(self: &Arc<Self>, key: Key, max_silence: Duration) -> Option<u64> {
        // Read before the clock and the count, so that the count is at least as new. Acquire pairs with the release of the task,
        // which counts the messages before.
        let confirmed_at = self.confirmed_at.load(Ordering::Acquire);
        if confirmed_at == 0 {
            self.start();
            return None;
        }
        let age = self.now().saturating_sub(confirmed_at);
        (u128::from(age) < max_silence.as_millis()).then(|| self.counters().count(key))
    }

    fn start(self: &Arc<Self>) {
        if self.is_running.load(Ordering::Relaxed) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !self.is_running.swap(true, Ordering::AcqRel) {
            let running = Running(Arc::downgrade(self));
            runtime.spawn(running.run());
        }
    }

    fn counters(&self) -> &KeyCounters {
        self.counters.get_or_init(KeyCounters::new)
    }

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
            (PushKind::Disconnection, _) => self.lose(),
            _ => {}
        }
    }

    fn lose(&self) {
        self.confirmed_at.store(0, Ordering::Release);
        self.counters().increment_all();
    }
}

/// The task of a signal. It ends with the storage, and when it ends the signal is lost.
struct Running(Weak<Tracking>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(tracking) = self.0.upgrade() {
            tracking.lose();
            tracking.is_running.store(false, Ordering::Release);
        }
    }
}

impl Running {
    async fn run(self) {
        let mut pause = MIN_PAUSE;
        while let Some(endpoint) = self.0.upgrade().map(|tracking| tracking.endpoint.clone()) {
            let error = match tokio::time::timeout(TIMEOUT, client(&endpoint)).await {
                Ok(Ok(client)) => self.track(client).await.err(),
                Ok(Err(error)) => Some(error),
                Err(_) => None,
            };
            if let Some(tracking) = self.0.upgrade() {
                let was_confirmed = tracking.confirmed_at.load(Ordering::Relaxed) > 0;
                pause = if was_confirmed { MIN_PAUSE } else { (pause * 2).min(MAX_PAUSE) };
                tracking.lose();
            }
            let refused = error.as_ref().is_some_and(is_refusal);
            if refused {
                // Its text may contain names.
                tracing::warn!(
                    "this redis does not permit CLIENT TRACKING, so that near copies are compared after their max_lag: \
                     give the user +client, or use Redis 6 or later"
                );
            }
            tokio::time::sleep(if refused { REFUSED_INTERVAL } else { pause }).await;
        }
    }

    /// Tracks changes until the connection is lost. Returns `Ok` when the storage has ended.
    async fn track(&self, client: Client) -> RedisResult<()> {
        let Some(tracking) = self.0.upgrade() else { return Ok(()) };
        let receiver = Weak::clone(&self.0);
        // Called within the driver's task, before any later answer of the server is returned.
        let receive = move |message: PushInfo| -> Result<(), ()> {
            receiver.upgrade().map(|tracking| tracking.receive(&message)).ok_or(())
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT))
            .set_push_sender(receive);
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        let mut command = cmd("CLIENT");
        command.arg("TRACKING").arg("ON").arg("BCAST").arg("PREFIX").arg(tracking.naming.prefix());
        command.exec_async(&mut connection).await?;
        // The changes before this connection are not known.
        tracking.counters().increment_all();
        drop(tracking);
        loop {
            let Some(sent_at) = self.0.upgrade().map(|tracking| tracking.now()) else { return Ok(()) };
            cmd("PING").exec_async(&mut connection).await?;
            let Some(tracking) = self.0.upgrade() else { return Ok(()) };
            tracking.confirmed_at.store(sent_at, Ordering::Release);
            drop(tracking);
            tokio::time::sleep(PING_INTERVAL).await;
        }
    }
}

/// Returns the client of a server, or of the master that sentinels watch, which speaks RESP3.
async fn client(endpoint: &Endpoint) -> RedisResult<Client> {
    let client = match endpoint {
        Endpoint::Server(client) => client.clone(),
        Endpoint::Sentinel(client) => client.lock().await.async_get_client().await?,
        Endpoint::Cluster(_) => {
            return Err(RedisError::from((ServerErrorKind::ResponseError.into(), "no cluster")));
        }
    };
    let info = client.get_connection_info().clone();
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Client::open(info.set_redis_settings(settings))
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
