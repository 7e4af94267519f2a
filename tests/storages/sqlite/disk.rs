//! Full disks, and a file that reaches its page limit.

use std::path::Path;
use std::process::Command;

use tower_response_cache::ErrorKind;
use tower_response_cache::storage::{SqliteStorage, Storage};

use super::{close, directory, head, record};
use crate::on_disk::{fill, is_filled};

/// Writes until the storage is full, reads the records, deletes some, and writes again.
async fn fills_and_recovers(storage: &SqliteStorage) {
    let kept = fill(storage).await;
    assert!(kept.len() > 5, "{kept:?}");
    for _ in 0..3 {
        assert!(storage.write(head(250), record(100_000)).await.is_err());
    }
    is_filled(storage, &kept).await;
    assert!(storage.read(head(250)).await.unwrap().is_none());
    for number in &kept[..kept.len() / 2] {
        assert!(storage.delete(head(*number)).await.unwrap());
    }
    for number in 0..3 {
        storage.write(head(200 + number), record(100_000)).await.unwrap();
    }
    storage.clear().await.unwrap();
    assert_eq!(storage.size().await.unwrap(), 0);
}

#[tokio::test]
async fn page_limit_is_reported_as_full() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let storage = SqliteStorage::builder(&path).pragma("max_page_count", 500).open().await.unwrap();
    fills_and_recovers(&storage).await;
    close(storage, &path).await;
}

/// A file system of 6 MiB, unmounted on drop.
///
/// [`mount`](Self::mount) returns `None` if this machine does not permit a test to mount it.
pub(crate) struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    pub(crate) fn mount() -> Option<Self> {
        let folder = directory();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=6m", "none"]).arg(folder.path());
        mount
            .stderr(std::process::Stdio::null())
            .status()
            .is_ok_and(|done| done.success())
            .then_some(Self(folder))
    }

    /// Remounts the file system as `ro` or `rw`, and returns whether that succeeded.
    pub(crate) fn remount(&self, how: &str) -> bool {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,{how}")]).arg(self.path());
        mount.status().is_ok_and(|done| done.success())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn full_disk_recovers_when_space_is_freed() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("this machine mounts no file system for a test");
        return;
    };
    let path = disk.path().join("cache.sqlite");
    let storage = SqliteStorage::open(&path).await.unwrap();
    // Another file takes the remaining space, so that not even the log can grow.
    storage.write(head(0), record(100_000)).await.unwrap();
    let other = disk.path().join("other");
    let mut len = 4096;
    while std::fs::write(&other, vec![1; len]).is_ok() {
        len += 64 * 1024;
    }
    for number in 1..4 {
        let error = storage.write(head(number), record(100_000)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full, "{error:?}");
        assert!(storage.read(head(0)).await.unwrap().is_some());
    }
    std::fs::remove_file(&other).unwrap();
    storage.write(head(9), record(100_000)).await.unwrap();
    // Now the storage itself fills the disk. It must refuse new records and still serve the old ones.
    let error = loop {
        if let Err(error) = storage.write(head(10), record(500_000)).await {
            break error;
        }
        assert!(storage.delete(head(10)).await.unwrap_or(true));
        storage.write(head(fastrand::u8(20..)), record(500_000)).await.unwrap_or_default();
    };
    assert_eq!(error.kind(), ErrorKind::Full, "{error:?}");
    for number in [0, 9] {
        assert!(storage.read(head(number)).await.unwrap().is_some());
    }
}
