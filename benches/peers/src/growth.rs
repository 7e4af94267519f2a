//! How the cost of a hit and of a listing grows with the number of entries.
//!
//! Each storage exists in three sizes at once, and they are measured in turn with random URLs. Reading many entries at
//! random costs any program cache misses. So the same run measures a bare map and the raw drivers, with as many keys.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Ready;
use std::hash::RandomState;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::{Response, header};
use http_body_util::Full;
use peers::origin::{Ask, read};
use peers::peers::ours;
use peers::report::{Table, bytes, duration};
use peers::sample::{Candidate, Plan, Work, compare, median};
use peers::servers::redis::Redis;
use tower::{Layer, Service};
use tower_response_cache::storage::redis::redis::aio::MultiplexedConnection;
use tower_response_cache::storage::redis::redis::{self, Client};
use tower_response_cache::storage::sqlite::rusqlite::Connection;
use tower_response_cache::storage::{Key, MemoryStorage, RedisStorage, SqliteStorage, Storage};
use tower_response_cache::{Cache, CacheLayer, EntryFilter};

/// The numbers of entries. Redis gets at most a million, because its server shares the memory.
const ENTRIES: [usize; 3] = [1_000, 100_000, 10_000_000];
const QUICK: [usize; 3] = [10, 100, 1_000];
const MAX_REDIS: usize = 1_000_000;
/// The storages hold everything.
const UNBOUNDED: u64 = 1 << 40;
/// As many entries of a listing are read.
const LISTED: usize = 100_000;
/// How many records are written at once.
const AT_ONCE: usize = 512;
/// A short body, so that ten million of them fit into memory.
const BODY: &[u8] = b"12345678";
/// What a raw driver stores for each key, about as long as a record.
const VALUE: [u8; 256] = [7; 256];

fn url(number: usize) -> String {
    format!("http://example.com/{number}")
}

/// An origin of short responses.
#[derive(Clone)]
pub struct Short;

impl Service<Ask> for Short {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Ask) -> Self::Future {
        let response = Response::builder().header(header::CACHE_CONTROL, "max-age=31536000");
        std::future::ready(Ok(response.body(Full::new(Bytes::from_static(BODY))).unwrap()))
    }
}

/// A hit of a random URL.
#[derive(Clone)]
struct Hits<S: Storage> {
    service: Cache<Short, S>,
    entries: usize,
}

impl<S: Storage> Work for Hits<S> {
    async fn once(&mut self, _: usize) {
        let len = read(&mut self.service, &url(fastrand::usize(..self.entries))).await;
        assert_eq!(len, BODY.len());
    }
}

/// A map of this many URLs. Looking one up makes its text, as a hit does.
#[derive(Clone)]
struct Map(Arc<HashMap<Box<str>, Arc<[u8]>, RandomState>>);

impl Map {
    fn new(entries: usize) -> Self {
        Self(Arc::new((0..entries).map(|number| (url(number).into(), Arc::from(VALUE))).collect()))
    }
}

impl Work for Map {
    async fn once(&mut self, _: usize) {
        let value = Arc::clone(&self.0[url(fastrand::usize(..self.0.len())).as_str()]);
        assert_eq!(value.iter().step_by(64).map(|byte| usize::from(*byte)).sum::<usize>(), 28);
    }
}

/// A table of as many rows, with keys as long as a storage's.
#[derive(Clone)]
struct RawSqlite {
    connection: Arc<Mutex<Connection>>,
    entries: usize,
}

/// Returns a key that is spread evenly, as a hash is. Fibonacci hashing makes it the same for the same number.
fn spread(number: usize) -> [u8; 16] {
    let hash = (number as u128 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    hash.to_be_bytes()
}

impl RawSqlite {
    fn fill(path: &Path, entries: usize) -> Self {
        let mut connection = Connection::open(path).unwrap();
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
                 CREATE TABLE v (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID",
            )
            .unwrap();
        // In the order of the keys, which fills a tree without moving its pages.
        let mut keys: Vec<_> = (0..entries).map(spread).collect();
        keys.sort_unstable();
        for keys in keys.chunks(100_000) {
            let transaction = connection.transaction().unwrap();
            for key in keys {
                let mut statement = transaction.prepare_cached("INSERT INTO v VALUES (?1, ?2)").unwrap();
                statement.execute((key, VALUE)).unwrap();
            }
            transaction.commit().unwrap();
        }
        Self { connection: Arc::new(Mutex::new(connection)), entries }
    }
}

impl Work for RawSqlite {
    async fn once(&mut self, _: usize) {
        let connection = self.connection.lock().unwrap();
        let mut statement = connection.prepare_cached("SELECT v FROM v WHERE k = ?1").unwrap();
        let key = spread(fastrand::usize(..self.entries));
        let value: Vec<u8> = statement.query_row([key], |row| row.get(0)).unwrap();
        assert_eq!(value.len(), VALUE.len());
    }
}

#[derive(Clone)]
struct RawRedis {
    connection: MultiplexedConnection,
    entries: usize,
}

impl RawRedis {
    async fn fill(url: &str, entries: usize) -> Self {
        let connection = Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
        let own = Self { connection, entries };
        let writes = stream::iter(0..entries).for_each_concurrent(AT_ONCE, |number| {
            let mut connection = own.connection.clone();
            async move {
                let mut command = redis::cmd("SET");
                command.arg(format!("raw:{number}")).arg(&VALUE);
                let _: () = command.query_async(&mut connection).await.unwrap();
            }
        });
        writes.await;
        own
    }
}

impl Work for RawRedis {
    async fn once(&mut self, _: usize) {
        let key = format!("raw:{}", fastrand::usize(..self.entries));
        let value: Vec<u8> = redis::cmd("GET").arg(key).query_async(&mut self.connection).await.unwrap();
        assert_eq!(value.len(), VALUE.len());
    }
}

/// Stores this many responses through a layer.
async fn fill(entries: usize) -> CacheLayer<MemoryStorage> {
    let layer = ours(MemoryStorage::builder().max_bytes(UNBOUNDED).build());
    let workers: Vec<_> = (0..2)
        .map(|worker| {
            let mut service = layer.layer(Short);
            tokio::spawn(async move {
                for number in (worker..entries).step_by(2) {
                    read(&mut service, &url(number)).await;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    layer.idle().await;
    layer
}

/// Writes every record of one storage to another, in the order of their keys.
///
/// They are the records that a layer writes, for the key of a URL is the same in every storage.
async fn copy<S: Storage>(from: &MemoryStorage, to: &S) {
    let mut keys: Vec<Key> = from.keys().try_collect().await.unwrap();
    keys.sort_unstable_by_key(|key| key.to_bytes());
    let writes = stream::iter(keys).for_each_concurrent(AT_ONCE, |key| async move {
        if let Some(record) = from.read(key).await.unwrap() {
            to.write(key, record).await.unwrap();
        }
    });
    writes.await;
}

/// The layers over one kind of storage in three sizes, and what they are compared with.
struct Kind<S: Storage> {
    name: &'static str,
    raw_name: &'static str,
    layers: Vec<(usize, CacheLayer<S>)>,
    raw: Vec<Candidate>,
    /// How many bytes the largest takes for each entry.
    entry_bytes: u64,
}

impl<S: Storage> Kind<S> {
    async fn measure(&self, plan: Plan, hits: &mut Table, listings: &mut Table) {
        let ours: Vec<_> = self
            .layers
            .iter()
            .map(|(entries, layer)| {
                Candidate::new(self.name, Hits { service: layer.layer(Short), entries: *entries })
            })
            .collect();
        for (name, candidates) in [(self.name, &ours), (self.raw_name, &self.raw)] {
            // Each is read once before, so that its pages are in memory.
            compare(Plan { rounds: 1, ..plan }, 1, candidates).await;
            let seconds = compare(plan, 1, candidates).await;
            push(hits, name, &self.layers, &seconds);
        }
        let mut seconds = Vec::new();
        let mut first = Vec::new();
        for (_, layer) in &self.layers {
            let mut rounds = (Vec::new(), Vec::new());
            for _ in 0..plan.rounds {
                let (to_first, each) = listing(layer).await;
                rounds.0.push(to_first);
                rounds.1.push(each);
            }
            first.push(median(rounds.0));
            seconds.push(median(rounds.1));
        }
        push(listings, &format!("{}, each entry", self.name), &self.layers, &seconds);
        push(listings, &format!("{}, until the first entry", self.name), &self.layers, &first);
    }
}

fn push<S: Storage>(table: &mut Table, name: &str, layers: &[(usize, CacheLayer<S>)], seconds: &[f64]) {
    for ((entries, _), time) in layers.iter().zip(seconds) {
        // A storage may have fewer entries than its column says.
        let column = table.rows.iter().find(|(row, _)| row == name).map_or(0, |(_, cells)| cells.len());
        let number = format!("{entries} entries");
        let number = if table.columns[column] == number { "" } else { &format!(" at {number}") };
        table.push(name, format!("{}{number}", duration(*time)));
    }
    table.push(name, format!("{:.2}", seconds[seconds.len() - 1] / seconds[0]));
}

/// Returns the seconds until the first entry, and those for each of the first entries.
async fn listing<S: Storage>(layer: &CacheLayer<S>) -> (f64, f64) {
    let handle = layer.handle();
    let everything = EntryFilter::new();
    let began = Instant::now();
    let mut entries = std::pin::pin!(handle.entries(&everything).take(LISTED));
    let mut first = 0.0;
    let mut count = 0;
    while let Some(entry) = entries.next().await {
        entry.unwrap();
        if count == 0 {
            first = began.elapsed().as_secs_f64();
        }
        count += 1;
    }
    (first, began.elapsed().as_secs_f64() / f64::from(count))
}

/// Returns the memory of this process in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0) * 1024
}

/// Returns the length that a database has once its log is written back.
fn file_bytes(path: &Path) -> u64 {
    let connection = Connection::open(path).unwrap();
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    (pragma("page_count") * pragma("page_size")) as u64
}

/// Waits for a line on the standard input, so that a person can make the machine quiet before times are measured.
fn pause(waits: bool, what: &str) {
    println!("{what} is filled");
    if waits {
        let _ = std::io::stdin().read_line(&mut String::new());
    }
}

pub async fn tables(is_quick: bool, most: usize, waits: bool) -> Vec<Table> {
    let plan = Plan::new(is_quick, 150);
    let sizes = if is_quick { QUICK } else { ENTRIES }.map(|entries| entries.min(most));
    let mut columns: Vec<_> = sizes.iter().map(|entries| format!("{entries} entries")).collect();
    columns.push("ratio".to_owned());
    let note = "Random URLs, one task, bodies of 8 bytes.";
    let mut hits = Table::new("Hits by the number of entries", note, columns.clone());
    let note = "The first 100,000 entries of a listing.";
    let mut listings = Table::new("Listings by the number of entries", note, columns);
    let mut sizes_of = Table::new(
        "Size of an entry",
        "A body of 8 bytes and two fields. Memory: of the process. SQLite: of the file. Redis: of the server.",
        vec!["bytes".to_owned()],
    );

    let mut memory = Vec::new();
    let mut entry_bytes = 0;
    for entries in sizes {
        let before = resident();
        memory.push((entries, fill(entries).await));
        entry_bytes = resident().saturating_sub(before) / entries as u64;
    }
    let raw = sizes.map(|entries| Candidate::new("", Map::new(entries))).into();
    let kind =
        Kind { name: "memory", raw_name: "a map of the standard library", layers: memory, raw, entry_bytes };
    pause(waits, "memory");
    kind.measure(plan, &mut hits, &mut listings).await;
    sizes_of.push(kind.name, bytes(kind.entry_bytes));
    let memory = kind.layers;
    drop(kind.raw);

    let folder = tempfile::tempdir().unwrap();
    let mut layers = Vec::new();
    let mut entry_bytes = 0;
    for (entries, from) in &memory {
        let path = folder.path().join(format!("ours-{entries}"));
        let storage = SqliteStorage::builder(&path).max_bytes(UNBOUNDED).open().await.unwrap();
        copy(from.storage(), &storage).await;
        entry_bytes = file_bytes(&path) / *entries as u64;
        layers.push((*entries, ours(storage)));
    }
    let redis_records = memory.iter().map(|(entries, layer)| (*entries, layer.storage().clone()));
    let mut redis_records: Vec<_> = redis_records.collect();
    drop(memory);
    if sizes[2] > MAX_REDIS {
        redis_records[2] = (MAX_REDIS, fill(MAX_REDIS).await.storage().clone());
    }
    let raw = sizes.map(|entries| {
        Candidate::new("", RawSqlite::fill(&folder.path().join(format!("raw-{entries}")), entries))
    });
    let kind =
        Kind { name: "SQLite", raw_name: "rusqlite, in the task", layers, raw: raw.into(), entry_bytes };
    pause(waits, "SQLite");
    kind.measure(plan, &mut hits, &mut listings).await;
    sizes_of.push(kind.name, bytes(kind.entry_bytes));
    drop(kind);
    drop(folder);

    let server = match Redis::start(&[]) {
        Ok(server) => server,
        Err(reason) => {
            println!("Redis is not measured: {reason}");
            return vec![hits, listings, sizes_of];
        }
    };
    let used = || -> u64 {
        let info = server.ok(&["INFO", "memory"]);
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
        line.and_then(|line| line.trim().parse().ok()).unwrap_or(0)
    };
    let mut layers = Vec::new();
    let mut raw = Vec::new();
    let mut entry_bytes = 0;
    for (database, (entries, from)) in redis_records.iter().enumerate() {
        let url = format!("redis://127.0.0.1:{}/{database}", server.port);
        let storage = RedisStorage::builder(url.as_str()).connect().await.unwrap();
        let before = used();
        copy(from, &storage).await;
        entry_bytes = used().saturating_sub(before) / *entries as u64;
        layers.push((*entries, ours(storage)));
        // In a database of its own, so that a listing does not meet its keys.
        let url = format!("redis://127.0.0.1:{}/{}", server.port, database + sizes.len());
        raw.push(Candidate::new("", RawRedis::fill(&url, *entries).await));
    }
    let kind = Kind { name: "Redis", raw_name: "GET, multiplexed", layers, raw, entry_bytes };
    pause(waits, "Redis");
    kind.measure(plan, &mut hits, &mut listings).await;
    sizes_of.push(kind.name, bytes(kind.entry_bytes));
    vec![hits, listings, sizes_of]
}
