//! Bodies that break off are continued while the leader and its followers read them.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::time::advance;
use tower::{Layer, Service, ServiceExt};
use tower_response_cache::storage::MemoryStorage;
use tower_response_cache::{BodyErrorKind, CacheLayer, Outcome};

use crate::support::task::{Task, settle};
use crate::support::{ReqBody, get, get_with};
use crate::world::{Call, Got, Sender, World, got};

/// Longer than any pause before an attempt.
const PAUSE: Duration = Duration::from_secs(5);
const WHOLE: [(&str, &str); 5] = [
    ("cache-control", "max-age=60"),
    ("content-length", "10"),
    ("content-type", "text/plain"),
    ("etag", "\"t\""),
    ("date", "Thu, 01 Jan 2026 00:00:00 GMT"),
];
const REST: [(&str, &str); 3] =
    [("content-range", "bytes 4-9/10"), ("etag", "\"t\""), ("content-type", "text/plain")];

/// The status, the fields and the body of an answer.
type Case = (u16, Vec<(&'static str, &'static str)>, &'static str);

fn world(attempts: u32) -> World {
    World::with(|builder| builder.resume(attempts))
}

/// Sends some requests, and lets the body of their fetch break off after 4 of 10 bytes.
async fn broken(world: &World, callers: usize, fields: &[(&str, &str)]) -> Vec<Task<std::io::Result<Got>>> {
    let mut tasks = world.herd(callers, &[]);
    settle(&mut tasks).await;
    let mut body = world.upstream.call().head(200, fields);
    body.data("0123");
    settle(&mut tasks).await;
    body.break_off();
    settle(&mut tasks).await;
    tasks
}

/// Waits for the next attempt, and returns its request.
async fn attempt(world: &World, tasks: &mut [Task<std::io::Result<Got>>]) -> Call {
    assert_eq!(world.upstream.waiting(), 0);
    advance(PAUSE).await;
    settle(tasks).await;
    world.upstream.call()
}

/// Returns how often bodies were continued.
fn resumed(world: &World) -> u64 {
    world.layer.statistics().resumed()
}

fn scripted(got: &Got) -> bool {
    got.body.as_ref().is_err_and(|error| {
        let source = std::error::Error::source(error).map(ToString::to_string);
        error.kind() == BodyErrorKind::Inner && source.as_deref() == Some("scripted")
    })
}

#[tokio::test(start_paused = true)]
async fn leader_and_followers_read_whole_body() {
    let world = world(1);
    let mut tasks = broken(&world, 3, &WHOLE).await;
    let call = attempt(&world, &mut tasks).await;
    assert_eq!((call.field("range"), call.field("if-range")), (Some("bytes=4-"), Some("\"t\"")));
    let body = call.head(206, &REST);
    for part in ["45", "678", "9"] {
        body.data(part);
        settle(&mut tasks).await;
    }
    drop(body);
    settle(&mut tasks).await;
    for got in got(&mut tasks) {
        assert_eq!((got.code, got.body.unwrap().as_str()), (200, "0123456789"));
    }
    assert_eq!((resumed(&world), world.upstream.count()), (1, 2));
    let mut hit = [world.ask(&[])];
    settle(&mut hit).await;
    let hit = got(&mut hit).remove(0);
    assert_eq!((hit.status.outcome(), hit.body.unwrap().as_str()), (Outcome::Hit, "0123456789"));
}

#[tokio::test(start_paused = true)]
async fn body_is_continued_by_strong_date_and_without_error() {
    let world = world(1);
    let mut fields = WHOLE.to_vec();
    fields[3] = ("last-modified", "Wed, 31 Dec 2025 00:00:00 GMT");
    let mut tasks = world.herd(2, &[]);
    settle(&mut tasks).await;
    // It ends early, without an error.
    world.upstream.call().answer(200, &fields, "0123");
    settle(&mut tasks).await;
    let call = attempt(&world, &mut tasks).await;
    assert_eq!(call.field("if-range"), Some(fields[3].1));
    call.answer(206, &[REST[0], fields[3], fields[4]], "456789");
    settle(&mut tasks).await;
    assert!(got(&mut tasks).into_iter().all(|got| got.body.unwrap() == "0123456789"));
}

#[tokio::test(start_paused = true)]
async fn other_answers_are_never_joined() {
    let rest = |changed: usize, field: (&'static str, &'static str)| {
        let mut fields = REST.to_vec();
        fields[changed] = field;
        fields
    };
    let and = |field: (&'static str, &'static str)| {
        let mut fields = REST.to_vec();
        fields.push(field);
        fields
    };
    let range = |range| rest(0, ("content-range", range));
    let cases: Vec<Case> = vec![
        (200, WHOLE.to_vec(), "0123456789"),
        (200, REST.to_vec(), "456789"),
        (304, REST.to_vec(), ""),
        (416, vec![("content-range", "bytes */10")], ""),
        (404, vec![], "456789"),
        (206, range("bytes 3-9/10"), "3456789"),
        (206, range("bytes 5-9/10"), "56789"),
        (206, range("bytes 4-9/11"), "456789"),
        (206, range("bytes 4-10/11"), "456789a"),
        (206, range("bytes 4-9/*"), "456789"),
        (206, range("bytes */10"), "456789"),
        (206, range("lines 4-9/10"), "456789"),
        (206, and(("content-range", "bytes 4-9/10")), "456789"),
        (206, REST[1..].to_vec(), "456789"),
        (206, and(("content-length", "5")), "45678"),
        (206, and(("content-length", "7")), "456789a"),
        (206, rest(1, ("etag", "\"u\"")), "456789"),
        (206, rest(1, ("etag", "W/\"t\"")), "456789"),
        (206, rest(1, ("expires", "0")), "456789"),
        (206, and(("etag", "\"t\"")), "456789"),
        (206, and(("last-modified", "Wed, 31 Dec 2025 00:00:00 GMT")), "456789"),
        (206, and(("content-encoding", "gzip")), "456789"),
        (206, rest(2, ("content-type", "multipart/byteranges; boundary=b")), "456789"),
        (206, rest(2, ("content-type", "text/html")), "456789"),
        // More bytes than it says.
        (206, REST.to_vec(), "456789a"),
        (206, range("bytes 4-5/10"), "456789"),
    ];
    for (status, fields, body) in cases {
        let world = world(3);
        let mut tasks = broken(&world, 2, &WHOLE).await;
        attempt(&world, &mut tasks).await.answer(status, &fields, body);
        settle(&mut tasks).await;
        let got = got(&mut tasks);
        assert!(got.iter().all(scripted), "{status} {fields:?}: {got:?}");
        // The origin has said what it has, so that it is not asked again.
        assert_eq!(world.upstream.count(), 2, "{status} {fields:?}");
        let mut next = [world.ask(&[])];
        settle(&mut next).await;
        assert_eq!(world.upstream.waiting(), 1, "{status} {fields:?} is stored");
    }
}

#[tokio::test(start_paused = true)]
async fn coded_bodies_are_joined_only_if_both_are() {
    for (coding, is_joined) in [(Some("gzip"), true), (Some("br"), false), (None, false)] {
        let world = world(1);
        let mut fields = WHOLE.to_vec();
        fields.push(("content-encoding", "gzip"));
        let mut tasks = broken(&world, 1, &fields).await;
        let mut rest = REST.to_vec();
        rest.extend(coding.map(|coding| ("content-encoding", coding)));
        attempt(&world, &mut tasks).await.answer(206, &rest, "456789");
        settle(&mut tasks).await;
        let got = got(&mut tasks).remove(0);
        assert_eq!(got.body.is_ok(), is_joined, "{coding:?}");
        assert_eq!(scripted(&got), !is_joined, "{coding:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn responses_without_the_means_are_not_continued() {
    let with = |changed: usize, field| {
        let mut fields = WHOLE.to_vec();
        fields[changed] = field;
        fields
    };
    let mut no_ranges = WHOLE.to_vec();
    no_ranges.push(("accept-ranges", "None"));
    let mut chunked = WHOLE.to_vec();
    chunked.push(("transfer-encoding", "chunked"));
    for (attempts, fields) in [
        (0, WHOLE.to_vec()),
        (9, with(3, ("etag", "W/\"t\""))),
        (9, with(3, ("expires", "0"))),
        (9, with(3, ("last-modified", WHOLE[4].1))),
        (9, with(1, ("content-length", "ten"))),
        (9, no_ranges),
        (9, chunked),
    ] {
        let world = world(attempts);
        let mut tasks = broken(&world, 2, &fields).await;
        assert!(got(&mut tasks).iter().all(scripted), "{fields:?}");
        assert_eq!(world.upstream.count(), 1, "{fields:?}");
    }
    // Nothing is missing.
    for len in ["4", "3"] {
        let world = world(9);
        let mut tasks = broken(&world, 1, &with(1, ("content-length", len))).await;
        assert!(tasks.iter().all(Task::is_done));
        settle(&mut tasks).await;
        assert_eq!(world.upstream.count(), 1, "{len}");
    }
}

#[tokio::test(start_paused = true)]
async fn failed_attempts_are_repeated_with_pauses() {
    let world = world(4);
    let mut tasks = broken(&world, 2, &WHOLE).await;
    let mut call = attempt(&world, &mut tasks).await;
    call.fail();
    settle(&mut tasks).await;
    attempt(&world, &mut tasks).await.answer(503, &[("retry-after", "4")], "later");
    settle(&mut tasks).await;
    advance(Duration::from_millis(3_900)).await;
    settle(&mut tasks).await;
    assert_eq!(world.upstream.waiting(), 0, "before Retry-After");
    advance(Duration::from_millis(200)).await;
    settle(&mut tasks).await;
    // A longer time than the longest pause is not waited for.
    world.upstream.call().answer(429, &[("retry-after", "86400")], "later");
    settle(&mut tasks).await;
    attempt(&world, &mut tasks).await.answer(206, &REST, "456789");
    settle(&mut tasks).await;
    assert!(got(&mut tasks).into_iter().all(|got| got.body.unwrap() == "0123456789"));
    assert_eq!((resumed(&world), world.upstream.count()), (1, 5));
}

#[tokio::test(start_paused = true)]
async fn body_ends_as_it_broke_off_when_no_attempt_is_left() {
    let world = world(2);
    let mut tasks = broken(&world, 2, &WHOLE).await;
    attempt(&world, &mut tasks).await.answer(500, &[], "");
    settle(&mut tasks).await;
    attempt(&world, &mut tasks).await.answer(408, &[], "");
    settle(&mut tasks).await;
    assert!(got(&mut tasks).iter().all(scripted));
    assert_eq!((resumed(&world), world.upstream.count()), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn several_breaks_are_continued_one_after_another() {
    let world = world(3);
    let mut tasks = broken(&world, 2, &WHOLE).await;
    // Less than was asked for, which is permitted, and then less than that.
    let mut fields = REST.to_vec();
    fields[0] = ("content-range", "bytes 4-7/10");
    attempt(&world, &mut tasks).await.answer(206, &fields, "45");
    settle(&mut tasks).await;
    let call = attempt(&world, &mut tasks).await;
    assert_eq!(call.field("range"), Some("bytes=6-"));
    fields[0] = ("content-range", "bytes 6-7/10");
    call.answer(206, &fields, "67");
    settle(&mut tasks).await;
    let call = attempt(&world, &mut tasks).await;
    assert_eq!(call.field("range"), Some("bytes=8-"));
    fields[0] = ("content-range", "bytes 8-9/10");
    let body = call.head(206, &fields);
    body.data("89");
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "1".parse().unwrap());
    body.trailers(trailers);
    drop(body);
    settle(&mut tasks).await;
    assert!(got(&mut tasks).into_iter().all(|got| got.body.unwrap() == "0123456789"));
    assert_eq!(resumed(&world), 3);
}

#[tokio::test(start_paused = true)]
async fn attempts_count_anew_after_a_mebibyte() {
    const STEP: usize = 400 * 1024;
    let total = 9 * STEP;
    let world = world(3);
    let len = total.to_string();
    let mut fields = WHOLE.to_vec();
    fields[1] = ("content-length", &len);
    let mut reading = [Task::new({
        let response = world.service.clone().oneshot(get("http://example.com/"));
        async move { response.await.unwrap().into_body().collect().await.map(|body| body.to_bytes().len()) }
    })];
    settle(&mut reading).await;
    let mut body = world.upstream.call().head(200, &fields);
    for step in 1..9 {
        body.data(vec![b'x'; STEP]);
        body.fail();
        settle(&mut reading).await;
        advance(PAUSE).await;
        settle(&mut reading).await;
        let range = format!("bytes {}-{}/{total}", step * STEP, total - 1);
        body = world.upstream.call().head(206, &[("content-range", &range), REST[1]]);
    }
    body.data(vec![b'x'; STEP]);
    drop(body);
    settle(&mut reading).await;
    assert_eq!(reading[0].run().unwrap().unwrap(), total);
    assert_eq!(resumed(&world), 8);
}

#[tokio::test(start_paused = true)]
async fn partial_response_is_continued_to_its_end() {
    let world = world(1);
    let request = [("range", "bytes=2-6"), ("if-range", "\"t\"")];
    let mut tasks = vec![world.ask(&request)];
    settle(&mut tasks).await;
    let fields = [("content-range", "bytes 2-6/10"), ("content-length", "5"), ("etag", "\"t\"")];
    let body = world.upstream.call().head(206, &fields);
    body.data("23");
    body.fail();
    settle(&mut tasks).await;
    let call = attempt(&world, &mut tasks).await;
    assert_eq!((call.field("range"), call.field("if-range")), (Some("bytes=4-6"), Some("\"t\"")));
    call.answer(206, &[("content-range", "bytes 4-6/10"), ("etag", "\"t\"")], "456");
    settle(&mut tasks).await;
    let got = got(&mut tasks).remove(0);
    assert_eq!((got.code, got.body.unwrap().as_str()), (206, "23456"));
}

#[tokio::test(start_paused = true)]
async fn own_conditions_are_not_sent_again() {
    let world = World::with(|builder| builder.resume(1).coalesce(false));
    let mut tasks = vec![world.ask(&[("if-none-match", "\"s\""), ("accept", "text/plain")])];
    settle(&mut tasks).await;
    let body = world.upstream.call().head(200, &WHOLE);
    body.data("0123");
    body.fail();
    settle(&mut tasks).await;
    let call = attempt(&world, &mut tasks).await;
    assert_eq!((call.field("if-none-match"), call.field("accept")), (None, Some("text/plain")));
    call.answer(206, &REST, "456789");
    settle(&mut tasks).await;
    assert_eq!(got(&mut tasks).remove(0).body.unwrap(), "0123456789");
}

#[tokio::test(start_paused = true)]
async fn dropped_body_drops_its_attempt() {
    // In the pause, while the head is awaited, and in the middle of the rest.
    for step in 0..3 {
        let world = world(3);
        let mut tasks = broken(&world, 2, &WHOLE).await;
        let mut call = None;
        let mut body: Option<Sender> = None;
        if step > 0 {
            call = Some(attempt(&world, &mut tasks).await);
        }
        if step > 1 {
            body = call.take().map(|call| call.head(206, &REST));
            body.as_ref().unwrap().data("45");
            settle(&mut tasks).await;
        }
        // The one that polled last need not be the one that is left.
        tasks.remove(0);
        settle(&mut tasks).await;
        assert!(call.as_ref().is_none_or(Call::is_waiting), "a reader is left");
        assert!(body.as_ref().is_none_or(|body| !body.is_dropped()), "a reader is left");
        drop(tasks);
        assert!(call.as_ref().is_none_or(Call::is_dropped));
        assert!(body.as_ref().is_none_or(Sender::is_dropped));
        advance(10 * PAUSE).await;
        settle::<()>(&mut []).await;
        assert_eq!((world.upstream.waiting(), resumed(&world)), (0, u64::from(step > 1)));
    }
}

#[tokio::test(start_paused = true)]
async fn remaining_reader_drives_the_attempt() {
    let world = world(1);
    let mut tasks = broken(&world, 2, &WHOLE).await;
    tasks.remove(0);
    attempt(&world, &mut tasks).await.answer(206, &REST, "456789");
    settle(&mut tasks).await;
    assert_eq!(got(&mut tasks).remove(0).body.unwrap(), "0123456789");
}

#[test]
fn body_ends_as_it_broke_off_without_a_runtime() {
    let world = world(3);
    let mut task = world.ask(&[]);
    assert!(task.run().is_none());
    let body = world.upstream.call().head(200, &WHOLE);
    body.data("0123");
    body.fail();
    assert!(scripted(&task.run().unwrap().unwrap()));
    assert_eq!(world.upstream.count(), 1);
}

/// An origin whose responses break off, and which lies about them.
#[derive(Clone)]
struct Liar(Arc<Mutex<Lies>>);

struct Lies {
    random: fastrand::Rng,
    /// The bytes of each version of the resource.
    versions: Vec<Bytes>,
    /// The current version.
    version: usize,
    is_honest: bool,
}

/// A body of frames that are there.
struct Frames(std::vec::IntoIter<std::io::Result<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        Poll::Ready(self.0.next().map(|frame| frame.map(Frame::data)))
    }
}

impl Lies {
    fn answer(&mut self, request: &HeaderMap) -> std::io::Result<Response<Frames>> {
        let Self { random, versions, version, is_honest } = self;
        let lies = |random: &mut fastrand::Rng, one_in: usize| !*is_honest && random.usize(..one_in) == 0;
        if lies(random, 12) {
            *version = (*version + 1) % versions.len();
        }
        let body = versions[*version].clone();
        let tag = format!("\"{version}\"");
        let text = |name: &str| request.get(name).map(|value| value.to_str().unwrap());
        let mut response = Response::builder().header("cache-control", "max-age=60").header("etag", &tag);
        let asked = text("range").filter(|_| text("if-range").is_none_or(|asked| asked == tag));
        let ignores_range = lies(random, 20);
        let mut sent = match asked.filter(|_| !ignores_range) {
            None => {
                response = response.header("content-length", body.len());
                body.to_vec()
            }
            Some(_) if lies(random, 12) => {
                return Ok(response.status(503).body(Frames(Vec::new().into_iter())).unwrap());
            }
            Some(_) if lies(random, 20) => return Err(std::io::Error::other("scripted")),
            Some(range) => {
                let (first, _) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
                let mut first: usize = first.parse().unwrap();
                if lies(random, 12) {
                    first = random.usize(..body.len());
                }
                let last = if lies(random, 4) { random.usize(first..body.len()) } else { body.len() - 1 };
                let complete = body.len() + usize::from(lies(random, 20));
                response = response
                    .status(StatusCode::PARTIAL_CONTENT)
                    .header("content-range", format!("bytes {first}-{last}/{complete}"));
                if lies(random, 20) {
                    response = response.header("content-encoding", "gzip");
                }
                body[first..=last].to_vec()
            }
        };
        if lies(random, 15) {
            sent.extend_from_slice(&[0xff; 3]);
        }
        let breaks = lies(random, 2);
        if breaks {
            sent.truncate(random.usize(..=sent.len()));
        }
        let mut frames = Vec::new();
        while !sent.is_empty() {
            let rest = sent.split_off(random.usize(1..=sent.len()));
            frames.push(Ok(Bytes::from(std::mem::replace(&mut sent, rest))));
        }
        if breaks && random.bool() {
            frames.push(Err(std::io::Error::other("scripted")));
        }
        Ok(response.body(Frames(frames.into_iter())).unwrap())
    }
}

impl Service<Request<ReqBody>> for Liar {
    type Response = Response<Frames>;
    type Error = std::io::Error;
    type Future = std::future::Ready<std::io::Result<Response<Frames>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        std::future::ready(self.0.lock().unwrap().answer(request.headers()))
    }
}

/// Reads a body, and returns its bytes and whether it ended with an error.
async fn read<B>(body: B) -> (Vec<u8>, bool)
where
    B: Body<Data = Bytes>,
{
    let (mut body, mut bytes) = (Box::pin(body), Vec::new());
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        match frame {
            Ok(frame) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Err(_) => return (bytes, true),
        }
    }
    (bytes, false)
}

#[tokio::test(start_paused = true)]
async fn lying_origin_never_mixes_bytes() {
    let (mut continued, mut whole) = (0, 0);
    for seed in 0..1_500 {
        let mut random = fastrand::Rng::with_seed(seed);
        let versions: Vec<Bytes> = (0..3_u8)
            .map(|version| {
                let len = random.usize(1..40);
                (0..len).map(|at| version * 64 + (at % 64) as u8).collect::<Vec<_>>().into()
            })
            .collect();
        let lies = Lies { random, versions: versions.clone(), version: 0, is_honest: false };
        let origin = Liar(Arc::new(Mutex::new(lies)));
        let builder = CacheLayer::builder(MemoryStorage::new()).chunk_bytes(7).inline_bytes(5);
        let layer = builder.resume(3).build().unwrap();
        let service = layer.layer(origin.clone());
        let mut readers = Vec::new();
        for _ in 0..3 {
            let service = service.clone();
            readers.push(tokio::spawn(async move {
                let response = service.oneshot(get("http://example.com/")).await.ok()?;
                let announced = response.headers().get("content-length")?.to_str().unwrap().parse().unwrap();
                let is_whole = response.status() == StatusCode::OK;
                let version =
                    response.headers().get("etag")?.to_str().unwrap().trim_matches('"').parse().unwrap();
                is_whole.then_some((read(response.into_body()).await, version, announced))
            }));
        }
        for reader in readers {
            let Some(((bytes, failed), version, announced)) = reader.await.unwrap() else { continue };
            let (expected, version): (&Bytes, usize) = (&versions[version], version);
            // The first response of the origin may itself have more bytes than it announces, and is passed on as it is.
            let sent: &[u8] = if bytes.len() > announced { &bytes[..announced] } else { &bytes };
            assert!(expected.starts_with(sent), "seed {seed}, version {version}: {bytes:?}");
            assert!(bytes[sent.len()..].iter().all(|byte| *byte == 0xff), "seed {seed}: {bytes:?}");
            whole += usize::from(!failed && bytes.len() == announced);
        }
        continued += layer.statistics().resumed();
        layer.idle().await;
        // Only a whole body is stored.
        let stored = get_with("http://example.com/", &[("cache-control", "only-if-cached")]);
        let stored = service.oneshot(stored).await.unwrap();
        if stored.status() == StatusCode::OK {
            let (bytes, failed) = read(stored.into_body()).await;
            assert!(!failed && versions.iter().any(|version| *version == bytes), "seed {seed}: {bytes:?}");
        }
    }
    assert!(continued > 500 && whole > 2_000, "{continued} continued, {whole} whole");
}
