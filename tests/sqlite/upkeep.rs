//! Room that is given back, and a file in the temporary directory.

use tower_response_cache::ErrorKind;
use tower_response_cache::storage::{SqliteStorage, Storage};

use crate::{close, directory, head, record};

fn len(path: &std::path::Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

#[tokio::test]
async fn vacuum_gives_the_room_back_while_others_write() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let (one, other) = (SqliteStorage::open(&path).await.unwrap(), SqliteStorage::open(&path).await.unwrap());
    for number in 0..200 {
        one.write(head(number), record(100_000)).await.unwrap();
    }
    one.vacuum().await.unwrap(); // nothing to give back, and the log is merged
    let full = len(&path);
    assert!(full > 20_000_000);
    for number in 0..190 {
        one.delete(head(number)).await.unwrap();
    }
    let writing = tokio::spawn(async move {
        for number in 0..100 {
            other.write(head(250), record(1000 + number)).await.unwrap();
            assert_eq!(other.read(head(250)).await.unwrap().unwrap().payload().len(), 1000 + number);
        }
    });
    let freed = one.vacuum().await.unwrap();
    writing.await.unwrap();
    one.vacuum().await.unwrap();
    assert!(freed > full / 2, "{freed} of {full}");
    assert!(len(&path) < full / 4, "{} of {full}", len(&path));
    for number in 190..200 {
        assert_eq!(one.read(head(number)).await.unwrap().unwrap().payload(), record(100_000).payload());
    }
    assert_eq!(one.size().await.unwrap(), 11);
}

#[tokio::test]
async fn vacuum_writes_a_file_anew_that_was_made_without_it() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let storage = SqliteStorage::builder(&path).pragma("auto_vacuum", "NONE").open().await.unwrap();
    for number in 0..50 {
        storage.write(head(number), record(100_000)).await.unwrap();
    }
    storage.clear().await.unwrap();
    storage.write(head(1), record(1000)).await.unwrap();
    assert!(storage.vacuum().await.unwrap() > 4_000_000);
    assert!(len(&path) < 1_000_000);
    assert!(storage.contains(head(1)).await.unwrap());
    close(storage, &path).await;
}

#[tokio::test]
async fn use_temp_keeps_the_file_in_the_temporary_directory() {
    let name = format!("http-cache-test-{:x}/cache.sqlite", fastrand::u64(..));
    let path = std::env::temp_dir().join(&name);
    let storage = SqliteStorage::builder(&name).use_temp(true).open().await.unwrap();
    storage.write(head(1), record(10)).await.unwrap();
    assert!(path.exists());
    close(storage, &path).await;
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    for outside in ["/cache.sqlite", "../cache.sqlite", "~/cache.sqlite", ":memory:"] {
        let refused = SqliteStorage::builder(outside).use_temp(true).open().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Config, "{outside}");
    }
}
