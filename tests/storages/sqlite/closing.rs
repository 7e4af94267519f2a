//! Closing a storage.
//!
//! Tests the contents of the file afterwards, and the errors that other clones return.

use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use tower_response_cache::ErrorKind;
use tower_response_cache::storage::{SqliteStorage, Storage};

use super::{close, directory, files, head, record};

/// Returns the number of entries in a copy of the file without its log.
async fn in_the_file_alone(path: &Path) -> u64 {
    let folder = directory();
    let alone = folder.path().join("alone.sqlite");
    std::fs::copy(path, &alone).unwrap();
    SqliteStorage::open(&alone).await.unwrap().size().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_racing_with_close_are_answered() {
    for _ in 0..20 {
        let directory = directory();
        let path = directory.path().join("cache.sqlite");
        let storage = SqliteStorage::open(&path).await.unwrap();
        let writing = (0..64).map(|number| {
            let storage = storage.clone();
            tokio::spawn(async move {
                let mut taken = 0;
                for round in 0..100 {
                    match storage.write(head(number), record(100 + round)).await {
                        Ok(()) => taken = 1,
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Unavailable);
                            return taken;
                        }
                    }
                }
                taken
            })
        });
        let writing: Vec<_> = writing.collect();
        tokio::task::yield_now().await;
        storage.close().await.unwrap();
        let answered = tokio::time::timeout(Duration::from_secs(20), join_all(writing)).await;
        let taken: u64 = answered.expect("every write is answered").into_iter().map(Result::unwrap).sum();
        assert_eq!(in_the_file_alone(&path).await, taken);
    }
}

#[tokio::test]
async fn close_merges_log_despite_other_handles() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let (one, other) = (SqliteStorage::open(&path).await.unwrap(), SqliteStorage::open(&path).await.unwrap());
    one.write(head(1), record(10_000)).await.unwrap();
    one.close().await.unwrap();
    assert_eq!(in_the_file_alone(&path).await, 1);
    other.write(head(2), record(10)).await.unwrap();
    assert!(other.read(head(1)).await.unwrap().is_some());
    other.close().await.unwrap();
    assert_eq!(files(directory.path()).len(), 1);
}

#[tokio::test]
async fn closing_read_only_storage_changes_nothing() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let storage = SqliteStorage::open(&path).await.unwrap();
    storage.write(head(1), record(10)).await.unwrap();
    close(storage, &path).await;
    let before = std::fs::read(&path).unwrap();
    for parameters in ["mode=ro", "immutable=1"] {
        let storage = SqliteStorage::open(format!("file:{}?{parameters}", path.display())).await.unwrap();
        assert!(storage.check().await.is_ok());
        storage.close().await.unwrap();
        assert_eq!(storage.read(head(1)).await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
}
