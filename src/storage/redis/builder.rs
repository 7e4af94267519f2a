//! The settings of a storage in Redis, and building it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use deadpool_redis::redis::AsyncConnectionConfig;
use deadpool_redis::{PoolConfig, Runtime};

use super::connections::{Connections, Connector, Endpoint, OwnPool, Pool};
use super::naming::Naming;
use super::server::{RedisServer, Settings, Source, parse_address, single_server};
use super::storage::RedisStorage;
use super::tracking::Tracking;
use crate::error::Result;
use crate::storage::address::config;
use crate::storage::remote::answers;
use crate::time::Clock;

/// The most connections. One serves many tasks at once, so a larger number is more likely a mistake than a need, and each takes
/// a place in the server's `maxclients`.
const MAX_CONNECTIONS: usize = 64;
/// One for reads and one for writes.
const DEFAULT_CONNECTIONS: usize = 2;
/// How many commands of a connection may wait to be sent. Further ones wait in their tasks.
const PIPELINE_LEN: usize = 1000;

/// A builder of a [`RedisStorage`].
///
/// ```
/// use std::time::Duration;
/// use tower_response_cache::storage::{RedisStorage, redis::redis::ConnectionInfo};
///
/// # fn build() -> tower_response_cache::Result<RedisStorage> {
/// RedisStorage::builder("redis://cache.internal:6379/2")
///     .cache_name("app")
///     .connections(4)
///     .response_timeout(Duration::from_secs(5))
///     .build()
/// # }
/// # build().unwrap();
/// ```
#[must_use]
pub struct RedisStorageBuilder {
    server: RedisServer,
    settings: Settings,
    connection: Option<AsyncConnectionConfig>,
    pool: Option<PoolConfig>,
    clock: Clock,
}

impl RedisStorageBuilder {
    pub(super) fn new(server: RedisServer) -> Self {
        let (settings, clock) = (Settings::default(), Clock::system());
        Self { server, settings, connection: None, pool: None, clock }
    }

    /// Sets the prefix of all keys.
    ///
    /// Caches with different names do not see each other. The name must not contain braces.
    ///
    /// Default: `http-cache`.
    pub fn cache_name(mut self, name: impl Into<String>) -> Self {
        self.settings.remote.cache_name = Some(name.into());
        self
    }

    /// Sets how many connections all tasks share.
    ///
    /// From 1 to 64. Half of them are for writes. Reads and writes share those of a ready pool. More connections help if values
    /// of megabytes delay small ones.
    ///
    /// Default: 2.
    pub fn connections(mut self, connections: usize) -> Self {
        self.settings.connections = Some(connections);
        self
    }

    /// Sets how long connecting may take.
    ///
    /// Default: 1 second.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.remote.connect_timeout = Some(timeout);
        self
    }

    /// Sets how long the answer to a command may take.
    ///
    /// This is the time that a chunk of a body has. For everything else the cache's own deadlines are shorter. A ready
    /// `ClusterClient` also has an overall timeout of its own.
    ///
    /// Default: 10 seconds.
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.settings.remote.response_timeout = Some(timeout);
        self
    }

    /// Sets the driver's settings of each connection.
    ///
    /// They replace the default ones completely, so their timeouts apply. They have no effect on a cluster or a ready pool.
    ///
    /// Default: the two timeouts above, and up to 1,000 commands that wait to be sent.
    pub fn connection_config(mut self, config: AsyncConnectionConfig) -> Self {
        self.connection = Some(config);
        self
    }

    /// Sets the pool's settings.
    ///
    /// They have no effect on a ready pool. A `max_size` below the number of connections reduces that number.
    ///
    /// Default: a pool for as many connections as are shared.
    pub fn pool_config(mut self, config: PoolConfig) -> Self {
        self.pool = Some(config);
        self
    }

    /// Sets the clock by which expiries are computed.
    ///
    /// Default: the system's clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Builds the storage without connecting.
    ///
    /// The first operation connects, so a server that is down is noticed then.
    ///
    /// # Errors
    ///
    /// Returns [`Config`](crate::ErrorKind::Config) if the address, an option, the cache name, the number of connections or a
    /// setting of the pool is wrong.
    pub fn build(mut self) -> Result<RedisStorage> {
        let mut ready_pool = None;
        let endpoint = match self.server.0 {
            Source::Address(address) => Some(parse_address(&address, &mut self.settings)?),
            Source::Endpoint(endpoint) => Some((*endpoint)?),
            Source::Config(config) => {
                self.pool = self.pool.or(config.pool);
                Some(from_config(config, &mut self.settings)?)
            }
            Source::Pool(pool) => {
                ready_pool = Some(pool);
                None
            }
        };
        let naming = Naming::new(self.settings.remote.cache_name())?;
        let is_cluster = matches!(endpoint, Some(Endpoint::Cluster(..)));
        let master_epoch = Arc::new(AtomicU64::new(0));
        // A ready pool does not tell its server.
        let tracking = endpoint.as_ref().and_then(|endpoint| Tracking::new(endpoint, &naming, &master_epoch));
        let wanted = self.settings.connections.unwrap_or(DEFAULT_CONNECTIONS);
        if wanted == 0 || wanted > MAX_CONNECTIONS {
            return Err(config("the number of connections must be from 1 to 64"));
        }
        let connect_timeout = self.settings.remote.connect_timeout();
        let response_timeout = self.settings.remote.response_timeout();
        let (pool, count, writes) = match (endpoint, ready_pool) {
            (Some(endpoint), _) => {
                let connection_config = self.connection.unwrap_or_else(|| {
                    AsyncConnectionConfig::new()
                        .set_connection_timeout(Some(connect_timeout))
                        .set_response_timeout(Some(response_timeout))
                        .set_pipeline_buffer_size(PIPELINE_LEN)
                });
                let pool_config = self.pool.unwrap_or_else(|| PoolConfig::new(wanted));
                let pool = |count| {
                    let connector = Connector::new(
                        endpoint.clone(),
                        connection_config.clone(),
                        connect_timeout,
                        response_timeout,
                        Arc::clone(&master_epoch),
                    );
                    let pool_config = PoolConfig { max_size: count, ..pool_config };
                    let pool =
                        OwnPool::builder(connector).config(pool_config).runtime(Runtime::Tokio1).build();
                    pool.map(Pool::Own).map_err(|_| invalid_pool())
                };
                let count = wanted.min(pool_config.max_size.max(1));
                // The server answers the commands of a connection in order. With connections of their own, reads do not
                // wait behind a write that the server delays.
                let writes = count / 2;
                let reads = count - writes;
                (pool(reads)?, reads, if writes > 0 { Some((pool(writes)?, writes)) } else { None })
            }
            (None, Some(pool)) => {
                let count = wanted.min(pool.status().max_size.max(1));
                (Pool::Ready(pool), count, None)
            }
            (None, None) => return Err(invalid_pool()),
        };
        let connections = |pool, count| {
            let master_epoch = Arc::clone(&master_epoch);
            Arc::new(Connections::new(pool, count, connect_timeout, response_timeout, master_epoch))
        };
        let reads = connections(pool, count);
        let writes = writes.map_or_else(|| Arc::clone(&reads), |(pool, count)| connections(pool, count));
        Ok(RedisStorage::new(reads, writes, naming, is_cluster, self.clock, tracking))
    }

    /// Builds the storage and connects to the server.
    ///
    /// A server that cannot be reached now is no error, since requests are served without it. An event reports it.
    ///
    /// # Errors
    ///
    /// As [`build`](RedisStorageBuilder::build). Also returns [`Denied`](crate::ErrorKind::Denied) if the server refuses the
    /// credentials or they give no permissions, and [`Config`](crate::ErrorKind::Config) if the server is a node of a cluster.
    pub async fn connect(self) -> Result<RedisStorage> {
        let storage = self.build()?;
        if answers("redis", storage.check().await)? {
            storage.warn_about_eviction_policy().await;
        }
        Ok(storage)
    }
}

/// Returns the endpoint that the pool's settings name.
fn from_config(pool: deadpool_redis::Config, settings: &mut Settings) -> Result<Endpoint> {
    match (pool.url, pool.connection) {
        (Some(url), None) => parse_address(&url, settings),
        (None, connection) => single_server(connection.unwrap_or_default()),
        (Some(_), Some(_)) => Err(config("the pool's settings name both a url and a connection: remove one")),
    }
}

fn invalid_pool() -> crate::Error {
    config("the pool's settings cannot be used: check its timeouts and its runtime")
}

impl fmt::Debug for RedisStorageBuilder {
    /// Omits the address, which may contain a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStorageBuilder").field("settings", &self.settings).finish_non_exhaustive()
    }
}
