//! A connection to Redis, whichever way it is reached, and the pool's manager that makes them.
//!
//! Promises: every connection has the timeouts of the settings (the managers that come with the pool give none to
//! clusters and sentinels); one that does not answer, or leads to a master that was demoted, is not handed out again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use deadpool_redis::redis::aio::{ConnectionLike, MultiplexedConnection};
use deadpool_redis::redis::cluster::{ClusterClient, ClusterConfig};
use deadpool_redis::redis::cluster_async::ClusterConnection;
use deadpool_redis::redis::sentinel::SentinelClient;
use deadpool_redis::redis::{AsyncConnectionConfig, Client, Cmd, RedisError, RedisResult, Value, cmd};
use tokio::sync::Mutex;

/// A handle of a connection that many tasks use at the same time.
#[derive(Clone)]
pub(super) enum Link {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Link {
    /// Whether the driver itself replaces what does not answer: a cluster's parts fail one by one, and those that are
    /// well must not wait for the others.
    pub(super) fn mends_itself(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    pub(super) async fn run(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::Server(connection) => connection.send_packed_command(command).await,
            Self::Cluster(connection) => connection.req_packed_command(command).await,
        }?
        .extract_error()
    }
}

/// What the manager connects to: one for each storage, so that its size does not matter.
#[derive(Clone)]
#[allow(clippy::large_enum_variant)]
pub(super) enum Target {
    Server(Client),
    Cluster(ClusterClient),
    Sentinel(Arc<Mutex<SentinelClient>>),
}

/// Makes connections for the pool.
pub(super) struct LinkManager {
    client: Target,
    config: AsyncConnectionConfig,
    connect_timeout: Duration,
    response_timeout: Duration,
    /// Connections of an earlier age are not handed out again.
    age: Arc<AtomicU64>,
}

/// A connection, and the age that it was made in.
pub(super) struct Pooled {
    pub(super) link: Link,
    age: u64,
}

impl LinkManager {
    pub(super) fn new(
        client: Target,
        config: AsyncConnectionConfig,
        connect_timeout: Duration,
        response_timeout: Duration,
        age: Arc<AtomicU64>,
    ) -> Self {
        Self { client, config, connect_timeout, response_timeout, age }
    }

    async fn connect(&self) -> RedisResult<Link> {
        match &self.client {
            Target::Server(client) => {
                client.get_multiplexed_async_connection_with_config(&self.config).await.map(Link::Server)
            }
            Target::Sentinel(client) => {
                let mut client = client.lock().await;
                client.get_async_connection_with_config(&self.config).await.map(Link::Server)
            }
            Target::Cluster(client) => {
                let config = ClusterConfig::new()
                    .set_connection_timeout(self.connect_timeout)
                    .set_response_timeout(self.response_timeout);
                client.get_async_connection_with_config(config).await.map(Link::Cluster)
            }
        }
    }
}

impl Manager for LinkManager {
    type Type = Pooled;
    type Error = RedisError;

    async fn create(&self) -> Result<Pooled, RedisError> {
        let age = self.age.load(Ordering::SeqCst);
        Ok(Pooled { link: self.connect().await?, age })
    }

    async fn recycle(&self, pooled: &mut Pooled, _: &Metrics) -> RecycleResult<RedisError> {
        if pooled.age < self.age.load(Ordering::SeqCst) {
            return Err(RecycleError::message(
                "the connection may lead to a server that is no master any more",
            ));
        }
        match tokio::time::timeout(self.connect_timeout, pooled.link.run(&cmd("PING"))).await {
            Ok(answer) => answer.map(drop).map_err(RecycleError::Backend),
            Err(_) => Err(RecycleError::message("the connection does not answer")),
        }
    }
}
