//! A caching reverse proxy: hyper on both sides, the cache between them.
//!
//! `cargo run --release --example reverse_proxy --features sqlite -- --listen ADDR --origin URL [option …]`
//!
//! It forwards every method and field, stores what RFC 9111 lets it store, streams bodies both ways, relays 102 and 103,
//! and serves what is stored, though stale, while the origin cannot be reached. SIGINT and SIGTERM let it finish what is
//! under way.

#![allow(unreachable_pub, clippy::future_not_send)] // modules of a program: pub says what the others use

mod answer;
mod arguments;
mod bare;
mod fields;
mod front;
mod host;
mod interim;
mod origin;
mod server;
#[path = "../store/mod.rs"]
mod store;
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

/// How long requests and commits that are under way may take after a signal to stop.
const GRACE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("{}", arguments::USAGE);
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("reverse_proxy: {problem}");
            return ExitCode::from(2);
        }
    };
    // What the store suffers is told in events: when it fails, when it is back.
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_max_level(tracing::level_filters::LevelFilter::INFO)
        .init();
    match runtime(arguments.threads).and_then(|runtime| runtime.block_on(run(arguments))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("reverse_proxy: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// One thread does without a scheduler that hands work between threads.
fn runtime(threads: Option<usize>) -> Result<Runtime, String> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let built = match threads.unwrap_or_else(cores) {
        1 => Builder::new_current_thread().enable_all().build(),
        several => Builder::new_multi_thread().worker_threads(several).enable_all().build(),
    };
    built.map_err(|error| format!("cannot start: {error}"))
}

async fn run(arguments: Arguments) -> Result<(), String> {
    let place = arguments.listen.clone();
    let listener = TcpListener::bind(&place).await;
    let listener = listener.map_err(|error| format!("cannot listen on {place}: {error}"))?;
    match &arguments.mode {
        Mode::Bare(len) => bare(listener, *len).await,
        // As it is, not in a box: the fastest of stores.
        Mode::Proxy(_) if arguments.store == "memory" => {
            proxy(listener, arguments, MemoryStorage::new()).await
        }
        Mode::Proxy(_) => {
            let opened = store::open(&arguments.store).await;
            let storage = opened.map_err(|error| {
                format!("cannot open the store {}: {}", store::shown(&arguments.store), causes(&error))
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
    // On a worker thread: the thread that runs `main` is none of them.
    tokio::spawn(serving).await.map_err(|error| format!("the server failed: {error}"))?;
    let _ = tokio::time::timeout(GRACE, layer.idle()).await; // what is not committed by then is fetched again
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

/// Ready once the program is told to stop.
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

/// An error with everything that caused it, in one line.
fn causes(error: &dyn StdError) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    line.replace('\n', " ")
}
