//! Hits on a storage whose reads have to be awaited, and what happens in this process during such a read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::Request;
use http_body_util::Full;
use tokio::sync::Semaphore;
use tower::ServiceExt;
use tower_response_cache::storage::{Key, Record, Stamp, Storage};
use tower_response_cache::{MissReason, Outcome, Result};

use crate::support::faulty::{Faulty, Mode};
use crate::support::forward::forward;
use crate::support::task::{Task, settle};
use crate::support::{Answer, Fixture, Origin, get, get_with, not_modified, response};

const A: &str = "http://example.com/a";

/// A storage whose answer to a read can be held back, after the record was read.
#[derive(Clone)]
struct Late {
    inner: Faulty,
    reads: Arc<AtomicUsize>,
    holds_next: Arc<AtomicBool>,
    released: Arc<Semaphore>,
}

impl Late {
    fn new() -> Self {
        let (reads, holds_next, released) = (Arc::default(), Arc::default(), Arc::new(Semaphore::new(0)));
        Self { inner: Faulty::new(Mode::Well), reads, holds_next, released }
    }

    /// Returns the number of reads since the last call.
    fn reads(&self) -> usize {
        self.reads.swap(0, Ordering::SeqCst)
    }
}

impl Storage for Late {
    forward!(inner: write, delete, clear, keys, retain, delete_expired, max_record_len);

    async fn read(&self, key: Key) -> Result<Option<Record>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let existing = self.inner.read(key).await;
        if self.holds_next.swap(false, Ordering::SeqCst) {
            self.released.acquire().await.unwrap().forget();
        }
        existing
    }
    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        self.inner.write_if(key, seen, record).await
    }
}

/// Returns a cache over an origin that sends another version each time.
fn fixture() -> (Fixture, Late) {
    let (storage, mut version) = (Late::new(), 0);
    let origin = Origin::new(move |_| {
        version += 1;
        response(&[("cache-control", "max-age=60")], format!("version {version}"))
    });
    (Fixture::with(origin, storage.clone(), |builder| builder), storage)
}

/// Begins a request, and holds back the storage's answer to its read.
async fn held(cache: &Fixture, storage: &Late) -> [Task<Answer>; 1] {
    let service = cache.service.clone();
    storage.holds_next.store(true, Ordering::SeqCst);
    let mut request = [Task::new(async move { Answer::read(service.oneshot(get(A)).await.unwrap()).await })];
    settle(&mut request).await;
    assert!(!request[0].is_done() && !storage.holds_next.load(Ordering::SeqCst), "its read is not held back");
    request
}

/// Returns the storage's answer to the read, and then the answer to the request.
async fn released(mut request: [Task<Answer>; 1], storage: &Late) -> Answer {
    storage.released.add_permits(1);
    settle(&mut request).await;
    request[0].run().expect("the request is answered")
}

#[tokio::test(start_paused = true)]
async fn hit_takes_one_read() {
    let (cache, storage) = fixture();
    // The second read is that of the path's values of No-Vary-Search, which other queries of the path need not repeat.
    assert_eq!((cache.get(A).await.word(), storage.reads()), ("miss", 2));
    assert_eq!((cache.get(&format!("{A}?other")).await.word(), storage.reads()), ("miss", 1));
    let requests =
        [get(A), get_with(A, &[("range", "bytes=0-6")]), Request::head(A).body(Full::default()).unwrap()];
    for request in requests {
        assert_eq!((cache.ask(request).await.word(), storage.reads()), ("hit", 1));
    }
}

#[tokio::test(start_paused = true)]
async fn misses_of_other_urls_cost_no_read() {
    let (cache, storage) = fixture();
    let other = |number: usize| format!("{A}?{number}");
    cache.get(&other(0)).await;
    storage.reads();
    let request = held(&cache, &storage).await;
    for number in 1..10 {
        assert_eq!(cache.get(&other(number)).await.word(), "miss");
    }
    assert_eq!(released(request, &storage).await.word(), "miss");
    assert_eq!(storage.reads(), 10, "one for each request");
}

#[tokio::test(start_paused = true)]
async fn response_stored_during_the_read_is_found() {
    let (cache, storage) = fixture();
    let request = held(&cache, &storage).await;
    // Stored, and followed by misses of other URLs.
    for uri in [A, "http://example.com/b", "http://example.com/c"] {
        assert_eq!(cache.get(uri).await.word(), "miss");
    }
    cache.layer.idle().await;
    let answer = released(request, &storage).await;
    assert_eq!((answer.word(), &answer.body[..]), ("hit", &b"version 1"[..]));
    assert_eq!(cache.origin.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn validation_uses_the_first_read() {
    let storage = Late::new();
    let fields = [("cache-control", "max-age=60"), ("etag", "\"a\"")];
    let origin = Origin::new(move |request| match request.headers().contains_key("if-none-match") {
        true => not_modified(&fields),
        false => response(&fields, "body"),
    });
    let cache = Fixture::with(origin, storage.clone(), |builder| builder);
    cache.get(A).await;
    storage.reads();
    cache.clock.advance(Duration::from_secs(61));
    let answer = cache.get(A).await;
    assert!(answer.status.is_revalidated() && answer.body == "body");
    assert_eq!(storage.reads(), 1);
}

#[tokio::test(start_paused = true)]
async fn read_during_a_write_finds_what_is_written() {
    let (cache, storage) = fixture();
    cache.get(A).await;
    let request = held(&cache, &storage).await;
    storage.inner.set(Mode::HungWrites);
    let reload = cache.ask(get_with(A, &[("cache-control", "no-cache")])).await;
    assert_eq!(reload.body, "version 2");
    let answer = released(request, &storage).await;
    assert_eq!((answer.word(), &answer.body[..]), ("hit", &b"version 2"[..]));
    assert_eq!(cache.origin.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn read_before_two_writes_leaves_the_second_in_flight() {
    let (cache, storage) = fixture();
    cache.get(A).await;
    let request = held(&cache, &storage).await;
    let reload = || get_with(A, &[("cache-control", "no-cache")]);
    cache.ask(reload()).await;
    cache.layer.idle().await;
    storage.inner.set(Mode::HungWrites);
    assert_eq!(cache.ask(reload()).await.body, "version 3");
    // The held read returns a record that is neither what the second write replaces nor what it writes.
    let answer = released(request, &storage).await;
    assert_eq!((answer.word(), &answer.body[..]), ("hit", &b"version 3"[..]));
    assert_eq!(cache.get(A).await.body, "version 3");
    assert_eq!(cache.origin.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn read_before_an_invalidation_is_not_believed() {
    // Whether the storage takes the tombstone when the held read ends.
    for recovers in [false, true] {
        let (cache, storage) = fixture();
        cache.get(A).await;
        let request = held(&cache, &storage).await;
        storage.inner.set(Mode::FailingWrites);
        cache.ask(Request::post(A).body(Full::default()).unwrap()).await;
        if recovers {
            storage.inner.set(Mode::Well);
        }
        let answer = released(request, &storage).await;
        let reason = if recovers { MissReason::Invalidated } else { MissReason::StorageFailed };
        assert_eq!(answer.status.outcome(), Outcome::Miss(reason));
        assert_eq!(answer.body, "version 3");
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_read_leaves_nothing() {
    let (cache, storage) = fixture();
    cache.get(A).await;
    drop(held(&cache, &storage).await);
    cache.layer.idle().await;
    assert_eq!(cache.get(A).await.word(), "hit");
    let layer = format!("{:?}", cache.layer);
    assert!(layer.contains("flights: 0"), "{layer}");
}
