//! A shared cache as a layer of an axum router.
//!
//! `cargo run --example axum_server --features axum`
//!
//! It sends requests to its own server over a socket, and prints where each response came from.
//!
//! In a crate of your own it needs:
//!
//! ```toml
//! [dependencies]
//! axum = "0.8"
//! bytes = "1"
//! http-body-util = "0.1"
//! hyper-util = { version = "0.1", features = ["client-legacy", "http1", "tokio"] }
//! tokio = { version = "1", features = ["full"] }
//! tower-response-cache = { version = "0.1", features = ["axum"] }
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::header::CACHE_CONTROL;
use axum::routing::get;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tower_response_cache::CacheLayer;
use tower_response_cache::storage::MemoryStorage;

/// Builds a router whose handlers count how often they run, behind one cache.
pub fn app(layer: &CacheLayer<MemoryStorage>, runs: &Arc<AtomicUsize>) -> Router {
    // Both nested routers see `/list`, because the outer one strips their prefix. The cache uses axum's `OriginalUri`, so they
    // do not share an entry.
    let listing = |what: &'static str| {
        let runs = Arc::clone(runs);
        let handler = move || async move {
            runs.fetch_add(1, Ordering::SeqCst);
            ([(CACHE_CONTROL, "public, max-age=60")], what)
        };
        Router::new().route("/list", get(handler)).layer(layer.clone())
    };
    Router::new().nest("/cats", listing("tom, felix")).nest("/dogs", listing("rex, fido"))
}

#[tokio::main]
#[allow(dead_code)] // tests/adapters/axum.rs includes this file, for its router
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let layer = CacheLayer::builder(MemoryStorage::new()).shared(true).status_field("example").build()?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    let app = app(&layer, &Arc::default());
    tokio::spawn(async move { axum::serve(listener, app).await });

    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    for path in ["/cats/list", "/dogs/list", "/cats/list", "/dogs/list"] {
        let response = client.get(format!("http://127.0.0.1:{port}{path}").parse()?).await?;
        let status = response.headers()["cache-status"].to_str()?.to_owned();
        let body = response.into_body().collect().await?.to_bytes();
        println!("{path}  {}  {status}", String::from_utf8_lossy(&body));
    }
    layer.idle().await;
    Ok(())
}
