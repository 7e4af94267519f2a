//! One SQLite file, several processes: this test program starts itself again for each of them.

use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use tower_response_cache::Timestamp;
use tower_response_cache::storage::{Key, Kind, Record, SqliteStorage, Storage};

const COUNTER: Key = Key::head([1; 16]);
const PROCESSES: u64 = 8;
const STEPS: u64 = 25;

/// Runs one of the ignored tests below in a process of its own.
fn start(test: &str, path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--quiet"])
        .env("CACHE_PATH", path)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

async fn open() -> SqliteStorage {
    let builder = SqliteStorage::builder(std::env::var_os("CACHE_PATH").unwrap());
    builder.busy_timeout(Duration::from_secs(60)).open().await.unwrap()
}

fn number(record: &Option<Record>) -> u64 {
    record.as_ref().map_or(0, |record| u64::from_be_bytes(record.payload()[..].try_into().unwrap()))
}

#[tokio::test]
#[ignore = "runs as a process of eight_processes_lose_no_write_and_meet_no_lock"]
async fn one_that_counts() {
    let storage = open().await;
    for step in 0..STEPS {
        loop {
            let there = storage.read(COUNTER).await.unwrap();
            let next = Record::new((number(&there) + 1).to_be_bytes().to_vec(), Timestamp::NEVER);
            if storage.write_if(COUNTER, there.map(|there| there.stamp()), next).await.unwrap() {
                break;
            }
        }
        let chunk = COUNTER.sibling(Kind::Chunk, [std::process::id() as u8; 16], step as u32);
        storage.write(chunk, Record::new(vec![1; 20_000], Timestamp::NEVER)).await.unwrap();
    }
}

#[tokio::test]
async fn eight_processes_lose_no_write_and_meet_no_lock() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cache.sqlite");
    let children: Vec<Child> = (0..PROCESSES).map(|_| start("processes::one_that_counts", &path)).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let storage = SqliteStorage::open(&path).await.unwrap();
    assert_eq!(number(&storage.read(COUNTER).await.unwrap()), PROCESSES * STEPS);
}

#[tokio::test]
#[ignore = "runs as the process of a_killed_process_leaves_a_whole_store"]
async fn one_that_is_killed() {
    let storage = open().await;
    for n in 0.. {
        let key = Key::head([(n % 200) as u8; 16]);
        storage.write(key, Record::new(vec![n as u8; 30_000], Timestamp::NEVER)).await.unwrap();
    }
}

#[tokio::test]
async fn a_killed_process_leaves_a_whole_store() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cache.sqlite");
    for _ in 0..5 {
        let mut child = start("processes::one_that_is_killed", &path);
        // In the middle of its work: once the log has grown.
        let log = directory.path().join("cache.sqlite-wal");
        let begun = std::time::Instant::now();
        while std::fs::metadata(&log).map_or(0, |log| log.len()) < 1 << 20 {
            assert!(begun.elapsed() < Duration::from_secs(20) && child.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let storage = SqliteStorage::open(&path).await.unwrap();
        let size = storage.size().await.unwrap();
        assert!(size > 0);
        for n in 0..200 {
            if let Some(record) = storage.read(Key::head([n; 16])).await.unwrap() {
                assert_eq!(record.payload().len(), 30_000);
            }
        }
        drop(storage);
        while log.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
