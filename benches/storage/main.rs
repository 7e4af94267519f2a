//! Measures reads, hits and misses per second of each storage.
//!
//! `cargo bench --all-features --bench storage [NAME …]`
//!
//! Each is compared with the raw driver of the storage, which handles the same bytes.
//!
//! - A **read** reads one record from the storage, without a cache. The raw driver reads a value of the same length.
//! - A **hit** is a request through the layer. Other tasks run while its response is held, and then its body is read.
//!   The raw driver reads a value of the same length.
//! - A **miss** is a request through the layer whose response is stored. The raw driver looks for a value that it does not
//!   have, and then writes one of the same length.
//!
//! Requests go through 200 URLs in turn. The layer and the driver are measured alternately, five times each, and the
//! medians are printed. Only the ratios can be compared between machines.
//!
//! The servers are those at `TEST_REDIS_URL`, `TEST_MONGODB_URL` and `TEST_DYNAMODB_ENDPOINT`. DynamoDB is measured up
//! to 256 KiB, because an item has at most 400 KB.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::future_not_send)]

#[cfg(feature = "dynamodb")]
mod dynamodb;
#[cfg(feature = "mongodb")]
mod mongodb;
#[path = "../origin/mod.rs"]
mod origin;
mod rate;
mod raw;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tower::Layer;
use tower_response_cache::storage::{Key, MemoryStorage, Record, RedisStorage, SqliteStorage, Storage};
use tower_response_cache::{Cache, CacheLayer, Timestamp};

use origin::{Bare, URI, read, read_held};
use rate::{Plan, Rates, compare};
use raw::{Raw, RawMemory, RawRedis, RawSqlite};

/// The number of URLs that are requested in turn.
///
/// It is large enough that a row has left the processor's cache when it is requested again.
pub const ROWS: usize = 200;
/// The first of the numbers that the raw drivers have no value for.
const ABSENT: u64 = 1 << 40;
const SIZES: [(usize, &str); 3] = [(1024, "1 KiB"), (64 * 1024, "64 KiB"), (1024 * 1024, "1 MiB")];

fn record_key(number: usize) -> Key {
    Key::head([number as u8; 16])
}

/// The layer over one storage, and the raw driver that it is compared with.
struct Pair<S: Storage, R> {
    storage: S,
    layer: CacheLayer<S>,
    service: Cache<Bare, S>,
    raw: R,
    rows: Arc<[String]>,
    cold: Arc<AtomicU64>,
    body: Bytes,
}

impl<S: Storage, R: Raw> Pair<S, R> {
    fn new(storage: S, raw: R, len: usize) -> Arc<Self> {
        // The timeout is long. If the storage exceeded the usual one, the cache would stop using it for a while, and
        // every request would look fast.
        let layer =
            CacheLayer::builder(storage.clone()).operation_timeout(Duration::from_secs(60)).build().unwrap();
        let service = layer.layer(Bare::new(len));
        let rows: Arc<[String]> = (0..ROWS).map(|row| format!("{URI}&row={row}")).collect();
        Arc::new(Self { storage, layer, service, raw, rows, cold: Arc::default(), body: vec![7; len].into() })
    }

    /// Stores the rows, of which the misses before may have evicted some.
    async fn fill(&self) {
        for (number, uri) in self.rows.iter().enumerate() {
            read(&mut self.service.clone(), uri).await;
            self.raw.set(number as u64, self.body.clone()).await;
            let until = Timestamp::from(std::time::SystemTime::now()) + Duration::from_secs(3600);
            let record = Record::new(self.body.clone(), until);
            self.storage.write(record_key(number), record).await.unwrap();
        }
        self.layer.idle().await;
    }
}

async fn measure<S: Storage, R: Raw>(name: &str, size: &str, plan: Plan, pair: Arc<Pair<S, R>>) {
    for tasks in [1, 64] {
        pair.fill().await;
        let shared = || Arc::clone(&pair);
        let raw_get = {
            let pair = shared();
            move |number: usize| {
                let pair = Arc::clone(&pair);
                async move {
                    let value = pair.raw.get((number % ROWS) as u64).await.unwrap();
                    tokio::task::yield_now().await; // holds the value while other tasks run, as `read_held` does
                    assert_eq!(value.len(), pair.body.len());
                }
            }
        };
        let own = shared();
        let read_record = move |number: usize| {
            let pair = Arc::clone(&own);
            async move {
                let record = pair.storage.read(record_key(number % ROWS)).await.unwrap().unwrap();
                tokio::task::yield_now().await;
                assert_eq!(record.payload().len(), pair.body.len());
            }
        };
        print_row(
            name,
            "read",
            size,
            tasks,
            &compare(plan, tasks, read_record, raw_get.clone(), || async {}).await,
        );
        let own = shared();
        let hit = move |number: usize| {
            let pair = Arc::clone(&own);
            async move {
                let uri = &pair.rows[number % ROWS];
                let len = read_held(&mut pair.service.clone(), uri, true).await;
                assert_eq!(len, pair.body.len());
            }
        };
        print_row(name, "hit", size, tasks, &compare(plan, tasks, hit, raw_get, || async {}).await);
        let own = shared();
        let miss = move |_: usize| {
            let pair = Arc::clone(&own);
            async move {
                // The URL is new in every round, so that the request is a miss.
                let number = pair.cold.fetch_add(1, Ordering::Relaxed);
                let uri = format!("{URI}&cold={}&round={}", number % 1000, number / 1000);
                read(&mut pair.service.clone(), &uri).await;
            }
        };
        let own = shared();
        let raw_set = move |number: usize| {
            let pair = Arc::clone(&own);
            async move {
                assert!(pair.raw.get(ABSENT + number as u64).await.is_none());
                pair.raw.set(1000 + (number % 1000) as u64, pair.body.clone()).await;
            }
        };
        let settle = || {
            let layer = pair.layer.clone();
            async move { layer.idle().await }
        };
        print_row(name, "miss", size, tasks, &compare(plan, tasks, miss, raw_set, settle).await);
    }
}

fn print_row(name: &str, operation: &str, size: &str, tasks: usize, rates: &Rates) {
    println!(
        "{name:22} {operation:9} {size:>7} {tasks:>6} {:>11.0} {:>11.0} {:>7.2}",
        rates.ours,
        rates.raw,
        rates.ours / rates.raw
    );
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let plan = if arguments.iter().any(|word| word == "--bench") { Plan::LONG } else { Plan::ONCE };
    let names: Vec<&str> =
        arguments.iter().filter(|word| !word.starts_with('-')).map(String::as_str).collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| name.contains(wanted));
    let head = ["storage", "operation", "size", "tasks", "ours /s", "raw /s", "ratio"];
    println!(
        "{:22} {:9} {:>7} {:>6} {:>11} {:>11} {:>7}",
        head[0], head[1], head[2], head[3], head[4], head[5], head[6]
    );
    let server = raw::redis_url();
    for (len, size) in SIZES {
        if wanted("memory") {
            let storage = MemoryStorage::builder().max_bytes(2 << 30).build();
            measure("memory", size, plan, Pair::new(storage, RawMemory::new(), len)).await;
        }
        for (name, in_task) in
            [("sqlite", None), ("sqlite, read in task", Some(true)), ("sqlite, on threads", Some(false))]
        {
            if wanted(name) {
                let folder = tempfile::tempdir().unwrap();
                let builder = SqliteStorage::builder(folder.path().join("ours")).read_in_task(in_task);
                let raw = RawSqlite::open(&folder.path().join("raw")).await;
                measure(name, size, plan, Pair::new(builder.open().await.unwrap(), raw, len)).await;
            }
        }
        match &server {
            Ok(url) if wanted("redis") => {
                let name = format!("bench-{}", fastrand::u64(..));
                let storage = RedisStorage::builder(url.as_str()).cache_name(&name).connect().await.unwrap();
                let raw = RawRedis::connect(url, &format!("{name}-raw")).await;
                let pair = Pair::new(storage.clone(), raw, len);
                measure("redis", size, plan, Arc::clone(&pair)).await;
                storage.clear().await.unwrap();
                pair.raw.clear().await;
            }
            Err(reason) if wanted("redis") => println!("redis: not measured, {reason}"),
            _ => {}
        }
        #[cfg(feature = "mongodb")]
        match mongodb::url() {
            Ok(url) if wanted("mongodb") => {
                let (storage, raw) = mongodb::open(&url).await;
                let pair = Pair::new(storage, raw, len);
                measure("mongodb", size, plan, Arc::clone(&pair)).await;
                pair.raw.drop_database().await;
            }
            Err(reason) if wanted("mongodb") => println!("mongodb: not measured, {reason}"),
            _ => {}
        }
        #[cfg(feature = "dynamodb")]
        match dynamodb::endpoint() {
            Ok(endpoint) if wanted("dynamodb") && len <= dynamodb::MAX_LEN => {
                let (storage, raw) = dynamodb::open(&endpoint).await;
                let pair = Pair::new(storage, raw, len);
                measure("dynamodb", size, plan, Arc::clone(&pair)).await;
                pair.raw.delete().await;
            }
            Err(reason) if wanted("dynamodb") => println!("dynamodb: not measured, {reason}"),
            _ => {}
        }
    }
}
