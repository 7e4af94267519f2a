//! Hits and misses of the caches on Redis.

use std::sync::Arc;

use peers::SIZES;
use peers::origin::{Ask, URI, read};
use peers::peers::{Origin, ours, tower_http_cache_redis};
use peers::raw::{ROWS, RedisGet};
use peers::report::Table;
use peers::sample::{Candidate, Plan, Requests, Then, Urls, compare};
use peers::servers::redis::Redis;
use tower::Layer;
use tower_response_cache::storage::{MemoryStorage, RedisStorage};

use crate::{TASKS, columns};

pub async fn tables(is_quick: bool) -> Result<Vec<Table>, String> {
    let plan = Plan::new(is_quick, 80);
    let mut hits = Table::new(
        "Hits on Redis",
        "200 URLs in turn, held while other tasks run. The server is on the same machine. The second row is the least that this crate could take.",
        columns(),
    );
    let mut misses = Table::new(
        "Misses on Redis, stored",
        "A new URL each time, until the storage has everything.",
        columns(),
    );
    let rows: Arc<[String]> = (0..ROWS).map(|row| format!("{URI}&row={row}")).collect();
    for (len, _) in SIZES {
        // As much as the largest run stores fits into the memory of a small machine.
        let server = Redis::start(&["--maxmemory", "1gb", "--maxmemory-policy", "allkeys-lru"])?;
        let url = format!("redis://127.0.0.1:{}/0", server.port);
        let origin = Origin::new(len);
        let raw = RedisGet::connect(&url, len).await;
        let layer =
            ours(RedisStorage::builder(url.as_str()).connect().await.map_err(|error| error.to_string())?);
        let mut service = layer.layer(origin.clone());
        let mut peer = tower_http_cache_redis(origin.clone(), &url).await;
        fill(&mut service, &rows).await;
        layer.idle().await;
        fill(&mut peer, &rows).await;
        // All of them must fit.
        let memory = MemoryStorage::builder().max_bytes((ROWS * (len + 8192) * 3) as u64).build();
        let mut in_memory = ours(memory).layer(origin.clone());
        fill(&mut in_memory, &rows).await;

        let urls = Urls::Rows(Arc::clone(&rows));
        let hit_in_memory = Requests { service: in_memory, urls: urls.clone(), len };
        let candidates = [
            Candidate::new("GET, multiplexed", raw.clone()),
            Candidate::new("GET, then a hit in memory", Then(raw.clone(), hit_in_memory)),
            Candidate::new("this crate", Requests { service: service.clone(), urls: urls.clone(), len }),
            Candidate::new("tower-http-cache", Requests { service: peer.clone(), urls, len }),
        ];
        let before = origin.fetches();
        for tasks in TASKS {
            let names = candidates.each_ref().map(|one| one.name);
            hits.push_times(&names, &compare(plan, tasks, &candidates).await);
        }
        assert_eq!(origin.fetches(), before, "a cache does not answer by itself");

        let settle = move || {
            let layer = layer.clone();
            async move { layer.idle().await }
        };
        let urls = Urls::Cold(Arc::default());
        let candidates = [
            Candidate::new("SET, multiplexed", raw.writes()),
            Candidate::settled("this crate", Requests { service, urls: urls.clone(), len }, settle),
            Candidate::new("tower-http-cache", Requests { service: peer, urls, len }),
        ];
        for tasks in TASKS {
            let names = candidates.each_ref().map(|one| one.name);
            misses.push_times(&names, &compare(plan, tasks, &candidates).await);
        }
    }
    Ok(vec![hits, misses])
}

/// Stores every row.
async fn fill<S, B>(service: &mut S, rows: &[String])
where
    S: tower::Service<Ask, Response = http::Response<B>, Error: std::fmt::Debug>,
    B: http_body::Body<Data = bytes::Bytes, Error: std::fmt::Debug> + Unpin,
{
    for uri in rows {
        read(service, uri).await;
    }
}
