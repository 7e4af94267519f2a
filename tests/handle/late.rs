//! Changes by the handle while the storage has not acknowledged a response.

use std::sync::Arc;

use futures_util::future::join3;
use futures_util::poll;
use tokio::sync::Semaphore;
use tower_response_cache::storage::{BoxStorage, Key, MemoryStorage, Record, Stamp, Storage};
use tower_response_cache::{EntryFilter, Outcome, Result, ValidateReason};

use crate::support::faulty::{Faulty, Mode};
use crate::support::forward::forward;
use crate::support::{Fixture, Origin, get_with, response};
use crate::{A, SECOND, World, world_with};

const GROUPED: &str = "http://example.com/grouped?groups=g";
const EXPIRED: Outcome = Outcome::Revalidated(ValidateReason::Expired);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Means {
    Url,
    Filter,
    Group,
}

const ALL: [Means; 3] = [Means::Url, Means::Filter, Means::Group];

/// Returns a cache on a storage that takes no changes until it is told to, and another cache on that storage.
async fn late() -> (Faulty, World, World) {
    let storage = Faulty::new(Mode::Well);
    let boxed = BoxStorage::new(storage.clone());
    // Time is paused in these tests, so that no deadline passes unless a test waits for it.
    let patient = || world_with(&boxed, |builder| builder.operation_timeout(3600 * SECOND));
    let (one, other) = (patient(), patient());
    other.clock.set(one.clock.now());
    // With a new group, the head of the response would wait for the storage.
    one.get("http://example.com/first?groups=g").await;
    storage.set(Mode::HungWrites);
    (storage, one, other)
}

async fn expire(world: &World, by: Means) -> Result<u64> {
    match by {
        Means::Url => world.handle().expire_url(GROUPED).await,
        Means::Filter => world.handle().expire_matching(&EntryFilter::new()).await,
        Means::Group => world.handle().expire_group("http://example.com", "g").await.map(|()| 1),
    }
}

/// Lets spawned tasks run until each of them waits.
async fn pass() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn expiry_of_a_response_in_flight_holds_once_it_has_returned() {
    for by in ALL {
        let (storage, one, other) = late().await;
        assert_eq!(one.get(GROUPED).await.word(), "miss", "{by:?}");
        assert_eq!(one.get(GROUPED).await.word(), "hit", "{by:?}");
        let mut expiring = Box::pin(expire(&one, by));
        assert!(poll!(&mut expiring).is_pending(), "{by:?}");
        // It is still fresh, or stale already and confirmed by the origin.
        let between = one.get(GROUPED).await.word();
        storage.set(Mode::Well);
        expiring.await.unwrap();
        match between {
            "hit" => assert_eq!(one.get(GROUPED).await.status.outcome(), EXPIRED, "{by:?}"),
            between => assert_eq!(between, "revalidated", "{by:?}"),
        }
        // The origin may confirm it once more: the first confirmation is not written if the expiry was written before it.
        one.get(GROUPED).await;
        one.layer.idle().await;
        for cache in [&one, &other] {
            assert_eq!(cache.get(GROUPED).await.word(), "hit", "{by:?}");
        }
        assert!((3..=4).contains(&one.origin.count()) && other.origin.count() == 0, "{by:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn expiry_right_after_a_late_response_makes_it_stale() {
    for by in ALL {
        let (storage, one, other) = late().await;
        one.get(GROUPED).await;
        let mut expiring = Box::pin(expire(&one, by));
        assert!(poll!(&mut expiring).is_pending(), "{by:?}");
        pass().await;
        storage.set(Mode::Well);
        // The filter chooses the first response too.
        assert_eq!(expiring.await.unwrap(), if by == Means::Filter { 2 } else { 1 }, "{by:?}");
        let read = other.handle().get_url(GROUPED).await.unwrap();
        assert!(read.is_none_or(|entry| entry.is_expired()), "{by:?}");
        assert_eq!(one.get(GROUPED).await.status.outcome(), EXPIRED, "{by:?}");
        assert_eq!(one.get(GROUPED).await.word(), "hit", "{by:?}");
        one.layer.idle().await;
        assert_eq!(other.get(GROUPED).await.word(), "hit", "{by:?}");
        assert_eq!((one.origin.count(), other.origin.count()), (3, 0), "{by:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_expiry_leaves_a_cache_that_works() {
    for by in ALL {
        let (storage, one, other) = late().await;
        one.get(GROUPED).await;
        let mut expiring = Box::pin(expire(&one, by));
        assert!(poll!(&mut expiring).is_pending(), "{by:?}");
        drop(expiring);
        storage.set(Mode::Well);
        assert!(["hit", "revalidated"].contains(&one.get(GROUPED).await.word()), "{by:?}");
        one.layer.idle().await;
        assert_eq!(one.get(GROUPED).await.word(), "hit", "{by:?}");
        assert_eq!(other.get(GROUPED).await.word(), "hit", "{by:?}");
        // Another one is not in its way.
        expire(&other, by).await.unwrap();
        assert_eq!(one.get(GROUPED).await.status.outcome(), EXPIRED, "{by:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn expiry_of_a_response_whose_write_fails_leaves_nothing_fresh() {
    for by in ALL {
        let (storage, one, other) = late().await;
        one.get(GROUPED).await;
        let mut expiring = Box::pin(expire(&one, by));
        assert!(poll!(&mut expiring).is_pending(), "{by:?}");
        // The write of the response fails, and what comes after it does not.
        storage.set(Mode::FailingWrites);
        pass().await;
        storage.set(Mode::Well);
        let expired = expiring.await;
        pass().await;
        let answer = one.get(GROUPED).await;
        if expired.is_ok() {
            assert_ne!(answer.word(), "hit", "{by:?} {expired:?}");
        }
        one.layer.idle().await;
        assert_eq!(one.get(GROUPED).await.word(), "hit", "{by:?}");
        assert_eq!(other.get(GROUPED).await.word(), "hit", "{by:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn expiries_of_two_caches_at_once_hold() {
    for by in ALL {
        let (storage, one, other) = late().await;
        storage.set(Mode::Well);
        one.get(GROUPED).await;
        one.layer.idle().await;
        storage.set(Mode::HungWrites);
        let (first, second) = (expire(&one, by), expire(&other, by));
        let opened = async {
            pass().await;
            storage.set(Mode::Well);
        };
        let (first, second, ()) = join3(first, second, opened).await;
        first.unwrap();
        second.unwrap();
        assert_eq!(other.get(GROUPED).await.status.outcome(), EXPIRED, "{by:?}");
        // By their clocks, the response may have been fetched before the expiry of a group by the other cache.
        let expected = if by == Means::Group { "revalidated" } else { "hit" };
        assert_eq!(one.get(GROUPED).await.word(), expected, "{by:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn warming_counts_a_response_that_is_still_being_stored() {
    let (storage, one, other) = late().await;
    let (handle, service) = (one.handle(), one.service.clone());
    let first = tokio::spawn(async move { handle.warm(service).urls([A]).await });
    pass().await;
    let (handle, service) = (one.handle(), one.service.clone());
    let second = tokio::spawn(async move { handle.warm(service).urls([A]).await });
    pass().await;
    assert_eq!(one.origin.count(), 2);
    assert!(!first.is_finished() && !second.is_finished());
    storage.set(Mode::Well);
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!((first.stored, first.total(), second.hits, second.total()), (1, 1, 1, 1));
    assert_eq!(other.get(A).await.word(), "hit");
}

#[tokio::test(start_paused = true)]
async fn cancelled_warming_stores_what_it_has_fetched() {
    let (storage, one, other) = late().await;
    let (handle, service) = (one.handle(), one.service.clone());
    let warming = tokio::spawn(async move { handle.warm(service).urls([A]).await });
    pass().await;
    warming.abort();
    assert!(warming.await.unwrap_err().is_cancelled());
    storage.set(Mode::Well);
    one.layer.idle().await;
    assert_eq!(other.get(A).await.word(), "hit");
}

#[tokio::test(start_paused = true)]
async fn warming_counts_a_write_that_fails_late() {
    let (storage, one, _) = late().await;
    let (handle, service) = (one.handle(), one.service.clone());
    let warming = tokio::spawn(async move { handle.warm(service).urls([A]).await });
    pass().await;
    storage.set(Mode::FailingWrites);
    pass().await;
    storage.set(Mode::Well);
    let warmed = warming.await.unwrap();
    assert_eq!((warmed.stored, warmed.not_stored), (0, 1));
    assert_eq!(one.get(A).await.word(), "miss");
}

#[tokio::test(start_paused = true)]
async fn made_tag_of_a_response_in_flight_is_that_of_the_stored_one() {
    for fails in [false, true] {
        let storage = Faulty::new(Mode::HungWrites);
        let origin = Origin::new(|request| {
            assert!(!request.headers().contains_key("if-none-match"));
            response(&[("cache-control", "max-age=60")], "body")
        });
        let cache = Fixture::with(origin, storage.clone(), |builder| {
            builder.make_etags(true).operation_timeout(3600 * SECOND)
        });
        cache.get(A).await;
        let hit = cache.get(A).await;
        assert_eq!(hit.word(), "hit");
        let tag = hit.header("etag").expect("the whole body is known").to_owned();
        let same = cache.ask(get_with(A, &[("if-none-match", &tag)])).await;
        assert_eq!((same.code.as_u16(), same.word()), (304, "hit"));
        storage.set(if fails { Mode::FailingWrites } else { Mode::Well });
        cache.layer.idle().await;
        storage.set(Mode::Well);
        let again = cache.ask(get_with(A, &[("if-none-match", &tag)])).await;
        assert_eq!(again.word(), if fails { "miss" } else { "hit" });
        assert_eq!(cache.ask(get_with(A, &[("if-none-match", &tag)])).await.code.as_u16(), 304);
        assert_eq!(cache.origin.count(), 1 + usize::from(fails));
    }
}

/// A storage in memory whose compared writes wait for the test, and nothing else.
#[derive(Clone)]
struct LateWrites {
    inner: MemoryStorage,
    permits: Arc<Semaphore>,
}

impl Storage for LateWrites {
    forward!(inner: read, write, delete, clear, keys, retain);

    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        drop(self.permits.acquire().await.unwrap());
        self.inner.write_if(key, seen, record).await
    }
}

#[tokio::test(start_paused = true)]
async fn use_of_a_response_in_flight_counts() {
    for fields in [&[][..], &[("vary", "accept")]] {
        let storage = LateWrites { inner: MemoryStorage::new(), permits: Arc::new(Semaphore::new(0)) };
        let origin =
            Origin::new(move |_| response(&[&[("cache-control", "max-age=86400")], fields].concat(), "body"));
        let cache = Fixture::with(origin, storage.clone(), |builder| {
            builder.default_tti(100 * SECOND).operation_timeout(3600 * SECOND)
        });
        assert_eq!(cache.get(A).await.word(), "miss");
        cache.clock.advance(90 * SECOND);
        assert_eq!(cache.get(A).await.word(), "hit");
        pass().await;
        storage.permits.add_permits(1);
        pass().await;
        cache.clock.advance(99 * SECOND);
        assert_eq!(cache.get(A).await.word(), "hit", "{fields:?}");
        cache.layer.idle().await;
        cache.clock.advance(126 * SECOND);
        assert_eq!(cache.get(A).await.word(), "miss", "{fields:?}");
    }
}

/// The expiry writes what it has read. A use that comes in between is not undone.
#[tokio::test(start_paused = true)]
async fn use_during_an_expiry_counts() {
    for by in [Means::Url, Means::Filter] {
        let (idle, storage) = (100 * SECOND, Faulty::new(Mode::Well));
        let cache = world_with(&BoxStorage::new(storage.clone()), |builder| {
            builder.default_tti(idle).operation_timeout(3600 * SECOND)
        });
        let uri = "http://example.com/grouped?groups=g&control=max-age=86400,stale-while-revalidate=86400";
        cache.get(uri).await;
        cache.clock.advance(90 * SECOND);
        storage.set(Mode::HungWrites);
        let handle = cache.handle();
        let everything = EntryFilter::new();
        let mut expiring = Box::pin(async {
            match by {
                Means::Url => handle.expire_url(uri).await,
                _ => handle.expire_matching(&everything).await,
            }
        });
        assert!(poll!(&mut expiring).is_pending());
        cache.get(uri).await;
        storage.set(Mode::Well);
        expiring.await.unwrap();
        pass().await;
        cache.layer.idle().await;
        cache.clock.advance(99 * SECOND);
        assert_ne!(cache.get(uri).await.word(), "miss", "{by:?}");
    }
}
