//! Bodies while they are stored and served.
//!
//! Each frame is forwarded on arrival, and only complete bodies are stored.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody, channel::Channel};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_response_cache::storage::{Key, Kind, MemoryStorage, Record, Storage};
use tower_response_cache::{BodyErrorKind, CacheBody, CacheLayer, Stored};

use crate::support::faulty::{Faulty, Mode};
use crate::support::forward::forward;
use crate::support::{Answer, Fixture, Origin, get, get_with, response};

const A: &str = "http://example.com/a";
type AnyBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// Returns an origin that calls `body` for each response.
fn origin(
    fields: &'static [(&'static str, &'static str)],
    mut body: impl FnMut() -> AnyBody + Clone,
) -> impl Service<Request<Full<Bytes>>, Response = Response<AnyBody>, Error = Infallible, Future: Send> + Clone
{
    service_fn(move |_| {
        let mut response = Response::builder();
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        std::future::ready(Ok(response.body(body()).unwrap()))
    })
}

fn frames(frames: Vec<Result<Frame<Bytes>, std::io::Error>>) -> AnyBody {
    StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
}

fn data(text: &'static str) -> Result<Frame<Bytes>, std::io::Error> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

async fn chunks(storage: &MemoryStorage) -> usize {
    let keys: Vec<Key> = storage.keys().try_collect().await.unwrap();
    keys.iter().filter(|key| key.kind == Kind::Chunk).count()
}

#[tokio::test]
async fn each_frame_is_forwarded_on_arrival() {
    for chunk_bytes in [2, 1024] {
        let (sender, body) = Channel::<Bytes, std::io::Error>::new(1);
        let body = Arc::new(std::sync::Mutex::new(Some(body)));
        let origin = origin(&[("cache-control", "max-age=60")], move || {
            body.lock().unwrap().take().unwrap().boxed_unsync()
        });
        let layer = CacheLayer::builder(MemoryStorage::new()).chunk_bytes(chunk_bytes).build().unwrap();
        let mut sender = sender;
        let mut body = layer.layer(origin).oneshot(get(A)).await.unwrap().into_body();
        for text in ["one", "two", "three"] {
            // The next frame is sent only after the caller has received this one.
            sender.send_data(Bytes::from_static(text.as_bytes())).await.unwrap();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), text);
        }
        drop(sender);
        assert!(body.frame().await.is_none());
    }
}

#[tokio::test]
async fn chunked_body_is_served_whole_and_by_range() {
    let text: String = (0..1000).map(|number| format!("{number:04}")).collect();
    let whole = Bytes::from(text);
    let sent = whole.clone();
    for chunk_bytes in [1, 7, 1024, 3999, 4000, 4001] {
        let (storage, sent) = (MemoryStorage::new(), sent.clone());
        let origin = Origin::new(move |_| response(&[("cache-control", "max-age=60")], sent.clone()));
        let cache = Fixture::with(origin, storage.clone(), |builder| builder.chunk_bytes(chunk_bytes));
        assert_eq!(cache.get(A).await.body, whole);
        let hit = cache.get(A).await;
        assert!(hit.word() == "hit" && hit.body == whole, "chunks of {chunk_bytes}");
        assert_eq!(
            chunks(&storage).await,
            if chunk_bytes < 4000 { 4000_usize.div_ceil(chunk_bytes) } else { 0 }
        );
        for (range, expected) in [
            ("bytes=0-0", 0..1),
            ("bytes=1020-2050", 1020..2051),
            ("bytes=-5", 3995..4000),
            ("bytes=3999-", 3999..4000),
        ] {
            let part = cache.ask(get_with(A, &[("range", range)])).await;
            assert_eq!(part.body, whole.slice(expected), "{range} of chunks of {chunk_bytes}");
        }
        assert_eq!(cache.origin.count(), 1);
    }
}

#[tokio::test]
async fn incomplete_body_is_not_stored() {
    type Case = (&'static str, &'static [(&'static str, &'static str)], fn() -> AnyBody);
    let lengths: &'static [_] = &[("cache-control", "max-age=60"), ("content-length", "9")];
    let plain: &'static [_] = &[("cache-control", "max-age=60")];
    let cases: [Case; 3] = [
        ("fails", plain, || frames(vec![data("abc"), data("def"), Err(std::io::Error::other("reset"))])),
        ("is short", lengths, || frames(vec![data("abc"), data("def")])),
        ("is long", lengths, || frames(vec![data("abc"), data("def"), data("ghi"), data("j")])),
    ];
    for (what, fields, body) in cases {
        for chunk_bytes in [2, 1024] {
            let storage = MemoryStorage::new();
            let layer = CacheLayer::builder(storage.clone()).chunk_bytes(chunk_bytes).build().unwrap();
            let service = layer.layer(origin(fields, body));
            let mut read = service.clone().oneshot(get(A)).await.unwrap().into_body();
            let mut length = 0;
            let mut failed = None;
            while let Some(frame) = read.frame().await {
                match frame {
                    Ok(frame) => length += frame.data_ref().unwrap().len(),
                    Err(error) => failed = Some(error.kind()),
                }
            }
            assert!(length >= 6);
            assert_eq!(failed, (what == "fails").then_some(BodyErrorKind::Inner));
            layer.idle().await;
            if what != "is long" {
                let again = service.clone().oneshot(get(A)).await.unwrap();
                assert!(!again.body().status().unwrap().is_hit(), "a body that {what} was stored");
                drop(again);
                layer.idle().await;
                assert_eq!(chunks(&storage).await, 0, "chunks of a body that {what} were left");
            }
        }
    }
    // The body is dropped after its first frame.
    for chunk_bytes in [1, 1024] {
        let storage = MemoryStorage::new();
        let layer = CacheLayer::builder(storage.clone()).chunk_bytes(chunk_bytes).build().unwrap();
        let service = layer.layer(origin(plain, || frames(vec![data("abc"), data("def")])));
        let mut body = service.clone().oneshot(get(A)).await.unwrap().into_body();
        body.frame().await.unwrap().unwrap();
        drop(body);
        layer.idle().await;
        assert_eq!(storage.size().await.unwrap() as usize, usize::from(chunk_bytes == 0));
        assert_eq!(chunks(&storage).await, 0);
    }
}

#[tokio::test]
async fn trailers_are_replayed() {
    let body = || {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "42".parse().unwrap());
        frames(vec![data("abc"), data("def"), Ok(Frame::trailers(trailers))])
    };
    for fields in [
        &[("cache-control", "max-age=60")][..],
        &[("cache-control", "max-age=60"), ("content-length", "6"), ("trailer", "x-sum")][..],
    ] {
        for chunk_bytes in [2, 1024] {
            let layer = CacheLayer::builder(MemoryStorage::new()).chunk_bytes(chunk_bytes).build().unwrap();
            let service = layer.layer(origin(fields, body));
            for word in ["miss", "hit"] {
                let answer = Answer::read(service.clone().oneshot(get(A)).await.unwrap()).await;
                assert_eq!((answer.word(), &answer.body[..]), (word, &b"abcdef"[..]));
                assert_eq!(answer.trailers.unwrap()["x-sum"], "42");
            }
        }
    }
}

#[tokio::test]
async fn oversized_body_passes_through_unstored() {
    let origin = Origin::new(|_| response(&[("cache-control", "max-age=60")], vec![b'x'; 100]));
    let storage = MemoryStorage::new();
    let cache = Fixture::with(origin, storage.clone(), |builder| builder.max_body_bytes(99).chunk_bytes(10));
    for _ in 0..2 {
        let answer = cache.get(A).await;
        assert_eq!((answer.word(), answer.body.len()), ("miss", 100));
    }
    cache.layer.idle().await;
    assert_eq!(chunks(&storage).await, 0);
    let origin = Origin::new(|_| {
        response(&[("cache-control", "max-age=60"), ("content-length", "100")], vec![b'x'; 100])
    });
    let cache = Fixture::with(origin, storage, |builder| builder.max_body_bytes(99));
    assert_eq!(cache.get(A).await.status.stored(), Stored::No(tower_response_cache::NotStored::TooLarge));
}

#[tokio::test]
async fn finish_on_drop_stores_dropped_body() {
    let origin = Origin::new(|_| response(&[("cache-control", "max-age=60")], vec![b'x'; 100]));
    let cache =
        Fixture::with(origin, MemoryStorage::new(), |builder| builder.finish_on_drop(true).chunk_bytes(10));
    drop(cache.send(get(A)).await);
    cache.layer.idle().await;
    let answer = cache.get(A).await;
    assert_eq!((answer.word(), answer.body.len()), ("hit", 100));
}

#[tokio::test(start_paused = true)]
async fn body_is_a_hit_before_slow_write_ends() {
    for chunk_bytes in [4, 1024] {
        let storage = Faulty::new(Mode::Well);
        let origin = Origin::new(|_| response(&[("cache-control", "max-age=60")], "0123456789"));
        let cache = Fixture::with(origin, storage.clone(), |builder| {
            builder.chunk_bytes(chunk_bytes).operation_timeout(Duration::from_secs(60))
        });
        if chunk_bytes == 1024 {
            storage.set(Mode::HungWrites);
        }
        cache.get(A).await;
        let answer = cache.get(A).await;
        assert_eq!((answer.word(), &answer.body[..]), ("hit", &b"0123456789"[..]));
        assert_eq!(cache.origin.count(), 1);
        storage.set(Mode::Well);
        cache.layer.idle().await;
        assert_eq!(cache.get(A).await.word(), "hit");
    }
}

#[tokio::test(start_paused = true)]
async fn hung_write_delays_body_only_until_timeout() {
    let storage = Faulty::new(Mode::HungWrites);
    let origin = Origin::new(|_| response(&[("cache-control", "max-age=60")], vec![b'x'; 1000]));
    let cache = Fixture::with(origin, storage, |builder| builder.chunk_bytes(10));
    let began = tokio::time::Instant::now();
    assert_eq!(cache.get(A).await.body.len(), 1000);
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn memory_storage_works_outside_a_runtime() {
    let layer = CacheLayer::builder(MemoryStorage::new()).chunk_bytes(4).build().unwrap();
    let service =
        layer.layer(origin(&[("cache-control", "max-age=60")], || frames(vec![data("0123456789")])));
    futures_util::FutureExt::now_or_never(async {
        for word in ["miss", "hit"] {
            let answer = Answer::read(service.clone().oneshot(get(A)).await.unwrap()).await;
            assert_eq!((answer.word(), &answer.body[..]), (word, &b"0123456789"[..]));
        }
    })
    .expect("no future is pending");
}

/// Drops the request after each number of polls from 0 to 199.
///
/// The origin yields once before it responds, so that the fetch is pending at least once.
#[tokio::test]
async fn request_dropped_at_any_await_leaves_cache_usable() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let origin = service_fn(move |_: Request<Full<Bytes>>| {
        counter.fetch_add(1, Ordering::SeqCst);
        async {
            tokio::task::yield_now().await;
            let response = Response::builder().header("cache-control", "max-age=60");
            Ok::<_, Infallible>(response.body(frames(vec![data("0123"), data("4567"), data("89")])).unwrap())
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let storage = tower_response_cache::storage::SqliteStorage::open(folder.path().join("s")).await.unwrap();
    let layer = CacheLayer::builder(storage.clone()).chunk_bytes(3).build().unwrap();
    let service = layer.layer(origin);
    let mut whole = 0;
    for polls in 0..200 {
        storage.clear().await.unwrap();
        let mut request = pin!(async {
            let response = service.clone().oneshot(get(A)).await.unwrap();
            response.into_body().collect().await.unwrap().to_bytes()
        });
        let mut left = polls;
        let done = poll_fn(|cx| {
            if left == 0 {
                return Poll::Ready(None);
            }
            left -= 1;
            request.as_mut().poll(cx).map(Some)
        })
        .await;
        if let Some(body) = done {
            assert_eq!(body, "0123456789");
            whole += 1;
        }
        layer.idle().await;
        let answer = Answer::read(service.clone().oneshot(get(A)).await.unwrap()).await;
        assert_eq!(answer.body, "0123456789");
        if whole > 3 {
            break;
        }
    }
    assert!(whole > 3, "some requests completed");
}

#[test]
fn body_is_sync_and_unpin_like_inner_body() {
    fn check<B: Body + Send + Sync + Unpin>() {}
    fn check_send<B: Send>() {}
    check::<CacheBody<Full<Bytes>>>();
    check_send::<CacheBody<AnyBody>>();
}

/// A memory storage that answers a read after two sleeps.
///
/// It stands for a driver whose futures must be polled several times.
#[derive(Clone)]
struct TwoSteps(MemoryStorage);

impl Storage for TwoSteps {
    forward!(0: write, delete, clear, keys);

    async fn read(&self, key: Key) -> tower_response_cache::Result<Option<Record>> {
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.0.read(key).await
    }
}

#[tokio::test(start_paused = true)]
async fn paused_caller_causes_no_read_timeout() {
    let origin = Origin::new(|_| response(&[("cache-control", "max-age=6000")], vec![1; 10_000]));
    let cache = Fixture::with(origin, TwoSteps(MemoryStorage::new()), |builder| builder.chunk_bytes(1000));
    assert_eq!(cache.get(A).await.word(), "miss");
    let mut body = cache.send(get(A)).await.into_body();
    assert!(body.status().unwrap().is_hit());
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    // Longer than the timeout of a read. The reads of the next chunks have already begun.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let rest = body.collect().await.unwrap().to_bytes();
    assert_eq!(first.len() + rest.len(), 10_000);
}

/// A memory storage that counts the reads of chunks.
#[derive(Clone)]
struct CountingChunks(MemoryStorage, Arc<AtomicUsize>);

impl Storage for CountingChunks {
    forward!(0: write, delete, clear, keys);

    async fn read(&self, key: Key) -> tower_response_cache::Result<Option<Record>> {
        if key.kind == Kind::Chunk {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
        self.0.read(key).await
    }
}

#[tokio::test]
async fn finishing_dropped_body_reads_no_chunks() {
    let chunk_reads = Arc::new(AtomicUsize::new(0));
    let storage = CountingChunks(MemoryStorage::new(), Arc::clone(&chunk_reads));
    let layer = CacheLayer::builder(storage).chunk_bytes(1000).finish_on_drop(true).build().unwrap();
    let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(1);
    let body = Arc::new(std::sync::Mutex::new(Some(body)));
    let service = layer.layer(origin(&[("cache-control", "max-age=60")], move || {
        body.lock().unwrap().take().expect("only one fetch is expected").boxed_unsync()
    }));
    let ask = async || service.clone().oneshot(get(A)).await.unwrap().into_body();
    let (mut fast, slow) = (ask().await, ask().await);
    for _ in 0..8 {
        sender.send_data(Bytes::from(vec![1; 1000])).await.unwrap();
        fast.frame().await.unwrap().unwrap();
    }
    drop((fast, slow));
    sender.send_data(Bytes::from(vec![1; 1000])).await.unwrap();
    drop(sender);
    layer.idle().await;
    assert_eq!(chunk_reads.load(Ordering::Relaxed), 0);
    let hit = ask().await;
    assert!(hit.status().unwrap().is_hit());
    assert_eq!(hit.collect().await.unwrap().to_bytes().len(), 9000);
}
