//! Directories that cannot be written, and full disks.

use std::path::Path;
use std::process::{Command, Stdio};

use tower_response_cache::storage::{DirectoryStorage, Record, Retain, Storage};
use tower_response_cache::{ErrorKind, Timestamp};

use crate::on_disk;

use super::{chunk, directory, files, head, keys, record, unfinished};

/// A file system of 6 MiB, unmounted on drop.
///
/// [`mount`](Self::mount) returns `None` if this machine does not permit a test to mount it.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = directory();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=6m", "none"]).arg(folder.path()).stderr(Stdio::null());
        mount.status().is_ok_and(|done| done.success()).then(|| Self(folder))
    }

    /// Remounts the file system as `ro` or `rw`, and returns whether that succeeded.
    fn remount(&self, how: &str) -> bool {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,{how}")]).arg(self.path());
        mount.status().is_ok_and(|done| done.success())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

async fn assert_serves_hits_only(storage: &DirectoryStorage) {
    assert_eq!(storage.read(head(1)).await.unwrap().unwrap().payload(), record(100).payload());
    assert!(storage.contains_all(&[chunk(1, 0)]).await.unwrap());
    assert_eq!(keys(storage).await, [head(1), chunk(1, 0), head(3)]);
    assert_eq!(storage.size().await.unwrap(), 2);
    let refused = [
        storage.write(head(1), record(1)).await.err(),
        storage.write(head(2), record(1)).await.err(),
        storage.write_if(head(2), None, record(1)).await.err(),
        storage.delete(head(1)).await.err(),
        storage.delete_many(&[head(1), chunk(1, 0)]).await.err(),
        storage.retain(&[head(1)], Retain::AtMost(Timestamp::from_secs(1))).await.err(),
        storage.delete_expired(Timestamp::from_secs(10)).await.err(),
        storage.clear().await.err(),
    ];
    for (number, error) in refused.into_iter().enumerate() {
        let error = error.unwrap_or_else(|| panic!("change {number} is not refused"));
        assert_eq!(error.kind(), ErrorKind::ReadOnly, "change {number}: {error:?}");
    }
    assert_eq!(storage.read(head(1)).await.unwrap().unwrap().payload(), record(100).payload());
}

async fn fill(storage: &DirectoryStorage) {
    storage.write(head(1), record(100)).await.unwrap();
    storage.write(chunk(1, 0), record(100)).await.unwrap();
    storage.write(head(3), Record::new("x", Timestamp::from_secs(1))).await.unwrap();
}

#[tokio::test]
async fn read_only_file_system_serves_hits() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("this machine mounts no file system for a test");
        return;
    };
    let root = disk.path().join("cache");
    // A bounded storage counts its usage in the background, and an open file could prevent the remount.
    let writer = DirectoryStorage::builder(&root).unbounded(true).open().await.unwrap();
    fill(&writer).await;
    let records = || files(&root).into_iter().filter(|(path, _)| !path.starts_with(root.join(".work")));
    let before: Vec<_> = records().collect();
    assert!(disk.remount("ro"));
    let reader = DirectoryStorage::open(&root).await.unwrap();
    for storage in [&writer, &reader] {
        assert_serves_hits_only(storage).await;
    }
    assert_eq!(records().collect::<Vec<_>>(), before);
    let error = DirectoryStorage::open(disk.path().join("other")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(disk.remount("rw"));
    reader.write(head(2), record(10)).await.unwrap();
    assert!(writer.contains(head(2)).await.unwrap());
}

/// Checks a directory as version control or an archive leaves it.
///
/// It has no work folder, and the storage may not create one.
#[cfg(unix)]
#[tokio::test]
async fn unwritable_directory_serves_hits() {
    use std::os::unix::fs::PermissionsExt;
    let directory = directory();
    let root = directory.path();
    fill(&DirectoryStorage::open(root).await.unwrap()).await;
    std::fs::remove_dir_all(root.join(".work")).unwrap();
    let set = |mode| std::fs::set_permissions(root, std::fs::Permissions::from_mode(mode)).unwrap();
    set(0o500);
    let ignores_permissions = std::fs::write(root.join("probe"), "").is_ok();
    let storage = DirectoryStorage::open(root).await.unwrap();
    if !ignores_permissions {
        assert_serves_hits_only(&storage).await;
    }
    set(0o700);
}

#[tokio::test]
async fn full_disk_recovers_when_space_is_freed() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("this machine mounts no file system for a test");
        return;
    };
    let storage = DirectoryStorage::open(disk.path()).await.unwrap();
    let kept = on_disk::fill(&storage).await;
    assert!(kept.len() > 40, "{kept:?}");
    // Replacing a record fails too, and the old record stays.
    assert_eq!(storage.write(head(1), record(200_000)).await.unwrap_err().kind(), ErrorKind::Full);
    assert_eq!(unfinished(disk.path()), [""; 0], "an unfinished file was not removed");
    on_disk::is_filled(&storage, &kept).await;
    assert_eq!(storage.retain(&[head(1)], Retain::AtMost(Timestamp::from_secs(9))).await.unwrap(), 1);
    assert!(storage.delete(head(0)).await.unwrap());
    assert_eq!(storage.delete_expired(Timestamp::from_secs(9)).await.unwrap(), 1);
    storage.write(head(200), record(100_000)).await.unwrap();
    storage.clear().await.unwrap();
    assert_eq!(storage.size().await.unwrap(), 0);
}
