//! Watches an HTTP client stop asking: fetches each URL three times through hyper with the cache on a SQLite file (or
//! another store), and prints where each response came from.
//!
//! `cargo run --example quickstart --features sqlite -- [--store STORE] [--fresh] [URL …]`
//!
//! With no URL it serves this repository's own files from a local server. A second run begins with hits from the store.

#![allow(unreachable_pub)] // modules of a program: pub says what the others use

mod arguments;
mod client;
mod origin;
#[path = "../store/mod.rs"]
mod store;
mod table;

use std::process::ExitCode;
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use tower::{Layer, Service, ServiceExt};
use tower_response_cache::CacheLayer;
use tower_response_cache::storage::{Key, Storage};

use crate::arguments::Arguments;
use crate::table::{Row, Table};

const ROUNDS: usize = 3;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("quickstart: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), String> {
    let Some(arguments) = Arguments::parse(std::env::args().skip(1))? else {
        println!("{}", arguments::USAGE);
        return Ok(());
    };
    let place = store::shown(&arguments.store);
    let cannot = |what: &str, error| format!("cannot {what} the store {place}: {}", causes(&error));
    let storage = store::open(&arguments.store).await.map_err(|error| cannot("open", error))?;
    // A cache goes on without a store that is down; here a person wants to know.
    storage.contains(Key::head([0; 16])).await.map_err(|error| cannot("reach", error))?;
    if arguments.fresh {
        storage.clear().await.map_err(|error| cannot("empty", error))?;
    }
    println!("store: {place}");

    let mut urls = arguments.urls;
    let mut own_port = None;
    if urls.is_empty() {
        let origin = origin::start().await.map_err(|error| format!("cannot serve files: {error}"))?;
        println!(
            "origin: the files of this repository, at http://{}/ (127.0.0.1:{})",
            origin::NAME,
            origin.port
        );
        (own_port, urls) = (Some(origin.port), origin.urls);
    }

    let layer = CacheLayer::new(storage.clone());
    let mut service = layer.layer(client::client(own_port));
    let mut table = Table::begin(&urls);
    for _ in 0..ROUNDS {
        for url in &urls {
            table.add(fetch(&mut service, url).await?);
        }
    }
    // The storage may still be writing the last response, and a closed one is one whole file.
    layer.idle().await;
    storage.close().await.map_err(|error| cannot("close", error))?;
    table.end();
    Ok(())
}

/// Fetches one URL to its last byte.
async fn fetch<S>(service: &mut S, url: &Uri) -> Result<Row, String>
where
    S: Service<
            Request<Empty<Bytes>>,
            Response = http::Response<tower_response_cache::CacheBody<hyper::body::Incoming>>,
            Error = hyper_util::client::legacy::Error,
        >,
{
    let request = Request::get(url.clone()).header("accept-encoding", "identity").body(Empty::new());
    let request = request.map_err(|error| format!("{url}: {error}"))?;
    let began = Instant::now();
    let service = service.ready().await.map_err(|error| format!("{url}: {}", causes(&error)))?;
    let response = service.call(request).await.map_err(|error| format!("{url}: {}", causes(&error)))?;
    let code = response.status().as_u16();
    let status = response.body().status().copied();
    let body = response.into_body().collect().await.map_err(|error| format!("{url}: {}", causes(&error)))?;
    Ok(Row { url: url.to_string(), code, bytes: body.to_bytes().len(), status, took: began.elapsed() })
}

/// An error with everything that caused it, in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    line
}
