//! Files and folders that are read-only from the beginning, or become so while open.

use std::path::Path;
use std::process::{Command, Stdio};

use tower_response_cache::ErrorKind;
use tower_response_cache::storage::{SqliteStorage, Storage};

use super::disk::SmallDisk;
use super::{close, directory, files, head, record};

/// Files that are immutable until this is dropped.
///
/// Not even the super-user can write to them, nor a process that has them open.
struct Immutable<'a>(Vec<&'a Path>);

impl<'a> Immutable<'a> {
    /// Makes the files immutable, or returns `None` if this machine cannot.
    fn make(paths: Vec<&'a Path>) -> Option<Self> {
        let made = Self(paths);
        made.set("+i").then_some(made)
    }

    fn set(&self, flag: &str) -> bool {
        let mut command = Command::new("chattr");
        command.arg(flag).args(&self.0).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|done| done.success())
    }
}

impl Drop for Immutable<'_> {
    fn drop(&mut self) {
        self.set("-i");
    }
}

#[tokio::test]
async fn file_made_read_only_serves_hits() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let storage = SqliteStorage::open(&path).await.unwrap();
    storage.write(head(1), record(1000)).await.unwrap();
    let log = directory.path().join("cache.sqlite-wal");
    let Some(immutable) = Immutable::make(vec![&path, &log]) else {
        eprintln!("this machine forbids writing to no file");
        return;
    };
    for number in 10..15 {
        let error = storage.write(head(number), record(1000)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error:?}");
        assert!(storage.contains(head(1)).await.unwrap());
        assert!(!storage.contains(head(number)).await.unwrap());
    }
    drop(immutable);
    storage.write(head(2), record(1000)).await.unwrap();
    assert!(storage.contains(head(2)).await.unwrap());
}

#[tokio::test]
async fn read_only_folder_serves_hits_unchanged() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("this machine mounts no file system for a test");
        return;
    };
    let path = disk.path().join("cache.sqlite");
    let storage = SqliteStorage::open(&path).await.unwrap();
    storage.write(head(1), record(1000)).await.unwrap();
    close(storage, &path).await;
    let before = files(disk.path());
    assert!(disk.remount("ro"));
    for name in [path.display().to_string(), format!("file:{}?immutable=1", path.display())] {
        let storage = SqliteStorage::open(&name).await.unwrap();
        assert!(storage.is_read_only() && storage.contains(head(1)).await.unwrap());
        assert_eq!(storage.write(head(2), record(10)).await.unwrap_err().kind(), ErrorKind::ReadOnly);
        assert_eq!(storage.vacuum().await.unwrap_err().kind(), ErrorKind::ReadOnly);
    }
    assert_eq!(files(disk.path()), before);
    assert!(disk.remount("rw"));
    let storage = SqliteStorage::open(&path).await.unwrap();
    storage.write(head(2), record(10)).await.unwrap();
    close(storage, &path).await;
}
