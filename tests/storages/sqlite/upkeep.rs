//! Vacuum, deletion of many expired records, and a file in the temporary directory.

use tower_response_cache::storage::{Key, Kind, Record, SqliteStorage, Storage};
use tower_response_cache::{ErrorKind, Timestamp};

use super::{close, directory, head, record};

fn len(path: &std::path::Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

#[tokio::test]
async fn vacuum_frees_space_during_writes() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let (one, other) = (SqliteStorage::open(&path).await.unwrap(), SqliteStorage::open(&path).await.unwrap());
    for number in 0..200 {
        one.write(head(number), record(100_000)).await.unwrap();
    }
    one.vacuum().await.unwrap(); // frees nothing yet, but merges the log
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
async fn vacuum_rewrites_file_without_auto_vacuum() {
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
async fn use_temp_opens_file_in_temporary_directory() {
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

/// Returns all records with their retention times, by key.
async fn contents(storage: &SqliteStorage) -> Vec<(Key, Vec<u8>, Timestamp)> {
    let mut found = Vec::new();
    for key in super::keys(storage).await {
        let record = storage.read(key).await.unwrap().unwrap();
        found.push((key, record.payload().to_vec(), record.retain_until()));
    }
    found
}

#[tokio::test]
async fn mass_expiry_keeps_live_records() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let storage = SqliteStorage::builder(&path).max_bytes(1 << 30).open().await.unwrap();
    let key = |number: u32| {
        let mut entry = [0; 16];
        entry[..4].copy_from_slice(&number.wrapping_mul(0x9E37_79B9).to_be_bytes());
        Key::head(entry)
    };
    let (now, later) = (Timestamp::from_secs(1_000), Timestamp::from_secs(2_000));
    let write = |number: u32, until| {
        let payload = number.to_be_bytes().repeat(1 + number as usize % 9);
        let (storage, key) = (storage.clone(), key(number));
        // Some entries have a live record and an expired one.
        let part = key.sibling(Kind::Chunk, [1; 16], number % 3);
        async move {
            storage.write(key, Record::new(payload.clone(), until)).await.unwrap();
            if number.is_multiple_of(50) {
                storage.write(part, Record::new(payload, now)).await.unwrap();
            }
        }
    };
    let live = |number: u32| number % 100 < 2;
    for numbers in (0..24_000).collect::<Vec<u32>>().chunks(500) {
        let writes = numbers.iter().map(|number| write(*number, if live(*number) { later } else { now }));
        futures_util::future::join_all(writes).await;
    }
    let before: Vec<_> = contents(&storage).await.into_iter().filter(|(_, _, until)| *until > now).collect();
    assert_eq!(before.len(), 480);
    assert_eq!(storage.delete_expired(now).await.unwrap(), 24_000 - 480 + 480);
    assert_eq!(contents(&storage).await, before);
    let used = storage.usage().await.unwrap().bytes.unwrap();
    assert_eq!(storage.delete_expired(now).await.unwrap(), 0);
    // The sizes are right. The remaining records are counted, and expire like all others.
    let sizes: u64 =
        before.iter().map(|(_, payload, _)| payload.len() as u64 + Record::OVERHEAD as u64 + 256).sum();
    assert_eq!(used, sizes);
    assert_eq!(storage.delete_expired(later).await.unwrap(), 480);
    assert_eq!(storage.usage().await.unwrap().bytes, Some(0));
    close(storage, &path).await;
    super::integrity(&path);
}
