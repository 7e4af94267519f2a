//! Several caches on one storage, of which one fetches.

use std::time::Duration;

use tower_response_cache::storage::MemoryStorage;

use super::world::{World, got};
use crate::support::faulty::{Faulty, Mode};
use crate::support::task::{Task, settle};

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=10"), ("etag", "\"a\"")];
const SECOND: Duration = Duration::from_secs(1);

/// Returns two caches that share only the storage, like two processes.
fn two() -> [World; 2] {
    let store = MemoryStorage::new();
    [(); 2].map(|()| {
        World::on(store.clone(), |builder| builder.lease(10 * SECOND).stale_while_revalidate(60 * SECOND))
    })
}

/// Lets time pass for tasks that poll the storage at intervals.
async fn wait<T>(tasks: &mut [Task<T>], time: Duration) {
    settle(tasks).await;
    let end = tokio::time::Instant::now() + time;
    while tokio::time::Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(10)).await;
        settle(tasks).await;
    }
}

#[tokio::test(start_paused = true)]
async fn process_without_lease_serves_stored_response() {
    let [one, other] = two();
    let (mut first, mut second) = (one.herd(20, &[]), other.herd(20, &[]));
    settle(&mut first).await;
    wait(&mut second, SECOND).await;
    assert_eq!((one.upstream.count(), other.upstream.count()), (1, 0));
    one.upstream.call().answer(200, FRESH, "body");
    settle(&mut first).await;
    assert_eq!(got(&mut first).len(), 20);
    wait(&mut second, SECOND).await;
    assert!(got(&mut second).iter().all(|got| got.body.as_ref().unwrap() == "body"));
    assert_eq!((one.upstream.count(), other.upstream.count()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn process_without_lease_waits_for_long_body() {
    let store = MemoryStorage::new();
    let [one, other] =
        [(); 2].map(|()| World::on(store.clone(), |builder| builder.lease(10 * SECOND).chunk_bytes(10)));
    let (mut first, mut second) = ([one.ask(&[])], [other.ask(&[])]);
    settle(&mut first).await;
    let sender = one.upstream.call().head(200, FRESH);
    sender.data(vec![b'x'; 50]);
    settle(&mut first).await;
    wait(&mut second, SECOND).await;
    drop(sender);
    settle(&mut first).await;
    wait(&mut second, SECOND).await;
    assert_eq!(got(&mut second)[0].status.word(), "hit");
    assert_eq!(other.upstream.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn failed_or_unstored_fetch_releases_lease() {
    for fails in [false, true] {
        let [one, other] = two();
        let (mut first, mut second) = ([one.ask(&[])], [other.ask(&[])]);
        settle(&mut first).await;
        wait(&mut second, SECOND).await;
        assert_eq!(other.upstream.count(), 0);
        match fails {
            false => one.upstream.call().answer(200, &[("cache-control", "no-store")], "mine"),
            true => one.upstream.call().fail(),
        }
        settle(&mut first).await;
        wait(&mut second, SECOND / 2).await;
        assert_eq!(other.upstream.count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn lease_is_released_on_drop_or_expiry() {
    for dies in [false, true] {
        let [one, other] = two();
        let (mut first, mut second) = (vec![one.ask(&[])], [other.ask(&[])]);
        settle(&mut first).await;
        wait(&mut second, SECOND).await;
        if dies {
            std::mem::forget(first);
            wait(&mut second, 3 * SECOND).await;
            assert_eq!(other.upstream.count(), 0);
            wait(&mut second, 7 * SECOND).await;
        } else {
            drop(first);
            wait(&mut second, SECOND / 2).await;
        }
        assert_eq!(other.upstream.count(), 1);
        other.upstream.call().answer(200, FRESH, "body");
        settle(&mut second).await;
        assert_eq!(got(&mut second)[0].body.as_ref().unwrap(), "body");
    }
}

#[tokio::test(start_paused = true)]
async fn leased_refresh_lets_others_serve_stale() {
    let [one, other] = two();
    one.store(FRESH, "stored", 11 * SECOND).await;
    other.clock.advance(11 * SECOND);
    let mut first = [one.ask(&[])];
    settle(&mut first).await;
    let mut second = other.herd(10, &[]);
    wait(&mut second, SECOND).await;
    assert!(got(&mut first)[0].status.is_stale() && got(&mut second).iter().all(|got| got.status.is_stale()));
    assert_eq!((one.upstream.waiting(), other.upstream.waiting()), (1, 0));
    one.upstream.call().answer(304, FRESH, "");
    one.layer.idle().await;
    assert_eq!(other.ask(&[]).run().unwrap().unwrap().status.word(), "hit");
}

#[tokio::test(start_paused = true)]
async fn one_process_revalidates_under_lease() {
    let store = MemoryStorage::new();
    let [one, other] = [(); 2].map(|()| World::on(store.clone(), |builder| builder.lease(10 * SECOND)));
    one.store(FRESH, "stored", 11 * SECOND).await;
    other.clock.advance(11 * SECOND);
    let (mut first, mut second) = (one.herd(5, &[]), other.herd(5, &[]));
    settle(&mut first).await;
    wait(&mut second, SECOND).await;
    assert_eq!((one.upstream.waiting(), other.upstream.waiting()), (1, 0));
    one.upstream.call().answer(304, FRESH, "");
    settle(&mut first).await;
    wait(&mut second, SECOND).await;
    assert!(got(&mut second).iter().all(|got| got.status.word() == "hit"));
}

#[tokio::test(start_paused = true)]
async fn failing_storage_does_not_block_leased_fetches() {
    for mode in [Mode::Failing, Mode::Full, Mode::ReadOnly, Mode::HungWrites] {
        let store = Faulty::new(mode);
        let world = World::on(store, |builder| builder.lease(10 * SECOND));
        let mut herd = world.herd(3, &[]);
        wait(&mut herd, SECOND).await;
        assert!(world.upstream.waiting() >= 1, "{mode:?}");
        while world.upstream.waiting() > 0 {
            world.upstream.call().answer(200, FRESH, "body");
            settle(&mut herd).await;
        }
        assert!(got(&mut herd).iter().all(|got| got.body.as_ref().unwrap() == "body"), "{mode:?}");
    }
}
