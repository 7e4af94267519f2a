//! A body of 256 MiB through DynamoDB: at once, in little memory, and whole.

use std::time::Duration;

use tower_response_cache::CacheLayer;
use tower_response_cache::storage::connect;

use crate::measured::{PART, STORE, measure, play};
use crate::servers;

#[tokio::test]
async fn child() {
    if let Ok(part) = std::env::var(PART) {
        // It is about memory here, not about how fast a stand-in of a server is that has just begun.
        let patience = Duration::from_secs(10);
        let address = std::env::var(STORE).unwrap_or_default();
        let open = async || CacheLayer::builder(connect(&address).await.unwrap()).operation_timeout(patience);
        play(&part, open).await;
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_body_of_256_mib_streams_through_dynamodb_in_little_memory() {
    let server = match servers::dynamodb::DynamoDb::start() {
        Ok(server) => server,
        Err(reason) if servers::must_be_there() => panic!("{reason}"),
        Err(reason) => return println!("skipped: {reason}"),
    };
    let store = format!("{}&cache_name=large", servers::dynamodb::address(&server.endpoint()));
    let (bare, _) = measure("dynamodb", "bare", None);
    let (peak, first) = measure("dynamodb", "hit", Some(&store));
    // The driver holds what is under way as JSON too.
    assert!(peak <= bare + 32 * 1024, "{} KiB more than without the cache", peak - bare);
    assert!(first < Duration::from_millis(500), "the first byte came after {first:?}");
}
