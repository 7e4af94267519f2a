//! Several storages on one directory, in this process and in others.
//!
//! The test program starts itself again for each process.

use std::process::Child;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use futures_util::future::{join_all, try_join_all};
use tower_response_cache::storage::{DirectoryStorage, Key, Record, Retain, Storage};
use tower_response_cache::{ErrorKind, Result, Timestamp};

use super::{chunk, directory, head, keys, record, unfinished};
use crate::on_disk::{number, start};

const PROCESSES: u64 = 4;
const TASKS: u64 = 4;
const STEPS: u64 = 100;

/// Opens the storage of a child process.
///
/// The timeout is long, because other tests may keep the machine busy.
pub(crate) async fn open() -> DirectoryStorage {
    let builder = DirectoryStorage::builder(std::env::var_os("CACHE_PATH").unwrap());
    builder.lock_timeout(Duration::from_secs(60)).open().await.unwrap()
}

/// Increments a counter with `write_if`, while other tasks change its retention time.
async fn count(storage: &DirectoryStorage, key: Key, step: u64) -> Result<()> {
    loop {
        let there = storage.read(key).await?;
        let until = Timestamp::from_secs(1000 + step);
        let next = Record::new((number(&there) + 1).to_be_bytes().to_vec(), until);
        if storage.write_if(key, there.map(|there| there.stamp()), next).await? {
            storage.retain(&[key], Retain::AtLeast(Timestamp::from_secs(5000 + step))).await?;
            return Ok(());
        }
    }
}

async fn count_all(storage: &DirectoryStorage) {
    let tasks = (0..TASKS).map(|_| async {
        for step in 0..STEPS {
            count(storage, head((step % 2) as u8), step).await?;
            // Meanwhile, other files in the counter's folder are created and deleted.
            let own = Key::head([(step % 2) as u8; 16]).sibling(head(0).kind, [9; 16], step as u32 % 3);
            storage.write(own, record(10)).await?;
            storage.delete(own).await?;
        }
        Ok::<_, tower_response_cache::Error>(())
    });
    try_join_all(tasks).await.unwrap();
}

#[tokio::test]
#[ignore = "runs as a process of concurrent_processes_lose_no_write_if"]
async fn counting_process() {
    count_all(&open().await).await;
}

#[tokio::test]
async fn concurrent_processes_lose_no_write_if() {
    let directory = directory();
    let children: Vec<Child> =
        (0..PROCESSES).map(|_| start("directory::sharing::counting_process", directory.path(), 0)).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    let storage = DirectoryStorage::open(directory.path()).await.unwrap();
    let mut counted = 0;
    for n in 0..2 {
        counted += number(&storage.read(head(n)).await.unwrap());
    }
    assert_eq!(counted, PROCESSES * TASKS * STEPS);
    assert_eq!(unfinished(directory.path()), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn write_if_has_one_winner_across_handles() {
    let directory = directory();
    let storages = [0, 1].map(|_| DirectoryStorage::builder(directory.path()).threads(4).open());
    let storages = try_join_all(storages).await.unwrap();
    let mut seen = None;
    for round in 0..50_u8 {
        let writes = (0..8).map(|task| {
            let (storage, record) = (storages[task % 2].clone(), record(1000 + task));
            tokio::spawn(async move {
                storage.write_if(head(1), seen, record.clone()).await.unwrap().then_some(record)
            })
        });
        let won: Vec<Record> = join_all(writes).await.into_iter().filter_map(|won| won.unwrap()).collect();
        assert_eq!(won.len(), 1, "round {round}");
        for storage in &storages {
            assert_eq!(storage.read(head(1)).await.unwrap().unwrap().stamp(), won[0].stamp());
        }
        seen = Some(won[0].stamp());
    }
}

/// Checks that a reader finds a record while its retention time changes in place.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn retain_never_hides_a_record() {
    let directory = directory();
    let [reader, mover] = [0, 1].map(|_| DirectoryStorage::open(directory.path()));
    let (reader, mover) = (reader.await.unwrap(), mover.await.unwrap());
    mover.write(head(1), record(100)).await.unwrap();
    mover.retain(&[head(1)], Retain::AtMost(Timestamp::from_secs(1))).await.unwrap();
    let moving = tokio::spawn(async move {
        for millis in 1001..3001 {
            let moved = mover.retain(&[head(1)], Retain::AtLeast(Timestamp::from_millis(millis))).await;
            assert_eq!(moved.unwrap(), 1);
        }
    });
    let mut last = Timestamp::EPOCH;
    while !moving.is_finished() {
        let there = reader.read(head(1)).await.unwrap().expect("the record is not hidden");
        assert!(there.retain_until() >= last);
        last = there.retain_until();
    }
    moving.await.unwrap();
}

#[tokio::test]
async fn held_lock_times_out_writers_only() {
    let directory = directory();
    let builder = DirectoryStorage::builder(directory.path()).lock_timeout(Duration::from_millis(100));
    let storage = builder.open().await.unwrap();
    storage.write(head(1), record(10)).await.unwrap();
    storage.write(head(2), record(10)).await.unwrap();
    let lock = std::fs::File::open(directory.path().join(".work/lock-01")).unwrap();
    fs4::FileExt::lock(&lock).unwrap();
    let begun = Instant::now();
    let error = storage.write(head(1), record(20)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert!(begun.elapsed() >= Duration::from_millis(100));
    assert_eq!(storage.read(head(1)).await.unwrap().unwrap().payload().len(), 10);
    assert_eq!(keys(&storage).await, [head(1), head(2)]);
    storage.write(head(2), record(20)).await.unwrap();
    drop(lock);
    storage.write(head(1), record(20)).await.unwrap();
    assert_eq!(unfinished(directory.path()), [""; 0]);
}

#[tokio::test]
async fn handles_see_each_others_deletions() {
    let directory = directory();
    let one = DirectoryStorage::open(directory.path()).await.unwrap();
    let other = DirectoryStorage::open(directory.path()).await.unwrap();
    for n in 0..20 {
        one.write(head(n), record(10)).await.unwrap();
        one.write(chunk(n, 0), record(10)).await.unwrap();
    }
    assert_eq!(other.size().await.unwrap(), 20);
    assert_eq!(other.delete_many(&[head(0), chunk(0, 0), head(99)]).await.unwrap(), 2);
    assert!(one.read(head(0)).await.unwrap().is_none());
    other.clear().await.unwrap();
    assert_eq!(one.keys().try_collect::<Vec<_>>().await.unwrap(), []);
    assert!(!one.contains_all(&[chunk(1, 0)]).await.unwrap());
}
