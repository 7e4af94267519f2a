//! Several ranges of a body in chunks, while they are read.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::TryStreamExt;
use http_body::Body;
use http_body_util::BodyExt;
use tower_response_cache::BodyErrorKind;
use tower_response_cache::storage::{Hold, Key, Kind, MemoryStorage, Record, Storage};

use crate::support::byteranges::parts;
use crate::support::forward::forward;
use crate::support::{Fixture, Origin, get, get_with, response};

const A: &str = "http://example.com/a";
const CHUNK: usize = 100;

/// A storage that lists the chunks that are read, and counts the holds. It never returns chunks at once.
#[derive(Clone, Default)]
struct Listing {
    inner: MemoryStorage,
    read: Arc<Mutex<Vec<u32>>>,
    holds: Arc<AtomicUsize>,
}

impl Listing {
    /// Returns the chunks that were read since the last call.
    fn read(&self) -> Vec<u32> {
        std::mem::take(&mut self.read.lock().unwrap())
    }
}

struct EndOfHold(Arc<AtomicUsize>);

impl Drop for EndOfHold {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Storage for Listing {
    forward!(inner: write, delete, clear, keys, retain, contains_all, delete_expired);

    async fn read(&self, key: Key) -> tower_response_cache::Result<Option<Record>> {
        if key.kind == Kind::Chunk {
            self.read.lock().unwrap().push(key.part);
        }
        self.inner.read(key).await
    }

    fn hold(&self, _: Key, _: u64) -> Hold {
        self.holds.fetch_add(1, Ordering::SeqCst);
        Hold::new(EndOfHold(Arc::clone(&self.holds)))
    }
}

fn body() -> Bytes {
    (0..1000_u32).flat_map(|number| number.to_be_bytes()).collect()
}

/// Returns a cache with a stored body of forty chunks.
async fn cache(storage: impl Storage) -> Fixture {
    let origin = Origin::new(|_| response(&[("cache-control", "max-age=60")], body()));
    let cache = Fixture::with(origin, storage, |builder| builder.chunk_bytes(CHUNK).inline_bytes(0));
    assert_eq!(cache.get(A).await.body, body());
    cache.layer.idle().await;
    cache
}

async fn delete_chunk(storage: &MemoryStorage, part: u32) {
    let keys: Vec<Key> = storage.keys().try_collect().await.unwrap();
    let key = keys.into_iter().find(|key| key.kind == Kind::Chunk && key.part == part).unwrap();
    assert!(storage.delete(key).await.unwrap());
}

#[tokio::test]
async fn parts_are_read_one_after_another() {
    let storage = Listing::default();
    let cache = cache(storage.clone()).await;
    storage.read();
    let response = cache.send(get_with(A, &[("range", "bytes=1050-1349,3000-3019,0-199")])).await;
    // The first chunk is read before the head is sent, and no chunk of another part.
    assert_eq!((response.status().as_u16(), storage.read()), (206, vec![10]));
    let (head, mut body) = response.into_parts();
    let mut len = body.size_hint().exact().unwrap();
    let content_length = head.headers["content-length"].to_str().unwrap();
    assert_eq!(content_length, len.to_string());
    let (mut frames, mut content) = (Vec::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        let data = frame.unwrap().into_data().unwrap();
        assert!(storage.holds.load(Ordering::SeqCst) > 0);
        len -= data.len() as u64;
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(len), len == 0));
        content.extend_from_slice(&data);
        frames.push(storage.read());
    }
    // Each read happens for the chunk itself, or while the one before it in the same part is used.
    let (mut reads, heads) = (Vec::<u32>::new(), [0, 5, 7]);
    for (number, read) in frames.iter().enumerate() {
        assert!(read.is_empty() || !heads.contains(&number), "{frames:?}");
        reads.extend(read);
    }
    assert_eq!(reads, [11, 12, 13, 30, 0, 1], "{frames:?}");
    assert!(frames.iter().all(|read| read.len() <= 2), "{frames:?}");
    let whole = self::body();
    let parts = parts(head.headers["content-type"].to_str().unwrap(), &content);
    assert_eq!(
        parts.iter().map(|part| part.range.clone()).collect::<Vec<_>>(),
        [1050..1350, 3000..3020, 0..200]
    );
    assert!(parts.iter().all(|part| part.data == whole[part.range.clone()]));
    drop(body);
    assert_eq!(storage.holds.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn missing_chunk_of_any_part_is_a_miss() {
    for missing in [0, 10, 11, 30] {
        for later in [false, true] {
            let (storage, listing) = (MemoryStorage::new(), Listing::default());
            let inner = if later { listing.inner.clone() } else { storage.clone() };
            let cache = if later { cache(listing).await } else { cache(storage).await };
            delete_chunk(&inner, missing).await;
            let got = cache.ask(get_with(A, &[("range", "bytes=3000-3019,0-19,1050-1149")])).await;
            assert_eq!((got.word(), cache.origin.count()), ("miss", 2), "chunk {missing}, later: {later}");
        }
    }
}

#[tokio::test]
async fn unasked_missing_chunk_does_not_matter() {
    let storage = MemoryStorage::new();
    let cache = cache(storage.clone()).await;
    delete_chunk(&storage, 20).await;
    let got = cache.ask(get_with(A, &[("range", "bytes=3000-3019,0-19")])).await;
    assert_eq!((got.word(), got.code.as_u16()), ("hit", 206));
}

#[tokio::test]
async fn chunk_lost_while_reading_ends_content_with_error() {
    for later in [false, true] {
        let (storage, listing) = (MemoryStorage::new(), Listing::default());
        let inner = if later { listing.inner.clone() } else { storage.clone() };
        let cache = if later { cache(listing).await } else { cache(storage).await };
        let response = cache.send(get_with(A, &[("range", "bytes=3000-3019,0-19")])).await;
        assert_eq!(response.status(), 206);
        delete_chunk(&inner, 0).await;
        let mut body = response.into_body();
        let mut content = Vec::new();
        let error = loop {
            match body.frame().await.expect("not the end") {
                Ok(frame) => content.extend_from_slice(&frame.into_data().unwrap()),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), BodyErrorKind::Storage);
        assert!(body.frame().await.is_none() && body.is_end_stream());
        assert!(!content.ends_with(b"--\r\n"));
        // The record is not used again.
        cache.layer.idle().await;
        let got = cache.ask(get(A)).await;
        assert_eq!((got.word(), &got.body), ("miss", &self::body()));
    }
}
