//! A body of 256 MiB that is served through each storage but SQLite, whole or in slices.
//!
//! It must need little memory and arrive complete. The cache runs in another process of this binary. The
//! test compares the peak memory of that process with that of one without a cache.

use std::process::ExitCode;

use libtest_mimic::{Completion, Trial};
use tower_response_cache::CacheLayer;
use tower_response_cache::storage::connect;

use crate::OPERATION_TIMEOUT;
use crate::places::PATIENT;
use crate::servers::{dynamodb, mongodb, must_be_there, redis};

#[path = "../large_body/measured.rs"]
mod measured;

use measured::{PART, STORE, measure};

/// Plays the part that the environment names, and prints the measurements.
///
/// Returns `None` if the environment names no part.
pub fn play() -> Option<ExitCode> {
    let part = std::env::var(PART).ok()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let address = std::env::var(STORE).unwrap_or_default();
        let open = async || {
            CacheLayer::builder(connect(&address).await.unwrap()).operation_timeout(OPERATION_TIMEOUT)
        };
        // On busy cores a server may miss a timeout, after which the storage is left alone for a while.
        measured::play(&part, 5, open).await;
    });
    Some(ExitCode::SUCCESS)
}

pub fn trials() -> Vec<Trial> {
    if cfg!(not(target_os = "linux")) {
        return Vec::new();
    }
    vec![
        trial("directory", &["slices"], || {
            let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
            let address = format!("directory://{}", folder.path().join("large").display());
            Ok((Box::new(folder), address))
        }),
        trial("redis", &["slices"], || {
            let server = redis::Redis::start(&[])?;
            let address = format!("redis://127.0.0.1:{}/0?cache_name=large&{PATIENT}", server.port);
            Ok((Box::new(server), address))
        }),
        trial("mongodb", &["slices"], || {
            let server = mongodb::MongoDb::start()?;
            let address = format!("{}&response_timeout=40", server.patient_url());
            Ok((Box::new(server), address))
        }),
        trial("dynamodb", &["hit", "slices"], || {
            let server = dynamodb::DynamoDb::start()?;
            let address = format!("{}&cache_name=large&{PATIENT}", dynamodb::address(&server.endpoint()));
            Ok((Box::new(server), address))
        }),
    ]
}

/// A server or a folder, which ends when it is dropped, and the address of a storage in it.
type Place = (Box<dyn std::any::Any>, String);

fn trial(
    storage: &str,
    parts: &'static [&'static str],
    start: impl Fn() -> Result<Place, String> + Send + 'static,
) -> Trial {
    let name = format!("large_body::{storage}::large_body_streams_in_little_memory");
    Trial::ignorable_test(name, move || {
        let bare = measure("bare", None);
        for part in parts {
            // Each part begins with an empty storage.
            let (_place, address) = match start() {
                Ok(place) => place,
                Err(reason) if must_be_there() => return Err(reason.into()),
                Err(reason) => return Ok(Completion::ignored_with(reason)),
            };
            let peak = measure(part, Some(&address));
            // The driver holds the data of requests in progress too, that of DynamoDB as JSON.
            assert!(peak <= bare + 32 * 1024, "{part}: {} KiB more than without the cache", peak - bare);
        }
        Ok(Completion::Completed)
    })
}
