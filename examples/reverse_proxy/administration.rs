//! Serves the administration of the cache.
//!
//! # Invariants
//! - It is not started without a token, and the token is in no argument and no message.
//! - Clients that are not permitted hold at most [`CONNECTIONS`] connections, each for a bounded time without a request.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::ServiceExt;
use tower_response_cache::admin::{self, Admin};
use tower_response_cache::storage::Storage;
use tower_response_cache::{Cache, CacheLayer};

use crate::origin::Origin;
use crate::upload::Upload;

/// How many connections are open at once. More of them wait, so that they take no files from clients.
const CONNECTIONS: usize = 32;
/// How long a connection may take for the head of a request.
const HEAD: Duration = Duration::from_secs(30);
/// The least length of a token: nothing limits how often one may be tried.
const SHORTEST: usize = 16;

/// Serves the administration in tasks.
///
/// # Errors
/// Returns a message if there is no usable token, or the address cannot be listened on.
pub async fn start<S: Storage>(
    address: &str,
    token_file: Option<&Path>,
    layer: &CacheLayer<S>,
    cache: Cache<Origin, S>,
) -> Result<(), String> {
    let token = token(token_file)?;
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|error| format!("cannot listen on {address} for --admin: {error}"))?;
    if let Ok(address) = listener.local_addr() {
        tracing::info!(target: "reverse_proxy", "administration on http://{address}/");
    }
    // The proxy keeps the status out of the extensions, where the report on warmed URLs reads it.
    let cache = cache.map_response(|mut response| {
        if let Some(status) = response.body().status().copied() {
            response.extensions_mut().insert(status);
        }
        response
    });
    let service = Admin::new(layer.handle(), admin::token(token)).warm_with::<_, Upload, _>(cache);
    tokio::spawn(serve(listener, service.router()));
    Ok(())
}

/// Reads the token from a file or the environment. Arguments can be read by every user of the machine.
fn token(file: Option<&Path>) -> Result<String, String> {
    let (token, place) = match file {
        Some(file) => {
            let text = std::fs::read_to_string(file);
            let text =
                text.map_err(|error| format!("cannot read --admin-token {}: {error}", file.display()))?;
            (text.lines().next().unwrap_or_default().trim().to_owned(), "the file of --admin-token")
        }
        None => (std::env::var("ADMIN_TOKEN").unwrap_or_default(), "the variable ADMIN_TOKEN"),
    };
    match token.len() {
        0 => Err(format!("--admin needs a token: {place} has none")),
        1..SHORTEST => {
            Err(format!("--admin needs a token of at least {SHORTEST} bytes: {place} has a shorter one"))
        }
        _ => Ok(token),
    }
}

async fn serve(listener: TcpListener, router: axum::Router) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await; // too many open files, which the clients' listener reports
            continue;
        };
        let router = router.clone();
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let router = router.clone();
            async move {
                let response = router.oneshot(request.map(Body::new)).await;
                Ok::<_, Infallible>(response.unwrap_or_else(|never| match never {}))
            }
        });
        tokio::spawn(async move {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD);
            let _ = http.serve_connection(TokioIo::new(stream), service).await; // the client has gone
            drop(slot);
        });
    }
}
