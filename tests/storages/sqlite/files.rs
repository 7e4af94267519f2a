//! The contents of a file when it is opened, and after it is closed.

use std::path::Path;

use futures_util::TryStreamExt;
use tower_response_cache::storage::sqlite::Recovery;
use tower_response_cache::storage::sqlite::rusqlite::{Connection, OpenFlags};
use tower_response_cache::storage::{Record, SqliteStorage, Storage};
use tower_response_cache::{ErrorKind, Timestamp};

use super::{close, directory, files, head, keys, open_files, record, until};

#[tokio::test]
async fn records_survive_reopening() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let storage = SqliteStorage::open(&path).await.unwrap();
    let kept = Record::new("kept", Timestamp::from_secs(9));
    storage.write(head(1), kept.clone()).await.unwrap();
    close(storage, &path).await;
    let storage = SqliteStorage::open(&path).await.unwrap();
    let read = storage.read(head(1)).await.unwrap().unwrap();
    assert_eq!(
        (read.payload(), read.stamp(), read.retain_until()),
        (kept.payload(), kept.stamp(), Timestamp::from_secs(9))
    );
}

#[tokio::test]
async fn writes_survive_a_crash() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let storage = SqliteStorage::open(&path).await.unwrap();
    storage.write(head(1), record(200_000)).await.unwrap();
    // The file and its log are copied while the process runs, as a killed process would leave them.
    let left = directory.path().join("left.sqlite");
    std::fs::copy(&path, &left).unwrap();
    std::fs::copy(directory.path().join("cache.sqlite-wal"), directory.path().join("left.sqlite-wal"))
        .unwrap();
    let left = SqliteStorage::open(left).await.unwrap();
    assert_eq!(left.read(head(1)).await.unwrap().unwrap().payload().len(), 200_000);
}

#[tokio::test]
async fn read_only_uri_serves_hits() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let storage = SqliteStorage::open(&path).await.unwrap();
    storage.write(head(1), record(10)).await.unwrap();
    close(storage, &path).await;
    let before = std::fs::read(&path).unwrap();
    for parameters in ["mode=ro", "immutable=1", "mode=ro&cache=private"] {
        let storage = SqliteStorage::open(format!("file:{}?{parameters}", path.display())).await.unwrap();
        assert!(storage.is_read_only(), "{parameters}");
        assert!(storage.read(head(1)).await.unwrap().is_some());
        assert_eq!(storage.write(head(2), record(10)).await.unwrap_err().kind(), ErrorKind::ReadOnly);
        assert_eq!(
            storage.write_if(head(2), None, record(10)).await.unwrap_err().kind(),
            ErrorKind::ReadOnly
        );
        assert_eq!(storage.clear().await.unwrap_err().kind(), ErrorKind::ReadOnly);
        assert_eq!(keys(&storage).await, [head(1)]);
        drop(storage);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let storage = SqliteStorage::builder(&path).open_flags(flags).open().await.unwrap();
    assert!(storage.is_read_only());
    assert!(storage.read(head(1)).await.unwrap().is_some());
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

fn refused_and_untouched(directory: &Path, path: &Path, kind: ErrorKind) {
    let before = files(directory);
    for read_in_task in [false, true] {
        let builder = SqliteStorage::builder(path).recover(Recovery::Refuse).read_in_task(read_in_task);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let error = runtime.block_on(builder.open()).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(files(directory) == before, "{error}");
    }
}

#[test]
fn non_database_file_is_left_unchanged() {
    let directory = directory();
    let path = directory.path().join("notes.txt");
    for text in ["x".repeat(10), "not a database at all. ".repeat(500)] {
        std::fs::write(&path, text).unwrap();
        refused_and_untouched(directory.path(), &path, ErrorKind::Corrupt);
    }
}

#[test]
fn foreign_database_is_left_unchanged() {
    for setup in [
        "CREATE TABLE records (entry, kind)",
        "PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1)",
        "PRAGMA application_id = 77",
        "PRAGMA user_version = 3",
    ] {
        let directory = directory();
        let path = directory.path().join("other.sqlite");
        Connection::open(&path).unwrap().execute_batch(setup).unwrap();
        refused_and_untouched(directory.path(), &path, ErrorKind::Corrupt);
    }
}

#[test]
fn open_foreign_database_is_left_unchanged() {
    let directory = directory();
    let path = directory.path().join("other.sqlite");
    let other = Connection::open(&path).unwrap();
    other.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
    let before = std::fs::read(&path).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let error = runtime.block_on(SqliteStorage::open(&path)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(std::fs::read(&path).unwrap(), before);
    other.execute("INSERT INTO t VALUES (2)", []).unwrap();
}

fn filled(path: &Path, len: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let storage = SqliteStorage::open(path).await.unwrap();
        for n in 0..20 {
            storage.write(head(n), record(len)).await.unwrap();
        }
        close(storage, path).await;
    });
}

#[test]
fn newer_layout_is_left_unchanged() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    filled(&path, 10);
    Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 2").unwrap();
    refused_and_untouched(directory.path(), &path, ErrorKind::Config);
}

#[test]
fn layout_version_zero_is_corrupt() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    filled(&path, 10);
    Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 0").unwrap();
    refused_and_untouched(directory.path(), &path, ErrorKind::Corrupt);
}

#[test]
fn refused_damaged_file_is_left_unchanged() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    filled(&path, 5000);
    let whole = std::fs::read(&path).unwrap();
    let cut = whole[..whole.len() / 2].to_vec();
    let mut overwritten = whole.clone();
    overwritten[4096..].fill(0xAA);
    let mut tables = whole.clone();
    tables[100..1500].fill(0x55);
    for damaged in [cut, overwritten, tables] {
        std::fs::write(&path, damaged).unwrap();
        refused_and_untouched(directory.path(), &path, ErrorKind::Corrupt);
    }
    std::fs::write(&path, whole).unwrap();
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("DROP TABLE totals; PRAGMA journal_mode = DELETE").unwrap();
    drop(connection);
    refused_and_untouched(directory.path(), &path, ErrorKind::Corrupt);
}

#[tokio::test]
async fn damaged_row_is_absent() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let storage = SqliteStorage::open(&path).await.unwrap();
    let damages = [
        "UPDATE contents SET value = x'00'",
        "UPDATE contents SET value = substr(value, 1, length(value) - 1)",
        "UPDATE contents SET value = 'text'",
        "UPDATE records SET stamp = zeroblob(16)",
        "UPDATE records SET stamp = 5",
        "UPDATE records SET until = 'soon'",
        "DELETE FROM contents",
    ];
    for damage in damages {
        let old = record(100);
        storage.write(head(1), old.clone()).await.unwrap();
        Connection::open(&path).unwrap().execute_batch(damage).unwrap();
        assert!(storage.read(head(1)).await.unwrap().is_none(), "{damage}");
        assert!(!storage.contains(head(1)).await.unwrap());
        assert!(storage.values().try_collect::<Vec<_>>().await.unwrap().is_empty());
        assert!(!storage.write_if(head(1), Some(old.stamp()), record(5)).await.unwrap());
        assert!(storage.write_if(head(1), None, record(5)).await.unwrap(), "{damage}");
        assert_eq!(storage.read(head(1)).await.unwrap().unwrap().payload().len(), 5);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn read_only_file_and_directory_serve_hits() {
    use std::os::unix::fs::PermissionsExt;
    let directory = directory();
    let path = directory.path().join("a b%?#.sqlite");
    let storage = SqliteStorage::open(&path).await.unwrap();
    storage.write(head(1), record(10)).await.unwrap();
    close(storage, &path).await;
    let mode =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(&path, 0o444);
    if std::fs::OpenOptions::new().append(true).open(&path).is_ok() {
        return; // root ignores the permissions of files
    }
    for of_directory in [0o755, 0o555] {
        mode(directory.path(), of_directory);
        let storage = SqliteStorage::builder(&path).read_in_task(true).open().await.unwrap();
        assert!(storage.is_read_only());
        assert!(storage.read(head(1)).await.unwrap().is_some());
        assert_eq!(storage.write(head(2), record(10)).await.unwrap_err().kind(), ErrorKind::ReadOnly);
    }
    mode(directory.path(), 0o755);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn last_drop_closes_the_files() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let storage = SqliteStorage::builder(&path).readers(3).read_in_task(true).open().await.unwrap();
    let clone = storage.clone();
    storage.write(head(1), record(10)).await.unwrap();
    assert!(open_files(&path) >= 5);
    drop(storage);
    assert!(clone.read(head(1)).await.unwrap().is_some());
    drop(clone);
    until("all connections are closed", || open_files(&path) == 0).await;
    assert_eq!(files(directory.path()).len(), 1);
}
