//! Files that are removed, replaced or overwritten while they are open.

use std::path::Path;

use tower_response_cache::ErrorKind;
use tower_response_cache::storage::{SqliteStorage, Storage};

use super::{directory, head, record, until};

async fn open(path: &Path, in_task: bool) -> SqliteStorage {
    SqliteStorage::builder(path).read_in_task(in_task).open().await.unwrap()
}

fn remove(path: &Path) {
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{end}", path.display()));
    }
}

/// Reads until a record is present or absent, as expected.
///
/// A reader checks only from time to time whether the file was replaced.
async fn until_read(storage: &SqliteStorage, number: u8, there: bool) {
    let began = std::time::Instant::now();
    while storage.read(head(number)).await.is_ok_and(|found| found.is_some()) != there {
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "record {number} is not as expected");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn removed_file_is_recreated_and_shared() {
    for in_task in [false, true] {
        let directory = directory();
        let path = directory.path().join("below/cache.sqlite");
        let one = open(&path, in_task).await;
        one.write(head(1), record(1000)).await.unwrap();
        remove(&path);
        until_read(&one, 1, false).await;
        one.write(head(2), record(1000)).await.unwrap();
        let other = open(&path, in_task).await;
        assert!(other.contains(head(2)).await.unwrap() && !other.contains(head(1)).await.unwrap());
        other.write(head(3), record(1000)).await.unwrap();
        assert!(one.contains(head(3)).await.unwrap());
        // Removes the whole folder, as a person would do to empty the cache.
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
        let began = std::time::Instant::now();
        while one.write(head(4), record(1000)).await.is_err() {
            assert!(began.elapsed() < std::time::Duration::from_secs(20), "the folder is not created again");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        until_read(&other, 4, true).await;
        assert!(!other.contains(head(3)).await.unwrap());
    }
}

#[tokio::test]
async fn replacement_file_is_used() {
    let directory = directory();
    let (path, next) = (directory.path().join("cache.sqlite"), directory.path().join("next.sqlite"));
    let maker = open(&next, false).await;
    maker.write(head(7), record(1000)).await.unwrap();
    super::close(maker, &next).await;
    let storage = open(&path, false).await;
    storage.write(head(1), record(1000)).await.unwrap();
    std::fs::rename(&next, &path).unwrap();
    until_read(&storage, 7, true).await;
    assert!(!storage.contains(head(1)).await.unwrap());
    storage.write(head(2), record(1000)).await.unwrap();
    assert_eq!(storage.size().await.unwrap(), 2);
}

#[tokio::test]
async fn foreign_file_fails_until_removed() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let storage = open(&path, false).await;
    storage.write(head(1), record(1000)).await.unwrap();
    remove(&path);
    std::fs::write(&path, "not a database at all, but a text of some length, put there by mistake").unwrap();
    let error = storage.write(head(2), record(1000)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert_eq!(std::fs::read(&path).unwrap().len(), 70, "the foreign file was changed");
    remove(&path);
    let began = std::time::Instant::now();
    while storage.write(head(3), record(1000)).await.is_err() {
        assert!(
            began.elapsed() < std::time::Duration::from_secs(20),
            "writes still fail after the foreign file is removed"
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(storage.contains(head(3)).await.unwrap() && !storage.contains(head(1)).await.unwrap());
}

#[tokio::test]
async fn overwritten_file_returns_no_wrong_record() {
    for len in [0_usize, 5000, 100_000] {
        let directory = directory();
        let path = directory.path().join("cache.sqlite");
        let storage = open(&path, false).await;
        for number in 0..20 {
            storage.write(head(number), record(30_000)).await.unwrap();
        }
        for end in ["", "-wal"] {
            std::fs::write(format!("{}{end}", path.display()), vec![0xa5; len]).unwrap();
        }
        for number in 0..20 {
            if let Ok(Some(there)) = storage.read(head(number)).await {
                assert_eq!(there.payload(), record(30_000).payload());
            }
            let _ = storage.write(head(100 + number), record(30_000)).await; // most likely an error
        }
        remove(&path);
        let began = std::time::Instant::now();
        while storage.write(head(50), record(1000)).await.is_err() {
            assert!(
                began.elapsed() < std::time::Duration::from_secs(20),
                "writes still fail after the foreign file is removed"
            );
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        until_read(&storage, 50, true).await;
    }
}

#[tokio::test]
async fn closing_recreates_no_removed_file() {
    for closes in [false, true] {
        let directory = directory();
        let path = directory.path().join("below/cache.sqlite");
        let storage = open(&path, false).await;
        storage.write(head(1), record(1000)).await.unwrap();
        assert!(storage.read(head(1)).await.unwrap().is_some(), "a hit records a use");
        let opened = super::open_files(&path);
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
        let deleted = path.with_file_name("cache.sqlite (deleted)");
        assert_eq!(super::open_files(&deleted), opened);
        if closes {
            storage.close().await.unwrap();
        }
        drop(storage);
        until("all connections are closed", || super::open_files(&deleted) == 0).await;
        assert!(!path.parent().unwrap().exists());
    }
}

#[tokio::test]
async fn replacement_leaks_no_open_files() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let storage = open(&path, true).await;
    storage.write(head(1), record(1000)).await.unwrap();
    remove(&path);
    storage.write(head(2), record(1000)).await.unwrap();
    until_read(&storage, 2, true).await;
    drop(storage);
    until("all connections are closed", || super::open_files(&path) == 0).await;
    let storage = open(&path, false).await;
    assert!(storage.contains(head(2)).await.unwrap());
}
