//! Many requests at once for one URL that is not stored.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use http_body::Body;
use peers::origin::{Ask, URI, read};
use peers::peers::{Origin, http_cache_moka, http_cache_streaming, ours_in_memory, tower_http_cache};
use peers::report::{Table, duration};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tower::Service;

/// The time that the origin takes. It is long enough that the whole herd arrives meanwhile.
const ORIGIN_TIME: Duration = Duration::from_millis(50);
const LEN: usize = 1024;

pub async fn tables(is_quick: bool) -> Vec<Table> {
    let size = if is_quick { 10 } else { 1000 };
    let title = format!("A herd of {size} requests for one new URL");
    let note = "The origin takes 50 ms. The time is from its end to the last response.";
    let mut table = Table::new(&title, note, vec!["fetches".to_owned(), "time".to_owned()]);
    let folder = tempfile::tempdir().unwrap();
    let origin = || Origin::slow(LEN, ORIGIN_TIME);
    let one = origin();
    add(&mut table, "no cache", &one, one.clone(), size).await;
    let one = origin();
    add(&mut table, "this crate", &one, ours_in_memory(one.clone()), size).await;
    let one = origin();
    add(&mut table, "tower-http-cache", &one, tower_http_cache(one.clone(), LEN), size).await;
    let one = origin();
    add(&mut table, "http-cache-tower, moka", &one, http_cache_moka(one.clone(), LEN), size).await;
    let one = origin();
    let streaming = http_cache_streaming(one.clone(), folder.path()).await;
    add(&mut table, "http-cache-tower, streaming", &one, streaming, size).await;
    vec![table]
}

async fn add<S, B>(table: &mut Table, name: &str, origin: &Origin, service: S, size: usize)
where
    S: Service<Ask, Response = Response<B>, Error: Debug, Future: Send> + Clone + Send + 'static,
    B: Body<Data = Bytes, Error: Debug> + Unpin + Send + 'static,
{
    let start = Arc::new(Barrier::new(size + 1));
    let mut callers = JoinSet::new();
    for _ in 0..size {
        let (mut service, start) = (service.clone(), Arc::clone(&start));
        callers.spawn(async move {
            start.wait().await;
            assert_eq!(read(&mut service, URI).await, LEN);
        });
    }
    start.wait().await;
    let began = Instant::now();
    callers.join_all().await;
    let time = began.elapsed().saturating_sub(ORIGIN_TIME);
    table.push(name, origin.fetches().to_string());
    table.push(name, duration(time.as_secs_f64()));
}
