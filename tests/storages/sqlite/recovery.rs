//! Damaged files, files of a newer version, closing, and file permissions.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use tower_response_cache::ErrorKind;
use tower_response_cache::storage::sqlite::Recovery;
use tower_response_cache::storage::sqlite::rusqlite::Connection;
use tower_response_cache::storage::{SqliteStorage, Storage};

use super::{close, directory, head, keys, open_files, record, until};

/// Returns the text of all events of level ERROR, from all threads.
fn errors() -> &'static Mutex<Vec<u8>> {
    static TOLD: OnceLock<Mutex<Vec<u8>>> = OnceLock::new();
    TOLD.get_or_init(|| {
        struct Told;
        impl std::io::Write for Told {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                errors().lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::ERROR)
            .with_ansi(false)
            .with_writer(|| Told);
        tracing::subscriber::set_global_default(subscriber.finish()).unwrap();
        Mutex::default()
    })
}

/// Returns whether an event of level ERROR names this file.
fn is_told(path: &Path) -> bool {
    String::from_utf8_lossy(&errors().lock().unwrap()).contains(&*path.to_string_lossy())
}

async fn filled(path: &Path) {
    let storage = SqliteStorage::open(path).await.unwrap();
    for n in 0..20 {
        storage.write(head(n), record(5000)).await.unwrap();
    }
    close(storage, path).await;
}

fn aside(path: &Path) -> PathBuf {
    format!("{}.damaged", path.display()).into()
}

/// Overwrites every page but the first, and returns the bytes.
fn damage(path: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[4096..].fill(0xAA);
    std::fs::write(path, &bytes).unwrap();
    bytes
}

#[tokio::test]
async fn open_sets_damaged_file_aside() {
    errors();
    let directory = directory();
    let path = directory.path().join("opened.sqlite");
    for _ in 0..2 {
        filled(&path).await;
        let damaged = damage(&path);
        let refused = SqliteStorage::builder(&path).recover(Recovery::Refuse).open().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Corrupt);
        let storage = SqliteStorage::open(&path).await.unwrap();
        assert_eq!(keys(&storage).await, []);
        storage.write(head(1), record(10)).await.unwrap();
        // Only the last damaged file is kept. It replaces the one before.
        assert!(std::fs::read(aside(&path)).unwrap() == damaged);
        assert!(is_told(&aside(&path)));
        close(storage, &path).await;
        assert_eq!(keys(&SqliteStorage::open(&path).await.unwrap()).await, [head(1)]);
        std::fs::remove_file(&path).unwrap();
    }
}

#[tokio::test]
async fn damage_while_open_starts_new_file() {
    errors();
    for (name, read_in_task) in [("threads", false), ("tasks", true)] {
        let directory = directory();
        let path = directory.path().join(format!("{name}.sqlite"));
        filled(&path).await;
        let storage = SqliteStorage::builder(&path).read_in_task(read_in_task).open().await.unwrap();
        let other = SqliteStorage::open(&path).await.unwrap();
        damage(&path);
        let met = async {
            loop {
                let write = storage.write(head(40), record(10)).await;
                let read = storage.read(head(40)).await;
                if write.is_ok() && read.is_ok_and(|read| read.is_some()) {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), met).await.expect("a new file is used");
        assert!(is_told(&aside(&path)) && aside(&path).exists());
        // Another handle of the damaged file changes to the new one too.
        let shared = async {
            while !other.read(head(40)).await.is_ok_and(|read| read.is_some()) {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), shared).await.expect("the other handle too");
        assert_eq!(keys(&storage).await, [head(40)]);
    }
}

#[tokio::test]
async fn refused_damage_remains_an_error() {
    errors();
    let directory = directory();
    let path = directory.path().join("refused.sqlite");
    filled(&path).await;
    let storage = SqliteStorage::builder(&path).recover(Recovery::Refuse).open().await.unwrap();
    damage(&path);
    assert_eq!(storage.write(head(40), record(10)).await.unwrap_err().kind(), ErrorKind::Corrupt);
    until("an event reports the damage", || {
        String::from_utf8_lossy(&errors().lock().unwrap()).contains("remove it, and a new one is made")
    })
    .await;
    assert_eq!(storage.write(head(40), record(10)).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(!aside(&path).exists());
}

#[tokio::test]
async fn newer_layout_is_set_aside_on_request() {
    let directory = directory();
    let path = directory.path().join("newer.sqlite");
    filled(&path).await;
    Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    for refuses in [Recovery::Refuse, Recovery::Damaged] {
        let refused = SqliteStorage::builder(&path).recover(refuses).open().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Config);
    }
    let storage = SqliteStorage::builder(&path).recover(Recovery::DamagedOrNewer).open().await.unwrap();
    storage.write(head(1), record(10)).await.unwrap();
    let version: i32 = Connection::open(aside(&path))
        .unwrap()
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap();
    assert_eq!(version, 99);
}

#[tokio::test]
async fn upgraded_file_is_not_written() {
    let directory = directory();
    let path = directory.path().join("upgraded.sqlite");
    filled(&path).await;
    let storage = SqliteStorage::open(&path).await.unwrap();
    storage.write(head(1), record(10)).await.unwrap();
    let newer = Connection::open(&path).unwrap();
    newer.execute_batch("PRAGMA user_version = 99").unwrap();
    let changes = newer.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0)).unwrap();
    for error in [
        storage.write(head(2), record(10)).await.unwrap_err(),
        storage.write_if(head(2), None, record(10)).await.unwrap_err(),
        storage.delete(head(1)).await.unwrap_err(),
        storage.clear().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::ReadOnly);
        assert!(error.to_string().contains("newer version"), "{error}");
    }
    assert_eq!(newer.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0)).unwrap(), changes);
    assert!(storage.read(head(1)).await.unwrap().is_some());
}

#[tokio::test]
async fn close_leaves_one_complete_file() {
    let directory = directory();
    let path = directory.path().join("closed.sqlite");
    for read_in_task in [false, true] {
        let storage = SqliteStorage::builder(&path).read_in_task(read_in_task).open().await.unwrap();
        let clone = storage.clone();
        for n in 0..50 {
            storage.write(head(n), record(3000)).await.unwrap();
        }
        assert!(storage.read(head(1)).await.unwrap().is_some());
        storage.close().await.unwrap();
        assert_eq!(open_files(&path), 0);
        assert!(!PathBuf::from(format!("{}-wal", path.display())).exists());
        assert!(std::fs::metadata(&path).unwrap().len() > 50 * 3000);
        for error in [
            clone.read(head(1)).await.unwrap_err(),
            clone.write(head(1), record(1)).await.unwrap_err(),
            clone.size().await.unwrap_err(),
            clone.vacuum().await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        }
        clone.close().await.unwrap();
    }
    assert_eq!(keys(&SqliteStorage::open(&path).await.unwrap()).await.len(), 50);
}

#[test]
fn drop_outside_runtime_merges_log() {
    let directory = directory();
    let path = directory.path().join("dropped.sqlite");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let storage = runtime.block_on(async {
        let storage = SqliteStorage::open(&path).await.unwrap();
        for n in 0..50 {
            storage.write(head(n), record(3000)).await.unwrap();
        }
        storage
    });
    drop(storage);
    let log = std::fs::metadata(format!("{}-wal", path.display()));
    assert!(log.map_or(0, |log| log.len()) == 0);
    assert!(std::fs::metadata(&path).unwrap().len() > 50 * 3000);
}

#[cfg(unix)]
#[tokio::test]
async fn new_files_and_folders_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let directory = directory();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let made = directory.path().join("made/below");
    let plain = made.join("plain.sqlite");
    let uri = made.join("by uri.sqlite");
    let name = format!("file:{}?mode=rwc", uri.display()).replace(' ', "%20");
    let names = [plain.clone(), PathBuf::from(name)];
    for (path, name) in [plain, uri].iter().zip(names) {
        let storage = SqliteStorage::open(name).await.unwrap();
        storage.write(head(1), record(10)).await.unwrap();
        for end in ["", "-wal", "-shm"] {
            assert_eq!(mode(format!("{}{end}", path.display()).as_ref()), 0o600, "{end}");
        }
    }
    assert_eq!((mode(&made), mode(made.parent().unwrap())), (0o700, 0o700));
    // The permissions of an existing file are not changed.
    let shared = directory.path().join("shared.sqlite");
    std::fs::write(&shared, "").unwrap();
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o640)).unwrap();
    let storage = SqliteStorage::open(&shared).await.unwrap();
    storage.write(head(1), record(10)).await.unwrap();
    assert_eq!(mode(&shared), 0o640);
    let temporary = format!("tower-response-cache-{}/x.sqlite", std::process::id());
    let storage = SqliteStorage::builder(&temporary).use_temp(true).open().await.unwrap();
    storage.write(head(1), record(10)).await.unwrap();
    let temporary = std::env::temp_dir().join(temporary);
    assert_eq!((mode(&temporary), mode(temporary.parent().unwrap())), (0o600, 0o700));
    storage.close().await.unwrap();
    std::fs::remove_dir_all(temporary.parent().unwrap()).unwrap();
}

#[tokio::test]
async fn create_uri_opens_existing_file() {
    let directory = directory();
    let name = |mode: &str| format!("file:{}/a%20b.sqlite?mode={mode}", directory.path().display());
    for (mode, readers) in [("rwc", 2), ("rwc", 0), ("rw", 2), ("rwc", 2)] {
        let storage =
            SqliteStorage::builder(name(mode)).readers(readers).read_in_task(true).open().await.unwrap();
        storage.write(head(1), record(10)).await.unwrap();
        assert!(storage.read(head(1)).await.unwrap().is_some());
        storage.close().await.unwrap();
    }
    assert!(directory.path().join("a b.sqlite").exists());
}

/// Checks that all handles recover to the same new file.
///
/// Each handle has connections of its own, as separate processes have, and finds the damage itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handles_share_one_recovered_file() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    filled(&path).await;
    let mut handles = Vec::new();
    for _ in 0..6 {
        handles.push(SqliteStorage::builder(&path).readers(1).open().await.unwrap());
    }
    damage(&path);
    let writing = handles.iter().cloned().zip(100..).map(|(storage, number)| {
        tokio::spawn(async move {
            let written = async {
                while storage.write(head(number), record(10_000)).await.is_err() {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(std::time::Duration::from_secs(20), written).await.expect("it is written");
        })
    });
    for writing in writing.collect::<Vec<_>>() {
        writing.await.unwrap();
    }
    // By now all handles use the new file, so each can read what the others write.
    for (storage, number) in handles.iter().zip(100..) {
        storage.write(head(number), record(10)).await.unwrap();
    }
    for storage in &handles {
        for number in 100..106 {
            until_there(storage, number).await;
        }
    }
    for storage in handles {
        storage.close().await.unwrap();
    }
    super::integrity(&path);
}

/// Waits until a handle reads the record with this number.
///
/// A reader checks only from time to time whether its file was replaced.
async fn until_there(storage: &SqliteStorage, number: u8) {
    let read = async {
        while !storage.read(head(number)).await.is_ok_and(|read| read.is_some()) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), read).await.expect("the record is read");
}
