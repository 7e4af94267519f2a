//! Regression tests of coalescing.
//!
//! They cover leaders and readers that stop at bad moments, directives of one request that affect another, clock skew
//! and unlimited timeouts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;
use tower::{Layer, ServiceExt, service_fn};
use tower_response_cache::CacheLayer;
use tower_response_cache::storage::MemoryStorage;

use super::world::{World, got};
use crate::support::faulty::{Faulty, Mode};
use crate::support::get;
use crate::support::task::{Task, settle};

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=60")];
const VALID: &[(&str, &str)] = &[("cache-control", "max-age=10"), ("etag", "\"a\"")];
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn max_age_request_rejects_older_flight() {
    let world = World::new();
    let mut first = [world.ask(&[])];
    settle(&mut first).await;
    let sender = world.upstream.call().head(200, FRESH);
    sender.data("ol");
    settle(&mut first).await;
    world.clock.advance(30 * SECOND);
    let mut reload = [world.ask(&[("cache-control", "max-age=0")])];
    settle(&mut reload).await;
    assert_eq!(world.upstream.waiting(), 1, "the flight is 30 s old, so the request must not join it");
}

#[tokio::test(start_paused = true)]
async fn max_age_request_rejects_aged_response() {
    let world = World::new();
    let mut herd = [world.ask(&[]), world.ask(&[("cache-control", "max-age=0")])];
    settle(&mut herd).await;
    world.upstream.call().answer(200, &[("cache-control", "max-age=60"), ("age", "50")], "x");
    settle(&mut herd).await;
    assert_eq!(world.upstream.waiting(), 1, "the response is 50 s old, and the request says max-age=0");
}

#[tokio::test(start_paused = true)]
async fn refresh_ignores_no_store_of_its_request() {
    let world = World::with(|builder| builder.stale_while_revalidate(60 * SECOND));
    world.store(VALID, "stored", 11 * SECOND).await;
    let mut stale = [world.ask(&[("cache-control", "no-store")])];
    settle(&mut stale).await;
    assert!(got(&mut stale)[0].status.is_stale());
    world.upstream.call().answer(304, VALID, "");
    world.layer.idle().await;
    let mut next = world.herd(5, &[]);
    settle(&mut next).await;
    assert_eq!(world.upstream.waiting(), 0, "the refreshed entry is gone, or coalescing is off");
}

#[tokio::test(start_paused = true)]
async fn second_variant_after_invalidation_is_fetched_once() {
    let world = World::new();
    let mut request = get("http://example.com/");
    *request.method_mut() = http::Method::POST;
    let mut post = [world.send(request)];
    settle(&mut post).await;
    world.upstream.call().answer(204, &[], "");
    settle(&mut post).await;
    drop(post[0].run());
    let varying = &[("cache-control", "max-age=60"), ("vary", "accept-language")];
    let mut herd: Vec<_> = ["de", "en"].map(|language| world.ask(&[("accept-language", language)])).into();
    settle(&mut herd).await;
    let de = world.upstream.call().head(200, varying);
    settle(&mut herd).await;
    assert_eq!(world.upstream.waiting(), 1, "en is fetched");
    de.data("de");
    drop(de);
    settle(&mut herd).await;
    world.layer.idle().await;
    let mut late = [world.ask(&[("accept-language", "en")])];
    settle(&mut late).await;
    assert_eq!(world.upstream.waiting(), 1, "the late request joins the fetch of en");
}

#[tokio::test(start_paused = true)]
async fn concurrent_variants_are_all_stored() {
    let world = World::new();
    let varying = &[("cache-control", "max-age=60"), ("vary", "accept-language")];
    let mut herd: Vec<_> =
        ["de", "en", "fr"].map(|language| world.ask(&[("accept-language", language)])).into();
    settle(&mut herd).await;
    let de = world.upstream.call().head(200, varying);
    settle(&mut herd).await;
    assert_eq!(world.upstream.waiting(), 2);
    let (en, fr) = (world.upstream.call().head(200, varying), world.upstream.call().head(200, varying));
    for (sender, body) in [(de, "de"), (en, "en"), (fr, "fr")] {
        sender.data(body);
        drop(sender);
        settle(&mut herd).await;
    }
    world.layer.idle().await;
    let mut next: Vec<_> =
        ["de", "en", "fr"].map(|language| world.ask(&[("accept-language", language)])).into();
    settle(&mut next).await;
    assert_eq!(world.upstream.waiting(), 0, "all are stored");
}

#[tokio::test(start_paused = true)]
async fn finished_variant_is_hit_beside_unfinished_one() {
    let world = World::new();
    let varying = &[("cache-control", "max-age=60"), ("vary", "accept-language")];
    let ask = |language| world.ask(&[("accept-language", language)]);
    let mut herd = ["de", "en"].map(ask);
    settle(&mut herd).await;
    let de = world.upstream.call().head(200, varying);
    settle(&mut herd).await;
    world.upstream.call().answer(200, varying, "en");
    settle(&mut herd).await;
    assert!(herd[1].run().is_some(), "en is read to its end, and de is unfinished");
    let mut next = [ask("en")];
    settle(&mut next).await;
    assert_eq!(world.upstream.waiting(), 0, "a body that was read is a hit");
    assert!(next[0].run().is_some());
    de.data("de");
    drop(de);
    settle(&mut herd).await;
    world.layer.idle().await;
    let mut last = ["de", "en"].map(ask);
    settle(&mut last).await;
    assert_eq!(world.upstream.waiting(), 0, "both are stored");
}

#[derive(Default, Clone)]
struct Empty;
impl http_body::Body for Empty {
    type Data = bytes::Bytes;
    type Error = std::io::Error;
    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, std::io::Error>>> {
        std::task::Poll::Ready(None)
    }
    fn is_end_stream(&self) -> bool {
        true
    }
}

#[tokio::test(start_paused = true)]
async fn read_only_storage_coalesces_empty_responses() {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let origin = service_fn(move |_: http::Request<crate::support::ReqBody>| {
        counter.fetch_add(1, Ordering::SeqCst);
        async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok::<_, std::io::Error>(
                http::Response::builder()
                    .status(301)
                    .header("cache-control", "max-age=60")
                    .body(Empty)
                    .unwrap(),
            )
        }
    });
    let service = CacheLayer::builder(Faulty::new(Mode::ReadOnly)).build().unwrap().layer(origin);
    let begun = tokio::time::Instant::now();
    let herd: Vec<_> =
        (0..20).map(|_| tokio::spawn(service.clone().oneshot(get("http://example.com/")))).collect();
    for one in herd {
        one.await.unwrap().unwrap();
    }
    assert!(
        begun.elapsed() <= 2 * SECOND,
        "{:?} and {} fetches",
        begun.elapsed(),
        count.load(Ordering::SeqCst)
    );
}

#[tokio::test(start_paused = true)]
async fn failed_reservation_causes_no_second_wait() {
    let world = World::on(Faulty::new(Mode::ReadOnly), |builder| builder.reserve_on_miss(true));
    let mut herd = world.herd(20, &[]);
    settle(&mut herd).await;
    let mut rounds = 0;
    while world.upstream.waiting() > 0 {
        rounds += 1;
        while world.upstream.waiting() > 0 {
            world.upstream.call().answer(200, FRESH, "x");
        }
        settle(&mut herd).await;
    }
    assert!(rounds <= 2, "{rounds} rounds, {} fetches", world.upstream.count());
}

#[tokio::test(start_paused = true)]
async fn coalesce_timeout_may_be_unlimited() {
    let world = World::with(|builder| builder.coalesce_timeout(Duration::MAX));
    let mut herd = world.herd(2, &[]);
    settle(&mut herd).await;
}
#[tokio::test(start_paused = true)]
async fn lease_may_be_unlimited() {
    let world = World::with(|builder| builder.lease(Duration::MAX));
    let mut herd = world.herd(2, &[]);
    settle(&mut herd).await;
}
#[tokio::test(start_paused = true)]
async fn body_timeout_may_be_unlimited() {
    let world =
        World::with(|builder| builder.body_timeout(Duration::MAX).max_body_bytes(1000).chunk_bytes(100));
    let mut herd: Vec<_> = (0..2).map(|_| world.send(get("http://example.com/"))).collect();
    settle(&mut herd).await;
    let sender = world.upstream.call().head(200, FRESH);
    settle(&mut herd).await;
    for _ in 0..1000 {
        sender.data(vec![1; 1000]);
    }
    let fast = herd[0].run().unwrap().unwrap().into_body();
    let _slow = herd[1].run().unwrap().unwrap().into_body();
    let mut task = [Task::new(async move {
        let _ = fast.collect().await;
    })];
    settle(&mut task).await;
}

#[tokio::test(start_paused = true)]
async fn coalesce_timeout_starts_one_more_fetch() {
    let world = World::with(|builder| builder.coalesce_timeout(3 * SECOND));
    let service = world.service.clone();
    let herd: Vec<_> =
        (0..100).map(|_| tokio::spawn(service.clone().oneshot(get("http://example.com/")))).collect();
    tokio::time::sleep(4 * SECOND).await;
    assert!(world.upstream.count() <= 2, "{}", world.upstream.count());
    drop(herd);
}

#[tokio::test(start_paused = true)]
async fn hung_fetch_stops_accepting_followers() {
    let world = World::with(|builder| builder.coalesce_timeout(10 * SECOND).shared(true));
    let service = world.service.clone();
    let ask = || tokio::spawn(service.clone().oneshot(get("http://example.com/")));
    let leader = ask();
    tokio::time::sleep(SECOND).await;
    let _hung = world.upstream.call();
    let mut others = vec![ask()];
    tokio::time::sleep(SECOND).await;
    leader.abort();
    let upstream = world.upstream.clone();
    let pump = tokio::spawn(async move {
        loop {
            tokio::time::sleep(SECOND / 10).await;
            while upstream.waiting() > 0 {
                upstream.call().answer(200, &[("cache-control", "private")], "x");
            }
        }
    });
    for _ in 0..20 {
        tokio::time::sleep(6 * SECOND).await;
        others.push(ask());
    }
    // Two minutes later, a new request does not wait for the hung fetch.
    let begun = tokio::time::Instant::now();
    ask().await.unwrap().unwrap();
    pump.abort();
    assert!(begun.elapsed() <= 2 * SECOND, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn refresh_timeout_applies_with_finish_on_drop() {
    let world = World::with(|builder| {
        builder.stale_while_revalidate(3600 * SECOND).finish_on_drop(true).refresh_timeout(5 * SECOND)
    });
    world.store(VALID, "stored", 11 * SECOND).await;
    let mut stale = [world.ask(&[])];
    settle(&mut stale).await;
    let sender = world.upstream.call().head(200, VALID);
    sender.data("ne");
    tokio::time::sleep(6 * SECOND).await;
    tokio::time::sleep(6 * SECOND).await;
    let mut next = [world.ask(&[])];
    settle(&mut next).await;
    assert!(sender.is_dropped(), "the body is still read, {} requests wait", world.upstream.waiting());
}

#[tokio::test(start_paused = true)]
async fn download_without_readers_ends_with_storing() {
    let world = World::with(|builder| builder.chunk_bytes(100).max_body_bytes(1000));
    world.store(VALID, "stored", 11 * SECOND).await;
    let mut first = [world.ask(&[("if-none-match", "\"b\"")])];
    settle(&mut first).await;
    let sender = world.upstream.call().head(200, &[("cache-control", "max-age=10"), ("etag", "\"b\"")]);
    settle(&mut first).await;
    assert_eq!(got(&mut first)[0].code, 304);
    for _ in 0..100 {
        sender.data(vec![1; 1000]);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
    assert!(sender.is_dropped(), "the body has no reader and is not stored");
}

#[tokio::test(start_paused = true)]
async fn slow_reader_finishes_after_failed_chunk_write() {
    let store = Faulty::new(Mode::Well);
    let world = World::on(store.clone(), |builder| builder.chunk_bytes(1000));
    let mut herd: Vec<_> = (0..2).map(|_| world.send(get("http://example.com/"))).collect();
    settle(&mut herd).await;
    let sender = world.upstream.call().head(200, FRESH);
    settle(&mut herd).await;
    let mut bodies: Vec<_> = herd.iter_mut().map(|task| task.run().unwrap().unwrap().into_body()).collect();
    sender.data(vec![1; 1500]);
    for body in &mut bodies {
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), 1500);
    }
    store.set(Mode::HungWrites);
    for _ in 0..6 {
        sender.data(vec![2; 500]);
    }
    drop(sender);
    let leader = bodies.remove(0);
    let follower = bodies.remove(0);
    assert_eq!(follower.collect().await.unwrap().to_bytes().len(), 3000);
    let read = leader.collect().await.map(|body| body.to_bytes().len());
    assert_eq!(read.unwrap(), 3000, "only storing failed, so the slower reader finishes too");
}

#[tokio::test(start_paused = true)]
async fn lease_tolerates_small_clock_skew() {
    let store = MemoryStorage::new();
    let [one, other] = [(); 2].map(|()| World::on(store.clone(), |builder| builder.lease(10 * SECOND)));
    one.clock.advance(Duration::from_millis(5));
    let (mut first, mut second) = ([one.ask(&[])], [other.ask(&[])]);
    settle(&mut first).await;
    settle(&mut second).await;
    assert_eq!((one.upstream.count(), other.upstream.count()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn error_response_does_not_disable_coalescing() {
    let world = World::new();
    let mut herd = world.herd(3, &[]);
    settle(&mut herd).await;
    while world.upstream.waiting() > 0 {
        world.upstream.call().answer(503, &[], "busy");
        settle(&mut herd).await;
    }
    let mut next = world.herd(20, &[]);
    settle(&mut next).await;
    assert_eq!(world.upstream.waiting(), 1, "an error does not show that responses are unshareable");
}

#[tokio::test(start_paused = true)]
async fn oversized_response_disables_coalescing() {
    let world = World::with(|builder| builder.chunk_bytes(100).max_body_bytes(1000));
    let mut first = [world.ask(&[])];
    settle(&mut first).await;
    let sender = world.upstream.call().head(200, FRESH);
    sender.data(vec![b'x'; 5000]);
    drop(sender);
    settle(&mut first).await;
    assert_eq!(got(&mut first).len(), 1);
    let mut next = world.herd(5, &[]);
    settle(&mut next).await;
    assert_eq!(world.upstream.waiting(), 5);
}

#[tokio::test(start_paused = true)]
async fn leader_stopped_before_fetching_stalls_no_follower() {
    let store = Faulty::new(Mode::Well);
    let world = World::on(store.clone(), |builder| builder.lease(10 * SECOND));
    // The leader acquires the lease, but the write of the lease hangs for a moment.
    store.set(Mode::HungWrites);
    let mut leader = world.ask(&[]);
    assert!(leader.run().is_none());
    let begun = tokio::time::Instant::now();
    let follower = tokio::spawn(world.service.clone().oneshot(get("http://example.com/")));
    tokio::task::yield_now().await;
    store.set(Mode::Well);
    while world.upstream.waiting() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.upstream.call().answer(200, FRESH, "x");
    follower.await.unwrap().unwrap();
    assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn follower_polling_during_leader_poll_is_woken() {
    type Hook = Arc<std::sync::Mutex<Option<Box<dyn FnOnce() + Send>>>>;
    let hook: Hook = Arc::default();
    let inner = Arc::clone(&hook);
    let origin = service_fn(move |_: http::Request<crate::support::ReqBody>| {
        let hook = Arc::clone(&inner);
        let mut polls = 0;
        std::future::poll_fn(move |cx| {
            polls += 1;
            if polls < 2 {
                return std::task::Poll::Pending;
            }
            if polls == 2 {
                cx.waker().wake_by_ref(); // ready at the next poll
                if let Some(hook) = hook.lock().unwrap().take() {
                    hook();
                }
                return std::task::Poll::Pending;
            }
            std::task::Poll::Ready(Ok::<_, std::io::Error>(
                http::Response::builder()
                    .header("cache-control", "max-age=60")
                    .body(http_body_util::Full::new(bytes::Bytes::from("x")))
                    .unwrap(),
            ))
        })
    });
    let service = CacheLayer::new(MemoryStorage::new()).layer(origin);
    let mut leader = Task::new(service.clone().oneshot(get("http://example.com/")));
    leader.poll();
    let follower =
        Arc::new(std::sync::Mutex::new(Task::new(service.clone().oneshot(get("http://example.com/")))));
    // The follower is polled only in the hook below. Otherwise its first poll would be the second poll of the fetch.
    let theirs = Arc::clone(&follower);
    let runtime = tokio::runtime::Handle::current();
    *hook.lock().unwrap() = Some(Box::new(move || {
        std::thread::spawn(move || {
            let _in = runtime.enter();
            let mut follower = theirs.lock().unwrap();
            follower.poll(); // in another thread, during the leader's poll
        })
        .join()
        .unwrap();
    }));
    leader.poll(); // the last poll of the leader
    let follower = follower.lock().unwrap();
    assert!(!follower.is_done());
    // The fetch was woken during the poll of the leader, before the follower had registered its waker.
    assert!(follower.is_woken(), "the fetch will never be polled again");
}

#[tokio::test(start_paused = true)]
async fn error_response_does_not_mark_origin_disconnected() {
    let world = World::with(|builder| builder.stale_when_disconnected(true));
    world.store(VALID, "stored", 11 * SECOND).await;
    let mut one = [world.ask(&[("cache-control", "stale-if-error=60")])];
    settle(&mut one).await;
    world.upstream.call().answer(503, &[], "busy");
    settle(&mut one).await;
    assert!(got(&mut one)[0].status.is_stale());
    let mut plain = [world.ask(&[])];
    settle(&mut plain).await;
    assert_eq!(world.upstream.waiting(), 1, "the origin was reached, so the stale response is not permitted");
}

#[test]
fn wakers_are_dropped_outside_locks() {
    let (done, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let mut herd: Vec<_> = (0..2).map(|_| world.send(get("http://example.com/"))).collect();
            settle(&mut herd).await;
            let _sender = world.upstream.call().head(200, FRESH);
            settle(&mut herd).await;
            let mut bodies: Vec<_> =
                herd.iter_mut().map(|task| task.run().unwrap().unwrap().into_body()).collect();
            // A task that only its waker keeps alive, as in simple executors. It owns the other body.
            struct Holder(#[allow(dead_code)] std::sync::Mutex<Box<dyn std::any::Any + Send>>);
            impl std::task::Wake for Holder {
                fn wake(self: Arc<Self>) {}
            }
            let owner = Arc::new(Holder(std::sync::Mutex::new(Box::new(bodies.remove(1)))));
            let waker = std::task::Waker::from(owner);
            let mut body = Box::pin(bodies.remove(0));
            let poll = |body: &mut std::pin::Pin<
                Box<tower_response_cache::CacheBody<super::world::Given>>,
            >,
                        waker: &std::task::Waker| {
                let _ =
                    http_body::Body::poll_frame(body.as_mut(), &mut std::task::Context::from_waker(waker));
            };
            poll(&mut body, &waker);
            drop(waker);
            poll(&mut body, std::task::Waker::noop());
        });
        let _ = done.send(());
    });
    assert!(end.recv_timeout(Duration::from_secs(3)).is_ok(), "dropping the waker deadlocked");
}

#[tokio::test(start_paused = true)]
async fn immediately_stale_response_is_awaited_once() {
    let world = World::new();
    let zero = &[("cache-control", "max-age=0"), ("etag", "\"a\"")];
    for round in 0..3 {
        let mut herd = world.herd(10, &[]);
        settle(&mut herd).await;
        let at_once = world.upstream.waiting();
        let mut rounds = 0;
        while world.upstream.waiting() > 0 {
            rounds += 1;
            while world.upstream.waiting() > 0 {
                let call = world.upstream.call();
                if call.headers.contains_key("if-none-match") {
                    call.answer(304, zero, "")
                } else {
                    call.answer(200, zero, "x")
                }
            }
            settle(&mut herd).await;
        }
        got(&mut herd);
        assert!(
            round == 0 || at_once == 10 || world.upstream.count() <= 12,
            "round {round}: {at_once} at once, then {rounds} rounds, {} in all",
            world.upstream.count()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn stopped_reader_fails_despite_trickling_reader() {
    for stops in [false, true] {
        let world =
            World::with(|builder| builder.chunk_bytes(1000).max_body_bytes(1000).body_timeout(3 * SECOND));
        let mut herd: Vec<_> = (0..3).map(|_| world.send(get("http://example.com/"))).collect();
        settle(&mut herd).await;
        let sender = world.upstream.call().head(200, FRESH);
        settle(&mut herd).await;
        for _ in 0..1000 {
            sender.data(vec![1; 1000]);
        }
        let mut bodies: Vec<_> =
            herd.iter_mut().map(|task| task.run().unwrap().unwrap().into_body()).collect();
        let (mut fast, mut trickle, stopped) = (bodies.remove(0), bodies.remove(0), bodies.remove(0));
        let stopped = stops.then_some(stopped);
        let read = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&read);
        tokio::spawn(async move {
            while let Some(Ok(frame)) = fast.frame().await {
                count.fetch_add(frame.into_data().unwrap().len(), Ordering::SeqCst);
            }
        });
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(2 * SECOND).await;
                if !matches!(trickle.frame().await, Some(Ok(_))) {
                    return;
                }
            }
        });
        tokio::time::sleep(100 * SECOND).await;
        assert!(
            read.load(Ordering::SeqCst) > 290_000,
            "a reader stopped: {}, bytes of the fast reader: {}",
            stopped.is_some(),
            read.load(Ordering::SeqCst)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn authorized_refresh_keeps_shared_entry() {
    let world = World::with(|builder| builder.shared(true).stale_while_revalidate(60 * SECOND));
    world.store(VALID, "stored", 11 * SECOND).await;
    let mut stale = [world.ask(&[("authorization", "me")])];
    settle(&mut stale).await;
    assert!(got(&mut stale)[0].status.is_stale());
    world.layer.idle().await;
    let mut next = world.herd(5, &[]);
    settle(&mut next).await;
    assert!(world.upstream.waiting() <= 1, "{}", world.upstream.waiting());
}

#[tokio::test(start_paused = true)]
async fn refresh_by_no_store_hit_keeps_entry() {
    let world = World::with(|builder| builder.refresh_early(SECOND));
    world.store(&[("cache-control", "max-age=100"), ("etag", "\"a\"")], "stored", 99 * SECOND).await;
    for _ in 0..1000 {
        world.ask(&[("cache-control", "no-store")]).run().unwrap().unwrap();
    }
    tokio::task::yield_now().await;
    world.upstream.call().answer(304, &[("cache-control", "max-age=100"), ("etag", "\"a\"")], "");
    world.layer.idle().await;
    let mut next = [world.ask(&[])];
    settle(&mut next).await;
    assert_eq!(world.upstream.waiting(), 0, "the entry is fresh for at least another second");
}

#[tokio::test(start_paused = true)]
async fn long_stalled_body_is_not_joined() {
    let world = World::new();
    let mut leader = [world.send(get("http://example.com/"))];
    settle(&mut leader).await;
    let sender = world.upstream.call().head(200, FRESH);
    sender.data("a");
    settle(&mut leader).await;
    let _held = leader[0].run().unwrap().unwrap(); // its caller never reads the body
    tokio::time::sleep(3600 * SECOND).await;
    let late = tokio::spawn({
        let service = world.service.clone();
        async move {
            service
                .oneshot(get("http://example.com/"))
                .await
                .unwrap()
                .into_body()
                .collect()
                .await
                .map(|body| body.to_bytes())
        }
    });
    tokio::time::sleep(60 * SECOND).await;
    assert!(
        late.is_finished() || world.upstream.waiting() == 1,
        "the request joined a body that has hung for an hour"
    );
    drop(sender);
}
