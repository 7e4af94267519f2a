//! Hits and misses of the caches on disk.

use std::sync::Arc;

use peers::SIZES;
use peers::origin::{URI, read};
use peers::peers::{Origin, http_cache_redb, http_cache_streaming, ours};
use peers::raw::{ROWS, SqliteInTask, SqliteOnThread};
use peers::report::Table;
use peers::sample::{Candidate, Plan, Requests, Urls, Work, compare};
use tower::Layer;
use tower_response_cache::storage::SqliteStorage;

use crate::{TASKS, columns};

pub async fn tables(is_quick: bool) -> Vec<Table> {
    let plan = Plan::new(is_quick, 80);
    let mut hits = Table::new("Hits on disk", "200 URLs in turn, held while other tasks run.", columns());
    let mut misses = Table::new(
        "Misses on disk, stored",
        "A new URL each time, until the storage has everything. No row waits for the disk at each write.",
        columns(),
    );
    let rows: Arc<[String]> = (0..ROWS).map(|row| format!("{URI}&row={row}")).collect();
    for (len, _) in SIZES {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let origin = Origin::new(len);
        let in_task = SqliteInTask::open(&path("raw"), len);
        let on_thread = SqliteOnThread::open(&path("raw"), len).await;
        let layers = [
            ("this crate", SqliteStorage::builder(path("a"))),
            ("this crate, read in the task", SqliteStorage::builder(path("b")).read_in_task(true)),
            ("this crate, read on threads", SqliteStorage::builder(path("c")).read_in_task(false)),
        ];
        let mut candidates = vec![
            Candidate::new("rusqlite, in the task", in_task),
            Candidate::new("tokio-rusqlite, one thread", on_thread.clone()),
        ];
        let mut first = None;
        for (name, builder) in layers {
            let layer = ours(builder.open().await.unwrap());
            let service = layer.layer(origin.clone());
            fill(&service, &rows).await;
            layer.idle().await;
            candidates.push(Candidate::new(
                name,
                Requests { service: service.clone(), urls: Urls::Rows(Arc::clone(&rows)), len },
            ));
            first.get_or_insert((layer, service));
        }
        let redb = http_cache_redb(origin.clone(), &path("redb"));
        fill(&redb, &rows).await;
        candidates.push(Candidate::new(
            "http-cache-tower, redb",
            Requests { service: redb.clone(), urls: Urls::Rows(Arc::clone(&rows)), len },
        ));
        let streaming = http_cache_streaming(origin.clone(), &path("streaming")).await;
        fill(&streaming, &rows).await;
        candidates.push(Candidate::new(
            "http-cache-tower, streaming",
            Requests { service: streaming.clone(), urls: Urls::Rows(Arc::clone(&rows)), len },
        ));
        let before = origin.fetches();
        compare(Plan::QUICK, 1, &candidates).await;
        assert_eq!(origin.fetches(), before, "a cache does not answer by itself");
        measure(&mut hits, plan, &candidates).await;

        let Some((layer, service)) = first else { continue };
        let settle = move || {
            let layer = layer.clone();
            async move { layer.idle().await }
        };
        let cold = Urls::Cold(Arc::default());
        let candidates = [
            Candidate::new("tokio-rusqlite, one thread", on_thread.writes()),
            Candidate::settled("this crate", Requests { service, urls: cold.clone(), len }, settle),
            Candidate::new("http-cache-tower, redb", Requests { service: redb, urls: cold.clone(), len }),
            Candidate::new("http-cache-tower, streaming", Requests { service: streaming, urls: cold, len }),
        ];
        measure(&mut misses, plan, &candidates).await;
    }
    vec![hits, misses]
}

async fn measure(table: &mut Table, plan: Plan, candidates: &[Candidate]) {
    let names: Vec<_> = candidates.iter().map(|one| one.name).collect();
    for tasks in TASKS {
        table.push_times(&names, &compare(plan, tasks, candidates).await);
    }
}

/// Stores every row.
async fn fill<S, B>(service: &S, rows: &[String])
where
    S: tower::Service<peers::origin::Ask, Response = http::Response<B>, Error: std::fmt::Debug> + Clone,
    B: http_body::Body<Data = bytes::Bytes, Error: std::fmt::Debug> + Unpin,
    Requests<S>: Work,
{
    let mut service = service.clone();
    for uri in rows {
        read(&mut service, uri).await;
    }
}
