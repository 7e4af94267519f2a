//! The bound, and which entries are evicted when it is reached.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use tower_response_cache::storage::{DirectoryStorage, Key, Kind, Record, Storage};
use tower_response_cache::{ErrorKind, Timestamp};

use super::{chunk, directory, entry, files, head, keys, record, unfinished, until};

/// Sets the modification time of each of an entry's files to `seconds` ago.
fn age(root: &Path, n: u8, seconds: u64) {
    let time = SystemTime::now() - Duration::from_secs(seconds);
    for file in files(&entry(root, n)).into_keys() {
        File::options().write(true).open(file).unwrap().set_modified(time).unwrap();
    }
}

fn changed(root: &Path, n: u8) -> SystemTime {
    std::fs::metadata(entry(root, n).join("head")).unwrap().modified().unwrap()
}

/// Returns how many bytes a file or folder takes by itself.
fn taken(path: &Path) -> u64 {
    let Ok(found) = std::fs::metadata(path) else { return 0 };
    #[cfg(unix)]
    return std::os::unix::fs::MetadataExt::blocks(&found) * 512;
    #[cfg(not(unix))]
    return found.len().max(1).div_ceil(4096) * 4096;
}

/// Returns how many bytes the entries take, including their folders and the folders above them.
fn usage(root: &Path) -> u64 {
    let (mut sum, mut left) = (0, vec![root.to_owned()]);
    while let Some(path) = left.pop() {
        for below in std::fs::read_dir(path).into_iter().flatten().flatten().map(|file| file.path()) {
            if !below.ends_with(".work") && !below.ends_with(".gitattributes") {
                sum += taken(&below);
                left.push(below);
            }
        }
    }
    sum
}

/// Returns how many bytes an entry of one record of this length takes.
///
/// The folders above it are included.
async fn usage_of_one(len: usize) -> u64 {
    let directory = directory();
    DirectoryStorage::open(directory.path()).await.unwrap().write(head(1), record(len)).await.unwrap();
    usage(directory.path())
}

#[tokio::test]
async fn least_recently_used_entry_is_evicted_whole() {
    let directory = directory();
    let root = directory.path();
    // Nine entries of three records fit. For a tenth, 4 KiB are missing.
    let one = usage_of_one(3200).await + 2 * 4096;
    let most = one * 10 - 4096;
    let storage = DirectoryStorage::builder(root).max_bytes(most).open().await.unwrap();
    for n in 0..9 {
        for key in [chunk(n, 0), chunk(n, 1), head(n)] {
            storage.write(key, record(3200)).await.unwrap();
        }
        age(root, n, 1000 - u64::from(n));
    }
    let before = changed(root, 0);
    assert!(storage.read(head(0)).await.unwrap().is_some());
    assert_eq!(changed(root, 0), before, "a hit writes nothing");
    for key in [chunk(9, 0), chunk(9, 1), head(9), chunk(10, 0)] {
        storage.write(key, record(3200)).await.unwrap();
    }
    // The storage evicts entries during these writes or after them, and later writes may use the freed space.
    until("room is made", || usage(root) <= most && !entry(root, 1).exists()).await;
    let kept = keys(&storage).await;
    let whole = |n| kept.iter().filter(|key| key.entry == [n; 16]).count();
    assert_eq!(whole(0), 3, "entry 0 was read recently");
    assert_eq!(whole(1), 0, "entry 1 is the least recently used");
    assert!((2..9).all(|n| whole(n) == 3 || whole(n) == 0), "{kept:?}");
    assert!((3..9).all(|n| whole(n) == 3), "too much was evicted: {kept:?}");
    assert_eq!((whole(9), whole(10)), (3, 1));
    until("the evicted entry is removed completely", || {
        unfinished(root).is_empty() && !entry(root, 1).exists()
    })
    .await;
}

#[tokio::test]
async fn concurrent_writers_stay_near_the_bound() {
    let directory = directory();
    let root = directory.path();
    let most = 50 * usage_of_one(5000).await;
    let open = || DirectoryStorage::builder(root).max_bytes(most).open();
    let storages = [open().await.unwrap(), open().await.unwrap()];
    for round in 0..4_u8 {
        let writes =
            (0..60_u8).map(|n| storages[usize::from(n % 2)].write(head(round * 60 + n), record(5000)));
        futures_util::future::try_join_all(writes).await.unwrap();
    }
    // The next write of each storage notices that the bound is still exceeded.
    for storage in &storages {
        storage.write(head(250), record(10)).await.unwrap();
    }
    // Each storage may have written up to a sixteenth of the bound that the other has not counted yet.
    until("room is made", || usage(root) <= most + 2 * most / 16).await;
    assert!(usage(root) > most / 2, "too much was evicted");
}

#[tokio::test]
async fn lowered_bound_is_enforced_on_write() {
    let directory = directory();
    let root = directory.path();
    let storage = DirectoryStorage::builder(root).unbounded(true).open().await.unwrap();
    for n in 0..100 {
        storage.write(head(n), record(20_000)).await.unwrap();
    }
    drop(storage);
    let storage = DirectoryStorage::builder(root).max_bytes(200_000).open().await.unwrap();
    assert_eq!(keys(&storage).await.len(), 100, "opening or reading removed entries");
    storage.write(head(200), record(10)).await.unwrap();
    until("room is made", || usage(root) <= 200_000).await;
    assert!(storage.contains(head(200)).await.unwrap());
}

#[tokio::test]
async fn unbounded_storage_evicts_and_touches_nothing() {
    let directory = directory();
    let root = directory.path();
    let storage = DirectoryStorage::builder(root).unbounded(true).open().await.unwrap();
    for n in 0..50 {
        storage.write(head(n), record(5000)).await.unwrap();
    }
    age(root, 1, 100);
    let before = changed(root, 1);
    assert!(storage.read(head(1)).await.unwrap().is_some());
    drop(storage);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(changed(root, 1), before);
    assert_eq!(files(root).keys().filter(|path| path.ends_with("head")).count(), 50);
}

#[tokio::test]
async fn uses_are_recorded_on_close() {
    let directory = directory();
    let root = directory.path();
    let storage = DirectoryStorage::open(root).await.unwrap();
    for n in [1, 2] {
        storage.write(head(n), record(10)).await.unwrap();
        age(root, n, 100);
    }
    let before = [changed(root, 1), changed(root, 2)];
    storage.read(head(1)).await.unwrap();
    storage.contains(head(2)).await.unwrap();
    assert_eq!([changed(root, 1), changed(root, 2)], before);
    let clone = storage.clone();
    drop(storage);
    assert!(clone.contains(head(1)).await.unwrap());
    drop(clone);
    until("the use is recorded", || changed(root, 1) > before[0]).await;
    assert_eq!(changed(root, 2), before[1]);
}

/// Checks that a group's value is evicted when it is the least recently used entry.
#[tokio::test]
async fn least_recently_used_group_is_evicted() {
    let directory = directory();
    let root = directory.path();
    let storage = DirectoryStorage::builder(root).max_bytes(200_000).open().await.unwrap();
    let group = |n| Key { entry: [n; 16], kind: Kind::Group, slot: [0; 16], part: 0 };
    for n in [200, 201] {
        storage.write(group(n), record(16)).await.unwrap();
        age(root, n, 2000);
    }
    for n in 0..50 {
        assert!(storage.read(group(201)).await.unwrap().is_some(), "a group in use was evicted");
        storage.write(head(n), record(5_000)).await.unwrap();
    }
    until("room is made", || usage(root) <= 200_000).await;
    assert!(!entry(root, 200).exists());
    assert!(storage.delete(group(201)).await.unwrap());
}

/// Checks that the bound counts whole blocks.
///
/// A short response takes a block, and its folder another.
#[tokio::test]
async fn allocated_blocks_stay_within_bound() {
    let directory = directory();
    let root = directory.path();
    let most = 2 << 20;
    let storage = DirectoryStorage::builder(root).max_bytes(most).open().await.unwrap();
    for round in 0..20_u32 {
        let key = |n: u32| {
            let mut entry = [0; 16];
            entry[..4].copy_from_slice(&(round * 100 + n).wrapping_mul(0x9e37_79b9).to_be_bytes());
            Key::head(entry)
        };
        futures_util::future::try_join_all((0..100).map(|n| storage.write(key(n), record(300))))
            .await
            .unwrap();
    }
    // This holds without waiting, because a write that finds the bound far exceeded evicts entries itself.
    assert!(usage(root) <= most + most / 8, "{}", usage(root));
    storage.write(head(1), record(300)).await.unwrap();
    until("room is made", || usage(root) <= most + most / 16 && unfinished(root).is_empty()).await;
    assert!(usage(root) > most * 8 / 10, "too much was evicted: {}", usage(root));
}

#[tokio::test]
async fn entry_is_limited_to_half_the_bound() {
    let directory = directory();
    let root = directory.path();
    let open = || DirectoryStorage::builder(root).max_bytes(20 * 4096).open();
    let storage = open().await.unwrap();
    storage.write(head(1), record(10)).await.unwrap();
    let longest = storage.max_record_len();
    assert_eq!(longest, 9 * 4096, "half of the bound, less the block of the folder");
    let too_long = storage.write(head(1), record(longest - Record::OVERHEAD + 1)).await.unwrap_err();
    assert_eq!(too_long.kind(), ErrorKind::TooLarge);
    assert_eq!(storage.read(head(1)).await.unwrap().unwrap().payload().len(), 10);
    storage.write(head(1), record(longest - Record::OVERHEAD)).await.unwrap();
    assert_eq!(storage.write(chunk(1, 0), record(1)).await.unwrap_err().kind(), ErrorKind::TooLarge);
    storage.write(head(1), record(10)).await.unwrap();
    for part in 0..8 {
        storage.write(chunk(1, part), record(4000)).await.unwrap();
    }
    assert_eq!(storage.write(chunk(1, 9), record(1)).await.unwrap_err().kind(), ErrorKind::TooLarge);
    // The size of the entry takes deletions and writes by other storages on the directory into account.
    let other = open().await.unwrap();
    assert_eq!(other.delete_many(&[chunk(1, 0), chunk(1, 1)]).await.unwrap(), 2);
    storage.write(chunk(1, 9), record(1)).await.unwrap();
    let other = open().await.unwrap();
    other.write(chunk(1, 10), record(1)).await.unwrap();
    assert_eq!(other.write(chunk(1, 11), record(1)).await.unwrap_err().kind(), ErrorKind::TooLarge);
    storage.write(head(1), Record::new(vec![1; 3000], Timestamp::NEVER)).await.unwrap();
}
