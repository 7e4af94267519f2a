//! Which damaged files are set aside, and which are kept in place.

use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use tower_response_cache::ErrorKind;
use tower_response_cache::storage::sqlite::Recovery;
use tower_response_cache::storage::{SqliteStorage, Storage};

use super::{close, directory, head, record, until};

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

/// Overwrites every page but the first, as a bad disk could, and returns the bytes.
fn damage(path: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[4096..].fill(0xAA);
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_damage_reports_spare_new_file() {
    for read_in_task in [false, true] {
        let directory = directory();
        let path = directory.path().join("cache.sqlite");
        filled(&path).await;
        let builder = SqliteStorage::builder(&path).read_in_task(read_in_task).readers(4);
        let storage = builder.pragma("cache_size", 10).open().await.unwrap();
        let damaged = damage(&path);
        // All reads run at once. One that reports the damage late must not cause the new file to be set aside.
        let asked = (0..200).map(|number| {
            let storage = storage.clone();
            tokio::spawn(async move {
                let _ = storage.read(head(number % 50)).await;
            })
        });
        for read in join_all(asked).await {
            read.unwrap();
        }
        until("the damaged file is set aside", || aside(&path).exists()).await;
        storage.write(head(1), record(10)).await.unwrap();
        assert_eq!(storage.read(head(1)).await.unwrap().unwrap().payload().len(), 10);
        assert_eq!(storage.size().await.unwrap(), 1);
        assert!(std::fs::read(aside(&path)).unwrap() == damaged, "another file was set aside");
        storage.close().await.unwrap();
        assert_eq!(SqliteStorage::open(&path).await.unwrap().size().await.unwrap(), 1);
    }
}

#[tokio::test]
async fn foreign_or_read_only_file_is_kept() {
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
