//! A body of 256 MiB that is served through SQLite.
//!
//! It must need little memory and arrive complete. Each case runs in a process of its own. The test
//! compares the peak memory of that process with that of one without a cache. This binary uses one storage only,
//! because the code of others would count as memory too.
#![cfg(feature = "sqlite")]
#![allow(unreachable_pub, dead_code, clippy::unwrap_used)]

mod measured;

use tower_response_cache::CacheLayer;
use tower_response_cache::storage::SqliteStorage;

use measured::{PART, measure, play};

#[tokio::test]
async fn child() {
    if let Ok(part) = std::env::var(PART) {
        let folder = tempfile::tempdir().unwrap();
        let open = async || CacheLayer::builder(SqliteStorage::open(folder.path().join("s")).await.unwrap());
        play(&part, 1, open).await;
    }
}

#[test]
#[cfg(target_os = "linux")]
fn large_body_streams_with_bounded_memory() {
    let bare = measure("bare", None);
    for part in ["miss", "hit", "parts", "slices", "gaps"] {
        let peak = measure(part, None);
        assert!(peak <= bare + 16 * 1024, "{part}: {} KiB more than without the cache", peak - bare);
    }
}
