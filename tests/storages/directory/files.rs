//! Files that are damaged, unfinished or missing.

use std::fs::{self, File};
use std::io::Read;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::Thread;
use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt;
use tower_response_cache::storage::{DirectoryStorage, Key, Record, Retain, Storage};
use tower_response_cache::{ErrorKind, Timestamp};

use super::{chunk, directory, entry, head, keys, record, unfinished};

#[tokio::test]
async fn damaged_file_is_absent_and_replaceable() {
    let directory = directory();
    let storage = DirectoryStorage::open(directory.path()).await.unwrap();
    let path = entry(directory.path(), 1).join("head");
    storage.write(head(1), record(40)).await.unwrap();
    let whole = fs::read(&path).unwrap();
    let flipped = (0..whole.len()).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        bytes
    });
    let cut = (0..whole.len()).map(|len| whole[..len].to_vec());
    let longer = [[&whole[..], b"x"].concat(), vec![0; 100], vec![0xff; 29]];
    for bytes in flipped.chain(cut).chain(longer) {
        fs::write(&path, &bytes).unwrap();
        assert!(storage.read(head(1)).await.unwrap().is_none(), "{bytes:?}");
        assert!(!storage.contains(head(1)).await.unwrap());
        assert_eq!(storage.values().try_collect::<Vec<_>>().await.unwrap().len(), 0);
        // Changing the retention time of a damaged record does not repair it.
        storage.retain(&[head(1)], Retain::AtMost(Timestamp::from_secs(7))).await.unwrap();
        assert!(storage.read(head(1)).await.unwrap().is_none(), "{bytes:?}");
    }
    assert!(!storage.write_if(head(1), Some(record(1).stamp()), record(1)).await.unwrap());
    assert!(storage.write_if(head(1), None, record(3)).await.unwrap());
    assert_eq!(storage.read(head(1)).await.unwrap().unwrap().payload(), record(3).payload());
}

#[tokio::test]
async fn folder_named_as_record_is_absent() {
    let directory = directory();
    let storage = DirectoryStorage::open(directory.path()).await.unwrap();
    fs::create_dir_all(entry(directory.path(), 1).join("head")).unwrap();
    assert!(storage.read(head(1)).await.unwrap().is_none());
    assert!(!storage.contains_all(&[head(1)]).await.unwrap());
    assert_eq!(keys(&storage).await, []);
    assert_eq!(storage.write(head(1), record(1)).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(storage.delete_expired(Timestamp::NEVER).await.unwrap(), 0);
    storage.clear().await.unwrap();
    assert_eq!(unfinished(directory.path()), [""; 0]);
    // A file is in the place of a shard folder.
    fs::write(directory.path().join("05"), "theirs").unwrap();
    assert!(storage.read(head(5)).await.unwrap().is_none());
    assert_eq!(storage.write(head(5), record(1)).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(keys(&storage).await, []);
}

#[tokio::test]
async fn old_unfinished_files_are_removed() {
    let directory = directory();
    let root = directory.path();
    // A bounded storage would also remove these files itself when it counts its usage.
    let storage = DirectoryStorage::builder(root).unbounded(true).open().await.unwrap();
    storage.write(head(1), record(10)).await.unwrap();
    let work = root.join(".work");
    let [young, old, mine] = ["new-young", "new-old", "mine"].map(|name| work.join(name));
    for path in [&young, &old, &mine] {
        fs::write(path, record(10).to_bytes()).unwrap();
    }
    let aside = work.join("gone-1");
    fs::create_dir(&aside).unwrap();
    fs::write(aside.join("head"), record(10).to_bytes()).unwrap();
    for path in [&old, &mine] {
        let hours = SystemTime::now() - Duration::from_secs(2 * 60 * 60);
        File::options().write(true).open(path).unwrap().set_modified(hours).unwrap();
    }
    assert_eq!(keys(&storage).await, [head(1)]);
    drop(storage);
    let storage = DirectoryStorage::open(root).await.unwrap();
    assert!(young.exists() && mine.exists() && !old.exists() && !aside.exists());
    storage.clear().await.unwrap();
    assert!(young.exists(), "a young file was removed, which another process may still be writing");
}

#[tokio::test]
async fn changes_leave_no_unfinished_files() {
    let directory = directory();
    let storage = DirectoryStorage::builder(directory.path()).max_bytes(100_000).open().await.unwrap();
    storage.write(head(1), record(10)).await.unwrap();
    assert!(!storage.write_if(head(1), None, record(20_000)).await.unwrap());
    assert!(storage.write(head(1), record(80_000)).await.is_err());
    storage.delete(head(1)).await.unwrap();
    storage.clear().await.unwrap();
    assert_eq!(unfinished(directory.path()), [""; 0]);
}

#[tokio::test]
async fn retain_changes_the_file_in_place() {
    let directory = directory();
    let storage = DirectoryStorage::open(directory.path()).await.unwrap();
    let written = Record::new(vec![3; 200_000], Timestamp::from_secs(100));
    storage.write(chunk(1, 0), written.clone()).await.unwrap();
    let mut open = File::open(entry(directory.path(), 1).join(name())).unwrap();
    let until = Timestamp::from_secs(200);
    assert_eq!(storage.retain(&[chunk(1, 0)], Retain::AtLeast(until)).await.unwrap(), 1);
    // The open file has changed, so it was not replaced by another one.
    let mut bytes = Vec::new();
    open.read_to_end(&mut bytes).unwrap();
    assert!(bytes == written.with_retain_until(until).to_bytes());
}

/// Returns the file name of the first chunk.
fn name() -> String {
    format!("chunk-{}-00000", "01".repeat(16))
}

#[tokio::test]
async fn removed_directory_is_recreated() {
    let directory = directory();
    let root = directory.path().join("cache");
    // A bounded storage counts its usage in the background, and could create a file while the test removes the folder.
    let storage = DirectoryStorage::builder(&root).unbounded(true).open().await.unwrap();
    for round in 0..3 {
        storage.write(head(1), record(10)).await.unwrap();
        storage.write(chunk(1, 0), record(10)).await.unwrap();
        let removed = [root.clone(), root.join(".work"), root.join("01")];
        fs::remove_dir_all(&removed[round]).unwrap();
        assert_eq!(storage.read(head(1)).await.unwrap().is_some(), round == 1);
        assert_eq!(storage.contains_all(&[chunk(1, 0)]).await.unwrap(), round == 1);
        assert_eq!(
            storage.delete_many(&[head(1), chunk(1, 0)]).await.unwrap(),
            if round == 1 { 2 } else { 0 }
        );
        assert_eq!(storage.retain(&[head(1)], Retain::AtLeast(Timestamp::NEVER)).await.unwrap(), 0);
        assert_eq!(storage.size().await.unwrap(), 0);
        assert!(storage.write_if(head(2), None, record(10)).await.unwrap());
        storage.clear().await.unwrap();
    }
}

#[tokio::test]
async fn contains_all_notices_missing_chunk() {
    let directory = directory();
    let storage = DirectoryStorage::open(directory.path()).await.unwrap();
    let chunks: Vec<Key> = (0..5).map(|part| chunk(1, part)).collect();
    for key in &chunks {
        storage.write(*key, record(100)).await.unwrap();
    }
    assert!(storage.contains_all(&chunks).await.unwrap());
    let path = entry(directory.path(), 1).join(name());
    fs::write(&path, "short").unwrap();
    assert!(!storage.contains_all(&chunks).await.unwrap());
    fs::remove_file(path).unwrap();
    assert!(!storage.contains_all(&chunks).await.unwrap());
    assert!(storage.contains_all(&chunks[1..]).await.unwrap());
}

#[test]
fn storage_needs_no_runtime() {
    let directory = directory();
    let storage = wait(DirectoryStorage::open(directory.path())).unwrap();
    wait(storage.write(head(1), record(10))).unwrap();
    assert_eq!(wait(storage.read(head(1))).unwrap().unwrap().payload(), record(10).payload());
    assert_eq!(wait(storage.size()).unwrap(), 1);
}

/// Polls a future on this thread until it is ready.
fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => return done,
            Poll::Pending => std::thread::park(),
        }
    }
}
