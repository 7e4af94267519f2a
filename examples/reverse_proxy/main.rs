//! A caching reverse proxy: hyper on both sides, the cache between them.
//!
//! `cargo run --release --example reverse_proxy --features sqlite -- --listen ADDR --origin URL [option …]`
//!
//! It forwards every method but CONNECT, and every field that is not hop-by-hop and names no other target. It streams bodies
//! both ways and relays 102 and 103 (from HTTP/1.1 to HTTP/1.1). It stores what RFC 9111 permits, and serves stale responses while
//! the origin cannot be reached. After SIGINT or SIGTERM it finishes the requests under way.
//!
//! # Files
//!
//! - A request goes through `accept`, `server` (with `tls`, `wire` and `backlog`), `exchange`, `front` (with `host` and `fields`), the
//!   cache, and `origin` (with `multiplex`, `connect`, `upload`, `download` and `interim`).
//! - `limits` has the limits, `pace` decides who is too slow, and `activity` which connection is idle.
//! - `report` writes errors to the log, `access_log` requests to theirs, and `meter` counts for `exporter`.
//! - `administration` serves the administration of the cache.

// The modules of a program have no other crate to be public for, and `main` blocks on its future instead of spawning it.
#![allow(unreachable_pub, clippy::future_not_send)]

mod accept;
mod access_log;
mod activity;
#[cfg(feature = "admin")]
mod administration;
mod answer;
mod arguments;
mod backlog;
mod bare;
mod connect;
mod download;
mod exchange;
mod exporter;
mod fields;
mod front;
mod host;
mod interim;
mod limits;
mod meter;
mod multiplex;
mod origin;
mod pace;
mod report;
mod server;
mod stop;
#[path = "../storage/mod.rs"]
mod storage;
mod tls;
mod upload;
mod wire;

use std::process::ExitCode;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tower::Layer;
use tower_response_cache::CacheLayer;
use tower_response_cache::storage::{MemoryStorage, Storage};
use tracing_subscriber::EnvFilter;

use crate::access_log::AccessLog;
use crate::arguments::{Arguments, Mode};
use crate::bare::Bare;
use crate::front::Front;
use crate::origin::Origin;
use crate::report::causes;
use crate::server::{Respond, Server};
use crate::stop::Signals;
use crate::tls::Tls;

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("{}", arguments::USAGE);
            return ExitCode::SUCCESS;
        }
        Err(message) => return fail(2, &message),
    };
    if let Err(message) = start_log() {
        return fail(2, &message);
    }
    match runtime(arguments.threads).and_then(|runtime| runtime.block_on(run(arguments))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => fail(1, &message),
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("reverse_proxy: {message}");
    ExitCode::from(code)
}

/// Sends the events of the proxy, of the cache and of its storage to standard error.
///
/// The cache answers on while the storage fails: only its events tell about it.
fn start_log() -> Result<(), String> {
    let filter = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let filter = if filter.is_empty() { "info" } else { &filter };
    let parsed = EnvFilter::try_new(filter);
    let parsed = parsed.map_err(|error| format!("RUST_LOG={filter} is no filter: {error}"))?;
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_env_filter(parsed).init();
    Ok(())
}

/// Builds the runtime. A single thread needs no scheduler that moves tasks between threads.
fn runtime(threads: Option<usize>) -> Result<Runtime, String> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let built = match threads.unwrap_or_else(cores) {
        1 => Builder::new_current_thread().enable_all().build(),
        several => Builder::new_multi_thread().worker_threads(several).enable_all().build(),
    };
    built.map_err(|error| format!("cannot start: {error}"))
}

async fn run(arguments: Arguments) -> Result<(), String> {
    // First of all, so that it also sees what the storage does while it is opened.
    if let Some(address) = &arguments.metrics {
        exporter::start(address).await?;
    }
    match &arguments.mode {
        Mode::Bare(len) => serve(&arguments, Arc::new(Bare::new(*len))).await,
        // Without the `BoxStorage` that any other storage is opened as: its dynamic calls would show in memory.
        Mode::Proxy(_) if arguments.storage == "memory" => proxy(arguments, MemoryStorage::new()).await,
        Mode::Proxy(_) => {
            let opened = storage::open(&arguments.storage).await;
            let storage = opened.map_err(|error| {
                format!(
                    "cannot open the storage {}: {}",
                    storage::redacted(&arguments.storage),
                    causes(&error)
                )
            })?;
            proxy(arguments, storage).await
        }
    }
}

async fn proxy<S: Storage>(arguments: Arguments, storage: S) -> Result<(), String> {
    let Mode::Proxy(url) = &arguments.mode else { return Ok(()) };
    let limits = arguments.limits;
    let origin = Origin::new(url, limits.origin, arguments.speaks, arguments.authorities.as_deref())?;
    let host = origin.host();
    let Arguments { shared, ranges, tag_fields, .. } = &arguments;
    let layer =
        front::cache_layer(storage, *shared, *ranges, tag_fields).map_err(|error| error.to_string())?;
    let cache = layer.layer(origin);
    #[cfg(feature = "admin")]
    if let Some((address, token)) = &arguments.admin {
        administration::start(address, token.as_deref(), &layer, cache.clone()).await?;
    }
    serve(&arguments, Arc::new(Front::new(cache, host, limits.client))).await?;
    close(&layer, limits.grace).await;
    Ok(())
}

/// Serves until a signal to stop.
async fn serve<R: Respond>(arguments: &Arguments, responder: Arc<R>) -> Result<(), String> {
    let tls = match &arguments.tls {
        None => None,
        Some((certificate, key)) => Some(Tls::read(certificate.clone(), key.clone())?),
    };
    let log = match &arguments.access_log {
        None => None,
        Some((format, file)) => {
            let log = AccessLog::start(*format, file.clone());
            Some(log.map_err(|error| format!("cannot write the access log: {error}"))?)
        }
    };
    let address = &arguments.listen;
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let stop = Signals::catch()?.stop(log.clone(), tls.clone());
    announce(&listener, arguments)?;
    let reports = tokio::spawn(report::summarize());
    let server = Server::new(arguments.limits, log.clone(), tls);
    let serving = async move { server.serve(listener, responder, stop).await };
    // Spawned, because tokio runs `block_on`'s own future outside its workers, which is slower.
    let served = tokio::spawn(serving).await;
    reports.abort();
    if let Some(log) = log {
        let grace = arguments.limits.grace;
        let _ = tokio::task::spawn_blocking(move || log.finish(grace)).await; // what is not written by then is lost
    }
    report::finish();
    served.map_err(|error| format!("the server failed: {error}"))
}

/// Stores what was begun, and closes the storage: a SQLite file is then whole without its log.
async fn close<S: Storage>(layer: &CacheLayer<S>, grace: std::time::Duration) {
    match tokio::time::timeout(grace, layer.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(target: "reverse_proxy", cause = causes(&error), "the storage was not closed");
        }
        // A response that is not stored by then is fetched again.
        Err(_) => tracing::warn!(target: "reverse_proxy", "the storage was not closed in time: see --grace"),
    }
}

/// Tells the address: on standard output, unless that is the access log.
fn announce(listener: &TcpListener, arguments: &Arguments) -> Result<(), String> {
    let address = listener.local_addr().map_err(|error| format!("cannot listen: {error}"))?;
    let scheme = if arguments.tls.is_some() { "https" } else { "http" };
    if matches!(arguments.access_log, Some((_, None))) {
        tracing::info!(target: "reverse_proxy", "listening on {scheme}://{address}");
    } else {
        println!("listening on {scheme}://{address}");
    }
    Ok(())
}
