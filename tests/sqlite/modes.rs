//! Other users of the machine cannot read what is stored.
#![cfg(unix)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tower_response_cache::storage::{SqliteStorage, Storage};

use crate::{directory, head, record};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn modes(path: &Path) -> [u32; 3] {
    ["", "-wal", "-shm"].map(|end| mode(format!("{}{end}", path.display()).as_ref()))
}

#[tokio::test]
async fn files_and_folders_are_their_users_alone() {
    let directory = directory();
    let folder = directory.path().display();
    let at = |name: &str| directory.path().join(name);
    let names = [
        (format!("{folder}/made/below/a.sqlite"), at("made/below/a.sqlite")),
        (format!("file:{folder}/b.sqlite"), at("b.sqlite")),
        (format!("file://{folder}/c%20c.sqlite?mode=rwc"), at("c c.sqlite")),
        (format!("file://localhost{folder}/d.sqlite?cache=private"), at("d.sqlite")),
    ];
    for (name, path) in names {
        let storage = SqliteStorage::open(&name).await.unwrap();
        storage.write(head(1), record(10)).await.unwrap();
        assert_eq!(modes(&path), [0o600; 3], "{name}");
    }
    assert_eq!((mode(&at("made")), mode(&at("made/below"))), (0o700, 0o700));
}

#[tokio::test]
async fn a_temporary_file_is_its_users_alone() {
    let name = format!("http-cache-test-{:x}/cache.sqlite", fastrand::u64(..));
    let path = std::env::temp_dir().join(&name);
    let storage = SqliteStorage::builder(&name).use_temp(true).open().await.unwrap();
    storage.write(head(1), record(10)).await.unwrap();
    assert_eq!((modes(&path), mode(path.parent().unwrap())), ([0o600; 3], 0o700));
    storage.close().await.unwrap();
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

#[tokio::test]
async fn a_file_that_is_there_keeps_its_mode() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let storage = SqliteStorage::open(&path).await.unwrap();
    storage.write(head(1), record(10)).await.unwrap();
    assert_eq!(modes(&path), [0o640; 3]);
}
