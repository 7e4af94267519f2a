//! How the cost of a hit and of a listing grows with the number of entries.
//!
//! Each storage exists in three sizes at once, and they are measured in turn with random URLs. Reading many entries at
//! random costs any program cache misses. So the same run measures a bare map and the raw drivers, with as many keys.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Ready;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::{HeaderMap, HeaderValue, Response, header};
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

use crate::Grown;

/// The numbers of entries.
const ENTRIES: [usize; 3] = [1_000, 100_000, 10_000_000];
const QUICK: [usize; 3] = [10, 100, 1_000];
/// The most entries on Redis and of the lower bound, so that they fit into memory beside the rest.
const MAX_SMALL: usize = 1_000_000;
/// As many entries are made in memory before they are written to a storage. Each slice touches most pages of a tree, so that
/// smaller ones would take longer.
const SLICE: usize = 2_500_000;
/// The storages hold everything.
const UNBOUNDED: u64 = 1 << 40;
/// As many entries of a listing are read.
const LISTED: usize = 100_000;
/// How many records are written at once.
const AT_ONCE: usize = 512;
/// A short body, so that ten million of them fit into memory.
const BODY: &[u8] = b"12345678";
/// The value that a raw driver stores for each key. It is about as long as a record in a file or on a server.
const VALUE: [u8; 256] = [7; 256];
/// The response's only field besides those that a cache adds.
const FIELD: &str = "max-age=31536000";

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
        let response = Response::builder().header(header::CACHE_CONTROL, FIELD);
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
struct Map(Arc<HashMap<Box<str>, u64>>);

impl Map {
    fn new(entries: usize) -> Self {
        Self(Arc::new((0..entries).map(|number| (url(number).into(), number as u64)).collect()))
    }
}

impl Work for Map {
    async fn once(&mut self, _: usize) {
        let number = fastrand::usize(..self.0.len());
        assert_eq!(self.0[url(number).as_str()], number as u64);
    }
}

/// The least that a cache in memory does: it looks up a map, and clones the fields and the body.
#[derive(Clone)]
struct Responses(Arc<HashMap<Box<str>, Arc<Stored>>>);

/// The fields and the body.
type Stored = (HeaderMap, Bytes);

impl Responses {
    fn new(entries: usize) -> Self {
        let response = |number: usize| {
            let mut fields = HeaderMap::new();
            // Values of their own, as they come from a connection.
            let value = |text: String| HeaderValue::try_from(text).unwrap();
            fields.insert(header::CACHE_CONTROL, value(FIELD.to_owned()));
            fields.insert(header::CONTENT_LENGTH, value(BODY.len().to_string()));
            fields.insert(header::DATE, value(format!("Thu, 01 Jan 2026 00:00:{:02} GMT", number % 60)));
            fields.insert(header::AGE, value("0".to_owned()));
            Arc::new((fields, Bytes::copy_from_slice(BODY)))
        };
        Self(Arc::new((0..entries).map(|number| (url(number).into(), response(number))).collect()))
    }
}

impl Service<Ask> for Responses {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Ask) -> Self::Future {
        let stored = &self.0[request.uri().to_string().as_str()];
        let mut response = Response::new(Full::new(stored.1.clone()));
        *response.headers_mut() = stored.0.clone();
        response.headers_mut().insert(header::AGE, HeaderValue::from(42));
        std::future::ready(Ok(response))
    }
}

impl Work for Responses {
    async fn once(&mut self, _: usize) {
        let number = fastrand::usize(..self.0.len());
        assert_eq!(read(self, &url(number)).await, BODY.len());
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

/// Stores the responses for these URLs in memory, through a layer.
async fn fill(numbers: Range<usize>) -> CacheLayer<MemoryStorage> {
    let layer = ours(MemoryStorage::builder().max_bytes(UNBOUNDED).build());
    let workers: Vec<_> = (0..2)
        .map(|worker| {
            let mut service = layer.layer(Short);
            let numbers = numbers.clone().skip(worker).step_by(2);
            tokio::spawn(async move {
                for number in numbers {
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

/// Stores this many responses in a storage.
///
/// The records are those that a layer writes to a storage in memory, since the key of a URL is the same in every storage. In
/// the order of their keys they are written several times faster than misses would be.
async fn fill_storage<S: Storage>(storage: &S, entries: usize) {
    for start in (0..entries).step_by(SLICE) {
        let layer = fill(start..entries.min(start + SLICE)).await;
        let from = layer.storage();
        let mut keys: Vec<Key> = from.keys().try_collect().await.unwrap();
        keys.sort_unstable_by_key(|key| key.to_bytes());
        let writes = stream::iter(keys).for_each_concurrent(AT_ONCE, |key| async move {
            if let Some(record) = from.read(key).await.unwrap() {
                storage.write(key, record).await.unwrap();
            }
        });
        writes.await;
    }
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

fn push(table: &mut Table, name: &str, entries: &[usize], seconds: &[f64]) {
    for (entries, time) in entries.iter().zip(seconds) {
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

/// The tables of one run.
pub struct Growth {
    plan: Plan,
    waits: bool,
    hits: Table,
    listings: Table,
    sizes: Table,
}

pub async fn tables(
    storages: &[Grown],
    is_quick: bool,
    most: usize,
    most_in_memory: usize,
    waits: bool,
) -> Vec<Table> {
    let wanted = |storage| storages.is_empty() || storages.contains(&storage);
    let numbers = if is_quick { QUICK } else { ENTRIES };
    let at_most = |most: usize| numbers.map(|entries| entries.min(most));
    let mut columns: Vec<_> = at_most(most).iter().map(|entries| format!("{entries} entries")).collect();
    columns.push("ratio".to_owned());
    let mut growth = Growth {
        plan: Plan::new(is_quick, 150),
        waits,
        hits: Table::new("Hits", "One task.", columns.clone()),
        listings: Table::new("Listings", "The first 100,000 entries.", columns),
        sizes: Table::new(
            "Size of an entry",
            "With two header fields. Memory: of the process. SQLite: of the file. Redis: of the server.",
            vec!["bytes".to_owned()],
        ),
    };
    if wanted(Grown::Memory) {
        growth.in_memory(at_most(most.min(most_in_memory)), at_most(most.min(MAX_SMALL))).await;
    }
    if wanted(Grown::Sqlite) {
        growth.on_sqlite(at_most(most)).await;
    }
    if wanted(Grown::Redis)
        && let Err(reason) = growth.on_redis(at_most(most.min(MAX_SMALL))).await
    {
        println!("Redis is not measured: {reason}");
    }
    vec![growth.hits, growth.listings, growth.sizes]
}

impl Growth {
    async fn in_memory(&mut self, sizes: [usize; 3], small: [usize; 3]) {
        let before = resident();
        let layer = fill(0..sizes[1]).await;
        let entry_bytes = resident().saturating_sub(before) / sizes[1] as u64;
        let mut layers = vec![(sizes[0], fill(0..sizes[0]).await), (sizes[1], layer)];
        layers.push((sizes[2], fill(0..sizes[2]).await));
        let raw = sizes.map(|entries| Candidate::new("", Map::new(entries))).into();
        let kind = Kind { name: "memory", raw_name: "a map of numbers", layers, raw, entry_bytes };
        let lower_bound = small.map(|entries| Candidate::new("", Responses::new(entries)));
        self.measure(kind).await;
        compare(self.plan.once(1), 1, &lower_bound).await;
        let seconds = compare(self.plan, 1, &lower_bound).await;
        push(&mut self.hits, "lower bound", &small, &seconds);
    }

    async fn on_sqlite(&mut self, sizes: [usize; 3]) {
        let folder = tempfile::tempdir().unwrap();
        let mut layers = Vec::new();
        let mut raw = Vec::new();
        let mut entry_bytes = 0;
        for entries in sizes {
            let path = folder.path().join(format!("ours-{entries}"));
            let storage = SqliteStorage::builder(&path).max_bytes(UNBOUNDED).open().await.unwrap();
            fill_storage(&storage, entries).await;
            entry_bytes = file_bytes(&path) / entries as u64;
            layers.push((entries, ours(storage)));
            let path = folder.path().join(format!("raw-{entries}"));
            raw.push(Candidate::new("", RawSqlite::fill(&path, entries)));
        }
        self.measure(Kind { name: "SQLite", raw_name: "rusqlite, in the task", layers, raw, entry_bytes })
            .await;
    }

    async fn on_redis(&mut self, sizes: [usize; 3]) -> Result<(), String> {
        let server = Redis::start(&["--databases", "6"])?;
        let used = || -> u64 {
            let info = server.ok(&["INFO", "memory"]);
            let line = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
            line.and_then(|line| line.trim().parse().ok()).unwrap_or(0)
        };
        let mut layers = Vec::new();
        let mut raw = Vec::new();
        let mut entry_bytes = 0;
        // Databases of their own, so that neither a lookup nor a listing meets other keys.
        let mut databases = (0..).map(|number| format!("redis://127.0.0.1:{}/{number}", server.port));
        for (entries, urls) in
            sizes.into_iter().zip(std::iter::from_fn(|| databases.next().zip(databases.next())))
        {
            let storage = RedisStorage::builder(urls.0).connect().await.map_err(|error| error.to_string())?;
            let before = used();
            fill_storage(&storage, entries).await;
            entry_bytes = used().saturating_sub(before) / entries as u64;
            layers.push((entries, ours(storage)));
            raw.push(Candidate::new("", RawRedis::fill(&urls.1, entries).await));
        }
        self.measure(Kind { name: "Redis", raw_name: "GET, multiplexed", layers, raw, entry_bytes }).await;
        Ok(())
    }

    /// Measures hits and listings of one kind of storage.
    async fn measure<S: Storage>(&mut self, kind: Kind<S>) {
        println!("{} is filled", kind.name);
        if self.waits {
            // The user can then end other work, before times are measured.
            let _ = std::io::stdin().read_line(&mut String::new());
        }
        let hits = |(entries, layer): &(usize, CacheLayer<S>)| {
            Candidate::new(kind.name, Hits { service: layer.layer(Short), entries: *entries })
        };
        let ours: Vec<_> = kind.layers.iter().map(hits).collect();
        let entries: Vec<_> = kind.layers.iter().map(|(entries, _)| *entries).collect();
        for (name, candidates) in [(kind.name, &ours), (kind.raw_name, &kind.raw)] {
            // Once before, so that the pages of files are in memory.
            compare(self.plan.once(4), 1, candidates).await;
            push(&mut self.hits, name, &entries, &compare(self.plan, 1, candidates).await);
        }
        let (mut first, mut each) = (Vec::new(), Vec::new());
        for (_, layer) in &kind.layers {
            let mut rounds = (Vec::new(), Vec::new());
            for _ in 0..self.plan.rounds {
                let (to_first, time) = listing(layer).await;
                rounds.0.push(to_first);
                rounds.1.push(time);
            }
            first.push(median(rounds.0));
            each.push(median(rounds.1));
        }
        push(&mut self.listings, &format!("{}, each entry", kind.name), &entries, &each);
        push(&mut self.listings, &format!("{}, until the first entry", kind.name), &entries, &first);
        self.sizes.push(kind.name, bytes(kind.entry_bytes));
    }
}
