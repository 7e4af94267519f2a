//! The bound, and what goes when it is reached.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use tower_response_cache::storage::{DirectoryStorage, Key, Kind, Record, Storage};
use tower_response_cache::{ErrorKind, Timestamp};

use crate::{chunk, directory, entry, files, head, keys, record, unfinished, until};

/// Makes an entry's files as old as that.
fn age(root: &Path, n: u8, seconds: u64) {
    let time = SystemTime::now() - Duration::from_secs(seconds);
    for file in files(&entry(root, n)).into_keys() {
        File::options().write(true).open(file).unwrap().set_modified(time).unwrap();
    }
}

fn changed(root: &Path, n: u8) -> SystemTime {
    std::fs::metadata(entry(root, n).join("head")).unwrap().modified().unwrap()
}

/// How much the records take, in blocks of 4 KiB.
fn blocks(root: &Path) -> u64 {
    let records = files(root).into_iter().filter(|(path, _)| !path.starts_with(root.join(".work")));
    records.map(|(_, bytes)| (bytes.len() as u64).div_ceil(4096)).sum()
}

#[tokio::test]
async fn the_entry_used_longest_ago_goes_whole() {
    let directory = directory();
    let root = directory.path();
    // Thirty blocks; nine entries of three.
    let storage = DirectoryStorage::builder(root).max_bytes(30 * 4096).open().await.unwrap();
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
    until("room is made", || blocks(root) <= 28).await;
    let kept = keys(&storage).await;
    let whole = |n| kept.iter().filter(|key| key.entry == [n; 16]).count();
    assert_eq!(whole(0), 3, "it was read lately");
    assert_eq!(whole(1), 0, "it was used longest ago");
    assert!((2..9).all(|n| whole(n) == 3 || whole(n) == 0), "{kept:?}");
    assert!((3..9).all(|n| whole(n) == 3), "no more goes than must: {kept:?}");
    assert_eq!((whole(9), whole(10)), (3, 1));
    until("nothing is left of it", || unfinished(root).is_empty() && !entry(root, 1).exists()).await;
}

#[tokio::test]
async fn many_writers_stay_about_within_the_bound() {
    let directory = directory();
    let root = directory.path();
    let most = 100 * 4096;
    let open = || DirectoryStorage::builder(root).max_bytes(most).open();
    let storages = [open().await.unwrap(), open().await.unwrap()];
    for round in 0..4_u8 {
        let writes =
            (0..60_u8).map(|n| storages[usize::from(n % 2)].write(head(round * 60 + n), record(5000)));
        futures_util::future::try_join_all(writes).await.unwrap();
    }
    // Whoever writes next notices what is still too much.
    for storage in &storages {
        storage.write(head(250), record(10)).await.unwrap();
    }
    // Each may have written a sixteenth that the other has not counted.
    until("room is made", || blocks(root) <= 100 + 2 * 100 / 16).await;
    assert!(blocks(root) > 50, "no more goes than must");
}

#[tokio::test]
async fn a_lowered_bound_is_reached_by_writing() {
    let directory = directory();
    let root = directory.path();
    let storage = DirectoryStorage::builder(root).unbounded().open().await.unwrap();
    for n in 0..100 {
        storage.write(head(n), record(20_000)).await.unwrap();
    }
    drop(storage);
    let storage = DirectoryStorage::builder(root).max_bytes(200_000).open().await.unwrap();
    assert_eq!(keys(&storage).await.len(), 100, "who only reads removes nothing");
    storage.write(head(200), record(10)).await.unwrap();
    until("room is made", || blocks(root) <= 200_000 / 4096).await;
    assert!(storage.contains(head(200)).await.unwrap());
}

#[tokio::test]
async fn without_a_bound_nothing_goes_and_no_hit_changes_a_file() {
    let directory = directory();
    let root = directory.path();
    let storage = DirectoryStorage::builder(root).unbounded().open().await.unwrap();
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
async fn uses_are_written_down_on_closing() {
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
    until("the use is written down", || changed(root, 1) > before[0]).await;
    assert_eq!(changed(root, 2), before[1]);
}

#[tokio::test]
async fn groups_are_neither_counted_nor_evicted() {
    let directory = directory();
    let root = directory.path();
    let storage = DirectoryStorage::builder(root).max_bytes(100_000).open().await.unwrap();
    let group = |n| Key { entry: [n; 16], kind: Kind::Group, slot: [0; 16], part: 0 };
    // One alone, and one beside what is evicted.
    for n in [200, 0] {
        storage.write(group(n), record(16)).await.unwrap();
    }
    for n in 0..50 {
        storage.write(head(n), record(5_000)).await.unwrap();
        age(root, n, 1000 - u64::from(n));
    }
    storage.write(head(100), record(10)).await.unwrap();
    until("room is made", || !entry(root, 0).join("head").exists()).await;
    for n in [200, 0] {
        assert!(storage.delete(group(n)).await.unwrap());
    }
}

#[tokio::test]
async fn an_entry_takes_at_most_half_and_what_was_there_stays() {
    let directory = directory();
    let root = directory.path();
    let open = || DirectoryStorage::builder(root).max_bytes(20 * 4096).open();
    let storage = open().await.unwrap();
    storage.write(head(1), record(10)).await.unwrap();
    let longest = storage.max_record_len();
    assert_eq!(longest, 10 * 4096);
    let too_long = storage.write(head(1), record(longest - Record::OVERHEAD + 1)).await.unwrap_err();
    assert_eq!(too_long.kind(), ErrorKind::TooLarge);
    assert_eq!(storage.read(head(1)).await.unwrap().unwrap().payload().len(), 10);
    storage.write(head(1), record(longest - Record::OVERHEAD)).await.unwrap();
    assert_eq!(storage.write(chunk(1, 0), record(1)).await.unwrap_err().kind(), ErrorKind::TooLarge);
    storage.write(head(1), record(10)).await.unwrap();
    for part in 0..9 {
        storage.write(chunk(1, part), record(4000)).await.unwrap();
    }
    assert_eq!(storage.write(chunk(1, 9), record(1)).await.unwrap_err().kind(), ErrorKind::TooLarge);
    // What another process removed makes room, and what it wrote takes it.
    let other = open().await.unwrap();
    assert_eq!(other.delete_many(&[chunk(1, 0), chunk(1, 1)]).await.unwrap(), 2);
    storage.write(chunk(1, 9), record(1)).await.unwrap();
    let other = open().await.unwrap();
    other.write(chunk(1, 10), record(1)).await.unwrap();
    assert_eq!(other.write(chunk(1, 11), record(1)).await.unwrap_err().kind(), ErrorKind::TooLarge);
    storage.write(head(1), Record::new(vec![1; 3000], Timestamp::NEVER)).await.unwrap();
}
