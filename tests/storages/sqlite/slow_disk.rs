//! Where reads run while the disk is fast, and while it is slow.
//!
//! The slow disk is a library that is loaded before libc, into a process of its own. It is compiled by `cc`, and the test is
//! skipped if there is none.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use tower_response_cache::storage::{Key, Record, SqliteStorage, Storage};
use tower_response_cache::{Result, Timestamp};

use super::{directory, record};
use crate::on_disk::command;

/// How long a read may take in the task before it stalls the worker.
const STALL: Duration = Duration::from_millis(1);
/// The number of records. Their pages are several times as many as a connection keeps in memory.
const RECORDS: usize = 4000;
const TASKS: usize = 16;
/// The most connections that read in tasks. Each may stall a worker before the first of them is known to be slow.
const CONNECTIONS: usize = 8;

fn key(number: usize) -> Key {
    let mut entry = [0; 16];
    entry[..8].copy_from_slice(&(number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    Key::head(entry)
}

/// The counts of reads, by where they ran and how long they took.
#[derive(Default, Debug)]
struct Seen {
    reads: AtomicUsize,
    in_task: AtomicUsize,
    /// Reads for which a worker waited, and that took more than a millisecond.
    stalls: AtomicUsize,
    /// Reads that took longer than the disk's latency, wherever they ran.
    slow: AtomicUsize,
}

impl Seen {
    async fn read(&self, storage: &SqliteStorage, key: Key) -> Result<()> {
        let (begun, waits_before) = (Instant::now(), waits());
        let mut read = pin!(storage.read(key));
        // A read in the task is done with the first poll. One on a thread is only begun by it.
        let first = futures_util::poll!(read.as_mut());
        let stalled = first.is_ready() && begun.elapsed() > STALL && waits() != waits_before;
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.in_task.fetch_add(usize::from(first.is_ready()), Ordering::Relaxed);
        self.stalls.fetch_add(usize::from(stalled), Ordering::Relaxed);
        let found = match first {
            std::task::Poll::Ready(found) => found,
            std::task::Poll::Pending => read.await,
        };
        assert!(found?.is_some());
        self.slow.fetch_add(usize::from(begun.elapsed() >= Duration::from_millis(20)), Ordering::Relaxed);
        Ok(())
    }

    /// Reads random records by many tasks at the same time.
    async fn random(storage: &SqliteStorage, reads: usize) -> Counts {
        let seen = Arc::new(Self::default());
        let tasks = (0..TASKS).map(|_| {
            let (storage, seen) = (storage.clone(), Arc::clone(&seen));
            tokio::spawn(async move {
                for _ in 0..reads / TASKS {
                    seen.read(&storage, key(fastrand::usize(..RECORDS))).await.unwrap();
                }
            })
        });
        try_join_all(tasks).await.unwrap();
        let get = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        Counts {
            reads: get(&seen.reads),
            in_task: get(&seen.in_task),
            stalls: get(&seen.stalls),
            slow: get(&seen.slow),
        }
    }
}

/// Returns how often this thread has waited. That the system ran other threads meanwhile is no wait.
fn waits() -> std::ffi::c_long {
    #[cfg(target_os = "linux")]
    {
        use nix::sys::resource::{UsageWho, getrusage};
        getrusage(UsageWho::RUSAGE_THREAD).unwrap().voluntary_context_switches()
    }
    // Elsewhere, each call counts.
    #[cfg(not(target_os = "linux"))]
    {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        CALLS.fetch_add(1, Ordering::Relaxed) as std::ffi::c_long
    }
}

#[derive(Debug)]
struct Counts {
    reads: usize,
    in_task: usize,
    stalls: usize,
    slow: usize,
}

impl Counts {
    /// Asserts that at most one read in a hundred stalled a worker.
    fn stalls_are_rare(&self) {
        assert!(self.stalls <= self.reads / 100 + CONNECTIONS, "{self:?}");
    }

    /// Returns whether nearly all reads ran in the task.
    ///
    /// A disk may be slow at times. Each stall moves a hundred reads to the threads at most.
    fn stay_in_the_task(&self) -> bool {
        let on_threads = self.reads - self.in_task;
        on_threads <= self.reads / 20 + 100 * self.stalls
    }
}

/// Asserts that nearly all reads run in the task, and that stalls are rare meanwhile.
///
/// The threads wait during reads as well, which the counts do not show. So it takes some attempts.
async fn assert_reads_stay_in_the_task(storage: &SqliteStorage) {
    for _ in 0..10 {
        let counts = Seen::random(storage, 20_000).await;
        println!("fast: {counts:?}");
        counts.stalls_are_rare();
        if counts.stay_in_the_task() {
            return;
        }
    }
    panic!("reads run on threads, although the disk is fast");
}

async fn fill(path: &Path) {
    let storage = SqliteStorage::open(path).await.unwrap();
    let writes = (0..RECORDS).map(|number| storage.write(key(number), record(1000)));
    try_join_all(writes).await.unwrap();
    storage.close().await.unwrap();
}

async fn open(path: &Path, read_in_task: Option<bool>) -> SqliteStorage {
    SqliteStorage::builder(path).read_in_task(read_in_task).open().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_stay_in_the_task_while_they_are_fast() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    fill(&path).await;
    assert_reads_stay_in_the_task(&open(&path, None).await).await;
}

#[tokio::test]
async fn settings_force_where_reads_run() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    fill(&path).await;
    let reads_in_task =
        |storage: &SqliteStorage| (0..160).filter(|number| storage.read_now(key(*number)).is_some()).count();
    for (read_in_task, in_task) in [(Some(true), 160), (Some(false), 0)] {
        assert_eq!(reads_in_task(&open(&path, read_in_task).await), in_task);
    }
    let without_readers = SqliteStorage::builder(&path).readers(0).open().await.unwrap();
    assert_eq!(reads_in_task(&without_readers), 0);
}

#[tokio::test]
async fn long_records_are_read_on_threads() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let storage = open(&path, None).await;
    for (number, len, in_task) in [(1, 200 << 10, true), (2, 300 << 10, false)] {
        let written = Record::new(vec![3; len], Timestamp::NEVER);
        storage.write(key(number), written.clone()).await.unwrap();
        // The first read may be taken for a slow one on a busy machine.
        let mut reads = 0;
        while storage.read_now(key(number)).is_some() != in_task {
            assert_eq!(storage.read(key(number)).await.unwrap().unwrap().payload(), written.payload());
            reads += 1;
            assert!(reads < 10_000, "a record of {len} bytes is read at the wrong place");
        }
    }
    let forced = open(&path, Some(true)).await;
    assert_eq!(forced.read_now(key(2)).unwrap().unwrap().unwrap().payload().len(), 300 << 10);
}

/// Sets how many of a thousand pages are slow.
fn make_slow(path: &Path, pages: usize) {
    std::fs::write(format!("{}.slow", path.display()), vec![b'.'; pages]).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs as a process of slow_disk_stalls_one_read_in_a_hundred"]
async fn process_on_a_slow_disk() {
    let path = PathBuf::from(std::env::var_os("CACHE_PATH").unwrap());
    fill(&path).await;

    // The library works: without the budget, most reads of a slow disk stall a worker.
    let forced = open(&path, Some(true)).await;
    make_slow(&path, 1000);
    let counts = Seen::random(&forced, 160).await;
    assert!(counts.stalls > 80, "{counts:?}");

    // Slow from the beginning, and then fast.
    make_slow(&path, 0);
    let storage = open(&path, None).await;
    make_slow(&path, 1000);
    let counts = Seen::random(&storage, 800).await;
    println!("slow: {counts:?}");
    assert!(counts.slow > 400, "{counts:?}");
    counts.stalls_are_rare();
    make_slow(&path, 0);
    Seen::random(&storage, 800).await;
    assert_reads_stay_in_the_task(&storage).await;

    // Slow again, for some of the records.
    for pages in [100, 20, 5] {
        make_slow(&path, pages);
        let counts = Seen::random(&storage, 3200).await;
        println!("{pages} of 1000 pages are slow: {counts:?}");
        // Of a few slow pages, SQLite may have all in its memory.
        assert!(counts.slow > 0 || pages < 100, "{counts:?}");
        counts.stalls_are_rare();
    }
}

#[test]
fn slow_disk_stalls_one_read_in_a_hundred() {
    if !cfg!(all(target_os = "linux", target_env = "gnu")) {
        return println!("skipped: reads can be made slow only where glibc loads a library before itself");
    }
    let directory = directory();
    let library = directory.path().join("slow_disk.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/storages/sqlite/slow_disk.c");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .args([source, "-ldl"])
        .status();
    match compiled {
        Ok(status) => assert!(status.success(), "the library was not compiled"),
        Err(error) => return println!("skipped: a slow disk needs the compiler cc: {error}"),
    }
    // The system may name the directory by a link, but an open file by its real path.
    let path = directory.path().canonicalize().unwrap().join("cache.sqlite");
    let output = command("sqlite::slow_disk::process_on_a_slow_disk", &path)
        .env("LD_PRELOAD", &library)
        .env("SLOW_DATABASE", &path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
