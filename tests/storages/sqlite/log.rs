//! The write-ahead log, which constant readers could let grow without limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tower_response_cache::storage::{Record, SqliteStorage, Storage};
use tower_response_cache::{ErrorKind, Timestamp};

use super::{directory, head, record};

const MIB: u64 = 1 << 20;

/// Returns a record of 1 MiB whose bytes depend on the number.
///
/// SQLite would not write a page whose contents do not change.
fn other(number: u32) -> Record {
    Record::new(number.to_be_bytes().repeat(1 << 18), Timestamp::NEVER)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_stays_short_under_constant_reads() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let storage = SqliteStorage::builder(&path).max_bytes(64 << 20).open().await.unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (storage, over) = (storage.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    for number in 0..50 {
                        storage.read(head(number)).await.unwrap();
                    }
                    storage.size().await.unwrap();
                }
            })
        })
        .collect();
    let log = directory.path().join("cache.sqlite-wal");
    let mut longest = 0;
    for number in 0..400_u32 {
        storage.write(head((number % 100) as u8), other(number)).await.unwrap();
        longest = longest.max(std::fs::metadata(&log).map_or(0, |log| log.len()));
    }
    over.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(longest < 128 * MIB, "the log has grown to {} MiB of 400 written", longest / MIB);
}

#[tokio::test]
async fn endless_reader_does_not_fill_the_disk() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let storage = SqliteStorage::builder(&path).max_bytes(64 << 20).open().await.unwrap();
    storage.write(head(1), record(1000)).await.unwrap();
    // Another program keeps a read transaction open, so SQLite cannot reset the log.
    let stranger = rusqlite::Connection::open(&path).unwrap();
    stranger.execute_batch("BEGIN").unwrap();
    stranger.query_row("SELECT count(*) FROM records", [], |row| row.get::<_, i64>(0)).unwrap();
    let log = directory.path().join("cache.sqlite-wal");
    let mut refused = None;
    for number in 0..400_u32 {
        if let Err(error) = storage.write(head((number % 20) as u8), other(number)).await {
            refused = Some(error);
            break;
        }
    }
    assert_eq!(refused.expect("a write is refused").kind(), ErrorKind::Full);
    assert!(std::fs::metadata(&log).unwrap().len() < 300 * MIB);
    storage.write(head(200), record(10)).await.unwrap(); // short, as an invalidation is
    drop(stranger);
    let began = std::time::Instant::now();
    while storage.write(head(201), record(1 << 20)).await.is_err() {
        assert!(
            began.elapsed() < std::time::Duration::from_secs(20),
            "writes still fail after the reader has ended"
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(std::fs::metadata(&log).unwrap().len() <= 40 * MIB);
}
