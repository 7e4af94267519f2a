//! Processes that are killed in the middle of their work.

use std::io::{Read, Write};
use std::path::Path;

use tower_response_cache::Timestamp;
use tower_response_cache::storage::{DirectoryStorage, Key, Kind, Record, Storage};

use crate::sharing::{open, start};
use crate::{directory, files, unfinished};

const KILLS: u64 = 100;
const ENTRIES: u8 = 8;

/// An entry's body, as its head tells it: which chunks, how many, how long and of what.
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

    fn told(head: &Record) -> Self {
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

/// Writes entries as the cache does: the chunks, then the head if nobody was faster, then the old chunks go.
#[tokio::test]
#[ignore = "runs as a process of processes_killed_a_hundred_times_leave_whole_entries"]
async fn one_that_is_killed() {
    let storage = open().await;
    loop {
        let key = Key::head([fastrand::u8(..ENTRIES); 16]);
        let there = storage.read(key).await.unwrap();
        let body = Body::random();
        for (part, chunk) in body.chunks(key).into_iter().enumerate() {
            storage.write(chunk, body.chunk(part)).await.unwrap();
        }
        let seen = there.as_ref().map(Record::stamp);
        let old = match storage.write_if(key, seen, body.head()).await.unwrap() {
            true => there.as_ref().map(Body::told),
            false => Some(body),
        };
        if let Some(old) = old {
            storage.delete_many(&old.chunks(key)).await.unwrap();
        }
        std::io::stdout().write_all(b"+").and_then(|()| std::io::stdout().flush()).unwrap();
    }
}

async fn all_entries_are_whole(path: &Path) -> usize {
    let storage = DirectoryStorage::open(path).await.unwrap();
    let mut whole = 0;
    for n in 0..ENTRIES {
        let key = Key::head([n; 16]);
        let Some(head) = storage.read(key).await.unwrap() else { continue };
        let body = Body::told(&head);
        for (part, chunk) in body.chunks(key).into_iter().enumerate() {
            let there = storage.read(chunk).await.unwrap().expect("a head without one of its chunks");
            assert_eq!(there.payload(), body.chunk(part).payload());
        }
        whole += 1;
    }
    whole
}

#[tokio::test]
async fn processes_killed_a_hundred_times_leave_whole_entries() {
    let directory = directory();
    let path = directory.path().join("cache");
    let mut whole = 0;
    for _ in 0..KILLS / 2 {
        // Two at once, so that one of them goes on with what the other has left.
        let mut children = [0, 1].map(|_| start("killed::one_that_is_killed", &path));
        for child in &mut children {
            let mut written = std::io::BufReader::new(child.stdout.take().unwrap())
                .bytes()
                .filter(|byte| matches!(byte, Ok(b'+')));
            let entries = fastrand::usize(1..20);
            assert_eq!(written.by_ref().take(entries).count(), entries, "it ended by itself");
            // Anywhere within the next entry.
            (0..fastrand::u32(..30_000)).for_each(|_| std::hint::spin_loop());
            child.kill().unwrap();
            child.wait().unwrap();
        }
        whole += all_entries_are_whole(&path).await;
    }
    assert!(whole > 0);
    // What has a name is whole, and nothing else stands beside the records.
    for (path, bytes) in files(&path).into_iter().filter(|(path, _)| !path.iter().any(|part| part == ".work"))
    {
        assert!(path.ends_with(".gitattributes") || Record::from_bytes(bytes).is_ok(), "{path:?}");
    }
    for name in unfinished(&path) {
        assert!(name.starts_with("new-"), "{name}");
    }
}
