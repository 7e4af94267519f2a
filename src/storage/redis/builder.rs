//! How a store in Redis is set up.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use deadpool_redis::redis::AsyncConnectionConfig;
use deadpool_redis::{PoolConfig, Runtime};

use super::link::{LinkManager, Target};
use super::links::{Links, OwnPool, Pool};
use super::naming::Naming;
use super::server::{Kind, RedisServer, Settings, client, target};
use super::store::RedisStorage;
use crate::error::Result;
use crate::storage::address::config;
use crate::storage::remote::answers;
use crate::time::Clock;

const MOST_CONNECTIONS: usize = 64;

/// Sets up a [`RedisStorage`].
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

    /// What the names of all keys begin with: caches with different names do not see each other. No braces. Default:
    /// `http-cache`.
    pub fn cache_name(mut self, name: impl Into<String>) -> Self {
        self.settings.remote.cache_name = Some(name.into());
        self
    }

    /// How many connections all tasks share; at most 64. Half of them are for writes; those of a ready pool are for both. More help
    /// where values of megabytes keep small ones waiting.
    ///
    /// Default: 2.
    pub fn connections(mut self, connections: usize) -> Self {
        self.settings.connections = Some(connections);
        self
    }

    /// How long a connection may take to be made. Default: 1 second.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.remote.connect_timeout = Some(timeout);
        self
    }

    /// How long an answer may take: the time that a body's chunk has. The cache's own deadlines are shorter for
    /// everything else. A ready `ClusterClient` has an overall timeout of its own besides. Default: 10 seconds.
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.settings.remote.response_timeout = Some(timeout);
        self
    }

    /// The driver's settings of each connection, whole; its timeouts are then the ones in force. No effect on a cluster
    /// or a ready pool. Default: the two timeouts above, and room for 1,000 waiting commands.
    pub fn connection_config(mut self, config: AsyncConnectionConfig) -> Self {
        self.connection = Some(config);
        self
    }

    /// The pool's settings. No effect on a ready pool. Default: as many connections as are shared.
    pub fn pool_config(mut self, config: PoolConfig) -> Self {
        self.pool = Some(config);
        self
    }

    /// The clock that expiries are reckoned by. Default: the system's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The store. Nothing is asked of the server before the first operation, so one that is down is noticed then.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config): the address, an option, the cache name or a number is wrong.
    pub fn build(mut self) -> Result<RedisStorage> {
        let mut ready = None;
        let target = match self.server.0 {
            Kind::Url(url) => Some(target(&url, &mut self.settings)?),
            Kind::Target(target) => Some((*target)?),
            Kind::Config(config) => {
                self.pool = self.pool.or(config.pool);
                Some(from_config(config, &mut self.settings)?)
            }
            Kind::Pool(pool) => {
                ready = Some(pool);
                None
            }
        };
        let naming = Naming::new(self.settings.remote.cache_name())?;
        let is_cluster = matches!(target, Some(Target::Cluster(_)));
        let most = self.settings.connections.unwrap_or(2);
        if most == 0 || most > MOST_CONNECTIONS {
            return Err(config("the number of connections must be between 1 and 64"));
        }
        let (connect, response) =
            (self.settings.remote.connect_timeout(), self.settings.remote.response_timeout());
        let age = Arc::new(AtomicU64::new(0));
        let (pool, number, writes) = match (target, ready) {
            (Some(target), _) => {
                let config = self.connection.unwrap_or_else(|| {
                    AsyncConnectionConfig::new()
                        .set_connection_timeout(Some(connect))
                        .set_response_timeout(Some(response))
                        .set_pipeline_buffer_size(1000)
                });
                let settings = self.pool.unwrap_or_else(|| PoolConfig::new(most));
                let pool = |number| {
                    let settings = PoolConfig { max_size: number, ..settings };
                    let manager =
                        LinkManager::new(target.clone(), config.clone(), connect, response, Arc::clone(&age));
                    let pool = OwnPool::builder(manager).config(settings).runtime(Runtime::Tokio1).build();
                    pool.map(Pool::Own).map_err(|_| config_of_pool())
                };
                let number = most.min(settings.max_size.max(1));
                // Half of them for writes, so that one that is held up holds up no reads.
                let writes = number / 2;
                let reads = number - writes;
                (pool(reads)?, reads, if writes > 0 { Some((pool(writes)?, writes)) } else { None })
            }
            (None, Some(pool)) => {
                let number = most.min(pool.status().max_size.max(1));
                (Pool::Ready(pool), number, None)
            }
            (None, None) => return Err(config_of_pool()),
        };
        let links = |pool, number| Arc::new(Links::new(pool, number, connect, response, Arc::clone(&age)));
        let reads = links(pool, number);
        let writes = writes.map_or_else(|| Arc::clone(&reads), |(pool, number)| links(pool, number));
        Ok(RedisStorage::new(reads, writes, naming, is_cluster, self.clock))
    }

    /// The store, once the server was asked. A server that cannot be reached now is no error, since requests go on
    /// without it: an event tells of it.
    ///
    /// # Errors
    /// As [`build`](RedisStorageBuilder::build); [`Denied`](crate::ErrorKind::Denied): the server refuses the credentials or
    /// gives them no rights.
    pub async fn connect(self) -> Result<RedisStorage> {
        let storage = self.build()?;
        if answers("redis", storage.check().await)? {
            storage.warn_of_policy().await;
        }
        Ok(storage)
    }
}

fn from_config(pool: deadpool_redis::Config, settings: &mut Settings) -> Result<Target> {
    match (pool.url, pool.connection) {
        (Some(url), None) => target(&url, settings),
        (None, connection) => client(connection.unwrap_or_default()),
        (Some(_), Some(_)) => Err(config("the pool's settings name both a url and a connection: name one")),
    }
}

fn config_of_pool() -> crate::Error {
    config("the pool's settings cannot be used")
}

impl fmt::Debug for RedisStorageBuilder {
    /// Without the address, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStorageBuilder").field("settings", &self.settings).finish_non_exhaustive()
    }
}
