//! Stale responses that are served instead of waiting for the origin (RFC 5861).

use std::time::Duration;

use tower_response_cache::StaleReason;

use super::world::{Call, World, got};
use crate::support::task::settle;

const SECOND: Duration = Duration::from_secs(1);
const VALID: &[(&str, &str)] = &[("cache-control", "max-age=10"), ("etag", "\"a\"")];

fn confirm(call: Call) {
    call.answer(304, VALID, "");
}

#[tokio::test(start_paused = true)]
async fn stale_while_revalidate_makes_one_refresh() {
    let world = World::with(|builder| builder.stale_while_revalidate(60 * SECOND));
    world.store(VALID, "stored", 11 * SECOND).await;
    let mut herd = world.herd(100, &[]);
    settle(&mut herd).await;
    assert!(got(&mut herd).iter().all(|got| got.status.is_stale() && got.body.as_ref().unwrap() == "stored"));
    assert_eq!(world.upstream.waiting(), 1);
    confirm(world.upstream.call());
    world.layer.idle().await;
    assert_eq!(world.ask(&[]).run().unwrap().unwrap().status.word(), "hit");
}

#[tokio::test(start_paused = true)]
async fn foreground_request_joins_background_refresh() {
    let world = World::with(|builder| builder.stale_while_revalidate(60 * SECOND));
    world.store(VALID, "stored", 11 * SECOND).await;
    let mut stale = [world.ask(&[])];
    settle(&mut stale).await;
    // `max-age` in the request forbids a stale response.
    let mut strict = [world.ask(&[("cache-control", "max-age=5")])];
    settle(&mut strict).await;
    assert!(strict[0].run().is_none() && world.upstream.waiting() == 1);
    confirm(world.upstream.call());
    settle(&mut strict).await;
    assert!(got(&mut strict)[0].status.is_collapsed());
    assert_eq!(world.upstream.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn background_refresh_joins_foreground_fetch() {
    let world = World::with(|builder| builder.stale_while_revalidate(60 * SECOND));
    world.store(VALID, "stored", 11 * SECOND).await;
    let mut strict = [world.ask(&[("cache-control", "max-age=5")])];
    settle(&mut strict).await;
    let mut stale = [world.ask(&[])];
    settle(&mut stale).await;
    assert!(got(&mut stale)[0].status.is_stale());
    assert_eq!(world.upstream.waiting(), 1);
}

#[tokio::test(start_paused = true)]
async fn response_directives_override_stale_while_revalidate_setting() {
    for (directives, stale) in [
        ("max-age=10", true),
        ("max-age=10, stale-while-revalidate=0", false),
        ("max-age=10, must-revalidate", false),
    ] {
        let world = World::with(|builder| builder.stale_while_revalidate(60 * SECOND));
        world.store(&[("cache-control", directives), ("etag", "\"a\"")], "stored", 11 * SECOND).await;
        let mut task = [world.ask(&[])];
        settle(&mut task).await;
        assert_eq!(task[0].is_done(), stale, "{directives}");
    }
}

#[tokio::test(start_paused = true)]
async fn stale_if_error_serves_all_waiting_requests() {
    for code in [None, Some(500), Some(502), Some(503), Some(504)] {
        let world = World::with(|builder| builder.stale_if_error(60 * SECOND));
        world.store(VALID, "stored", 11 * SECOND).await;
        let mut herd = world.herd(100, &[]);
        settle(&mut herd).await;
        assert_eq!(world.upstream.waiting(), 1);
        match code {
            None => world.upstream.call().fail(),
            Some(code) => world.upstream.call().answer(code, &[], "down"),
        }
        settle(&mut herd).await;
        assert!(got(&mut herd).iter().all(|got| got.body.as_ref().unwrap() == "stored"));
        assert_eq!(world.upstream.count(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn failing_origin_gets_one_background_probe() {
    let world = World::with(|builder| builder.stale_if_error(3600 * SECOND));
    world.store(VALID, "stored", 11 * SECOND).await;
    let mut first = [world.ask(&[])];
    settle(&mut first).await;
    world.upstream.call().fail();
    settle(&mut first).await;
    assert_eq!(
        got(&mut first)[0].status.outcome(),
        tower_response_cache::Outcome::Stale(StaleReason::IfError)
    );
    for round in 0..5 {
        let mut herd = world.herd(50, &[]);
        settle(&mut herd).await;
        let got = got(&mut herd);
        assert!(got.iter().all(|got| got.body.as_ref().unwrap() == "stored"), "{round}");
        assert_eq!(world.upstream.waiting(), 0, "the origin failed a moment ago");
        world.clock.advance(2 * SECOND);
        let mut herd = world.herd(50, &[]);
        settle(&mut herd).await;
        assert!(herd.iter().all(|task| task.is_done()));
        assert_eq!(world.upstream.waiting(), 1, "one request probes the origin");
        world.upstream.call().fail();
        world.layer.idle().await;
    }
    world.clock.advance(2 * SECOND);
    let mut herd = world.herd(5, &[]);
    settle(&mut herd).await;
    confirm(world.upstream.call());
    world.layer.idle().await;
    assert_eq!(world.ask(&[]).run().unwrap().unwrap().status.word(), "hit");
}

#[tokio::test(start_paused = true)]
async fn stale_if_error_serves_after_coalesce_timeout() {
    let world = World::with(|builder| builder.stale_if_error(3600 * SECOND).coalesce_timeout(3 * SECOND));
    world.store(VALID, "stored", 11 * SECOND).await;
    let mut leader = world.ask(&[]);
    assert!(leader.run().is_none());
    let request = crate::support::get("http://example.com/");
    let response = tower::ServiceExt::oneshot(world.service.clone(), request).await.unwrap();
    assert!(response.body().status().unwrap().is_stale());
    assert_eq!(world.upstream.waiting(), 1);
}

#[tokio::test(start_paused = true)]
async fn popular_entry_is_refreshed_before_expiry() {
    let world = World::with(|builder| builder.refresh_early(SECOND));
    world.store(&[("cache-control", "max-age=100"), ("etag", "\"a\"")], "stored", 49 * SECOND).await;
    let hits = |many: usize| (0..many).map(|_| world.ask(&[]).run().unwrap().unwrap().status.word());
    assert!(hits(1000).all(|word| word == "hit"));
    assert_eq!(world.upstream.waiting(), 0, "no refresh in the first half of the lifetime");
    world.clock.advance(50 * SECOND);
    assert!(hits(1000).all(|word| word == "hit"));
    tokio::task::yield_now().await;
    assert_eq!(
        world.upstream.waiting(),
        1,
        "one second before expiry a refresh is almost certain, and there is only one"
    );
    world.upstream.call().answer(304, &[("cache-control", "max-age=100"), ("etag", "\"a\"")], "");
    world.layer.idle().await;
    world.clock.advance(10 * SECOND);
    assert!(hits(1000).all(|word| word == "hit"), "the lifetime has begun again");
}

#[tokio::test(start_paused = true)]
async fn requests_after_a_stale_download_share_a_fetch() {
    let world = World::new();
    let mut first = world.ask(&[]);
    assert!(first.run().is_none());
    let body = world.upstream.call().head(200, &[("cache-control", "max-age=10")]);
    body.data("first");
    assert!(first.run().is_none(), "the body has not ended");
    world.clock.advance(11 * SECOND);
    let mut herd = world.herd(3, &[]);
    settle(&mut herd).await;
    assert_eq!(world.upstream.waiting(), 1, "the response of the download is stale for each of them");
    world.upstream.call().answer(200, &[("cache-control", "max-age=10")], "second");
    settle(&mut herd).await;
    assert!(got(&mut herd).iter().all(|got| got.body.as_ref().unwrap() == "second"));
}
