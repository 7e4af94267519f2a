//! Concurrent requests for a key that is not stored.

use std::io;
use std::time::Duration;

use http::StatusCode;
use tower::ServiceExt;
use tower_response_cache::{CacheOptions, Stored, Ttl};

use super::world::{Got, World, got};
use crate::support::get;
use crate::support::task::{Task, settle};

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=60")];

#[tokio::test(start_paused = true)]
async fn concurrent_misses_share_one_fetch() {
    let world = World::new();
    let mut herd = world.herd(1000, &[]);
    settle(&mut herd).await;
    assert_eq!(world.upstream.count(), 1);
    world.upstream.call().answer(200, FRESH, "body");
    settle(&mut herd).await;
    let got = got(&mut herd);
    assert!(got.iter().all(|got| got.body.as_ref().unwrap() == "body" && got.status.is_miss()));
    assert_eq!(got.iter().filter(|got| got.status.is_collapsed()).count(), 999);
    assert_eq!(got.iter().filter(|got| got.status.stored() == Stored::Storing).count(), 1);
    assert_eq!(world.upstream.count(), 1);
    world.layer.idle().await;
    let mut later = [world.ask(&[])];
    settle(&mut later).await;
    assert_eq!(later[0].run().unwrap().unwrap().status.word(), "hit");
}

#[tokio::test(start_paused = true)]
async fn unshareable_response_disables_coalescing_for_its_key() {
    for fields in [&[("cache-control", "no-store")][..], &[("cache-control", "private")], &[]] {
        let world = World::with(|builder| builder.shared(true));
        let mut herd = world.herd(20, &[]);
        settle(&mut herd).await;
        assert_eq!(world.upstream.waiting(), 1);
        world.upstream.call().answer(200, fields, "mine");
        settle(&mut herd).await;
        assert_eq!(world.upstream.waiting(), 19, "the others fetch concurrently");
        (0..19).for_each(|_| world.upstream.call().answer(200, fields, "mine"));
        settle(&mut herd).await;
        assert!(got(&mut herd).iter().all(|got| !got.status.is_collapsed()));
        let mut next = world.herd(20, &[]);
        settle(&mut next).await;
        assert_eq!(world.upstream.waiting(), 20, "no request waits for another");
        // Once a response may be stored, it is stored, and later requests are coalesced again.
        (0..20).for_each(|_| world.upstream.call().answer(200, FRESH, "ours"));
        settle(&mut next).await;
        world.layer.idle().await;
        world.clock.advance(Duration::from_secs(100));
        let mut shared = world.herd(20, &[]);
        settle(&mut shared).await;
        assert_eq!(world.upstream.waiting(), 1);
    }
}

/// Sends a leader with Authorization, then 20 requests without it.
async fn authorized_leader(world: &World) -> (Vec<Task<io::Result<Got>>>, Vec<Task<io::Result<Got>>>) {
    let mut leader = vec![world.ask(&[("authorization", "x")])];
    settle(&mut leader).await;
    let mut herd = world.herd(20, &[]);
    settle(&mut herd).await;
    assert_eq!(world.upstream.waiting(), 1);
    (leader, herd)
}

/// One of the waiting requests fetches again, and the others wait for it.
///
/// Otherwise a client with Authorization could cause one fetch per waiting request at each expiry.
#[tokio::test(start_paused = true)]
async fn unshared_authorized_response_sends_one_follower() {
    for stored in [false, true] {
        let valid = [("cache-control", "max-age=60"), ("etag", "\"a\"")];
        let world = World::with(|builder| builder.shared(true));
        if stored {
            world.store(&valid, "all", Duration::from_secs(61)).await;
        }
        let before = world.upstream.count();
        let (mut leader, mut herd) = authorized_leader(&world).await;
        let (code, body) = if stored { (304, "") } else { (200, "all") };
        world.upstream.call().answer(code, &valid, body);
        settle(&mut leader).await;
        settle(&mut herd).await;
        assert_eq!(world.upstream.waiting(), 1, "stored: {stored}");
        world.upstream.call().answer(code, &valid, body);
        settle(&mut herd).await;
        assert!(got(&mut herd).iter().all(|got| got.body.as_ref().unwrap() == "all"));
        assert_eq!(world.upstream.count() - before, 2);
        world.layer.idle().await;
        world.clock.advance(Duration::from_secs(61));
        let mut next = world.herd(20, &[]);
        settle(&mut next).await;
        assert_eq!(world.upstream.waiting(), 1, "the others are still coalesced, stored: {stored}");
    }
}

#[tokio::test(start_paused = true)]
async fn authorized_requests_do_not_wait_twice() {
    let world = World::with(|builder| builder.shared(true));
    let mut herd = world.herd(20, &[("authorization", "x")]);
    settle(&mut herd).await;
    assert_eq!(world.upstream.waiting(), 1, "the response may permit sharing");
    world.upstream.call().answer(200, FRESH, "mine");
    settle(&mut herd).await;
    assert_eq!(world.upstream.waiting(), 19);
    let mut next = world.herd(20, &[("authorization", "x")]);
    settle(&mut next).await;
    assert_eq!(world.upstream.waiting(), 39, "no request waits for a response that is not shared");
}

#[tokio::test(start_paused = true)]
async fn request_that_forbids_sharing_does_not_lead() {
    let options = [
        CacheOptions::new().no_store(true),
        CacheOptions::new().ttl(Ttl::DoNotStore),
        CacheOptions::new().ttl(Ttl::Revalidate),
        CacheOptions::new().ttl(Duration::ZERO),
    ];
    for options in options {
        let world = World::new();
        let mut request = get("http://example.com/");
        request.extensions_mut().insert(options.clone());
        let mut own = [world.send(request)];
        settle(&mut own).await;
        let mut herd = world.herd(20, &[]);
        settle(&mut herd).await;
        assert_eq!(world.upstream.waiting(), 2, "{options:?}");
        (0..2).for_each(|_| world.upstream.call().answer(200, FRESH, "body"));
        settle(&mut own).await;
        settle(&mut herd).await;
        assert!(got(&mut herd).iter().all(|got| got.body.as_ref().unwrap() == "body"));
        assert_eq!(world.upstream.count(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn request_specific_error_reaches_only_its_caller() {
    for code in [406, 413, 416, 417, 431] {
        let world = World::new();
        let mut bad = [world.ask(&[("expect", "the impossible")])];
        settle(&mut bad).await;
        let mut herd = world.herd(20, &[]);
        settle(&mut herd).await;
        world.upstream.call().answer(code, FRESH, "refused");
        settle(&mut bad).await;
        settle(&mut herd).await;
        assert_eq!((got(&mut bad)[0].code, world.upstream.waiting()), (code, 1));
        world.upstream.call().answer(200, FRESH, "body");
        settle(&mut herd).await;
        assert!(got(&mut herd).iter().all(|got| got.body.as_ref().unwrap() == "body"));
    }
}

/// Some inner services return an interim response as the final one.
#[tokio::test(start_paused = true)]
async fn interim_response_reaches_only_its_caller() {
    for stored in [false, true] {
        let world = World::new();
        let valid = [("cache-control", "max-age=60"), ("etag", "\"a\"")];
        if stored {
            world.store(&valid, "old", Duration::from_secs(61)).await;
        }
        let mut herd = world.herd(20, &[]);
        settle(&mut herd).await;
        world.upstream.call().answer(103, &[("cache-control", "public, max-age=60"), ("link", "</a>")], "");
        settle(&mut herd).await;
        assert_eq!((got(&mut herd[..1])[0].code, world.upstream.waiting()), (103, 1));
        world.upstream.call().answer(200, &valid, "body");
        settle(&mut herd).await;
        let got = got(&mut herd[1..]);
        assert!(got.iter().all(|got| (got.code, got.body.as_deref().unwrap()) == (200, "body")));
        world.layer.idle().await;
        assert_eq!(world.ask(&[]).run().unwrap().unwrap().body.unwrap(), "body");
    }
}

#[tokio::test(start_paused = true)]
async fn fetch_error_reaches_only_the_leader() {
    let world = World::new();
    let mut herd = world.herd(3, &[]);
    settle(&mut herd).await;
    world.upstream.call().fail();
    settle(&mut herd).await;
    assert!(herd[0].run().unwrap().is_err());
    assert_eq!(world.upstream.waiting(), 2, "each follower fetches for itself, at once");
    world.upstream.call().answer(200, FRESH, "one");
    world.upstream.call().answer(200, FRESH, "two");
    settle(&mut herd).await;
    assert!(herd[1..].iter_mut().all(|task| task.run().unwrap().is_ok()));
    let world = World::new();
    let mut next = world.herd(2, &[]);
    settle(&mut next).await;
    assert_eq!(world.upstream.waiting(), 1);
}

#[tokio::test(start_paused = true)]
async fn each_variant_is_fetched_once() {
    let world = World::new();
    let varying = &[("cache-control", "max-age=60"), ("vary", "accept-language")];
    let mut herd: Vec<_> = ["de", "en", "de", "fr", "en", "de"]
        .map(|language| world.ask(&[("accept-language", language)]))
        .into();
    settle(&mut herd).await;
    assert_eq!(world.upstream.waiting(), 1, "Vary is not known yet");
    world.upstream.call().answer(200, varying, "de");
    settle(&mut herd).await;
    assert_eq!(world.upstream.waiting(), 2, "one more fetch for each other language");
    world.upstream.call().answer(200, varying, "en");
    world.upstream.call().answer(200, varying, "fr");
    settle(&mut herd).await;
    let bodies: Vec<String> = got(&mut herd).into_iter().map(|got| got.body.unwrap()).collect();
    assert_eq!(bodies, ["de", "en", "de", "fr", "en", "de"]);
    assert_eq!(world.upstream.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn private_cache_does_not_coalesce_different_users() {
    let world = World::new();
    let mut herd: Vec<_> = ["a", "b", "a"].map(|user| world.ask(&[("cookie", user)])).into();
    settle(&mut herd).await;
    assert_eq!(world.upstream.waiting(), 1);
    world.upstream.call().answer(200, FRESH, "for a");
    settle(&mut herd).await;
    let call = world.upstream.call();
    assert_eq!((call.headers["cookie"].to_str().unwrap(), world.upstream.waiting()), ("b", 0));
    call.answer(200, FRESH, "for b");
    settle(&mut herd).await;
    let bodies: Vec<String> = got(&mut herd).into_iter().map(|got| got.body.unwrap()).collect();
    assert_eq!(bodies, ["for a", "for b", "for a"]);
}

#[tokio::test(start_paused = true)]
async fn no_cache_request_does_not_join_earlier_fetch() {
    let world = World::new();
    let mut herd =
        [world.ask(&[]), world.ask(&[("cache-control", "no-cache")]), world.ask(&[("pragma", "no-cache")])];
    settle(&mut herd).await;
    assert_eq!(world.upstream.waiting(), 3);
    // A `max-age=0` request accepts a response fetched after it arrived, however slow the origin.
    let world = World::new();
    let mut herd = [world.ask(&[]), world.ask(&[("cache-control", "max-age=0")])];
    settle(&mut herd).await;
    world.clock.advance(Duration::from_millis(300));
    assert_eq!(world.upstream.waiting(), 1);
    world.upstream.call().answer(200, FRESH, "new");
    settle(&mut herd).await;
    assert!(got(&mut herd)[1].status.is_collapsed());
}

#[tokio::test(start_paused = true)]
async fn response_requiring_revalidation_is_not_shared() {
    for directive in ["no-cache", "max-age=0", "max-age=0, must-revalidate"] {
        let world = World::new();
        let fields = &[("cache-control", directive), ("etag", "\"a\"")];
        let mut herd = world.herd(3, &[]);
        settle(&mut herd).await;
        assert_eq!(world.upstream.waiting(), 1);
        world.upstream.call().answer(200, fields, "once");
        settle(&mut herd).await;
        while world.upstream.waiting() > 0 {
            world.upstream.call().answer(200, fields, "again");
            settle(&mut herd).await;
        }
        let bodies: Vec<String> = got(&mut herd).into_iter().map(|got| got.body.unwrap()).collect();
        assert_eq!(bodies, ["once", "again", "again"], "{directive}");
    }
}

#[tokio::test(start_paused = true)]
async fn unsafe_requests_are_not_coalesced() {
    let world = World::new();
    let mut posts: Vec<_> = (0..5)
        .map(|_| {
            let mut request = get("http://example.com/");
            *request.method_mut() = http::Method::POST;
            world.send(request)
        })
        .collect();
    settle(&mut posts).await;
    assert_eq!(world.upstream.waiting(), 5);
}

#[tokio::test(start_paused = true)]
async fn conditional_request_follows_but_does_not_lead() {
    let world = World::new();
    let mut first = vec![world.ask(&[("if-none-match", "\"a\"")])];
    settle(&mut first).await;
    let mut herd = [world.ask(&[]), world.ask(&[("if-none-match", "\"a\"")])];
    settle(&mut herd).await;
    assert_eq!(world.upstream.waiting(), 2, "the first fetches by itself, and the others share a fetch");
    world.upstream.call().answer(304, &[("etag", "\"a\"")], "");
    world.upstream.call().answer(200, &[("cache-control", "max-age=60"), ("etag", "\"a\"")], "body");
    settle(&mut first).await;
    settle(&mut herd).await;
    assert_eq!(first[0].run().unwrap().unwrap().code, 304);
    let got = got(&mut herd);
    assert_eq!((got[0].code, got[1].code), (200, StatusCode::NOT_MODIFIED.as_u16()));
    assert!(got[1].body.as_ref().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn head_request_follows_get() {
    let world = World::new();
    let mut leader = [world.ask(&[])];
    settle(&mut leader).await;
    let mut request = get("http://example.com/");
    *request.method_mut() = http::Method::HEAD;
    let mut head = [world.send(request)];
    settle(&mut head).await;
    assert_eq!(world.upstream.waiting(), 1);
    world.upstream.call().answer(200, &[("cache-control", "max-age=60"), ("content-length", "4")], "body");
    settle(&mut head).await;
    let response = head[0].run().unwrap().unwrap();
    assert_eq!(response.headers()["content-length"], "4");
    assert_eq!(super::world::read(response).await.body.unwrap(), "");
}

#[tokio::test(start_paused = true)]
async fn disabled_coalescing_fetches_for_each_request() {
    let world = World::with(|builder| builder.coalesce(false));
    let mut herd = world.herd(5, &[]);
    settle(&mut herd).await;
    assert_eq!(world.upstream.waiting(), 5);
}

#[test]
fn requests_outside_a_runtime_fetch_separately() {
    let world = World::new();
    let mut tasks: Vec<_> =
        (0..2).map(|_| Task::new(world.service.clone().oneshot(get("http://example.com/")))).collect();
    tasks.iter_mut().for_each(|task| assert!(task.run().is_none()));
    assert_eq!(world.upstream.waiting(), 2);
}
