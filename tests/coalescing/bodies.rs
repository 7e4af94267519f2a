//! A body that several requests read while it is downloaded.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt;
use tower_response_cache::{BodyErrorKind, CacheBody};

use super::world::{Answered, Given, Sender, World};
use crate::support::faulty::{Faulty, Mode};
use crate::support::task::{Task, settle};
use crate::support::{get, get_with};

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=60")];

type Body = CacheBody<Given>;

fn body(task: &mut Task<Answered>) -> Body {
    task.run().unwrap().unwrap().into_body()
}

/// Returns the bytes of the next frame, which must be available. Empty bytes mean the end.
fn next(body: &mut Body) -> Bytes {
    try_next(body).expect("a frame is available").unwrap()
}

fn try_next(body: &mut Body) -> Option<Result<Bytes, tower_response_cache::BodyError>> {
    use futures_util::FutureExt;
    let frame = tokio::task::unconstrained(body.frame()).now_or_never()?;
    Some(frame.transpose().map(|frame| frame.and_then(|frame| frame.into_data().ok()).unwrap_or_default()))
}

/// Starts `many` requests, of which the first leads.
///
/// Returns the sender of the origin and the bodies of the responses.
async fn readers<S: tower_response_cache::storage::Storage>(
    world: &World<S>,
    many: usize,
) -> (Sender, Vec<Body>) {
    readers_of(world, many, FRESH).await
}

async fn readers_of<S: tower_response_cache::storage::Storage>(
    world: &World<S>,
    many: usize,
    fields: &[(&str, &str)],
) -> (Sender, Vec<Body>) {
    let mut tasks: Vec<_> = (0..many).map(|_| world.send(get("http://example.com/"))).collect();
    settle(&mut tasks).await;
    let sender = world.upstream.call().head(200, fields);
    settle(&mut tasks).await;
    assert_eq!(world.upstream.count(), 1);
    (sender, tasks.iter_mut().map(body).collect())
}

/// A server frames a response by its size hint.
///
/// An exact hint for half a body would make the body look complete.
#[tokio::test(start_paused = true)]
async fn size_hint_of_broken_body_is_inexact() {
    let world = World::new();
    let (sender, mut bodies) = readers(&world, 2).await;
    sender.data("half");
    let leader = &mut bodies[0];
    assert_eq!(next(leader), "half");
    sender.fail();
    assert!(try_next(leader).unwrap().is_err());
    let follower = &mut bodies[1];
    let hint = follower.size_hint();
    assert_eq!((hint.lower(), hint.exact(), follower.is_end_stream()), (4, None, false));
    assert_eq!(next(follower), "half");
    assert_eq!((follower.size_hint().exact(), follower.is_end_stream()), (None, false));
    assert!(try_next(follower).unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn size_hint_of_complete_body_is_exact() {
    let world = World::new();
    let (sender, mut bodies) = readers(&world, 2).await;
    sender.data("whole");
    assert_eq!(bodies[1].size_hint().exact(), None, "more may come");
    drop(sender);
    while !next(&mut bodies[0]).is_empty() {}
    assert_eq!(bodies[1].size_hint().exact(), Some(5));
}

#[tokio::test(start_paused = true)]
async fn size_hint_follows_content_length_until_violated() {
    for (pieces, ends) in [(&["0123456789"][..], true), (&["01234"], true), (&["01234", "56789ab"], false)] {
        let world = World::new();
        let fields = [("cache-control", "max-age=60"), ("content-length", "10")];
        let (sender, mut bodies) = readers_of(&world, 2, &fields).await;
        assert_eq!(bodies[1].size_hint().exact(), Some(10));
        pieces.iter().for_each(|piece| sender.data(*piece));
        if ends {
            drop(sender);
        }
        while try_next(&mut bodies[0]).is_some_and(|frame| frame.is_ok_and(|data| !data.is_empty())) {}
        let kept = pieces.concat().len() == 10;
        assert_eq!(bodies[1].size_hint().exact(), kept.then_some(10), "{pieces:?}");
    }
}

/// Content-Length does not count beside Transfer-Encoding (RFC 9112 §6.3).
///
/// It then describes another framing of the message.
#[tokio::test(start_paused = true)]
async fn content_length_is_ignored_with_transfer_encoding() {
    let world = World::new();
    let fields = [("cache-control", "max-age=60"), ("content-length", "5"), ("transfer-encoding", "chunked")];
    let (sender, mut bodies) = readers_of(&world, 1, &fields).await;
    assert_eq!(bodies[0].size_hint().exact(), None);
    sender.data("01234");
    assert_eq!(next(&mut bodies[0]), "01234");
    sender.data("56789");
    drop(sender);
    while !next(&mut bodies[0]).is_empty() {}
    let mut second = [world.send(get("http://example.com/"))];
    settle(&mut second).await;
    let hit = second[0].run().expect("the request is answered from the storage").unwrap();
    assert!(!hit.headers().contains_key("content-length"), "{:?}", hit.headers());
    assert_eq!(hit.into_body().collect().await.unwrap().to_bytes(), "0123456789");
}

#[tokio::test(start_paused = true)]
async fn body_exceeding_content_length_is_not_stored() {
    let world = World::new();
    let fields = [("cache-control", "max-age=60"), ("content-length", "5")];
    let (sender, mut bodies) = readers_of(&world, 1, &fields).await;
    sender.data("01234");
    sender.data("56789");
    drop(sender);
    let first = bodies.remove(0).collect().await.unwrap().to_bytes();
    assert_eq!(first, "0123456789");
    let mut second = [world.send(get("http://example.com/"))];
    settle(&mut second).await;
    assert_eq!(world.upstream.count(), 2);
}

async fn join<S: tower_response_cache::storage::Storage>(world: &World<S>) -> Body {
    let mut task = [world.send(get("http://example.com/"))];
    settle(&mut task).await;
    let response = task[0].run().unwrap().unwrap();
    assert!(response.body().status().unwrap().is_collapsed());
    response.into_body()
}

#[tokio::test(start_paused = true)]
async fn each_frame_reaches_all_readers_on_arrival() {
    let world = World::new();
    let (sender, mut bodies) = readers(&world, 3).await;
    for frame in ["one", "two", "three"] {
        assert!(bodies.iter_mut().all(|body| try_next(body).is_none()));
        sender.data(frame);
        assert!(bodies.iter_mut().all(|body| next(body) == frame));
    }
    drop(sender);
    assert!(bodies.iter_mut().all(|body| next(body).is_empty()));
}

#[tokio::test(start_paused = true)]
async fn waiting_readers_are_woken_after_driver_drops() {
    let world = World::new();
    let (sender, bodies) = readers(&world, 4).await;
    let collect = |body: Body| Task::new(async move { body.collect().await.unwrap().to_bytes() });
    let mut tasks: Vec<_> = bodies.into_iter().map(collect).collect();
    settle(&mut tasks).await;
    drop(tasks.remove(3)); // the last reader that polled the origin's body
    sender.data("body");
    drop(sender);
    settle(&mut tasks).await;
    assert!(tasks.iter_mut().all(|task| task.run().unwrap() == "body"));
}

#[tokio::test(start_paused = true)]
async fn two_bodies_in_one_task_never_deadlock() {
    for first in [0, 1] {
        let world = World::with(|builder| builder.chunk_bytes(1000));
        let (sender, mut bodies) = readers(&world, 2).await;
        let mut whole = Vec::new();
        for number in 0..100_u8 {
            sender.data(vec![number; 100]);
            whole.extend([number; 100]);
        }
        drop(sender);
        let (one, other) = (bodies.remove(first), bodies.remove(0));
        assert_eq!(one.collect().await.unwrap().to_bytes(), whole);
        assert_eq!(other.collect().await.unwrap().to_bytes(), whole);
    }
}

#[tokio::test(start_paused = true)]
async fn leader_not_reading_its_body_stalls_no_follower() {
    for drops in [false, true] {
        let world = World::with(|builder| builder.chunk_bytes(64));
        let (sender, mut bodies) = readers(&world, 2).await;
        let leader = bodies.remove(0);
        let leader = if drops { None } else { Some(leader) };
        for _ in 0..50 {
            sender.data(vec![7; 50]);
        }
        drop(sender);
        assert_eq!(bodies.remove(0).collect().await.unwrap().to_bytes(), vec![7; 2500]);
        world.layer.idle().await;
        assert_eq!(world.ask(&[]).run().unwrap().unwrap().status.word(), "hit");
        if let Some(leader) = leader {
            assert_eq!(leader.collect().await.unwrap().to_bytes(), vec![7; 2500]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn late_follower_reads_body_from_the_beginning() {
    let world = World::with(|builder| builder.chunk_bytes(10));
    let (sender, mut bodies) = readers(&world, 1).await;
    for _ in 0..10 {
        sender.data("0123456789abc");
        assert_eq!(next(&mut bodies[0]).len(), 13);
    }
    let mut late = join(&world).await;
    let mut got = Vec::new();
    while let Some(frame) = try_next(&mut late) {
        got.extend(frame.unwrap());
    }
    assert_eq!(got, "0123456789abc".repeat(10).as_bytes());
    sender.data("live");
    assert_eq!((next(&mut late), next(&mut bodies[0])), ("live".into(), "live".into()));
    drop(sender);
    assert!(next(&mut late).is_empty());
    assert_eq!(world.upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn download_ends_when_all_readers_drop() {
    let world = World::with(|builder| builder.chunk_bytes(10));
    let (sender, mut bodies) = readers(&world, 2).await;
    sender.data(vec![1; 100]);
    next(&mut bodies[0]);
    assert!(!sender.is_dropped());
    drop(bodies);
    assert!(sender.is_dropped());
    world.layer.idle().await;
    let mut next = [world.ask(&[])];
    settle(&mut next).await;
    assert_eq!(world.upstream.waiting(), 1);
}

#[tokio::test(start_paused = true)]
async fn finish_on_drop_stores_body_without_readers() {
    let world = World::with(|builder| builder.chunk_bytes(10).finish_on_drop(true));
    let (sender, bodies) = readers(&world, 2).await;
    drop(bodies);
    sender.data(vec![1; 100]);
    drop(sender);
    world.layer.idle().await;
    assert_eq!(world.ask(&[]).run().unwrap().unwrap().status.word(), "hit");
}

/// Sends a request whose response replaces a stored one. Returns the sender of the new body and the response.
async fn replacing<S: tower_response_cache::storage::Storage>(
    world: &World<S>,
    asked: &[(&str, &str)],
) -> (Sender, http::Response<Body>) {
    let stored = [("cache-control", "max-age=60"), ("etag", "\"old\"")];
    world.store(&stored, "old", Duration::from_secs(61)).await;
    let mut caller = [world.send(get_with("http://example.com/", asked))];
    settle(&mut caller).await;
    let fields = [("cache-control", "max-age=60"), ("content-length", "10"), ("etag", "\"new\"")];
    let sender = world.upstream.call().head(200, &fields);
    settle(&mut caller).await;
    (sender, caller[0].run().unwrap().unwrap())
}

#[tokio::test(start_paused = true)]
async fn replacement_dropped_by_caller_ends_download() {
    for (finishes, asked) in [
        (false, [].as_slice()),
        (true, &[]),
        (false, &[("range", "bytes=2-4")]),
        (true, &[("range", "bytes=2-4")]),
    ] {
        let world = World::with(|builder| if finishes { builder.finish_on_drop(true) } else { builder });
        let (sender, response) = replacing(&world, asked).await;
        sender.data("01");
        drop(response);
        tokio::task::yield_now().await;
        assert_eq!(sender.is_dropped(), !finishes, "{asked:?}");
        sender.data("23456789");
        drop(sender);
        world.layer.idle().await;
        let mut next = [world.ask(&[])];
        settle(&mut next).await;
        assert_eq!(next[0].is_done(), finishes, "{asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn whole_body_is_stored_after_partial_answer() {
    for (asked, code, part) in [
        (("range", "bytes=2-4"), 206, "234"),
        (("range", "bytes=20-"), 416, ""),
        (("if-none-match", "\"new\""), 304, ""),
    ] {
        let world = World::new();
        let (sender, response) = replacing(&world, &[asked]).await;
        assert_eq!(response.status(), code);
        sender.data("01234");
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), part);
        sender.data("56789");
        drop(sender);
        world.layer.idle().await;
        let hit = world.ask(&[]).run().expect("the request is answered from the storage").unwrap();
        assert_eq!(hit.body.unwrap(), "0123456789");
    }
}

#[test]
fn runtime_shutdown_drops_the_download() {
    let world = World::with(|builder| builder.finish_on_drop(true));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let sender = runtime.block_on(async {
        let (sender, mut bodies) = readers(&world, 1).await;
        let body = bodies.remove(0);
        tokio::spawn(async move { body.collect().await.map(drop) });
        tokio::task::yield_now().await;
        sender
    });
    drop(runtime);
    assert!(sender.is_dropped());
}

#[tokio::test(start_paused = true)]
async fn body_error_reaches_all_readers() {
    let world = World::with(|builder| builder.chunk_bytes(10));
    let (sender, mut bodies) = readers(&world, 3).await;
    sender.data(vec![1; 25]);
    next(&mut bodies[0]);
    sender.fail();
    for mut body in bodies {
        let error = std::iter::from_fn(|| try_next(&mut body)).find_map(Result::err).unwrap();
        assert_eq!(error.kind(), BodyErrorKind::Inner);
    }
    world.layer.idle().await;
    let mut next = [world.ask(&[])];
    settle(&mut next).await;
    assert_eq!(world.upstream.waiting(), 1, "nothing is stored");
}

#[tokio::test(start_paused = true)]
async fn short_body_is_an_error_for_followers() {
    let world = World::new();
    let fields = &[("cache-control", "max-age=60"), ("content-length", "10")];
    let (sender, mut bodies) = readers_of(&world, 2, fields).await;
    sender.data("short");
    drop(sender);
    assert_eq!(next(&mut bodies[1]), "short");
    assert_eq!(try_next(&mut bodies[1]).unwrap().unwrap_err().kind(), BodyErrorKind::Length);
}

#[tokio::test(start_paused = true)]
async fn trailers_reach_all_readers() {
    let world = World::new();
    let (sender, bodies) = readers(&world, 2).await;
    sender.data("body");
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", "42".parse().unwrap());
    sender.trailers(trailers.clone());
    drop(sender);
    for body in bodies {
        assert_eq!(body.collect().await.unwrap().trailers(), Some(&trailers));
    }
}

/// Fields that are private to one user reach no other user, even as trailers.
#[tokio::test(start_paused = true)]
async fn private_trailers_reach_only_the_leader() {
    let world = World::with(|builder| builder.shared(true));
    let control = "max-age=60, private=\"x-user\", no-cache=\"x-checked\"";
    let (sender, bodies) = readers_of(&world, 2, &[("cache-control", control), ("trailer", "x-user")]).await;
    sender.data("body");
    let all = [("x-user", "alice"), ("x-checked", "1"), ("set-cookie", "session=alice"), ("x-sum", "42")];
    let mut trailers = http::HeaderMap::new();
    all.iter().for_each(|(name, value)| drop(trailers.insert(*name, value.parse().unwrap())));
    sender.trailers(trailers.clone());
    drop(sender);
    let mut came = Vec::new();
    for body in bodies {
        came.push(body.collect().await.unwrap().trailers().cloned().unwrap());
    }
    let mut hit = [world.send(get("http://example.com/"))];
    settle(&mut hit).await;
    came.push(body(&mut hit[0]).collect().await.unwrap().trailers().cloned().unwrap());
    assert_eq!(world.upstream.count(), 1);
    assert_eq!(came[0], trailers);
    for others in &came[1..] {
        assert_eq!(others.len(), 1);
        assert_eq!(others["x-sum"], "42");
    }
}

/// Storing ends early when the body exceeds `max_body_bytes`. All readers then share the live body.
#[tokio::test(start_paused = true)]
async fn oversized_body_reaches_all_readers_unstored() {
    let world = World::with(|builder| builder.chunk_bytes(1000).max_body_bytes(10_000));
    let (sender, bodies) = readers(&world, 3).await;
    let mut whole = Vec::new();
    for number in 0..1000_u32 {
        let frame = vec![number as u8; 1000];
        whole.extend_from_slice(&frame);
        sender.data(frame);
    }
    drop(sender);
    let collect = |body: Body| Task::new(async move { body.collect().await.map(|body| body.to_bytes()) });
    let mut tasks: Vec<_> = bodies.into_iter().map(collect).collect();
    settle(&mut tasks).await;
    assert!(tasks.iter_mut().all(|task| task.run().unwrap().unwrap() == whole));
    world.layer.idle().await;
    assert_eq!(world.upstream.count(), 1);
    let mut next = [world.ask(&[])];
    settle(&mut next).await;
    assert_eq!(world.upstream.waiting(), 1, "nothing is stored");
}

#[tokio::test(start_paused = true)]
async fn slow_reader_alone_fails_after_body_timeout() {
    let world = World::with(|builder| {
        builder.chunk_bytes(1000).max_body_bytes(10_000).body_timeout(Duration::from_secs(3))
    });
    let (sender, mut bodies) = readers(&world, 2).await;
    for _ in 0..1000 {
        sender.data(vec![1; 1000]);
    }
    drop(sender);
    let (mut slow, fast) = (bodies.remove(1), bodies.remove(0));
    let begun = tokio::time::Instant::now();
    assert_eq!(fast.collect().await.unwrap().to_bytes().len(), 1_000_000);
    assert!((3..4).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    let error = loop {
        if let Err(error) = next_frame(&mut slow).await {
            break error;
        }
    };
    assert_eq!(error.kind(), BodyErrorKind::TooSlow);
}

/// Reading a frame now and then does not restart the timeout.
///
/// The timeout covers all frames by which the reader is behind.
#[tokio::test(start_paused = true)]
async fn trickling_reader_fails_after_body_timeout() {
    let world = World::with(|builder| {
        builder.chunk_bytes(1000).max_body_bytes(10_000).body_timeout(Duration::from_secs(3))
    });
    let (sender, mut bodies) = readers(&world, 2).await;
    for _ in 0..1000 {
        sender.data(vec![1; 1000]);
    }
    drop(sender);
    let (mut slow, fast) = (bodies.remove(1), bodies.remove(0));
    let trickle = tokio::spawn(async move {
        let mut taken = 0;
        loop {
            tokio::time::sleep(Duration::from_secs(2)).await;
            match next_frame(&mut slow).await {
                Ok(()) => taken += 1,
                Err(error) => return (taken, error.kind()),
            }
        }
    });
    assert_eq!(fast.collect().await.unwrap().to_bytes().len(), 1_000_000);
    assert_eq!(trickle.await.unwrap(), (1, BodyErrorKind::TooSlow));
}

/// A reader that catches up in time gets the whole timeout again.
#[tokio::test(start_paused = true)]
async fn steady_reader_is_never_cut_off() {
    let world = World::with(|builder| {
        builder.chunk_bytes(1000).max_body_bytes(10_000).body_timeout(Duration::from_secs(3))
    });
    let (sender, mut bodies) = readers(&world, 2).await;
    for _ in 0..3000 {
        sender.data(vec![1; 1000]);
    }
    drop(sender);
    let (mut steady, fast) = (bodies.remove(1), bodies.remove(0));
    let steady = tokio::spawn(async move {
        let mut read = 0;
        while let Some(frame) = steady.frame().await {
            read += frame.map(|frame| frame.into_data().map_or(0, |data| data.len())).unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        read
    });
    assert_eq!(fast.collect().await.unwrap().to_bytes().len(), 3_000_000);
    assert_eq!(steady.await.unwrap(), 3_000_000);
}

async fn next_frame(body: &mut Body) -> Result<(), tower_response_cache::BodyError> {
    body.frame().await.expect("an error comes before the end").map(drop)
}

#[tokio::test(start_paused = true)]
async fn storage_failure_ends_storing_but_no_body() {
    let store = Faulty::new(Mode::Well);
    let world = World::on(store.clone(), |builder| builder.chunk_bytes(1000));
    let (sender, mut bodies) = readers(&world, 2).await;
    sender.data(vec![1; 1500]);
    assert!(bodies.iter_mut().all(|body| next(body).len() == 1500));
    store.set(Mode::Full);
    for _ in 0..20 {
        sender.data(vec![2; 500]);
        assert!(bodies.iter_mut().all(|body| next(body).len() == 500));
    }
    drop(sender);
    assert!(bodies.iter_mut().all(|body| next(body).is_empty()));
    let mut next = [world.ask(&[])];
    settle(&mut next).await;
    assert_eq!(world.upstream.waiting(), 1);
}

/// A buffer that decrements a counter when it is dropped.
struct Counted(Vec<u8>, Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[tokio::test(start_paused = true)]
async fn memory_holds_only_frames_not_yet_stored() {
    let world = World::with(|builder| builder.chunk_bytes(1000));
    let (sender, mut bodies) = readers(&world, 2).await;
    let alive = Arc::new(AtomicUsize::new(0));
    for number in 0..200_u8 {
        alive.fetch_add(1, Ordering::SeqCst);
        sender.data(Bytes::from_owner(Counted(vec![number; 500], Arc::clone(&alive))));
        assert_eq!(next(&mut bodies[0]).len(), 500);
        assert!(
            alive.load(Ordering::SeqCst) <= 4,
            "a reader that has read nothing keeps no frames in memory"
        );
    }
    drop(sender);
    next(&mut bodies[0]);
    let whole: Vec<u8> = (0..200).flat_map(|number| vec![number; 500]).collect();
    assert_eq!(bodies.remove(1).collect().await.unwrap().to_bytes(), whole);
}
