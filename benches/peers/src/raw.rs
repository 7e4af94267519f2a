//! The raw drivers, without a cache.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use tower_response_cache::storage::redis::redis::aio::MultiplexedConnection;
use tower_response_cache::storage::redis::redis::{self, Client};
use tower_response_cache::storage::sqlite::rusqlite::{self, Connection};
use tower_response_cache::storage::sqlite::tokio_rusqlite;

use crate::sample::Work;

/// The number of rows that are read in turn, as many as there are URLs.
pub const ROWS: usize = 200;

const SCHEMA: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; \
    CREATE TABLE IF NOT EXISTS v (k INTEGER PRIMARY KEY, v BLOB)";

fn select(connection: &Connection, number: usize) -> rusqlite::Result<Vec<u8>> {
    connection.prepare_cached("SELECT v FROM v WHERE k = ?1")?.query_row([number as i64], |row| row.get(0))
}

fn insert(connection: &Connection, number: usize, value: &[u8]) -> rusqlite::Result<usize> {
    connection.prepare_cached("INSERT OR REPLACE INTO v VALUES (?1, ?2)")?.execute((number as i64, value))
}

/// Two connections of rusqlite that tasks use themselves.
#[derive(Clone)]
pub struct SqliteInTask(Arc<[Mutex<Connection>; 2]>);

impl SqliteInTask {
    pub fn open(path: &Path, len: usize) -> Self {
        let open = || {
            let connection = Connection::open(path).unwrap();
            connection.execute_batch(SCHEMA).unwrap();
            Mutex::new(connection)
        };
        let connections = [open(), open()];
        for row in 0..ROWS {
            insert(&connections[0].lock().unwrap(), row, &vec![7; len]).unwrap();
        }
        Self(Arc::new(connections))
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        match self.0[0].try_lock() {
            Err(TryLockError::WouldBlock) => self.0[1].lock().unwrap(),
            free => free.unwrap(),
        }
    }
}

impl Work for SqliteInTask {
    async fn once(&mut self, number: usize) {
        let value = select(&self.connection(), number % ROWS).unwrap();
        tokio::task::yield_now().await; // holds the value while other tasks run, as `read_held` does
        drop(value);
    }
}

/// One connection of tokio-rusqlite, on a thread of its own.
#[derive(Clone)]
pub struct SqliteOnThread {
    connection: tokio_rusqlite::Connection,
    len: usize,
}

impl SqliteOnThread {
    pub async fn open(path: &Path, len: usize) -> Self {
        let connection = tokio_rusqlite::Connection::open(path).await.unwrap();
        let made = connection.call(|connection| connection.execute_batch(SCHEMA));
        made.await.unwrap();
        Self { connection, len }
    }

    /// Returns work that writes instead of reading.
    pub fn writes(&self) -> SqliteWrites {
        SqliteWrites(self.clone(), vec![7; self.len].into())
    }
}

impl Work for SqliteOnThread {
    async fn once(&mut self, number: usize) {
        let value = self.connection.call(move |connection| select(connection, number % ROWS)).await.unwrap();
        tokio::task::yield_now().await;
        assert_eq!(value.len(), self.len);
    }
}

#[derive(Clone)]
pub struct SqliteWrites(SqliteOnThread, Arc<[u8]>);

impl Work for SqliteWrites {
    async fn once(&mut self, number: usize) {
        let value = Arc::clone(&self.1);
        self.0
            .connection
            .call(move |connection| insert(connection, 1000 + number % 1000, &value))
            .await
            .unwrap();
    }
}

/// Two multiplexed connections, as the storage has.
#[derive(Clone)]
pub struct RedisGet {
    connections: [MultiplexedConnection; 2],
    next: Arc<AtomicUsize>,
    len: usize,
}

impl RedisGet {
    pub async fn connect(url: &str, len: usize) -> Self {
        let client = Client::open(url).unwrap();
        // The same settings as those of the storage's own connections.
        let config =
            || redis::AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(1000);
        let connect = async || client.get_multiplexed_async_connection_with_config(&config()).await.unwrap();
        let own = Self { connections: [connect().await, connect().await], next: Arc::default(), len };
        for row in 0..ROWS {
            own.set(row, &vec![7; len]).await;
        }
        own
    }

    fn connection(&self) -> MultiplexedConnection {
        self.connections[self.next.fetch_add(1, Ordering::Relaxed) % 2].clone()
    }

    async fn set(&self, number: usize, value: &[u8]) {
        let mut command = redis::cmd("SET");
        command.arg(format!("raw:{number}")).arg(value).arg("EX").arg(3600);
        let _: () = command.query_async(&mut self.connection()).await.unwrap();
    }

    /// Returns work that writes instead of reading.
    pub fn writes(&self) -> RedisSet {
        RedisSet(self.clone(), vec![7; self.len].into())
    }
}

impl Work for RedisGet {
    async fn once(&mut self, number: usize) {
        let key = format!("raw:{}", number % ROWS);
        let value: Vec<u8> = redis::cmd("GET").arg(key).query_async(&mut self.connection()).await.unwrap();
        tokio::task::yield_now().await;
        assert_eq!(value.len(), self.len);
    }
}

#[derive(Clone)]
pub struct RedisSet(RedisGet, Arc<[u8]>);

impl Work for RedisSet {
    async fn once(&mut self, number: usize) {
        self.0.set(1000 + number % 1000, &self.1).await;
    }
}
