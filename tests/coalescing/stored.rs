//! Concurrent requests for a stored response that must be revalidated.

use std::time::Duration;

use super::world::{World, got};
use crate::support::task::settle;

const STORED: &[(&str, &str)] =
    &[("cache-control", "max-age=10"), ("etag", "\"a\""), ("content-length", "6")];
const LATER: Duration = Duration::from_secs(11);

#[tokio::test(start_paused = true)]
async fn concurrent_stale_requests_share_one_revalidation() {
    let world = World::new();
    world.store(STORED, "stored", LATER).await;
    let mut herd = world.herd(300, &[]);
    settle(&mut herd).await;
    assert_eq!(world.upstream.waiting(), 1);
    let call = world.upstream.call();
    assert_eq!(call.headers["if-none-match"], "\"a\"");
    call.answer(304, &[("cache-control", "max-age=10"), ("etag", "\"a\"")], "");
    settle(&mut herd).await;
    let got = got(&mut herd);
    assert!(got.iter().all(|got| got.status.is_revalidated() && got.body.as_ref().unwrap() == "stored"));
    assert_eq!(got.iter().filter(|got| got.status.is_collapsed()).count(), 299);
    assert_eq!(world.upstream.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn shared_revalidation_answers_each_requests_conditions() {
    let asks: [&[(&str, &str)]; 4] = [
        &[("if-none-match", "\"a\"")],
        &[("range", "bytes=0-2")],
        &[("if-none-match", "\"old\"")],
        &[("cache-control", "max-age=0")],
    ];
    for leader in 0..4 {
        for changed in [false, true] {
            let world = World::new();
            world.store(STORED, "stored", LATER).await;
            let mut herd: Vec<_> = (0..4).map(|number| world.ask(asks[(leader + number) % 4])).collect();
            settle(&mut herd).await;
            assert_eq!(world.upstream.waiting(), 1);
            let call = world.upstream.call();
            assert!(call.headers["if-none-match"] == "\"a\"" && !call.headers.contains_key("range"));
            match changed {
                false => call.answer(304, &[("cache-control", "max-age=10"), ("etag", "\"a\"")], ""),
                true => call.answer(
                    200,
                    &[("cache-control", "max-age=10"), ("etag", "\"b\""), ("content-length", "6")],
                    "change",
                ),
            }
            settle(&mut herd).await;
            let mut got = got(&mut herd);
            got.rotate_right(leader);
            let got: Vec<_> = got.iter().map(|got| (got.code, got.body.as_deref().unwrap())).collect();
            match changed {
                false => assert_eq!(got, [(304, ""), (206, "sto"), (200, "stored"), (200, "stored")]),
                true => assert_eq!(got, [(200, "change"), (206, "cha"), (200, "change"), (200, "change")]),
            }
            assert_eq!(world.upstream.count(), 2);
            world.layer.idle().await;
            assert_eq!(world.ask(&[]).run().unwrap().unwrap().status.word(), "hit");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn unshareable_not_modified_sends_followers_to_origin() {
    let world = World::new();
    world.store(STORED, "stored", LATER).await;
    let mut herd = world.herd(3, &[]);
    settle(&mut herd).await;
    world.upstream.call().answer(304, &[("cache-control", "no-store"), ("etag", "\"a\"")], "");
    settle(&mut herd).await;
    assert_eq!(world.upstream.waiting(), 2);
}

#[tokio::test(start_paused = true)]
async fn response_stored_before_first_poll_is_hit() {
    use tower::Service;
    let world = World::new();
    let mut service = world.service.clone();
    let mut first = [world.ask(&[])];
    settle(&mut first).await;
    let called = service.call(crate::support::get("http://example.com/"));
    world.upstream.call().answer(200, STORED, "stored");
    settle(&mut first).await;
    world.layer.idle().await;
    assert_eq!(called.await.unwrap().body().status().unwrap().word(), "hit");
    assert_eq!(world.upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn new_leader_repeats_lookup_before_fetching() {
    use crate::support::faulty::{Faulty, Mode};
    let store = Faulty::new(Mode::Well);
    let world = World::on(store.clone(), |builder| builder);
    let mut first = [world.ask(&[])];
    settle(&mut first).await;
    // The storage hangs during the lookup of the second request, until the first response has been read.
    store.set(Mode::Hung);
    let mut second = [world.ask(&[])];
    settle(&mut second).await;
    world.upstream.call().answer(200, STORED, "stored");
    settle(&mut first).await;
    assert_eq!(got(&mut first)[0].body.as_ref().unwrap(), "stored");
    store.set(Mode::Well);
    settle(&mut second).await;
    assert_eq!(got(&mut second)[0].status.word(), "hit");
    assert_eq!(world.upstream.count(), 1);
}
