//! Parts of bodies: stored, combined and completed.

mod origin;
mod random;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use http::HeaderMap;
use http_body_util::BodyExt;
use tower::{Layer, ServiceExt};
use tower_response_cache::storage::{Key, Kind, MemoryStorage, Record, Stamp, Storage};
use tower_response_cache::{
    BodyErrorKind, Cache, CacheLayer, CacheLayerBuilder, CacheStatus, Clock, EntryFilter, MockClock,
    NotStored, Outcome, Stored,
};

use self::origin::{Fault, FileOrigin, Validator, text};
use crate::support::faulty::{Faulty, Mode};
use crate::support::forward::forward;
use crate::support::get_with;

pub struct Got {
    pub code: u16,
    pub headers: HeaderMap,
    pub status: CacheStatus,
    /// The bytes that came, and the error after them.
    pub bytes: Bytes,
    pub error: Option<BodyErrorKind>,
}

pub struct World<S: Storage = MemoryStorage> {
    pub origin: FileOrigin,
    pub layer: CacheLayer<S>,
    pub service: Cache<FileOrigin, S>,
    pub clock: MockClock,
}

const URL: &str = "http://example.com/file";

fn head(url: &str) -> http::Request<crate::support::ReqBody> {
    let mut request = get_with(url, &[]);
    *request.method_mut() = http::Method::HEAD;
    request
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 % 251) as u8 ^ (at / 251) as u8).collect()
}

impl World {
    fn new(len: usize) -> Self {
        Self::on(MemoryStorage::new(), len, |builder| builder)
    }
}

impl<S: Storage> World<S> {
    pub fn on(
        storage: S,
        len: usize,
        settings: impl FnOnce(CacheLayerBuilder<S>) -> CacheLayerBuilder<S>,
    ) -> Self {
        let (clock, mock) = Clock::mock();
        let origin = FileOrigin::new(bytes(len));
        let builder =
            CacheLayer::builder(storage).clock(clock).store_parts(true).chunk_bytes(32).inline_bytes(0);
        let layer = settings(builder).build().unwrap();
        let service = layer.layer(origin.clone());
        Self { origin, layer, service, clock: mock }
    }

    pub async fn get(&self, fields: &[(&str, &str)]) -> Got {
        self.read(get_with(URL, fields), usize::MAX).await
    }

    pub async fn range(&self, range: &str) -> Got {
        self.get(&[("range", &format!("bytes={range}"))]).await
    }

    /// Reads at most so many frames of a response.
    pub async fn read(&self, request: http::Request<crate::support::ReqBody>, frames: usize) -> Got {
        let response = self.service.clone().oneshot(request).await.unwrap();
        let (head, mut body) = response.into_parts();
        let status = *body.status().unwrap();
        let (mut bytes, mut error) = (Vec::new(), None);
        let mut left = frames;
        while left > 0 {
            left -= 1;
            match body.frame().await {
                None => break,
                Some(Ok(frame)) => bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
                Some(Err(of)) => {
                    error = Some(of.kind());
                    break;
                }
            }
        }
        Got { code: head.status.as_u16(), headers: head.headers, status, bytes: bytes.into(), error }
    }
}

impl Got {
    fn outcome(&self) -> &'static str {
        match self.status.outcome() {
            Outcome::Hit => "hit",
            Outcome::Miss(_) => "miss",
            Outcome::Revalidated(_) => "revalidated",
            _ => "other",
        }
    }
}

#[tokio::test(start_paused = true)]
async fn part_answers_requests_within_it() {
    let world = World::new(1000);
    let first = world.range("100-299").await;
    assert_eq!((first.code, text(&first.headers, "content-range")), (206, Some("bytes 100-299/1000")));
    assert_eq!((first.outcome(), first.status.stored()), ("miss", Stored::Storing));
    let file = bytes(1000);
    for (range, from, to) in [("100-299", 100, 300), ("150-150", 150, 151), ("101-298", 101, 299)] {
        let got = world.range(range).await;
        assert_eq!((got.code, got.outcome()), (206, "hit"), "{range}");
        assert_eq!(got.bytes, file[from..to]);
        let field = format!("bytes {from}-{}/1000", to - 1);
        assert_eq!(text(&got.headers, "content-range"), Some(&*field));
        assert_eq!(text(&got.headers, "content-length"), Some(&*(to - from).to_string()));
        assert_eq!(text(&got.headers, "content-type"), Some("text/plain"));
    }
    assert_eq!(world.origin.ranges(), ["bytes=100-299"]);
}

#[tokio::test(start_paused = true)]
async fn only_missing_bytes_are_fetched() {
    let world = World::new(1000);
    let file = bytes(1000);
    world.range("100-199").await;
    world.range("400-499").await;
    world.origin.takes();
    let got = world.range("50-599").await;
    assert_eq!((got.code, &got.bytes[..]), (206, &file[50..600]));
    assert_eq!(text(&got.headers, "content-range"), Some("bytes 50-599/1000"));
    assert!(
        world.origin.0.lock().unwrap().sent.iter().all(|sent| sent.if_range.as_deref() == Some("\"v1\""))
    );
    assert_eq!(world.origin.ranges(), ["bytes=50-99", "bytes=200-399", "bytes=500-599"]);
    assert_eq!(world.range("50-599").await.outcome(), "hit");
    let whole = world.get(&[]).await;
    assert_eq!((whole.code, &whole.bytes[..]), (200, &file[..]));
    assert_eq!(text(&whole.headers, "content-length"), Some("1000"));
    assert_eq!(text(&whole.headers, "content-range"), None);
    assert_eq!(world.origin.ranges(), ["bytes=0-49", "bytes=600-999"]);
    assert_eq!(world.get(&[]).await.outcome(), "hit");
    assert!(world.origin.0.lock().unwrap().counts.iter().all(|count| *count == 1), "no byte came twice");
}

#[tokio::test(start_paused = true)]
async fn suffix_and_open_ranges_are_parts() {
    let world = World::new(1000);
    let file = bytes(1000);
    assert_eq!(world.range("-100").await.bytes, file[900..]);
    let got = world.range("950-").await;
    assert_eq!((got.outcome(), &got.bytes[..]), ("hit", &file[950..]));
    assert_eq!(world.range("-50").await.outcome(), "hit");
    assert_eq!(world.range("800-").await.bytes, file[800..]);
    assert_eq!(world.origin.ranges(), ["bytes=-100", "bytes=800-899"]);
    let got = world.range("1000-").await;
    assert_eq!((got.code, text(&got.headers, "content-range")), (416, Some("bytes */1000")));
    assert_eq!(got.outcome(), "hit");
}

#[tokio::test(start_paused = true)]
async fn head_and_conditions_are_answered_from_parts() {
    let world = World::new(1000);
    world.range("0-9").await;
    let got = world.read(head(URL), 9).await;
    assert_eq!((got.code, got.outcome(), text(&got.headers, "content-length")), (200, "hit", Some("1000")));
    let got = world.get(&[("if-none-match", "\"v1\"")]).await;
    assert_eq!((got.code, got.outcome()), (304, "hit"));
    let got = world.get(&[("range", "bytes=5-6"), ("if-range", "\"v1\"")]).await;
    assert_eq!((got.code, got.outcome(), got.bytes.len()), (206, "hit", 2));
    // The client has another version, so that it gets the whole.
    let got = world.get(&[("range", "bytes=5-6"), ("if-range", "\"v0\"")]).await;
    assert_eq!((got.code, got.bytes.len()), (200, 1000));
    assert_eq!(world.origin.ranges(), ["bytes=0-9", "bytes=10-999"]);
}

#[tokio::test(start_paused = true)]
async fn changed_file_replaces_its_parts() {
    let world = World::new(1000);
    world.range("0-99").await;
    world.origin.replace(vec![7; 500]);
    world.clock.advance(Duration::from_secs(1));
    // The origin sends the whole, since the condition of the request for the missing bytes does not hold.
    let got = world.range("50-149").await;
    assert!(matches!((got.code, got.bytes.len()), (200, 500) | (206, 100)));
    assert!(got.bytes.iter().all(|byte| *byte == 7), "a mixture of two files");
    // The rest of it is still on its way, and none of the old file is served.
    let got = world.range("0-9").await;
    assert_eq!((got.outcome(), &got.bytes[..]), ("miss", &[7; 10][..]));
    world.layer.idle().await;
    let got = world.range("0-9").await;
    assert_eq!((got.outcome(), &got.bytes[..]), ("hit", &[7; 10][..]));
    assert_eq!(text(&got.headers, "etag"), Some("\"v2\""));
}

#[tokio::test(start_paused = true)]
async fn file_that_changes_within_a_response_ends_it_with_an_error() {
    let world = World::new(1000);
    world.range("100-199").await;
    world.range("300-399").await;
    let response = world.service.clone().oneshot(get_with(URL, &[])).await.unwrap();
    world.origin.replace(vec![7; 500]);
    let mut body = response.into_body();
    let mut got = Vec::new();
    let error = loop {
        match body.frame().await.expect("an error before the end") {
            Ok(frame) => got.extend_from_slice(frame.data_ref().unwrap()),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), BodyErrorKind::Changed);
    assert_eq!(got, bytes(1000)[..200]);
    let got = world.get(&[]).await;
    assert_eq!((got.code, &got.bytes[..]), (200, &[7; 500][..]));
}

#[tokio::test(start_paused = true)]
async fn range_is_answered_from_what_replaces_a_stored_response() {
    for directive in ["no-cache", "max-age=0"] {
        for first in ["", "0-99"] {
            let world = World::new(1000);
            match first {
                "" => world.get(&[]).await,
                range => world.range(range).await,
            };
            world.origin.replace(vec![7; 500]);
            world.clock.advance(Duration::from_secs(1));
            let got = world.get(&[("range", "bytes=50-59"), ("cache-control", directive)]).await;
            assert_eq!((got.code, &got.bytes[..]), (206, &[7; 10][..]), "{directive} {first}");
            assert_eq!(text(&got.headers, "content-range"), Some("bytes 50-59/500"));
            world.layer.idle().await;
            assert_eq!(world.get(&[]).await.outcome(), "hit", "{directive} {first}: the whole was fetched");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn stale_parts_are_validated() {
    let world = World::new(1000);
    let file = bytes(1000);
    world.range("0-99").await;
    world.clock.advance(Duration::from_secs(3601));
    let got = world.range("10-19").await;
    assert_eq!((got.code, got.outcome(), &got.bytes[..]), (206, "revalidated", &file[10..20]));
    assert_eq!(world.range("0-99").await.outcome(), "hit");
    world.clock.advance(Duration::from_secs(3601));
    world.origin.takes();
    // The request for the missing bytes validates the others.
    let got = world.range("50-149").await;
    assert_eq!((got.code, &got.bytes[..]), (206, &file[50..150]));
    assert_eq!(world.origin.ranges(), ["bytes=100-149"]);
    assert_eq!(world.range("0-149").await.outcome(), "hit");
}

#[tokio::test(start_paused = true)]
async fn parts_without_strong_validator_are_not_combined() {
    for validator in [Validator::Weak, Validator::None] {
        let world = World::new(1000);
        world.origin.change(|file| file.validator = validator);
        world.range("0-99").await;
        assert_eq!(world.range("10-19").await.outcome(), "hit");
        assert_eq!(world.range("100-199").await.outcome(), "miss");
        assert_eq!(world.range("100-199").await.outcome(), "hit");
        assert_eq!(world.range("0-99").await.outcome(), "miss", "it was replaced");
        let got = world.range("50-149").await;
        assert_eq!((got.outcome(), &got.bytes[..]), ("miss", &bytes(1000)[50..150]));
        assert_eq!(world.origin.ranges(), ["bytes=0-99", "bytes=100-199", "bytes=0-99", "bytes=50-149"]);
    }
}

#[tokio::test(start_paused = true)]
async fn lying_content_range_is_not_stored() {
    for fault in [Fault::NamesOthers] {
        let world = World::new(1000);
        world.origin.change(|file| file.fault = fault);
        let got = world.range("0-99").await;
        assert_eq!(got.status.stored(), Stored::No(NotStored::ContentRange));
        assert_eq!(world.range("0-99").await.outcome(), "miss");
    }
}

#[tokio::test(start_paused = true)]
async fn part_of_a_stored_whole_is_not_stored() {
    let world = World::new(1000);
    world.get(&[]).await;
    let got = world.get(&[("range", "bytes=0-9"), ("cache-control", "no-cache")]).await;
    assert_eq!((got.code, got.outcome(), got.bytes.len()), (206, "revalidated", 10));
    assert_eq!(world.get(&[]).await.outcome(), "hit");
}

#[tokio::test(start_paused = true)]
async fn broken_download_is_continued_by_the_next_request() {
    let world = World::new(1000);
    world.origin.change(|file| file.fault = Fault::BreaksAfter(400));
    let got = world.get(&[]).await;
    assert_eq!((got.bytes.len(), got.error), (400, Some(BodyErrorKind::Inner)));
    let got = world.get(&[]).await;
    assert_eq!((got.code, got.error, &got.bytes[..]), (200, None, &bytes(1000)[..]));
    assert_eq!(world.origin.ranges(), ["whole", "bytes=400-999"]);
    assert_eq!(world.get(&[]).await.outcome(), "hit");
}

#[tokio::test(start_paused = true)]
async fn dropped_download_is_continued_by_the_next_request() {
    let world = World::new(1000);
    world.read(get_with(URL, &[]), 10).await;
    world.layer.idle().await;
    let got = world.range("0-499").await;
    assert_eq!((got.code, &got.bytes[..]), (206, &bytes(1000)[..500]));
    assert_eq!(world.origin.ranges(), ["whole", "bytes=70-499"]);
}

#[tokio::test(start_paused = true)]
async fn slice_is_fetched_to_its_end_after_its_reader_is_dropped() {
    for frames in [0, 1, 14, 20, 29] {
        let world = World::on(MemoryStorage::new(), 1000, |builder| builder.slices(100));
        world.read(get_with(URL, &[]), frames).await;
        world.layer.idle().await;
        // Frames of seven bytes, of which the last one of a slice has two.
        let begun = 1 + frames.saturating_sub(1) as u64 / 15;
        assert_eq!(world.origin.ranges().len() as u64, begun, "{frames}");
        let got = world.range(&format!("0-{}", begun * 100 - 1)).await;
        assert_eq!((got.outcome(), got.bytes.len() as u64), ("hit", begun * 100), "{frames}");
        assert_eq!(world.get(&[]).await.bytes, bytes(1000));
        world.layer.idle().await;
        let counts = &world.origin.0.lock().unwrap().counts;
        assert!(counts.iter().all(|count| *count == 1), "no byte came twice");
    }
}

#[tokio::test(start_paused = true)]
async fn lost_bytes_are_fetched_again() {
    let world = World::new(1000);
    world.range("0-499").await;
    world.range("500-999").await;
    world.origin.takes();
    let storage = world.layer.handle().storage().clone();
    let keys: Vec<Key> = storage.keys().try_collect().await.unwrap();
    let chunks: Vec<Key> = keys.into_iter().filter(|key| key.kind == Kind::Chunk && key.part == 3).collect();
    storage.delete_many(&chunks).await.unwrap();
    let got = world.get(&[]).await;
    assert_eq!((got.code, got.error), (200, None));
    assert_eq!(got.bytes, bytes(1000));
    let got = world.get(&[]).await;
    assert_eq!((got.outcome(), got.bytes.len()), ("hit", 1000));
}

#[tokio::test(start_paused = true)]
async fn deletion_takes_all_parts() {
    let world = World::new(1000);
    world.range("0-99").await;
    world.range("300-399").await;
    assert_eq!(world.layer.handle().delete_url(URL).await.unwrap(), 1);
    assert_eq!(world.range("0-99").await.outcome(), "miss");
}

#[tokio::test(start_paused = true)]
async fn partial_responses_are_not_stored_by_default() {
    let world = World::on(MemoryStorage::new(), 1000, |builder| builder.store_parts(false));
    let got = world.range("0-99").await;
    assert_eq!(got.status.stored(), Stored::No(NotStored::PartialContent));
    assert_eq!(world.range("0-99").await.outcome(), "miss");
}

#[tokio::test(start_paused = true)]
async fn slices_cost_only_what_is_wanted() {
    let world = World::on(MemoryStorage::new(), 1000, |builder| builder.slices(100));
    let file = bytes(1000);
    let got = world.range("250-259").await;
    assert_eq!((got.code, &got.bytes[..]), (206, &file[250..260]));
    assert_eq!(text(&got.headers, "content-range"), Some("bytes 250-259/1000"));
    world.layer.idle().await;
    assert_eq!(world.origin.ranges(), ["bytes=200-299"]);
    assert_eq!(world.range("200-299").await.outcome(), "hit");
    let got = world.range("290-410").await;
    assert_eq!((got.code, &got.bytes[..]), (206, &file[290..411]));
    world.layer.idle().await;
    assert_eq!(world.origin.ranges(), ["bytes=300-399", "bytes=400-499"]);
    let got = world.get(&[]).await;
    assert_eq!((got.code, &got.bytes[..]), (200, &file[..]));
    assert_eq!(text(&got.headers, "content-length"), Some("1000"));
    let rest: Vec<_> =
        [0, 1, 5, 6, 7, 8, 9].map(|slice| format!("bytes={}-{}", slice * 100, slice * 100 + 99)).into();
    assert_eq!(world.origin.ranges(), rest);
    assert_eq!(world.get(&[]).await.outcome(), "hit");
    assert!(world.origin.0.lock().unwrap().counts.iter().all(|count| *count == 1), "no byte came twice");
}

/// A storage that answers after other tasks have run, each time after another number of turns.
#[derive(Clone)]
struct Late {
    inner: MemoryStorage,
    random: Arc<Mutex<fastrand::Rng>>,
}

impl Late {
    fn new(seed: u64) -> Self {
        let random = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)));
        Self { inner: MemoryStorage::new(), random }
    }

    async fn wait(&self) {
        let turns = self.random.lock().unwrap().usize(..15);
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }
}

impl Storage for Late {
    forward!(inner: delete, clear, keys, retain, contains_all, delete_expired);

    async fn read(&self, key: Key) -> tower_response_cache::Result<Option<Record>> {
        self.wait().await;
        let read = self.inner.read(key).await;
        self.wait().await;
        read
    }

    async fn write(&self, key: Key, record: Record) -> tower_response_cache::Result<()> {
        self.wait().await;
        self.inner.write(key, record).await?;
        self.wait().await;
        Ok(())
    }

    async fn write_if(
        &self,
        key: Key,
        seen: Option<Stamp>,
        record: Record,
    ) -> tower_response_cache::Result<bool> {
        self.wait().await;
        let is_written = self.inner.write_if(key, seen, record).await;
        self.wait().await;
        is_written
    }
}

#[tokio::test(start_paused = true)]
async fn herd_fetches_each_slice_once() {
    herd_on(MemoryStorage::new(), 0, "memory").await;
    for seed in random::seeds(40) {
        herd_on(Late::new(seed), seed as u32 % 3, &format!("seed {seed}")).await;
    }
}

/// Lets many requests ask for parts of a file at the same time, each of whose bytes the origin sends once.
async fn herd_on<S: Storage>(storage: S, prefetch: u32, name: &str) {
    let world = World::on(storage, 1000, |builder| builder.slices(100).prefetch(prefetch));
    let file = bytes(1000);
    let ranges = ["", "bytes=0-999", "bytes=500-", "bytes=250-349", "bytes=990-999", "bytes=100-100"];
    let asked = (0..60).map(|number| {
        let range = ranges[number % ranges.len()];
        let fields = [("range", range)];
        let request = get_with(URL, if range.is_empty() { &[] } else { &fields });
        let (world, file) = (&world, &file);
        async move {
            let got = world.read(request, usize::MAX).await;
            let wanted = if range.is_empty() { 0..1000 } else { origin::resolve(range, 1000).unwrap() };
            assert_eq!(got.error, None);
            assert_eq!(got.bytes, file[wanted.start as usize..wanted.end as usize], "{name}: {range}");
        }
    });
    futures_util::future::join_all(asked).await;
    world.layer.idle().await;
    let counts = &world.origin.0.lock().unwrap().counts;
    let most: Vec<_> = counts.chunks(100).map(|slice| slice.iter().max().copied().unwrap()).collect();
    assert_eq!(most, [1; 10], "{name}: how often each slice came");
}

#[tokio::test(start_paused = true)]
async fn origin_without_ranges_is_not_sliced() {
    let world = World::on(MemoryStorage::new(), 1000, |builder| builder.slices(100));
    world.origin.change(|file| file.fault = Fault::IgnoresRange);
    let got = world.get(&[]).await;
    assert_eq!((got.code, &got.bytes[..]), (200, &bytes(1000)[..]));
    assert_eq!(world.get(&[]).await.outcome(), "hit");
    assert_eq!(world.origin.ranges(), ["bytes=0-99"]);
}

#[tokio::test(start_paused = true)]
async fn body_without_strong_validator_is_not_sliced() {
    let world = World::on(MemoryStorage::new(), 1000, |builder| builder.slices(100));
    world.origin.change(|file| file.validator = Validator::Weak);
    let got = world.get(&[]).await;
    assert_eq!((got.code, &got.bytes[..]), (200, &bytes(1000)[..]));
    assert_eq!(world.origin.ranges(), ["bytes=0-99", "whole"]);
    world.layer.handle().delete_url(URL).await.unwrap();
    world.get(&[]).await;
    assert_eq!(world.origin.ranges(), ["whole"], "it is remembered");
}

#[tokio::test(start_paused = true)]
async fn short_body_comes_in_one_slice() {
    let world = World::on(MemoryStorage::new(), 50, |builder| builder.slices(100));
    let got = world.get(&[]).await;
    assert_eq!((got.code, &got.bytes[..]), (200, &bytes(50)[..]));
    assert_eq!(text(&got.headers, "content-range"), None);
    let got = world.get(&[]).await;
    assert_eq!((got.code, got.outcome(), &got.bytes[..]), (200, "hit", &bytes(50)[..]));
    assert_eq!(world.origin.ranges(), ["bytes=0-99"]);
}

#[tokio::test(start_paused = true)]
async fn several_ranges_are_answered_from_parts() {
    let world = World::new(1000);
    world.range("0-199").await;
    world.range("400-599").await;
    world.origin.takes();
    let got = world.range("10-19,100-109,500-509").await;
    assert_eq!((got.code, got.outcome(), got.error), (206, "hit", None));
    assert!(text(&got.headers, "content-type").unwrap().starts_with("multipart/byteranges"));
    let file = bytes(1000);
    for (at, part) in [(10, &file[10..20]), (500, &file[500..510])] {
        let head = format!("bytes {at}-");
        assert!(got.bytes.windows(head.len()).any(|window| window == head.as_bytes()));
        assert!(got.bytes.windows(part.len()).any(|window| window == part));
    }
    assert!(world.origin.takes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn missing_bytes_of_several_ranges_are_fetched() {
    let file = bytes(1000);
    for slices in [0, 100] {
        let world = World::on(MemoryStorage::new(), 1000, |builder| builder.slices(slices));
        world.range("0-199").await;
        world.range("400-599").await;
        world.origin.takes();
        let got = world.range("150-249,390-409,700-709").await;
        assert_eq!((got.code, got.outcome(), got.error), (206, "miss", None));
        let partial = got.status.partial().unwrap();
        assert_eq!((partial.stored(), partial.len(), partial.parts()), (400, 1000, 2));
        assert_eq!(text(&got.headers, "content-length"), Some(&*got.bytes.len().to_string()));
        let mut at = 0;
        for wanted in [150..250, 390..410, 700..710] {
            let head = format!("content-range: bytes {}-{}/1000\r\n\r\n", wanted.start, wanted.end - 1);
            let text = got.bytes.to_ascii_lowercase();
            let begin = text.windows(head.len()).position(|window| window == head.as_bytes()).unwrap();
            assert!(begin > at);
            at = begin + head.len();
            assert_eq!(got.bytes[at..][..wanted.len()], file[wanted.clone()], "{wanted:?}");
        }
        world.layer.idle().await;
        let asked: &[&str] = match slices {
            0 => &["bytes=200-249", "bytes=390-399", "bytes=700-709"],
            _ => &["bytes=200-299", "bytes=300-399", "bytes=700-799"],
        };
        assert_eq!(world.origin.ranges(), asked);
        assert_eq!(world.range("150-249,390-409,700-709").await.outcome(), "hit");
    }
}

#[tokio::test(start_paused = true)]
async fn changed_file_is_fetched_for_several_ranges() {
    let world = World::new(1000);
    world.range("0-199").await;
    world.origin.replace(vec![7; 1000]);
    world.origin.takes();
    let got = world.range("300-309,0-9").await;
    assert_eq!(world.origin.ranges(), ["bytes=300-309", "bytes=300-309,0-9"]);
    // This origin does not answer such ranges, and its own answer is passed on.
    assert_eq!((got.code, got.outcome(), got.error), (416, "miss", None));
}

#[tokio::test(start_paused = true)]
async fn status_says_what_is_stored_of_a_body() {
    const MIB: usize = 1 << 20;
    let (clock, _) = Clock::mock();
    let origin = FileOrigin::new(vec![0; 3 * MIB]);
    let builder = CacheLayer::builder(MemoryStorage::new()).clock(clock).store_parts(true);
    let layer = builder.status_field("cache").build().unwrap();
    let service = layer.layer(origin);
    let mut statuses = Vec::new();
    for range in ["0-1048575", "1572864-2097151", "0-9", "10-1572864"] {
        let range = format!("bytes={range}");
        let response = service.clone().oneshot(get_with(URL, &[("range", &range)])).await.unwrap();
        statuses.push(text(response.headers(), "cache-status").unwrap().to_owned());
        response.into_body().collect().await.unwrap();
    }
    assert_eq!(
        statuses[..2],
        [
            "cache; fwd=uri-miss; fwd-status=206; ttl=3600",
            "cache; fwd=partial; fwd-status=206; ttl=3600; detail=\"1 of 3 MiB in 1 part\""
        ]
    );
    assert_eq!(statuses[2], "cache; hit; ttl=3600; detail=\"1.5 of 3 MiB in 2 parts\"");
    let entries: Vec<_> = layer.handle().entries(&EntryFilter::new()).try_collect().await.unwrap();
    assert_eq!(entries[0].partial().unwrap().to_string(), "2 of 3 MiB in 1 part");
}

#[tokio::test(start_paused = true)]
async fn next_slices_are_fetched_before_they_are_wanted() {
    let world = World::on(MemoryStorage::new(), 1000, |builder| builder.slices(100).prefetch(2));
    world.range("0-9").await;
    world.layer.idle().await;
    assert_eq!(world.origin.ranges(), ["bytes=0-99"], "no other slice is wanted");
    let response = world.service.clone().oneshot(get_with(URL, &[])).await.unwrap();
    let mut body = response.into_body();
    let mut got = Vec::new();
    while got.len() < 110 {
        got.extend_from_slice(body.frame().await.unwrap().unwrap().data_ref().unwrap());
    }
    world.layer.idle().await;
    let mut ranges = world.origin.ranges();
    ranges.sort_unstable();
    assert_eq!(ranges, ["bytes=100-199", "bytes=200-299", "bytes=300-399"]);
    while let Some(frame) = body.frame().await {
        got.extend_from_slice(frame.unwrap().data_ref().unwrap());
    }
    assert_eq!(got, bytes(1000));
    let ranges = world.origin.ranges();
    assert_eq!((ranges.len(), world.get(&[]).await.outcome()), (6, "hit"), "{ranges:?}");
}

/// The next request finds the bytes that a caller has read, although the storage has not answered yet.
#[tokio::test(start_paused = true)]
async fn parts_are_hits_while_they_are_being_written() {
    let storage = Faulty::new(Mode::HungWrites);
    // Each part is one chunk, since a body waits for the storage to take all but its last chunk.
    let patient = |builder: CacheLayerBuilder<Faulty>| {
        builder.chunk_bytes(1000).operation_timeout(Duration::from_secs(3600))
    };
    let world = World::on(storage.clone(), 1000, patient);
    let file = bytes(1000);
    world.range("0-99").await;
    world.range("200-299").await;
    let got = world.range("50-249").await;
    assert_eq!((got.code, got.error, &got.bytes[..]), (206, None, &file[50..250]));
    let got = world.range("0-299").await;
    assert_eq!((got.outcome(), &got.bytes[..]), ("hit", &file[..300]));
    assert_eq!(world.origin.ranges(), ["bytes=0-99", "bytes=200-299", "bytes=100-199"]);
    storage.set(Mode::Well);
    world.layer.idle().await;
    assert_eq!(world.range("0-299").await.outcome(), "hit");
}

/// A part that arrives after its URL was invalidated is not added to what was stored since.
#[tokio::test(start_paused = true)]
async fn part_from_before_an_invalidation_is_not_added() {
    let world = World::new(1000);
    world.range("0-99").await;
    let response = world.service.clone().oneshot(get_with(URL, &[("range", "bytes=200-299")])).await.unwrap();
    world.layer.handle().delete_url(URL).await.unwrap();
    world.range("500-599").await;
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), bytes(1000)[200..300]);
    assert_eq!(world.range("500-599").await.outcome(), "hit");
    assert_eq!(world.range("200-299").await.outcome(), "miss");
}

/// Stored bytes are not replaced by those that an origin sends without being asked.
#[tokio::test(start_paused = true)]
async fn longer_part_than_announced_ends_where_it_was_announced() {
    for stores in [true, false] {
        let world = World::new(1000);
        world.range("0-99").await;
        world.range("200-299").await;
        world.origin.takes();
        world.origin.change(|file| {
            file.fault = Fault::SendsMore(50);
            if !stores {
                file.fields = vec![("cache-control", "no-store"), ("content-type", "text/plain")];
            }
        });
        let got = world.range("50-399").await;
        assert_eq!((got.code, got.error, &got.bytes[..]), (206, None, &bytes(1000)[50..400]));
        assert_eq!(world.origin.ranges(), ["bytes=100-199", "bytes=300-399"]);
    }
}

/// A caller that has seen a newer response does not get the older one again.
#[tokio::test(start_paused = true)]
async fn newer_response_that_is_not_stored_ends_the_parts() {
    let world = World::new(1000);
    world.range("0-99").await;
    world.origin.replace(vec![7; 500]);
    world.origin.change(|file| file.fields = vec![("cache-control", "no-store")]);
    assert_eq!(world.range("50-149").await.code, 200);
    world.layer.idle().await;
    let got = world.range("0-9").await;
    assert_eq!((got.outcome(), &got.bytes[..]), ("miss", &[7; 10][..]));
}

/// A reader does not notice that the storage has lost the bytes that it has not come to.
#[tokio::test(start_paused = true)]
async fn bytes_lost_under_a_reader_are_fetched_again() {
    for range in [Some("0-999"), None] {
        // A body in parts, and one that was stored as a whole.
        bytes_lost_under_a_reader(MemoryStorage::new(), range).await;
        bytes_lost_under_a_reader(Late::new(1), range).await;
    }
}

async fn bytes_lost_under_a_reader<S: Storage>(storage: S, range: Option<&str>) {
    let world = World::on(storage, 1000, |builder| builder);
    match range {
        Some(range) => world.range(range).await,
        None => world.get(&[]).await,
    };
    world.layer.idle().await;
    world.origin.takes();
    let response = world.service.clone().oneshot(get_with(URL, &[])).await.unwrap();
    assert!(response.body().status().unwrap().is_hit());
    let mut body = response.into_body();
    let mut got = body.frame().await.unwrap().unwrap().into_data().unwrap().to_vec();
    let storage = world.layer.handle().storage().clone();
    let keys: Vec<Key> = storage.keys().try_collect().await.unwrap();
    let chunks: Vec<Key> = keys.into_iter().filter(|key| key.kind == Kind::Chunk && key.part > 9).collect();
    storage.delete_many(&chunks).await.unwrap();
    assert_eq!(chunks.len(), 22);
    got.extend_from_slice(&body.collect().await.unwrap().to_bytes());
    assert_eq!(got, bytes(1000));
    assert_eq!(world.origin.ranges(), ["bytes=320-999"]);
    assert_eq!(world.get(&[]).await.bytes, bytes(1000));
    assert_eq!(world.get(&[]).await.outcome(), "hit");
}
