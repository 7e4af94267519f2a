//! A caching reverse proxy: hyper on both sides, the cache between them.
//!
//! `cargo run --release --example reverse_proxy --features sqlite -- --listen ADDR --origin URL [option …]`
//!
//! It forwards every method but CONNECT, and every field that is not hop-by-hop and names no other target. It streams bodies
//! both ways and relays 102 and 103. It stores what RFC 9111 permits, and serves stale responses while the origin cannot be
//! reached. After SIGINT or SIGTERM it finishes the requests under way.

// The modules of a program have no other crate to be public for, and `main` blocks on its future instead of spawning it.
#![allow(unreachable_pub, clippy::future_not_send)]

mod answer;
mod arguments;
mod bare;
mod fields;
mod front;
mod host;
mod interim;
mod origin;
mod server;
#[path = "../storage/mod.rs"]
mod storage;
mod upload;
mod wire;

use std::error::Error as StdError;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tower::Layer;
use tower_response_cache::storage::{MemoryStorage, Storage};

use crate::arguments::{Arguments, Mode};
use crate::front::Front;
use crate::origin::Origin;

/// How long requests, and after them writes to the storage, may go on after a signal to stop: enough for usual ones.
const GRACE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("{}", arguments::USAGE);
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("reverse_proxy: {message}");
            return ExitCode::from(2);
        }
    };
    // The cache answers on while the storage fails: only its events tell about it.
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_max_level(tracing::level_filters::LevelFilter::INFO)
        .init();
    match runtime(arguments.threads).and_then(|runtime| runtime.block_on(run(arguments))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("reverse_proxy: {message}");
            ExitCode::FAILURE
        }
    }
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
    let address = arguments.listen.clone();
    let listener = TcpListener::bind(&address).await;
    let listener = listener.map_err(|error| format!("cannot listen on {address}: {error}"))?;
    match &arguments.mode {
        Mode::Bare(len) => bare(listener, *len).await,
        // Without the `BoxStorage` that any other storage is opened as: its dynamic calls would show in memory.
        Mode::Proxy(_) if arguments.storage == "memory" => {
            proxy(listener, arguments, MemoryStorage::new()).await
        }
        Mode::Proxy(_) => {
            let opened = storage::open(&arguments.storage).await;
            let storage = opened.map_err(|error| {
                format!(
                    "cannot open the storage {}: {}",
                    storage::redacted(&arguments.storage),
                    causes(&error)
                )
            })?;
            proxy(listener, arguments, storage).await
        }
    }
}

async fn proxy<S: Storage>(listener: TcpListener, arguments: Arguments, storage: S) -> Result<(), String> {
    let Mode::Proxy(url) = arguments.mode else { return Ok(()) };
    let origin = Origin::new(&url, arguments.timeout)?;
    let host = origin.host();
    let layer = front::cache_layer(storage, arguments.shared).map_err(|error| error.to_string())?;
    let front = Arc::new(Front::new(layer.layer(origin), host));
    let stop = stop_signal()?;
    announce(&listener)?;
    let serving = async move { server::serve(listener, front, stop, GRACE).await };
    // Spawned, because tokio runs `block_on`'s own future outside its workers, which is slower.
    tokio::spawn(serving).await.map_err(|error| format!("the server failed: {error}"))?;
    let _ = tokio::time::timeout(GRACE, layer.idle()).await; // responses that are not stored by then are fetched again
    Ok(())
}

async fn bare(listener: TcpListener, len: usize) -> Result<(), String> {
    let stop = stop_signal()?;
    announce(&listener)?;
    let serving = async move { server::serve(listener, Arc::new(bare::Bare::new(len)), stop, GRACE).await };
    tokio::spawn(serving).await.map_err(|error| format!("the server failed: {error}"))
}

fn announce(listener: &TcpListener) -> Result<(), String> {
    let address = listener.local_addr().map_err(|error| format!("cannot listen: {error}"))?;
    println!("listening on http://{address}");
    Ok(())
}

/// Returns a future that completes on SIGINT or SIGTERM.
fn stop_signal() -> Result<impl Future<Output = ()> + Send, String> {
    let catch = |kind| signal(kind).map_err(|error| format!("cannot catch signals: {error}"));
    let (mut interrupt, mut terminate) = (catch(SignalKind::interrupt())?, catch(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Returns an error and all its sources as one line.
fn causes(error: &dyn StdError) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    line.replace('\n', " ")
}
