//! A file that is damaged or of a newer layout, when it is opened and while it is open.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once};

use futures_util::future::join_all;
use tower_response_cache::ErrorKind;
use tower_response_cache::storage::sqlite::{Recovery, rusqlite::Connection};
use tower_response_cache::storage::{SqliteStorage, Storage};

use crate::{close, directory, files, head, record, until};

/// The events of the whole process: those that matter here are told by threads of the storages.
static EVENTS: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Events;

impl Write for Events {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        EVENTS.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing_subscriber::fmt().with_ansi(false).with_writer(|| Events).init());
}

/// How many events of the level ERROR name this file.
fn told(path: &Path) -> usize {
    let events = String::from_utf8(EVENTS.lock().unwrap().clone()).unwrap();
    let name = path.display().to_string();
    events.lines().filter(|line| line.contains("ERROR") && line.contains(&name)).count()
}

fn aside(path: &Path) -> PathBuf {
    format!("{}.damaged", path.display()).into()
}

async fn filled(path: &Path) {
    let storage = SqliteStorage::open(path).await.unwrap();
    for number in 0..50 {
        storage.write(head(number), record(5000)).await.unwrap();
    }
    close(storage, path).await;
}

/// Every page but the first is garbage, as by a bad disk.
fn damage(path: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[4096..].fill(0xAA);
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
    bytes
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_when_opened() {
    listen();
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    for round in 1..=2 {
        filled(&path).await;
        let damaged = damage(&path);
        let storage = SqliteStorage::open(&path).await.unwrap();
        assert_eq!(storage.size().await.unwrap(), 0);
        storage.write(head(1), record(10)).await.unwrap();
        close(storage, &path).await;
        assert_eq!(std::fs::read(aside(&path)).unwrap(), damaged);
        assert_eq!(files(directory.path()).len(), 2, "the last one is kept");
        assert_eq!(told(&path), round);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_while_open_is_told_and_set_aside() {
    listen();
    for read_in_task in [false, true] {
        let directory = directory();
        let path = directory.path().join("cache.sqlite");
        filled(&path).await;
        let builder = SqliteStorage::builder(&path).read_in_task(read_in_task).readers(4);
        let storage = builder.pragma("cache_size", 10).open().await.unwrap();
        let damaged = damage(&path);
        // All at once: the last to tell of the damage must not have the new file set aside.
        let asked = (0..200).map(|number| {
            let storage = storage.clone();
            tokio::spawn(async move {
                let _ = storage.read(head(number % 50)).await;
            })
        });
        for read in join_all(asked).await {
            read.unwrap();
        }
        until("it is set aside", || aside(&path).exists()).await;
        storage.write(head(1), record(10)).await.unwrap();
        assert_eq!(storage.read(head(1)).await.unwrap().unwrap().payload().len(), 10);
        assert_eq!(storage.size().await.unwrap(), 1);
        assert_eq!(std::fs::read(aside(&path)).unwrap(), damaged);
        assert_eq!(told(&path), 1);
        storage.close().await.unwrap();
        assert_eq!(SqliteStorage::open(&path).await.unwrap().size().await.unwrap(), 1);
    }
}

#[tokio::test]
async fn damage_found_by_a_write_is_set_aside() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    filled(&path).await;
    let storage = SqliteStorage::builder(&path).pragma("cache_size", 10).open().await.unwrap();
    damage(&path);
    let mut written = false;
    for _ in 0..100 {
        written |= storage.write(head(1), record(5000)).await.is_ok();
    }
    assert!(written && aside(&path).exists());
    assert_eq!(storage.size().await.unwrap(), 1);
}

#[tokio::test]
async fn a_refused_damage_stays_an_error_and_is_told() {
    listen();
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    filled(&path).await;
    let builder = || SqliteStorage::builder(&path).recover(Recovery::Refuse).pragma("cache_size", 10);
    let storage = builder().open().await.unwrap();
    let damaged = damage(&path);
    for _ in 0..5 {
        assert_eq!(storage.write(head(1), record(10)).await.unwrap_err().kind(), ErrorKind::Corrupt);
    }
    until("it is told", || told(&path) == 1).await;
    drop(storage);
    assert_eq!(builder().open().await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(std::fs::read(&path).unwrap(), damaged);
    assert!(!aside(&path).exists());
}

#[tokio::test]
async fn a_newer_layout_is_set_aside_only_where_asked() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    filled(&path).await;
    Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 1000").unwrap();
    for recovery in [Recovery::Refuse, Recovery::Damaged] {
        let refused = SqliteStorage::builder(&path).recover(recovery).open().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Config, "{recovery:?}");
    }
    let storage = SqliteStorage::builder(&path).recover(Recovery::DamagedOrNewer).open().await.unwrap();
    assert_eq!(storage.size().await.unwrap(), 0);
    let newer = Connection::open(aside(&path)).unwrap();
    let records: i64 = newer.query_row("SELECT count(*) FROM records", [], |row| row.get(0)).unwrap();
    assert_eq!(records, 50);
}

#[tokio::test]
async fn what_is_not_ours_or_read_only_stays() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let open = |name: PathBuf| SqliteStorage::builder(name).recover(Recovery::DamagedOrNewer).open();
    std::fs::write(&path, "notes, and no database at all. ".repeat(500)).unwrap();
    assert_eq!(open(path.clone()).await.unwrap_err().kind(), ErrorKind::Corrupt);
    std::fs::remove_file(&path).unwrap();
    filled(&path).await;
    damage(&path);
    let uri = format!("file:{}?mode=ro", path.display());
    assert_eq!(open(uri.into()).await.unwrap_err().kind(), ErrorKind::Corrupt);
    let mut permissions = std::fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&path, permissions).unwrap();
    assert_eq!(open(path.clone()).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(path.exists() && !aside(&path).exists());
}

#[tokio::test]
async fn a_file_upgraded_meanwhile_is_read_and_not_written() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let storage = SqliteStorage::open(&path).await.unwrap();
    storage.write(head(1), record(10)).await.unwrap();
    let newer = Connection::open(&path).unwrap();
    newer.execute_batch("PRAGMA user_version = 1000").unwrap();
    assert_eq!(storage.write(head(2), record(10)).await.unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!(storage.delete(head(1)).await.unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!(storage.clear().await.unwrap_err().kind(), ErrorKind::ReadOnly);
    assert!(storage.read(head(1)).await.unwrap().is_some());
    let rows: i64 = newer.query_row("SELECT count(*) FROM records", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 1);
    assert!(!aside(&path).exists());
}
