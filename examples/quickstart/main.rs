//! Watches a client stop asking the origin.
//!
//! It fetches each URL three times through hyper, with the cache in a SQLite file (or another storage), and prints where
//! each response came from.
//!
//! `cargo run --example quickstart --features sqlite -- [--storage STORAGE] [--fresh] [URL …]`
//!
//! Without a URL it fetches files of this repository from a local server. A second run begins with hits, because the file
//! still holds the responses.

#![allow(unreachable_pub)] // the modules of a program have no other crate to be public for

mod arguments;
mod client;
mod origin;
#[path = "../storage/mod.rs"]
mod storage;
mod table;

use std::error::Error;
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

/// The first round may miss; the others show what the stored responses save.
const ROUNDS: usize = 3;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("quickstart: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), String> {
    let Some(arguments) = Arguments::parse(std::env::args().skip(1))? else {
        println!("{}", arguments::USAGE);
        return Ok(());
    };
    let address = storage::redacted(&arguments.storage);
    let cannot = |action: &str, error| format!("cannot {action} the storage {address}: {}", causes(&error));
    let storage = storage::open(&arguments.storage).await.map_err(|error| cannot("open", error))?;
    // A cache works on without a storage that is down, so the table would show misses only: fail here instead.
    storage.contains(Key::head([0; 16])).await.map_err(|error| cannot("reach", error))?;
    if arguments.fresh {
        storage.clear().await.map_err(|error| cannot("clear", error))?;
    }
    println!("storage: {address}");

    let mut urls = arguments.urls;
    let mut local_port = None;
    if urls.is_empty() {
        let origin = origin::start().await.map_err(|error| format!("cannot serve files: {error}"))?;
        println!("origin: files of this repository, at http://{}/ (port {})", origin::NAME, origin.port);
        (local_port, urls) = (Some(origin.port), origin.urls);
    }

    let layer = CacheLayer::new(storage.clone());
    let mut service = layer.layer(client::client(local_port));
    let mut table = Table::begin(&urls);
    for _ in 0..ROUNDS {
        for url in &urls {
            table.add(fetch(&mut service, url).await?);
        }
    }
    // The last response may not be in the storage yet. Closing leaves SQLite with one file, without its journal.
    layer.idle().await;
    storage.close().await.map_err(|error| cannot("close", error))?;
    table.end();
    Ok(())
}

/// Fetches one URL and reads the body to its end: only then is the response stored.
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
    Ok(Row { url: url.to_string(), code, bytes: body.to_bytes().len(), status, elapsed: began.elapsed() })
}

/// Returns an error and all its sources as one line.
fn causes(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    line
}
