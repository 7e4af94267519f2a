//! Followers of a leader that is dropped, slow, or panics.

use std::time::Duration;

use super::world::{World, got};
use crate::support::get;
use crate::support::task::{Task, settle};
use tower::{Layer, ServiceExt, service_fn};
use tower_response_cache::CacheLayer;
use tower_response_cache::storage::MemoryStorage;

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=60")];

#[tokio::test(start_paused = true)]
async fn dropped_leader_hands_fetch_to_followers() {
    let world = World::new();
    let mut herd = world.herd(3, &[]);
    settle(&mut herd).await;
    drop(herd.remove(0));
    settle(&mut herd).await;
    let call = world.upstream.call();
    assert!(!call.is_dropped() && world.upstream.count() == 1);
    call.answer(200, FRESH, "body");
    settle(&mut herd).await;
    assert!(got(&mut herd).iter().all(|got| got.body.as_ref().unwrap() == "body"));
    assert_eq!(world.upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn fetch_is_cancelled_when_all_drop() {
    let world = World::new();
    let mut herd = world.herd(3, &[]);
    settle(&mut herd).await;
    let call = world.upstream.call();
    drop(herd);
    assert!(call.is_dropped());
    let mut next = [world.ask(&[])];
    settle(&mut next).await;
    assert_eq!(world.upstream.waiting(), 1);
}

#[tokio::test(start_paused = true)]
async fn unpolled_leader_does_not_block_followers() {
    let world = World::new();
    let mut leader = world.ask(&[]);
    assert!(leader.run().is_none());
    let mut others = world.herd(2, &[]);
    settle(&mut others).await;
    world.upstream.call().answer(200, FRESH, "body");
    settle(&mut others).await;
    assert_eq!(got(&mut others)[1].body.as_ref().unwrap(), "body");
    assert_eq!(leader.run().unwrap().unwrap().body.unwrap(), "body");
}

#[tokio::test(start_paused = true)]
async fn follower_fetches_after_leader_panic() {
    let calls = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = std::sync::Arc::clone(&calls);
    let origin = service_fn(move |_| {
        let number = counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(number > 0, "scripted");
            let response = http::Response::builder().header("cache-control", "max-age=60");
            Ok::<_, std::io::Error>(
                response.body(http_body_util::Full::new(bytes::Bytes::from("body"))).unwrap(),
            )
        }
    });
    let service = CacheLayer::new(MemoryStorage::new()).layer(origin);
    let ask = || tokio::spawn(service.clone().oneshot(get("http://example.com/")));
    let (leader, follower) = (ask(), ask());
    assert!(leader.await.unwrap_err().is_panic());
    assert!(follower.await.unwrap().is_ok());
    assert_eq!(calls.load(std::sync::atomic::Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn follower_fetches_after_coalesce_timeout() {
    let world = World::with(|builder| builder.coalesce_timeout(Duration::from_secs(3)));
    let service = world.service.clone();
    let leader = tokio::spawn(service.clone().oneshot(get("http://example.com/")));
    tokio::task::yield_now().await;
    let begun = tokio::time::Instant::now();
    let follower = tokio::spawn(service.oneshot(get("http://example.com/")));
    while world.upstream.count() < 2 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!((3..4).contains(&begun.elapsed().as_secs()));
    drop(world.upstream.call());
    world.upstream.call().answer(200, FRESH, "mine");
    assert!(follower.await.unwrap().is_ok() && leader.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn request_after_invalidation_does_not_join_fetch() {
    let world = World::new();
    let mut before = vec![world.ask(&[]), world.ask(&[])];
    settle(&mut before).await;
    let old = world.upstream.call();
    let mut request = get("http://example.com/");
    *request.method_mut() = http::Method::POST;
    let mut post = [world.send(request)];
    settle(&mut post).await;
    world.upstream.call().answer(204, &[], "");
    settle(&mut post).await;
    assert!(post[0].run().unwrap().is_ok());
    let mut after = [world.ask(&[])];
    settle(&mut after).await;
    assert_eq!(world.upstream.waiting(), 1, "the request after the invalidation fetches again");
    old.answer(200, FRESH, "old");
    settle(&mut before).await;
    assert!(got(&mut before).iter().all(|got| got.body.as_ref().unwrap() == "old"));
    world.upstream.call().answer(200, FRESH, "new");
    settle(&mut after).await;
    assert_eq!(got(&mut after)[0].body.as_ref().unwrap(), "new");
    let mut later = [world.ask(&[])];
    settle(&mut later).await;
    assert_eq!(got(&mut later)[0].body.as_ref().unwrap(), "new");
}

#[tokio::test(start_paused = true)]
async fn request_after_invalidation_does_not_join_body() {
    let world = World::new();
    let mut before = vec![world.ask(&[])];
    settle(&mut before).await;
    let sender = world.upstream.call().head(200, FRESH);
    sender.data("ol");
    settle(&mut before).await;
    let mut request = get("http://example.com/");
    *request.method_mut() = http::Method::DELETE;
    let mut delete = [world.send(request)];
    settle(&mut delete).await;
    world.upstream.call().answer(200, &[], "");
    settle(&mut delete).await;
    assert!(delete[0].run().unwrap().is_ok());
    let mut after = [world.ask(&[])];
    settle(&mut after).await;
    assert_eq!(world.upstream.waiting(), 1);
    drop(sender);
    world.upstream.call().answer(200, FRESH, "new");
    settle(&mut before).await;
    settle(&mut after).await;
    assert_eq!(got(&mut after)[0].body.as_ref().unwrap(), "new");
}

#[tokio::test(start_paused = true)]
async fn finished_requests_leave_no_flights() {
    let world = World::new();
    for round in 0..3 {
        let mut tasks: Vec<_> = (0..50)
            .map(|number| {
                Task::new(world.service.clone().oneshot(get(&format!("http://example.com/{number}"))))
            })
            .collect();
        settle(&mut tasks).await;
        match round {
            0 => {}
            1 => (0..50).for_each(|_| world.upstream.call().fail()),
            _ => (0..50).for_each(|_| world.upstream.call().answer(200, FRESH, "x")),
        }
        settle(&mut tasks).await;
        drop(tasks);
        while world.upstream.waiting() > 0 {
            drop(world.upstream.call());
        }
        assert!(format!("{:?}", world.layer).contains("flights: 0"), "{:?}", world.layer);
    }
}
