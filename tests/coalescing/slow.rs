//! Requests that do not wait for a slow origin: a stale response, or that of the user's function.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use tokio::time::advance;
use tower_response_cache::storage::{MemoryStorage, Storage};
use tower_response_cache::{CacheLayerBuilder, Outcome, StaleReason};

use super::world::{World, got};
use crate::support::faulty::{Faulty, Mode};
use crate::support::get_with;
use crate::support::task::{Task, settle};

type Builder = CacheLayerBuilder<MemoryStorage>;

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);
const VALID: &[(&str, &str)] = &[("cache-control", "max-age=10"), ("etag", "\"a\"")];
const CHANGED: &[(&str, &str)] = &[("cache-control", "max-age=10"), ("etag", "\"b\"")];
const SLOW: Outcome = Outcome::Stale(StaleReason::Slow);

fn impatient(builder: Builder) -> Builder {
    builder.stale_if_error(3600 * SECOND).stale_after(200 * MILLI)
}

fn with_fallback(builder: Builder) -> Builder {
    fallback(builder)
}

fn fallback<S: Storage>(builder: CacheLayerBuilder<S>) -> CacheLayerBuilder<S> {
    builder.fallback_after(2 * SECOND, |request| {
        let mut response = Response::new(Bytes::from(format!("nothing yet for {}", request.uri.path())));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
    })
}

/// Lets time pass, and polls the tasks that it wakes.
async fn pass<T>(time: Duration, tasks: &mut [Task<T>]) {
    settle(tasks).await;
    advance(time).await;
    settle(tasks).await;
}

#[tokio::test(start_paused = true)]
async fn slow_origin_is_replaced_by_stale_response() {
    let world = World::with(impatient);
    world.store(VALID, "stored", 11 * SECOND).await;
    let mut tasks = [world.ask(&[])];
    pass(199 * MILLI, &mut tasks).await;
    assert!(!tasks[0].is_done());
    pass(MILLI, &mut tasks).await;
    let got = got(&mut tasks).remove(0);
    assert_eq!((got.status.outcome(), got.body.unwrap().as_str()), (SLOW, "stored"));
    assert_eq!(got.headers["age"], "11");
    // The fetch goes on, and its response is there for the next request.
    let body = world.upstream.call().head(200, CHANGED);
    body.data("new");
    drop(body);
    world.layer.idle().await;
    let next = world.ask(&[]).run().unwrap().unwrap();
    assert_eq!((next.status.word(), next.body.unwrap().as_str()), ("hit", "new"));
    assert_eq!(world.upstream.count(), 2);
    let statistics = world.layer.statistics();
    assert_eq!((statistics.stale(), statistics.misses(), statistics.hits()), (1, 1, 1));
    assert_eq!(statistics.refreshes(), 1);
}

#[tokio::test(start_paused = true)]
async fn confirmation_that_comes_late_freshens_the_response() {
    let world = World::with(impatient);
    world.store(VALID, "stored", 11 * SECOND).await;
    let mut tasks = [world.ask(&[])];
    pass(200 * MILLI, &mut tasks).await;
    assert_eq!(got(&mut tasks)[0].status.outcome(), SLOW);
    world.upstream.call().answer(304, VALID, "");
    world.layer.idle().await;
    assert_eq!(world.ask(&[]).run().unwrap().unwrap().status.word(), "hit");
    assert_eq!(world.layer.statistics().revalidated(), 0);
}

#[tokio::test(start_paused = true)]
async fn quick_origin_answers_itself() {
    let world = World::with(|builder| with_fallback(impatient(builder)));
    world.store(VALID, "stored", 11 * SECOND).await;
    let mut tasks = [world.ask(&[]), world.ask(&[])];
    pass(199 * MILLI, &mut tasks).await;
    world.upstream.call().answer(200, CHANGED, "new");
    settle(&mut tasks).await;
    for got in got(&mut tasks) {
        assert_eq!((got.status.word(), got.body.unwrap().as_str()), ("miss", "new"));
    }
}

#[tokio::test(start_paused = true)]
async fn later_requests_do_not_wait_again() {
    let world = World::with(impatient);
    world.store(VALID, "stored", 11 * SECOND).await;
    let mut tasks = [world.ask(&[])];
    pass(200 * MILLI, &mut tasks).await;
    let mut later = world.herd(100, &[]);
    settle(&mut later).await;
    assert!(got(&mut later).iter().all(|got| got.status.outcome() == SLOW));
    assert_eq!(world.upstream.waiting(), 1);
}

#[tokio::test(start_paused = true)]
async fn followers_wait_for_their_own_time() {
    let world = World::with(impatient);
    world.store(VALID, "stored", 11 * SECOND).await;
    let mut first = [world.ask(&[])];
    settle(&mut first).await;
    drop(first); // its caller gives up, and takes the fetch with it
    let mut herd = world.herd(10, &[]);
    pass(199 * MILLI, &mut herd).await;
    assert!(herd.iter().all(|task| !task.is_done()));
    pass(MILLI, &mut herd).await;
    assert!(got(&mut herd).iter().all(|got| got.status.outcome() == SLOW));
}

#[tokio::test(start_paused = true)]
async fn forbidden_stale_response_is_not_served() {
    for (stored, asked) in [
        ("max-age=10, must-revalidate", ""),
        ("no-cache", ""),
        ("max-age=10, stale-if-error=0", ""),
        ("max-age=10, stale-if-error=5", ""),
        ("max-age=10", "no-cache"),
        ("max-age=10", "max-age=5"),
        ("max-age=10", "stale-if-error=0"),
    ] {
        let world = World::with(|builder| builder.stale_after(200 * MILLI).stale_if_error(3600 * SECOND));
        world.store(&[("cache-control", stored), ("etag", "\"a\"")], "stored", 16 * SECOND).await;
        let fields: &[_] = if asked.is_empty() { &[] } else { &[("cache-control", asked)] };
        let mut tasks = [world.ask(fields)];
        pass(5 * SECOND, &mut tasks).await;
        let may = asked == "stale-if-error=0"; // the longer of the two windows counts
        assert_eq!(tasks[0].is_done(), may, "{stored}; {asked}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_permission_no_stale_response_is_served() {
    let world = World::with(|builder| builder.stale_after(200 * MILLI));
    world.store(VALID, "stored", 11 * SECOND).await;
    let mut tasks = [world.ask(&[])];
    pass(5 * SECOND, &mut tasks).await;
    assert!(!tasks[0].is_done());
}

#[tokio::test(start_paused = true)]
async fn fetches_that_go_on_are_bounded() {
    let world = World::with(|builder| impatient(builder).max_background_refreshes(1));
    world.store(VALID, "stored", Duration::ZERO).await;
    let other = || get_with("http://example.com/other", &[]);
    let mut first = [world.send(other())];
    settle(&mut first).await;
    world.upstream.call().answer(200, VALID, "other");
    settle(&mut first).await;
    super::world::read(first[0].run().unwrap().unwrap()).await.body.unwrap();
    world.clock.advance(11 * SECOND);
    let mut tasks = [world.send(get_with("http://example.com/", &[])), world.send(other())];
    pass(200 * MILLI, &mut tasks).await;
    assert!(tasks[0].is_done() && !tasks[1].is_done(), "the second one has to wait");
    world.upstream.call().fail();
    world.upstream.call().answer(200, CHANGED, "new");
    settle(&mut tasks).await;
    assert!(tasks[1].is_done());
}

#[tokio::test(start_paused = true)]
async fn fetch_that_goes_on_has_a_time_limit() {
    let world = World::with(|builder| impatient(builder).refresh_timeout(30 * SECOND));
    world.store(VALID, "stored", 11 * SECOND).await;
    let mut tasks = [world.ask(&[])];
    pass(200 * MILLI, &mut tasks).await;
    let call = world.upstream.call();
    pass(29 * SECOND, &mut tasks).await;
    assert!(call.is_waiting());
    pass(SECOND, &mut tasks).await;
    assert!(call.is_dropped());
    world.layer.idle().await;
}

#[tokio::test(start_paused = true)]
async fn request_alone_leaves_its_fetch() {
    let world = World::with(|builder| with_fallback(impatient(builder)).coalesce(false));
    world.store(VALID, "stored", 11 * SECOND).await;
    let mut tasks = [world.ask(&[])];
    pass(200 * MILLI, &mut tasks).await;
    assert_eq!(got(&mut tasks)[0].status.outcome(), SLOW);
    world.upstream.call().answer(200, CHANGED, "new");
    world.layer.idle().await;
    assert_eq!(world.ask(&[]).run().unwrap().unwrap().body.unwrap(), "new");
}

#[tokio::test(start_paused = true)]
async fn function_answers_a_slow_miss() {
    for coalesce in [true, false] {
        let world = World::with(|builder| with_fallback(builder).coalesce(coalesce));
        let mut tasks = [world.ask(&[])];
        pass(1999 * MILLI, &mut tasks).await;
        assert!(!tasks[0].is_done());
        pass(MILLI, &mut tasks).await;
        let got = got(&mut tasks).remove(0);
        assert_eq!((got.code, got.status.outcome()), (503, Outcome::Fallback));
        assert_eq!(got.body.unwrap(), "nothing yet for /");
        assert_eq!(got.status.to_string(), "fwd=miss; detail=fallback");
        world.upstream.call().answer(200, VALID, "new");
        world.layer.idle().await;
        let next = world.ask(&[]).run().unwrap().unwrap();
        assert_eq!((next.status.word(), next.body.unwrap().as_str()), ("hit", "new"));
        let statistics = world.layer.statistics();
        assert_eq!((statistics.fallbacks(), statistics.misses(), statistics.hits()), (1, 0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn function_answers_all_who_wait() {
    let world = World::with(with_fallback);
    let mut herd = world.herd(100, &[]);
    pass(2 * SECOND, &mut herd).await;
    assert!(got(&mut herd).iter().all(|got| got.status.outcome() == Outcome::Fallback));
    // Those who come later wait for their own time.
    let mut later = [world.ask(&[])];
    pass(SECOND, &mut later).await;
    world.upstream.call().answer(200, VALID, "new");
    settle(&mut later).await;
    assert_eq!(got(&mut later)[0].body.as_deref().unwrap(), "new");
    assert_eq!(world.upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn stale_response_precedes_the_function() {
    let world = World::with(|builder| with_fallback(builder).stale_if_error(3600 * SECOND));
    world.store(VALID, "stored", 11 * SECOND).await;
    let mut tasks = [world.ask(&[])];
    pass(2 * SECOND, &mut tasks).await;
    assert_eq!(got(&mut tasks)[0].status.outcome(), SLOW);
}

#[tokio::test(start_paused = true)]
async fn function_answers_where_stale_is_forbidden() {
    let world = World::with(|builder| with_fallback(impatient(builder)));
    world
        .store(&[("cache-control", "max-age=10, must-revalidate"), ("etag", "\"a\"")], "stored", 11 * SECOND)
        .await;
    let mut tasks = [world.ask(&[])];
    pass(2 * SECOND, &mut tasks).await;
    assert_eq!(got(&mut tasks)[0].status.outcome(), Outcome::Fallback);
}

#[tokio::test(start_paused = true)]
async fn function_gives_no_body_to_head() {
    let world = World::with(with_fallback);
    let mut head = get_with("http://example.com/", &[]);
    *head.method_mut() = http::Method::HEAD;
    let mut tasks = [world.send(head)];
    pass(2 * SECOND, &mut tasks).await;
    let got = super::world::read(tasks[0].run().unwrap().unwrap()).await;
    assert_eq!((got.code, got.body.unwrap().as_str()), (503, ""));
}

#[tokio::test(start_paused = true)]
async fn function_answers_when_no_fetch_may_go_on() {
    let world = World::with(|builder| with_fallback(builder).max_background_refreshes(0));
    let mut tasks = [world.ask(&[])];
    pass(2 * SECOND, &mut tasks).await;
    assert_eq!(got(&mut tasks)[0].status.outcome(), Outcome::Fallback);
    assert!(world.upstream.call().is_dropped());
    world.layer.idle().await;
}

#[tokio::test(start_paused = true)]
async fn expired_response_is_served_while_the_origin_is_slow() {
    let world = World::with(impatient);
    world.store(VALID, "stored", Duration::ZERO).await;
    world.layer.handle().expire_url("http://example.com/").await.unwrap();
    world.clock.advance(SECOND);
    let mut tasks = [world.ask(&[])];
    pass(200 * MILLI, &mut tasks).await;
    let got = got(&mut tasks).remove(0);
    assert_eq!((got.status.outcome(), got.status.is_expired()), (SLOW, true));
}

/// Returns a cache whose storage has a stale response, and does not return its body.
async fn with_late_body(
    settings: fn(CacheLayerBuilder<Faulty>) -> CacheLayerBuilder<Faulty>,
) -> (World<Faulty>, Faulty) {
    let storage = Faulty::new(Mode::Well);
    let world = World::on(storage.clone(), |builder| {
        // The body is not in the record of its head, which the request has read before.
        settings(builder.stale_if_error(3600 * SECOND).inline_bytes(0))
            .operation_timeout(60 * SECOND)
            .body_timeout(60 * SECOND)
    });
    world.store(VALID, "stored", 11 * SECOND).await;
    (world, storage)
}

#[tokio::test(start_paused = true)]
async fn origin_that_answers_while_a_stale_response_is_read_is_not_kept_waiting() {
    let (world, storage) = with_late_body(|builder| builder.stale_after(200 * MILLI)).await;
    let mut tasks = [world.ask(&[])];
    settle(&mut tasks).await;
    storage.set(Mode::HungReads);
    pass(200 * MILLI, &mut tasks).await;
    assert!(!tasks[0].is_done());
    drop(world.upstream.call().head(200, CHANGED));
    settle(&mut tasks).await;
    let got = got(&mut tasks).remove(0);
    assert_eq!((got.status.word(), got.headers["etag"].to_str().unwrap()), ("miss", "\"b\""));
}

#[tokio::test(start_paused = true)]
async fn function_does_not_wait_for_a_late_storage() {
    type Settings = fn(CacheLayerBuilder<Faulty>) -> CacheLayerBuilder<Faulty>;
    let cases: [(Settings, &[u32]); 2] = [
        // Reading the stale response ends with the limit.
        (|builder| fallback(builder.stale_after(200 * MILLI)), &[200, 1799]),
        // It begins with the limit, and has a tenth of it.
        (fallback, &[2000, 199]),
    ];
    for (settings, steps) in cases {
        let (world, storage) = with_late_body(settings).await;
        let mut tasks = [world.ask(&[])];
        settle(&mut tasks).await;
        storage.set(Mode::HungReads);
        for step in steps {
            pass(*step * MILLI, &mut tasks).await;
        }
        assert!(!tasks[0].is_done());
        pass(MILLI, &mut tasks).await;
        assert_eq!(got(&mut tasks)[0].status.outcome(), Outcome::Fallback);
    }
}
