//! Helpers for the tests of the storages on disk.
//!
//! They create records, start other processes, and check the entries that killed processes leave.

use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tower_response_cache::Timestamp;
use tower_response_cache::storage::{Key, Kind, Record, Storage};

pub fn head(n: u8) -> Key {
    Key::head([n; 16])
}

pub fn chunk(n: u8, part: u32) -> Key {
    head(n).sibling(Kind::Chunk, [1; 16], part)
}

pub fn record(len: usize) -> Record {
    Record::new(vec![7; len], Timestamp::NEVER)
}

/// Returns the number that a record begins with, or 0 if there is no record.
pub fn number(record: &Option<Record>) -> u64 {
    record.as_ref().map_or(0, |record| u64::from_be_bytes(record.payload()[..8].try_into().unwrap()))
}

pub fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Waits until a condition that other threads fulfil is true.
///
/// Panics with the name of the condition after 20 seconds.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Returns the command that runs one of the ignored tests in a process of its own.
pub fn command(test: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).env("CACHE_PATH", path);
    command
}

/// Starts one of the ignored tests in a process whose standard output can be read.
pub fn start(test: &str, path: &Path, number: u64) -> Child {
    command(test, path).env("CACHE_NUMBER", number.to_string()).stdout(Stdio::piped()).spawn().unwrap()
}

const ENTRIES: u8 = 8;

/// The body of an entry, as its head describes it.
///
/// These are the id of the chunks, their number and the length of each.
struct Body {
    id: [u8; 16],
    parts: u32,
    len: usize,
}

impl Body {
    fn random() -> Self {
        Self {
            id: fastrand::u128(..).to_be_bytes(),
            parts: fastrand::u32(1..6),
            len: fastrand::usize(1..20_000),
        }
    }

    fn head(&self) -> Record {
        let mut payload = self.id.to_vec();
        payload.extend(self.parts.to_be_bytes());
        payload.extend((self.len as u64).to_be_bytes());
        Record::new(payload, Timestamp::NEVER)
    }

    fn read(head: &Record) -> Self {
        let payload = head.payload();
        let (id, rest) = payload.split_at(16);
        let (parts, len) = rest.split_at(4);
        Self {
            id: id.try_into().unwrap(),
            parts: u32::from_be_bytes(parts.try_into().unwrap()),
            len: u64::from_be_bytes(len.try_into().unwrap()) as usize,
        }
    }

    fn chunks(&self, head: Key) -> Vec<Key> {
        (0..self.parts).map(|part| head.sibling(Kind::Chunk, self.id, part)).collect()
    }

    fn chunk(&self, part: usize) -> Record {
        Record::new(vec![self.id[0] ^ part as u8; self.len], Timestamp::NEVER)
    }
}

/// Writes entries as the cache does, until the process is killed.
///
/// It writes the chunks, and then the head if no other process was faster. Then it deletes the chunks that no head
/// describes any more. It prints a plus sign after each entry.
pub async fn write_entries(storage: &impl Storage) {
    loop {
        let key = Key::head([fastrand::u8(..ENTRIES); 16]);
        let there = storage.read(key).await.unwrap();
        let body = Body::random();
        for (part, chunk) in body.chunks(key).into_iter().enumerate() {
            storage.write(chunk, body.chunk(part)).await.unwrap();
        }
        let seen = there.as_ref().map(Record::stamp);
        let old = match storage.write_if(key, seen, body.head()).await.unwrap() {
            true => there.as_ref().map(Body::read),
            false => Some(body),
        };
        if let Some(old) = old {
            storage.delete_many(&old.chunks(key)).await.unwrap();
        }
        std::io::stdout().write_all(b"+").and_then(|()| std::io::stdout().flush()).unwrap();
    }
}

/// Starts two processes that [write entries](write_entries), and kills each during an entry.
///
/// The second one continues with what the first has left. `test` is the ignored test that the processes run.
pub fn kill_two(test: &str, path: &Path) {
    let mut children = [0, 1].map(|number| start(test, path, number));
    for child in &mut children {
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut written = output.bytes().filter(|byte| matches!(byte, Ok(b'+')));
        let entries = fastrand::usize(1..20);
        assert_eq!(written.by_ref().take(entries).count(), entries, "the process ended by itself");
        // A random delay, so that the process is killed at any point of the next entry.
        (0..fastrand::u32(..30_000)).for_each(|_| std::hint::spin_loop());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// Asserts that every entry has its whole body, and returns the number of entries.
pub async fn whole_entries(storage: &impl Storage) -> usize {
    let mut whole = 0;
    for n in 0..ENTRIES {
        let key = Key::head([n; 16]);
        let Some(head) = storage.read(key).await.unwrap() else { continue };
        let body = Body::read(&head);
        for (part, chunk) in body.chunks(key).into_iter().enumerate() {
            let there = storage.read(chunk).await.unwrap().expect("the head has all its chunks");
            assert_eq!(there.payload(), body.chunk(part).payload());
        }
        whole += 1;
    }
    whole
}

/// Writes records of 100,000 bytes until the storage is full, and returns their numbers.
pub async fn fill(storage: &impl Storage) -> Vec<u8> {
    let mut kept = Vec::new();
    let error = loop {
        let number = kept.len() as u8;
        match storage.write(head(number), record(100_000)).await {
            Ok(()) => kept.push(number),
            Err(error) => break error,
        }
        assert!(kept.len() < 200, "the storage never reports that it is full");
    };
    assert_eq!(error.kind(), tower_response_cache::ErrorKind::Full, "{error:?}");
    kept
}

/// Asserts that the storage has the records that [`fill`] wrote.
pub async fn is_filled(storage: &impl Storage, kept: &[u8]) {
    for number in kept {
        let there = storage.read(head(*number)).await.unwrap().unwrap();
        assert_eq!(there.payload(), record(100_000).payload());
    }
    assert_eq!(storage.size().await.unwrap(), kept.len() as u64);
}
