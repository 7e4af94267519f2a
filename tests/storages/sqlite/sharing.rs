//! Many tasks and several handles on one storage at once.

use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::future::{join_all, try_join_all};
use tower_response_cache::storage::sqlite::rusqlite::Connection;
use tower_response_cache::storage::{Key, Record, SqliteStorage, Storage};
use tower_response_cache::{ErrorKind, Timestamp};

use super::{chunk, directory, head, keys, record};

#[tokio::test]
async fn shared_cache_handles_are_never_locked() {
    let name = "file:shared-by-two?mode=memory&cache=shared";
    let (a, b) = (SqliteStorage::open(name).await.unwrap(), SqliteStorage::open(name).await.unwrap());
    let both = (0..200u8).map(|n| {
        let (storage, other) = if n % 2 == 0 { (&a, &b) } else { (&b, &a) };
        async move {
            storage.write(head(n), record(10)).await?;
            other.read(head(n)).await
        }
    });
    assert!(try_join_all(both).await.unwrap().iter().all(Option::is_some));
}

#[tokio::test]
async fn refused_write_does_not_fail_its_batch() {
    let storage = SqliteStorage::builder(":memory:").max_bytes(1 << 20).open().await.unwrap();
    storage.write(chunk(0, 0), record(300_000)).await.unwrap();
    // All writes are queued before the first one begins.
    let writes = (0..100u8).map(|n| storage.write(head(n), record(if n == 0 { 300_000 } else { 10 })));
    for (n, result) in join_all(writes).await.into_iter().enumerate() {
        assert_eq!(result.is_err(), n == 0, "{n} {result:?}");
    }
    assert_eq!(storage.size().await.unwrap(), 99);
}

#[tokio::test(flavor = "multi_thread")]
async fn write_if_has_one_winner_across_handles() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let (a, b) = (SqliteStorage::open(&path).await.unwrap(), SqliteStorage::open(&path).await.unwrap());
    let mut seen = None;
    for _ in 0..50 {
        let race = (0..16).map(|n| {
            let storage = if n % 2 == 0 { a.clone() } else { b.clone() };
            tokio::spawn(async move { storage.write_if(head(1), seen, record(10)).await.unwrap() })
        });
        let won = join_all(race).await.into_iter().filter(|won| *won.as_ref().unwrap()).count();
        assert_eq!(won, 1);
        seen = Some(a.read(head(1)).await.unwrap().unwrap().stamp());
        assert_eq!(b.read(head(1)).await.unwrap().map(|record| record.stamp()), seen);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writers_get_no_lock_error() {
    for journal in ["wal", "delete"] {
        let directory = directory();
        let path = directory.path().join("cache.sqlite");
        // All handles create the file at the same time.
        let open = (0..4).map(|_| {
            let builder = SqliteStorage::builder(&path).busy_timeout(Duration::from_secs(60));
            builder.pragma("journal_mode", journal).pragma("synchronous", "off").max_bytes(2_000_000).open()
        });
        let handles = try_join_all(open).await.unwrap();
        let tasks = (0..64u8).map(|n| {
            let storage = handles[n as usize % handles.len()].clone();
            tokio::spawn(async move {
                for part in 0..20 {
                    storage.write(chunk(n, part), record(4000)).await.unwrap();
                    storage.read(chunk(n, part / 2)).await.unwrap();
                }
            })
        });
        join_all(tasks).await.into_iter().for_each(|done| done.unwrap());
        let connection = Connection::open(&path).unwrap();
        let row: (i64, i64, i64, i64) = connection
            .query_row(
                "SELECT (SELECT bytes FROM totals), (SELECT sum(size) FROM entries),
                (SELECT sum(size) FROM records), (SELECT count(*) FROM records) - (SELECT count(*) FROM contents)",
                [],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
            )
            .unwrap();
        assert!(row.0 <= 2_000_000 && row.0 == row.1 && row.1 == row.2 && row.3 == 0, "{row:?}");
    }
}

#[tokio::test]
async fn locked_database_times_out_and_recovers() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let builder = SqliteStorage::builder(&path).busy_timeout(Duration::from_millis(50));
    let storage = builder.open().await.unwrap();
    storage.write(head(1), record(10)).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = storage.write(head(2), record(10)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(!format!("{error} {error:?}").contains("locked"));
    assert!(storage.read(head(1)).await.unwrap().is_some());
    other.execute_batch("ROLLBACK").unwrap();
    storage.write(head(2), record(10)).await.unwrap();
}

#[tokio::test]
async fn dropped_futures_leave_storage_usable() {
    let directory = directory();
    let storage = SqliteStorage::open(directory.path().join("cache.sqlite")).await.unwrap();
    for n in 0..100 {
        let mut write = Box::pin(storage.write(head(n), record(5000)));
        let mut read = Box::pin(storage.read(head(n)));
        let _ = futures_util::poll!(write.as_mut());
        let _ = futures_util::poll!(read.as_mut());
    }
    storage.write(head(200), record(10)).await.unwrap();
    assert!(storage.read(head(200)).await.unwrap().is_some());
    let other = Connection::open(directory.path().join("cache.sqlite")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE; ROLLBACK").unwrap();
}

#[tokio::test]
async fn read_in_task_sees_other_handles() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let storage = SqliteStorage::builder(&path).read_in_task(false).open().await.unwrap();
    assert!(storage.read_now(head(1)).is_none());
    let in_task = SqliteStorage::builder(&path).read_in_task(true).open().await.unwrap();
    assert!(in_task.read_now(head(1)).unwrap().unwrap().is_none());
    storage.write(head(1), record(10)).await.unwrap();
    assert!(in_task.read_now(head(1)).unwrap().unwrap().is_some());
}

#[tokio::test]
async fn paged_listing_returns_each_key_once() {
    let storage = SqliteStorage::open(":memory:").await.unwrap();
    let all: Vec<Key> =
        (0..5).flat_map(|n| (0..300).map(move |part| chunk(n, part)).chain([head(n)])).collect();
    try_join_all(all.iter().map(|&key| storage.write(key, record(3)))).await.unwrap();
    let mut expected = all.clone();
    expected.sort();
    assert_eq!(keys(&storage).await, expected);
    assert_eq!(storage.size().await.unwrap(), 5);
    assert_eq!(storage.values().try_collect::<Vec<_>>().await.unwrap().len(), 5);
    assert_eq!(storage.delete_many(&all).await.unwrap(), 1505);
    assert!(keys(&storage).await.is_empty());
}

#[tokio::test]
async fn delete_expired_spans_several_transactions() {
    let storage = SqliteStorage::open(":memory:").await.unwrap();
    let write = |part| {
        let retain_until =
            if part % 2 == 0 { Timestamp::NEVER } else { Timestamp::from_millis(u64::from(part)) };
        storage.write(chunk(1, part), Record::new("x", retain_until))
    };
    try_join_all((0..5000).map(write)).await.unwrap();
    assert_eq!(storage.delete_expired(Timestamp::from_millis(4001)).await.unwrap(), 2001);
    assert_eq!(storage.delete_expired(Timestamp::from_millis(4001)).await.unwrap(), 0);
    assert_eq!(keys(&storage).await.len(), 2999);
}
