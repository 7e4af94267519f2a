//! A body of 256 MiB that is served through DynamoDB.
//!
//! It must start at once, need little memory and arrive complete. The cache runs in another process of this binary. The
//! test compares the peak memory of that process with that of one without a cache.

use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Completion, Trial};
use tower_response_cache::CacheLayer;
use tower_response_cache::storage::connect;

use crate::servers::{dynamodb, must_be_there};

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
        // The test is about memory, not about the speed of a local server that has just started.
        let patience = Duration::from_secs(10);
        let address = std::env::var(STORE).unwrap_or_default();
        let open = async || CacheLayer::builder(connect(&address).await.unwrap()).operation_timeout(patience);
        measured::play(&part, open).await;
    });
    Some(ExitCode::SUCCESS)
}

pub fn trials() -> Vec<Trial> {
    let name = "large_body::dynamodb::large_body_streams_in_little_memory";
    if cfg!(not(target_os = "linux")) {
        return Vec::new();
    }
    vec![Trial::ignorable_test(name, || {
        let server = match dynamodb::DynamoDb::start() {
            Ok(server) => server,
            Err(reason) if must_be_there() => return Err(reason.into()),
            Err(reason) => return Ok(Completion::ignored_with(reason)),
        };
        let store = format!("{}&cache_name=large", dynamodb::address(&server.endpoint()));
        let (bare, _) = measure("bare", None);
        let (peak, first) = measure("hit", Some(&store));
        // The driver holds the data of requests in progress as JSON too.
        assert!(peak <= bare + 32 * 1024, "{} KiB more than without the cache", peak - bare);
        assert!(first < Duration::from_millis(500), "the first byte came after {first:?}");
        Ok(Completion::Completed)
    })]
}
