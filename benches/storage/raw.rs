//! The raw drivers, without a cache.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use quick_cache::sync::Cache;
use tower_response_cache::storage::redis::redis::aio::MultiplexedConnection;
use tower_response_cache::storage::redis::redis::{self, Client};
use tower_response_cache::storage::sqlite::rusqlite::OptionalExtension;
use tower_response_cache::storage::sqlite::tokio_rusqlite::{self, Connection};

/// A driver that stores bytes under a number.
pub trait Raw: Send + Sync + 'static {
    fn get(&self, number: u64) -> impl Future<Output = Option<Bytes>> + Send;
    fn set(&self, number: u64, value: Bytes) -> impl Future<Output = ()> + Send;
}

pub struct RawMemory(Cache<u64, Bytes>);

impl RawMemory {
    pub fn new() -> Self {
        Self(Cache::new(2000)) // more than the numbers in use, so that nothing is evicted
    }
}

impl Raw for RawMemory {
    async fn get(&self, number: u64) -> Option<Bytes> {
        self.0.get(&number)
    }

    async fn set(&self, number: u64, value: Bytes) {
        self.0.insert(number, value);
    }
}

/// One connection of tokio-rusqlite on a thread of its own, with pragmas of the storage.
pub struct RawSqlite(Connection);

impl RawSqlite {
    pub async fn open(path: &Path) -> Self {
        let connection = Connection::open(path).await.unwrap();
        let made = connection.call(|connection| {
            connection.execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; CREATE TABLE v (k INTEGER PRIMARY KEY, v BLOB)",
            )
        });
        made.await.unwrap();
        Self(connection)
    }
}

impl Raw for RawSqlite {
    async fn get(&self, number: u64) -> Option<Bytes> {
        let read = self.0.call(move |connection| {
            let mut statement = connection.prepare_cached("SELECT v FROM v WHERE k = ?1")?;
            statement.query_row([number as i64], |row| row.get::<_, Vec<u8>>(0)).optional()
        });
        let found = read.await.map_err(|error: tokio_rusqlite::Error| error.to_string()).unwrap();
        found.map(Bytes::from)
    }

    async fn set(&self, number: u64, value: Bytes) {
        let write = self.0.call(move |connection| {
            let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO v VALUES (?1, ?2)")?;
            statement.execute((number as i64, &value[..]))
        });
        write.await.map_err(|error: tokio_rusqlite::Error| error.to_string()).unwrap();
    }
}

/// Two multiplexed connections, as the storage has.
pub struct RawRedis {
    connections: [MultiplexedConnection; 2],
    next: AtomicUsize,
    name: Arc<str>,
}

impl RawRedis {
    pub async fn connect(url: &str, name: &str) -> Self {
        let client = Client::open(url).unwrap();
        // The same settings as those of the storage's own connections.
        let config =
            || redis::AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(1000);
        let connect = async || client.get_multiplexed_async_connection_with_config(&config()).await.unwrap();
        Self { connections: [connect().await, connect().await], next: AtomicUsize::new(0), name: name.into() }
    }

    fn connection(&self) -> MultiplexedConnection {
        self.connections[self.next.fetch_add(1, Ordering::Relaxed) % 2].clone()
    }

    pub async fn clear(&self) {
        for number in 0..2000 {
            let key = format!("{}:{number}", self.name);
            let _: () = redis::cmd("UNLINK").arg(key).query_async(&mut self.connection()).await.unwrap();
        }
    }
}

impl Raw for RawRedis {
    async fn get(&self, number: u64) -> Option<Bytes> {
        let key = format!("{}:{number}", self.name);
        let mut get = redis::cmd("GET");
        let found: Option<Vec<u8>> = get.arg(key).query_async(&mut self.connection()).await.unwrap();
        found.map(Bytes::from)
    }

    async fn set(&self, number: u64, value: Bytes) {
        let key = format!("{}:{number}", self.name);
        let mut command = redis::cmd("SET");
        command.arg(key).arg(&value[..]).arg("EX").arg(3600);
        let _: () = command.query_async(&mut self.connection()).await.unwrap();
    }
}

pub fn redis_url() -> Result<String, &'static str> {
    std::env::var("TEST_REDIS_URL").map_err(|_| "TEST_REDIS_URL is not set")
}
