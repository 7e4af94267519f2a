//! The signal of one server, or of the master that sentinels watch.

use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};

use deadpool_redis::redis::{ConnectionInfo, RedisError, RedisResult, ServerErrorKind, cmd};

use super::{
    MAX_PAUSE, MIN_PAUSE, PING_INTERVAL, REFUSED_INTERVAL, Running, Source, TIMEOUT, Tracking, is_refusal,
    open, warn_of_refusal,
};
use crate::storage::redis::connections::Endpoint;

pub(super) struct Server {
    endpoint: Endpoint,
    /// When the last ping that was answered was sent, by [`Tracking::now`]. Zero: there is no signal.
    pub(super) confirmed_at: AtomicU64,
}

impl Server {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, confirmed_at: AtomicU64::new(0) }
    }

    pub(super) fn lose(&self, tracking: &Tracking) {
        self.confirmed_at.store(0, Ordering::Release);
        tracking.counters().increment_all();
    }
}

/// Returns the server of a signal.
fn server(tracking: &Tracking) -> Option<&Server> {
    match &tracking.source {
        Source::Server(server) => Some(server),
        Source::Cluster(_) => None,
    }
}

fn lose(tracking: &Tracking) {
    if let Some(server) = server(tracking) {
        server.lose(tracking);
    }
}

/// Tracks changes until the storage has ended.
pub(super) async fn run(running: Running) {
    let endpoint = || Some(server(&*running.0.upgrade()?)?.endpoint.clone());
    let mut pause = MIN_PAUSE;
    while let Some(endpoint) = endpoint() {
        let error = match tokio::time::timeout(TIMEOUT, info(&endpoint)).await {
            Ok(Ok(info)) => track(&running.0, info).await.err(),
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        if let Some(tracking) = running.0.upgrade() {
            let was_confirmed =
                server(&tracking).is_some_and(|server| server.confirmed_at.load(Ordering::Relaxed) > 0);
            pause = if was_confirmed { MIN_PAUSE } else { (pause * 2).min(MAX_PAUSE) };
            lose(&tracking);
        }
        let refused = error.as_ref().is_some_and(is_refusal);
        if refused {
            warn_of_refusal();
        }
        tokio::time::sleep(if refused { REFUSED_INTERVAL } else { pause }).await;
    }
}

/// Tracks changes until the connection is lost. Returns `Ok` when the storage has ended.
async fn track(tracking: &Weak<Tracking>, info: ConnectionInfo) -> RedisResult<()> {
    let Some(mut connection) = open(tracking, &info, lose).await? else { return Ok(()) };
    // The changes before this connection are not known.
    let Some(()) = tracking.upgrade().map(|tracking| tracking.counters().increment_all()) else {
        return Ok(());
    };
    loop {
        let Some(sent_at) = tracking.upgrade().map(|tracking| tracking.now()) else { return Ok(()) };
        cmd("PING").exec_async(&mut connection).await?;
        match tracking.upgrade().as_deref().and_then(server) {
            Some(server) => server.confirmed_at.store(sent_at, Ordering::Release),
            None => return Ok(()),
        }
        tokio::time::sleep(PING_INTERVAL).await;
    }
}

/// Returns how to connect to a server, or to the master that sentinels watch.
async fn info(endpoint: &Endpoint) -> RedisResult<ConnectionInfo> {
    match endpoint {
        Endpoint::Server(client) => Ok(client.get_connection_info().clone()),
        Endpoint::Sentinel(client) => {
            Ok(client.lock().await.async_get_client().await?.get_connection_info().clone())
        }
        Endpoint::Cluster(..) => {
            Err(RedisError::from((ServerErrorKind::ResponseError.into(), "a cluster is no server")))
        }
    }
}
