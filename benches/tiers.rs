//! Measures hits of two levels against hits of one in memory.
//!
//! `cargo bench --features sqlite,redis --bench tiers`
//!
//! The two are measured alternately, five times each, and the medians are printed. Each hit is a request through the layer for
//! one of 200 URLs in turn. The server is that at `TEST_REDIS_URL`; without it Redis is left out.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::future_not_send)]

mod origin;
#[path = "storage/rate.rs"]
mod rate;

use std::sync::Arc;

use tower::Layer;
use tower_response_cache::storage::{
    BoxStorage, MemoryStorage, RedisStorage, SqliteStorage, Storage, TieredStorage,
};
use tower_response_cache::{Cache, CacheLayer};

use origin::{Bare, URI, read};
use rate::{Plan, compare};

const ROWS: usize = 200;

/// A layer whose storage holds all rows.
async fn filled<S: Storage>(storage: S) -> Cache<Bare, S> {
    let layer = CacheLayer::new(storage);
    let service = layer.layer(Bare::new(1024));
    // Twice, so that the near level has copies of what the far one has taken.
    for _ in 0..2 {
        for row in rows().iter() {
            read(&mut service.clone(), row).await;
        }
        layer.idle().await;
    }
    service
}

fn rows() -> Arc<[String]> {
    (0..ROWS).map(|row| format!("{URI}&row={row}")).collect()
}

fn hit<S: Storage>(
    service: &Cache<Bare, S>,
) -> impl Fn(usize) -> futures_util::future::BoxFuture<'static, ()> + Clone + Send + 'static {
    let (service, rows) = (service.clone(), rows());
    move |number| {
        let (mut service, rows) = (service.clone(), Arc::clone(&rows));
        Box::pin(async move {
            read(&mut service, &rows[number % ROWS]).await;
        })
    }
}

async fn measure<S: Storage>(name: &str, plan: Plan, near: MemoryStorage, far: S) {
    let memory = filled(MemoryStorage::new()).await;
    let tiered = filled(TieredStorage::new(near, far)).await;
    for tasks in [1, 64] {
        let rates = compare(plan, tasks, hit(&tiered), hit(&memory), || async {}).await;
        let (near, memory) = (1e6 / rates.ours, 1e6 / rates.raw);
        println!(
            "{name:<24} {tasks:>3} tasks   {near:>7.3} us   memory {memory:>7.3} us   ratio {:>5.2}",
            near / memory
        );
    }
}

fn main() {
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let plan = if is_bench { Plan::LONG } else { Plan::ONCE };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        measure("max_lag over memory", plan, MemoryStorage::new(), BoxStorage::new(MemoryStorage::new()))
            .await;
        let folder = tempfile::tempdir().unwrap();
        let sqlite = SqliteStorage::open(folder.path().join("tiers.sqlite")).await.unwrap();
        measure("SQLite by its signal", plan, MemoryStorage::new(), sqlite).await;
        if let Ok(url) = std::env::var("TEST_REDIS_URL") {
            let redis = RedisStorage::builder(url).cache_name("bench-tiers").connect().await.unwrap();
            measure("Redis by its signal", plan, MemoryStorage::new(), redis.clone()).await;
            redis.clear().await.unwrap();
        }
    });
}
