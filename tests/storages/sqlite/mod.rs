//! Tests the guarantees of `SqliteStorage` beyond the contract.
//!
//! They are about the file and its settings, the bound, and other handles, processes and programs on the same file.

mod bound;
mod closing;
mod damage;
mod disk;
mod files;
mod killed;
mod log;
mod model;
mod opening;
mod processes;
mod read_only;
mod recovery;
mod replaced;
mod sharing;
mod slow_disk;
mod upkeep;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use futures_util::TryStreamExt;
use tower_response_cache::storage::sqlite::rusqlite::Connection;
use tower_response_cache::storage::{Key, SqliteStorage, Storage};

pub(crate) use crate::on_disk::{chunk, directory, head, record, until};

/// Returns every file in a directory, with its bytes.
pub(crate) fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
}

/// Drops a storage and waits until its connections are closed.
///
/// The last connection removes the log, and then closes the file.
pub(crate) async fn close(storage: SqliteStorage, path: &Path) {
    drop(storage);
    let log = PathBuf::from(format!("{}-wal", path.display()));
    until("the log is merged on closing", || !log.exists()).await;
    until("all connections are closed", || open_files(path) == 0).await;
}

/// Returns how many times this process has the file open, or 0 without `/proc`.
pub(crate) fn open_files(path: &Path) -> usize {
    let Ok(files) = std::fs::read_dir("/proc/self/fd") else { return 0 };
    files.flatten().filter(|file| std::fs::read_link(file.path()).is_ok_and(|file| file == path)).count()
}

/// Asserts that SQLite finds no damage in a file.
pub(crate) fn integrity(path: &Path) {
    let connection = Connection::open(path).unwrap();
    let verdict: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
}

pub(crate) async fn keys(storage: &SqliteStorage) -> Vec<Key> {
    storage.keys().try_collect().await.unwrap()
}
