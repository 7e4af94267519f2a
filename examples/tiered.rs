//! Two processes share a SQLite file, and each keeps copies of its records in memory.
//!
//! `cargo run --example tiered --features sqlite`
//!
//! The first process reads one URL again and again. The second one invalidates it meanwhile, and the first sees that within
//! milliseconds, although it answers from its own memory.

use std::convert::Infallible;
use std::error::Error;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use tower::{Layer, ServiceExt, service_fn};
use tower_response_cache::CacheLayer;
use tower_response_cache::storage::tiered::Level;
use tower_response_cache::storage::{MemoryStorage, SqliteStorage, TieredStorage};

const URL: &str = "http://example.com/report";

type Storage = TieredStorage<MemoryStorage, SqliteStorage>;

/// Opens the two levels: a few megabytes of this process before the file that both share.
async fn open(path: &str) -> tower_response_cache::Result<Storage> {
    let near = MemoryStorage::builder().max_bytes(8 * 1024 * 1024).build();
    let far = SqliteStorage::open(path).await?;
    // Without the signal of SQLite, another process's change would be seen after this time.
    Ok(TieredStorage::builder(near, far).max_lag(Duration::from_secs(1)).build())
}

/// The other process: it sends a POST through its own cache, which invalidates the stored response for both.
async fn invalidate(path: &str) -> Result<(), Box<dyn Error>> {
    let layer = CacheLayer::new(open(path).await?);
    let service = layer.layer(service_fn(|_: Request<Empty<Bytes>>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
    }));
    let request = Request::builder().method(Method::POST).uri(URL).body(Empty::new())?;
    service.oneshot(request).await?;
    layer.close().await?;
    Ok(())
}

async fn read(path: &str) -> Result<(), Box<dyn Error>> {
    let layer = CacheLayer::new(open(path).await?);
    let version = Arc::new(AtomicU64::new(0));
    let origin = Arc::clone(&version);
    let service = layer.layer(service_fn(move |_: Request<Empty<Bytes>>| {
        let body = format!("version {}", origin.fetch_add(1, Ordering::SeqCst) + 1);
        async move {
            let response = Response::builder().header("cache-control", "max-age=3600");
            Ok::<_, Infallible>(response.body(Full::new(Bytes::from(body))).unwrap_or_default())
        }
    }));
    let get = || async {
        let request = Request::get(URL).body(Empty::new())?;
        let response = service.clone().oneshot(request).await?;
        let level = response.extensions().get().and_then(tower_response_cache::CacheStatus::level);
        Ok::<_, Box<dyn Error>>((response.into_body().collect().await?.to_bytes(), level))
    };
    let mut seen = get().await?.0;
    println!("this process:  {}, from the origin", String::from_utf8_lossy(&seen));
    layer.idle().await;
    for _ in 0..3 {
        let mut other = Command::new(std::env::current_exe()?);
        let mut other = other.arg(path).stdout(Stdio::inherit()).spawn()?;
        let (mut near, mut reads, began) = (0, 0, Instant::now());
        let mut invalidated = None;
        loop {
            let (body, level) = get().await?;
            reads += 1;
            near += u32::from(level == Some(Level::Near));
            if body != seen {
                seen = body;
                break;
            }
            if invalidated.is_none() && other.try_wait()?.is_some() {
                invalidated = Some(Instant::now());
            }
            if began.elapsed() > Duration::from_secs(30) {
                return Err("the invalidation was not seen".into());
            }
            tokio::task::yield_now().await;
        }
        other.wait()?;
        let after = invalidated.map_or("before the other process had ended".to_owned(), |at| {
            format!("{} ms after the other process had ended", at.elapsed().as_millis())
        });
        println!("this process:  {reads} reads, {near} of them from its own memory");
        println!("this process:  {}, {after}", String::from_utf8_lossy(&seen));
    }
    layer.close().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if let Some(path) = std::env::args().nth(1) {
        println!("other process: invalidates {URL}");
        return invalidate(&path).await;
    }
    let folder = tempfile::tempdir()?;
    read(&folder.path().join("shared.sqlite").display().to_string()).await
}
