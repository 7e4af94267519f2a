//! Several processes on one SQLite file.
//!
//! The test program starts itself again for each process.

use std::process::Child;
use std::time::Duration;

use futures_util::future::try_join_all;
use futures_util::{StreamExt, TryStreamExt};
use tower_response_cache::storage::{Key, Kind, Record, Retain, SqliteStorage, Storage};
use tower_response_cache::{Result, Timestamp};

use super::{directory, integrity};
use crate::on_disk::{number, start};

const PROCESSES: u64 = 8;
const TASKS: u64 = 10;
/// The number of steps of each task. A step is about one operation.
const STEPS: u64 = 1000;
const COUNTERS: u64 = 8;

/// Opens the storage of a child process.
///
/// The timeout is long, because other tests may keep the machine busy.
pub(crate) async fn open() -> SqliteStorage {
    let builder = SqliteStorage::builder(std::env::var_os("CACHE_PATH").unwrap());
    builder.busy_timeout(Duration::from_secs(60)).open().await.unwrap()
}

fn counter(n: u64) -> Key {
    Key::head([100 + (n % COUNTERS) as u8; 16])
}

/// Returns a key that only one task of one process uses.
fn own(process: u64, task: u64, n: u64) -> Key {
    let mut slot = [0; 16];
    (slot[0], slot[1]) = (process as u8, task as u8);
    Key::head([process as u8; 16]).sibling(Kind::Chunk, slot, n as u32)
}

fn numbered(number: u64, len: usize, until: Timestamp) -> Record {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(len, 7);
    Record::new(payload, until)
}

async fn count(storage: &SqliteStorage, key: Key) -> Result<()> {
    loop {
        let there = storage.read(key).await?;
        let next = numbered(number(&there) + 1, 8, Timestamp::NEVER);
        if storage.write_if(key, there.map(|there| there.stamp()), next).await? {
            return Ok(());
        }
    }
}

async fn work(storage: &SqliteStorage, process: u64, task: u64) -> Result<()> {
    let late = Timestamp::from_secs(1 << 40);
    for step in 0..STEPS {
        let key = own(process, task, step / 10 % 20);
        match step % 10 {
            0 | 5 => count(storage, counter(step / 5)).await?,
            1 | 6 => storage.write(key, numbered(step, 2000, late)).await?,
            2 => assert_eq!(number(&storage.read(key).await?), step - 1, "another task wrote our key"),
            3 => assert_eq!(storage.retain(&[key], Retain::AtLeast(Timestamp::NEVER)).await?, 1),
            4 => {
                storage
                    .write(own(process, task, 1000 + step), numbered(step, 10, Timestamp::from_millis(step)))
                    .await?
            }
            7 => storage.write(own(process, task, 99), numbered(step, 100, late)).await?,
            8 => assert!(storage.delete(own(process, task, 99)).await?, "a record of this task is lost"),
            _ if step % 100 == 9 => drop(storage.delete_expired(Timestamp::from_millis(step)).await?),
            _ => drop(storage.keys().take(100).try_collect::<Vec<_>>().await?),
        }
    }
    Ok(())
}

#[tokio::test]
#[ignore = "runs as a process of concurrent_processes_lose_no_write"]
async fn working_process() {
    let (storage, process) = (open().await, std::env::var("CACHE_NUMBER").unwrap().parse().unwrap());
    try_join_all((0..TASKS).map(|task| work(&storage, process, task))).await.unwrap();
}

#[tokio::test]
async fn concurrent_processes_lose_no_write() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let children: Vec<Child> =
        (0..PROCESSES).map(|number| start("sqlite::processes::working_process", &path, number)).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    let storage = SqliteStorage::open(&path).await.unwrap();
    let mut counted = 0;
    for n in 0..COUNTERS {
        counted += number(&storage.read(counter(n)).await.unwrap());
    }
    assert_eq!(counted, PROCESSES * TASKS * STEPS / 5);
    for (process, task) in (0..PROCESSES).flat_map(|process| (0..TASKS).map(move |task| (process, task))) {
        for n in 0..20 {
            let there = storage.read(own(process, task, n)).await.unwrap();
            assert_eq!(number(&there), STEPS - 200 + n * 10 + 6, "lost write of {process}/{task}/{n}");
        }
        assert!(!storage.contains(own(process, task, 99)).await.unwrap());
    }
    storage.delete_expired(Timestamp::from_millis(STEPS)).await.unwrap();
    let kept: Vec<Key> = storage.keys().try_collect().await.unwrap();
    assert_eq!(kept.len() as u64, COUNTERS + PROCESSES * TASKS * 20);
    drop(storage);
    integrity(&path);
}
