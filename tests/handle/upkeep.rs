//! Warming the cache, and sweeping expired records.

use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt, service_fn};
use tower_response_cache::storage::{BoxStorage, MemoryStorage, Storage};
use tower_response_cache::{CacheLayer, Clock};

use crate::support::faulty::{Faulty, Mode};
use crate::support::{Fixture, Origin, ReqBody, get, response};
use crate::{A, SECOND, origin, world};

#[tokio::test]
async fn warming_stores_responses_and_counts_outcomes() {
    let world = world(&BoxStorage::new(MemoryStorage::new()));
    world.fill(&[A, "http://example.com/stale?age=1"]).await;
    world.clock.advance(2 * SECOND);
    let uris = [
        A,
        "http://example.com/stale?age=1",
        "http://example.com/new",
        "http://example.com/large?len=400000",
        "http://example.com/never?control=no-store",
    ];
    for at_once in [0, 1, 100] {
        let world = &world;
        let warmed = world.handle().warm(world.service.clone(), uris.map(get), at_once).await;
        let (hits, stored) = if at_once == 0 { (1, 2) } else { (4, 0) };
        assert_eq!((warmed.hits, warmed.stored, warmed.not_stored, warmed.failed), (hits, stored, 1, 0));
        assert_eq!(warmed.revalidated, if at_once == 0 { 1 } else { 0 });
    }
    assert_eq!(world.get("http://example.com/large?len=400000").await.word(), "hit");
}

#[tokio::test]
async fn warming_limits_concurrency_and_counts_failures() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (level, peak) = (Arc::clone(&now), Arc::clone(&most));
    let client = service_fn(move |request: Request<ReqBody>| {
        let (level, peak) = (Arc::clone(&level), Arc::clone(&peak));
        async move {
            peak.fetch_max(level.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            for _ in 0..5 {
                tokio::task::yield_now().await;
            }
            level.fetch_sub(1, Ordering::SeqCst);
            match request.uri().path() {
                "/3" => Err(std::io::Error::other("scripted")),
                _ => Ok(response(&[("cache-control", "max-age=60")], "body")),
            }
        }
    });
    let layer = CacheLayer::new(MemoryStorage::new());
    let requests = (0..20).map(|number| get(&format!("http://example.com/{number}")));
    let warmed = layer.handle().warm(layer.layer(client), requests, 4).await;
    assert_eq!((warmed.stored, warmed.failed), (19, 1));
    assert_eq!((most.load(Ordering::SeqCst), now.load(Ordering::SeqCst)), (4, 0));
    assert_eq!(layer.handle().size().await.unwrap().entries, 19);
}

#[tokio::test(start_paused = true)]
async fn warming_waits_for_storage_writes() {
    let faulty = Faulty::new(Mode::HungWrites);
    let fixture = Fixture::with(origin(), faulty.clone(), |builder| builder);
    let (handle, service) = (fixture.layer.handle(), fixture.service.clone());
    let warming = tokio::spawn(async move { handle.warm(service, [get(A)], 1).await });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(fixture.origin.count() == 1 && !warming.is_finished());
    faulty.set(Mode::Well);
    assert_eq!(warming.await.unwrap().stored, 1);
    assert_eq!(fixture.layer.handle().size().await.unwrap().entries, 1);
}

#[tokio::test(start_paused = true)]
async fn sweeper_removes_expired_records_until_dropped() {
    let memory = MemoryStorage::new();
    let world = world(&BoxStorage::new(memory.clone()));
    let fill = async || {
        world.fill(&["http://example.com/loose?loose=1&age=1"]).await;
        world.clock.advance(2 * SECOND);
    };
    fill().await;
    let sweeper = world.handle().sweep_every(10 * SECOND);
    tokio::time::sleep(9 * SECOND).await;
    assert_eq!(memory.size().await.unwrap(), 1);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(memory.size().await.unwrap(), 0);
    fill().await;
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(memory.size().await.unwrap(), 0, "the sweeper runs again");
    assert!(sweeper.is_running());
    drop(sweeper);
    fill().await;
    tokio::time::sleep(100 * SECOND).await;
    assert_eq!(memory.size().await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn sweeper_survives_failing_storage() {
    let faulty = Faulty::new(Mode::Failing);
    let fixture = Fixture::with(origin(), faulty.clone(), |builder| builder);
    let sweeper = fixture.layer.handle().sweep_every(Duration::ZERO);
    tokio::time::sleep(SECOND).await;
    let failed = faulty.operations();
    assert!((5..=10).contains(&failed), "the storage was swept {failed} times in a second");
    faulty.set(Mode::Well);
    tokio::time::sleep(SECOND).await;
    assert!(sweeper.is_running() && faulty.operations() > failed);
    drop(fixture);
    tokio::time::sleep(SECOND).await;
    assert!(!sweeper.is_running());
}

#[test]
fn sweeper_does_not_run_outside_runtime() {
    let (clock, _) = Clock::mock();
    let layer = CacheLayer::builder(MemoryStorage::new()).clock(clock).build().unwrap();
    assert!(!layer.handle().sweep_every(SECOND).is_running());
}

#[tokio::test]
async fn warming_accepts_service_with_another_body() {
    let layer = CacheLayer::new(MemoryStorage::new());
    let client = service_fn(|_: Request<ReqBody>| async {
        Ok::<_, std::convert::Infallible>(response(&[("cache-control", "max-age=60")], "body"))
    });
    let service =
        tower::util::MapResponseLayer::new(|response: http::Response<_>| response.map(BodyExt::boxed));
    let service = service.layer(layer.layer(client));
    assert_eq!(layer.handle().warm(service.clone(), [get(A)], 1).await.stored, 1);
    let body = service.oneshot(Request::get(A).body(Full::default()).unwrap()).await.unwrap().into_body();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "body");
}

#[tokio::test]
async fn warming_counts_only_stored_responses() {
    let origin = Origin::new(|request| {
        let len = if request.uri().path() == "/large" { 1 << 20 } else { 10 };
        response(&[("cache-control", "max-age=60")], vec![b'x'; len])
    });
    let storage = MemoryStorage::builder().max_bytes(1 << 20).build();
    let fixture = Fixture::with(origin, storage, |builder| builder);
    let requests = ["http://example.com/large", "http://example.com/small"].map(get);
    let warmed = fixture.layer.handle().warm(fixture.service.clone(), requests, 1).await;
    assert_eq!((warmed.stored, warmed.not_stored), (1, 1));
    assert_eq!(fixture.layer.handle().size().await.unwrap().responses, 1);
}
