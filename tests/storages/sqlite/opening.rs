//! File names, settings, and connections that the caller provides.

use std::path::Path;
use std::time::Duration;

use tower_response_cache::storage::sqlite::rusqlite::{Connection, OpenFlags};
use tower_response_cache::storage::{Record, SqliteStorage, Storage};
use tower_response_cache::{ErrorKind, Timestamp};

use super::{close, directory, files, head, record};

#[tokio::test]
async fn open_creates_directories_and_expands_tilde() {
    let directory = directory();
    SqliteStorage::open(directory.path().join("a/b/cache.sqlite")).await.unwrap();
    assert!(directory.path().join("a/b/cache.sqlite").exists());

    let name = format!("~/.tower-response-cache-test-{}/cache.sqlite", std::process::id());
    let storage = SqliteStorage::open(&name).await.unwrap();
    let made = std::env::home_dir().unwrap().join(&name[2..]);
    assert!(made.exists());
    close(storage, &made).await;
    std::fs::remove_dir_all(made.parent().unwrap()).unwrap();
}

#[tokio::test]
async fn impossible_file_names_are_refused() {
    for name in ["", "nul\0byte", "~somebody/cache.sqlite", "/proc/nowhere/cache.sqlite", "/tmp"] {
        let error = SqliteStorage::open(name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{name:?}: {error}");
    }
}

#[tokio::test]
async fn hostile_names_are_taken_literally() {
    let directory = directory();
    for name in ["a'b\"c", "*?[x]%20#", "файл ;-- ", "file", "mode=ro?x"] {
        let path = directory.path().join(name);
        let storage = SqliteStorage::open(&path).await.unwrap();
        storage.write(head(1), Record::new(name.to_owned(), Timestamp::NEVER)).await.unwrap();
        close(storage, &path).await;
        let storage = SqliteStorage::open(&path).await.unwrap();
        assert_eq!(storage.read(head(1)).await.unwrap().unwrap().payload(), name.as_bytes());
        close(storage, &path).await;
        assert!(path.is_file(), "{name}");
    }
    assert_eq!(files(directory.path()).len(), 5);
}

#[tokio::test]
async fn in_memory_database_is_shared_by_clones_only() {
    for name in [":memory:", "file::memory:", "file:x?mode=memory"] {
        let storage = SqliteStorage::builder(name).read_in_task(true).open().await.unwrap();
        storage.clone().write(head(1), record(10)).await.unwrap();
        assert!(storage.read(head(1)).await.unwrap().is_some());
        assert_eq!(storage.size().await.unwrap(), 1);
        let other = SqliteStorage::open(name).await.unwrap();
        assert_eq!(other.size().await.unwrap(), 0);
    }
}

#[tokio::test]
async fn read_only_open_creates_no_file() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let error = SqliteStorage::open(format!("file:{}?mode=ro&key=secret", path.display())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    assert!(files(directory.path()).is_empty());
}

#[tokio::test]
async fn pragmas_and_flags_reach_sqlite() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let builder = SqliteStorage::builder(&path);
    let storage = builder.pragma("page_size", 8192).pragma("journal_mode", "delete").open().await.unwrap();
    storage.write(head(1), record(10)).await.unwrap();
    assert!(storage.read(head(1)).await.unwrap().is_some());
    drop(storage);
    let connection = Connection::open(&path).unwrap();
    let pragma = |name: &str| {
        connection
            .pragma_query_value(None, name, |row| {
                row.get_ref(0)?
                    .as_str()
                    .map(str::to_owned)
                    .or_else(|_| row.get::<_, i64>(0).map(|n| n.to_string()))
            })
            .unwrap()
    };
    assert_eq!((pragma("page_size"), pragma("journal_mode")), ("8192".to_owned(), "delete".to_owned()));

    let error = SqliteStorage::builder(&path).pragma("no such; pragma", 1).open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let missing = directory.path().join("missing.sqlite");
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let error = SqliteStorage::builder(&missing).open_flags(flags).open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(!missing.exists());
    let error = SqliteStorage::builder(&missing).max_bytes(0).open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    SqliteStorage::builder(&path).busy_timeout(Duration::MAX).readers(usize::MAX).open().await.unwrap();
}

#[tokio::test]
async fn provided_connection_is_used_for_everything() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let ready = Connection::open(&path).unwrap();
    let storage = SqliteStorage::builder("unused").connection(ready).open().await.unwrap();
    storage.write(head(1), record(10)).await.unwrap();
    assert!(storage.read(head(1)).await.unwrap().is_some());
    assert!(!Path::new("unused").exists());
    drop(storage);

    let foreign = Connection::open_in_memory().unwrap();
    foreign.execute_batch("CREATE TABLE t (x)").unwrap();
    let error = SqliteStorage::builder("unused").connection(foreign).open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let busy = Connection::open_in_memory().unwrap();
    busy.execute_batch("BEGIN").unwrap();
    let error = SqliteStorage::builder("unused").connection(busy).open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}
