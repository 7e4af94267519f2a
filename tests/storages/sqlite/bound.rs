//! The bound, and which entries are evicted when it is reached.

use std::time::Duration;

use futures_util::future::try_join_all;
use tower_response_cache::storage::sqlite::rusqlite::Connection;
use tower_response_cache::storage::{Key, Kind, Record, SqliteStorage, Storage};
use tower_response_cache::{Clock, ErrorKind, Timestamp};

use super::{chunk, close, directory, head, keys, record, until};

#[tokio::test]
async fn least_recently_used_entry_is_evicted_whole() {
    let (clock, time) = Clock::mock();
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let storage = SqliteStorage::builder(&path).max_bytes(100_000).clock(clock).open().await.unwrap();
    // Nine entries of a head and two chunks, about 10 kB each.
    for n in 0..9 {
        for key in [chunk(n, 0), chunk(n, 1), head(n)] {
            storage.write(key, record(3200)).await.unwrap();
        }
        time.advance(Duration::from_secs(1));
    }
    let changes = || -> i64 {
        let connection = Connection::open(&path).unwrap();
        connection.query_row("SELECT sum(used) FROM entries", [], |row| row.get(0)).unwrap()
    };
    let before = changes();
    assert!(storage.read(head(0)).await.unwrap().is_some());
    assert!(storage.read(chunk(2, 1)).await.unwrap().is_some());
    assert_eq!(changes(), before, "a hit writes nothing");
    time.advance(Duration::from_secs(1));
    for n in 9..12 {
        for key in [chunk(n, 0), chunk(n, 1), head(n)] {
            storage.write(key, record(3200)).await.unwrap();
        }
    }
    let kept = keys(&storage).await;
    for n in 0..12 {
        let records = kept.iter().filter(|key| key.entry == [n; 16]).count();
        let expected = if [1, 3, 4].contains(&n) { 0 } else { 3 };
        assert_eq!(records, expected, "entry {n}");
    }
    let connection = Connection::open(&path).unwrap();
    let (total, sum): (i64, i64) = connection
        .query_row("SELECT (SELECT bytes FROM totals), (SELECT sum(size) FROM entries)", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert!(total <= 100_000 && total == sum, "{total} {sum}");
}

#[tokio::test]
async fn expired_records_are_evicted_first() {
    let (clock, time) = Clock::mock();
    let builder = SqliteStorage::builder(":memory:").max_bytes(100_000).clock(clock.clone());
    let storage = builder.open().await.unwrap();
    for n in 0..9 {
        let retain_until = if n < 5 { Timestamp::NEVER } else { clock.now() + Duration::from_secs(10) };
        storage.write(head(n), Record::new(vec![0; 10_000], retain_until)).await.unwrap();
    }
    time.advance(Duration::from_secs(11));
    storage.write(head(20), record(10_000)).await.unwrap();
    for n in 0..5 {
        assert!(storage.contains(head(n)).await.unwrap(), "entry {n}");
    }
    assert!(!storage.contains(head(5)).await.unwrap());
}

#[tokio::test]
async fn uses_are_recorded_periodically_and_on_close() {
    let (clock, time) = Clock::mock();
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let storage = SqliteStorage::builder(&path).clock(clock).open().await.unwrap();
    storage.write(head(1), record(10)).await.unwrap();
    storage.write(head(2), record(10)).await.unwrap();
    let used = |n: u8| -> i64 {
        let connection = Connection::open(&path).unwrap();
        connection
            .query_row("SELECT used FROM entries WHERE entry = ?1", [[n; 16]], |row| row.get(0))
            .unwrap()
    };
    let (first, second) = (used(1), used(2));
    time.advance(Duration::from_secs(301));
    storage.read(head(1)).await.unwrap();
    until("the use is recorded", || used(1) > first).await;
    storage.read(head(2)).await.unwrap();
    assert_eq!(used(2), second);
    close(storage, &path).await;
    assert!(used(2) > second);
}

#[tokio::test]
async fn lowered_bound_is_enforced_on_write() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let storage = SqliteStorage::open(&path).await.unwrap();
    try_join_all((0..200).map(|n| storage.write(head(n), record(200_000)))).await.unwrap();
    drop(storage);
    let storage = SqliteStorage::builder(&path).max_bytes(1_000_000).open().await.unwrap();
    for n in 201..205 {
        storage.write(head(n), record(10)).await.unwrap();
    }
    let kept = keys(&storage).await;
    assert!(kept.len() <= 9 && kept.contains(&head(204)), "{}", kept.len());
}

/// Checks that a body being read is evicted last, so that a hit can finish.
#[tokio::test]
async fn held_entry_is_evicted_last() {
    let storage = SqliteStorage::builder(":memory:").max_bytes(100_000).open().await.unwrap();
    for key in [head(0), chunk(0, 0), chunk(0, 1)] {
        storage.write(key, record(5000)).await.unwrap();
    }
    let hold = storage.hold(chunk(0, 0), 10_000);
    for n in 1..100 {
        storage.write(head(n), record(5000)).await.unwrap();
        let usage = storage.usage().await.unwrap();
        assert!(usage.bytes.unwrap() <= 100_000 && usage.max_bytes == Some(100_000), "{usage:?}");
    }
    for key in [head(0), chunk(0, 0), chunk(0, 1)] {
        assert!(storage.contains(key).await.unwrap(), "{key:?}");
    }
    drop(hold);
    for n in 100..140 {
        storage.write(head(n), record(5000)).await.unwrap();
    }
    assert!(!storage.contains(chunk(0, 0)).await.unwrap());
}

/// Checks that a group's value is evicted when it is the least recently used entry.
#[tokio::test]
async fn least_recently_used_group_is_evicted() {
    let (clock, time) = Clock::mock();
    let storage = SqliteStorage::builder(":memory:").max_bytes(100_000).clock(clock).open().await.unwrap();
    let group = |n| Key { entry: [n; 16], kind: Kind::Group, slot: [0; 16], part: 0 };
    for n in [200, 201] {
        storage.write(group(n), record(16)).await.unwrap();
        time.advance(Duration::from_secs(1));
    }
    for n in 0..50 {
        storage.write(head(n), record(10_000)).await.unwrap();
        time.advance(Duration::from_secs(1));
        assert!(storage.read(group(201)).await.unwrap().is_some(), "a group in use was evicted");
    }
    assert!(!storage.contains(group(200)).await.unwrap());
}

/// Checks the bound with records of a few bytes, such as groups and tombstones.
///
/// A remote party can cause any number of them.
#[tokio::test]
async fn smallest_records_keep_file_near_bound() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let most = 1 << 20;
    let storage = SqliteStorage::builder(&path).max_bytes(most).open().await.unwrap();
    let key = |n: u32| {
        let mut entry = [0; 16];
        // Spreads the entries as hashes would be.
        entry[..8].copy_from_slice(&(u64::from(n) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        entry[8..12].copy_from_slice(&n.to_be_bytes());
        Key { entry, kind: Kind::Group, slot: [0; 16], part: 0 }
    };
    for n in 0..200_u32 {
        try_join_all((0..100).map(|m| storage.write(key(n * 100 + m), record(16)))).await.unwrap();
    }
    close(storage, &path).await;
    let len = std::fs::metadata(&path).unwrap().len();
    assert!(len <= most + most / 3, "{len}");
}

/// Checks that `delete_expired` removes records of every kind.
#[tokio::test]
async fn expired_records_of_every_kind_are_removed() {
    let storage = SqliteStorage::open(":memory:").await.unwrap();
    let kinds = [Kind::Head, Kind::Variant, Kind::Chunk, Kind::Lease, Kind::Group, Kind::Index];
    for kind in kinds {
        let record = Record::new("x", Timestamp::from_secs(10));
        storage.write(head(kind as u8).sibling(kind, [0; 16], 0), record).await.unwrap();
    }
    assert_eq!(storage.delete_expired(Timestamp::from_secs(20)).await.unwrap(), kinds.len() as u64);
    assert!(keys(&storage).await.is_empty());
}

#[tokio::test]
async fn entry_is_limited_to_half_the_bound() {
    let storage = SqliteStorage::builder(":memory:").max_bytes(100_000).open().await.unwrap();
    storage.write(head(1), record(10)).await.unwrap();
    let longest = storage.max_record_len();
    let too_long = storage.write(head(1), record(longest - Record::OVERHEAD + 1)).await.unwrap_err();
    assert_eq!(too_long.kind(), ErrorKind::TooLarge);
    assert_eq!(storage.read(head(1)).await.unwrap().unwrap().payload().len(), 10);
    storage.write(head(1), record(longest - Record::OVERHEAD)).await.unwrap();
    assert_eq!(storage.write(chunk(1, 0), record(1)).await.unwrap_err().kind(), ErrorKind::TooLarge);
    storage.write(head(1), record(10)).await.unwrap();
    storage.write(chunk(1, 0), record(1)).await.unwrap();
}
