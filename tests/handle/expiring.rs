//! Making responses stale without losing them (a soft purge).

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::{FutureExt, TryStreamExt, poll};
use http::{Request, StatusCode};
use tokio::sync::Semaphore;
use tower::{Layer, ServiceExt, service_fn};
use tower_response_cache::storage::{BoxStorage, MemoryStorage};
use tower_response_cache::{
    CacheMode, CacheOptions, EntryFilter, MissReason, Outcome, StaleReason, Ttl, ValidateReason,
};

use crate::support::{Answer, Fixture, Origin, ReqBody, get, get_with, response};
use crate::{A, SECOND, World, in_language, stores, world};

const SEVERAL: &str = "http://example.com/?vary=accept-language";
const GROUPED: &str = "http://example.com/grouped?groups=g";
const EXPIRED: Outcome = Outcome::Revalidated(ValidateReason::Expired);

fn everything() -> EntryFilter {
    EntryFilter::new()
}

/// Returns another cache on the storage, as another process has it.
fn beside(storage: &BoxStorage, one: &World) -> World {
    let other = world(storage);
    other.clock.set(one.clock.now());
    other
}

fn with_mode(uri: &str, mode: CacheMode) -> Request<ReqBody> {
    let mut request = get(uri);
    request.extensions_mut().insert(CacheOptions::new().mode(mode));
    request
}

fn memory() -> BoxStorage {
    BoxStorage::new(MemoryStorage::new())
}

/// Sends a request whose response waits for a permit of the gate. Returns once the origin has the request.
async fn in_flight(
    world: &World,
    request: Request<ReqBody>,
    fields: &'static [(&'static str, &'static str)],
) -> (Arc<Semaphore>, tokio::task::JoinHandle<Answer>) {
    let (gate, arrived) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (waits, arrives, answers) = (Arc::clone(&gate), Arc::clone(&arrived), response(fields, "in flight"));
    let client = service_fn(move |_: Request<ReqBody>| {
        let (gate, arrived, answer) = (Arc::clone(&waits), Arc::clone(&arrives), answers.clone());
        async move {
            arrived.add_permits(1);
            gate.acquire().await.unwrap().forget();
            Ok::<_, Infallible>(answer)
        }
    });
    let service = world.layer.layer(client);
    let answer = tokio::spawn(async move { Answer::read(service.oneshot(request).await.unwrap()).await });
    arrived.acquire().await.unwrap().forget();
    (gate, answer)
}

#[tokio::test]
async fn expired_response_is_validated_and_fresh_again() {
    for (storage, _folder) in stores().await {
        let world = world(&storage);
        world.fill(&[A]).await;
        let other = beside(&storage, &world);
        for cache in [&world, &other] {
            cache.clock.advance(10 * SECOND);
            assert_eq!(cache.get(A).await.word(), "hit");
        }
        assert_eq!(world.handle().expire(&get(A)).await.unwrap(), 1);
        assert_eq!(world.handle().expire_url("http://example.com/none").await.unwrap(), 0);
        for cache in [&world, &other] {
            let entry = cache.handle().get_url(A).await.unwrap().unwrap();
            assert!(entry.is_expired() && !entry.is_fresh() && entry.ttl() == 0);
            assert_eq!((entry.age(), entry.expires_at()), (10 * SECOND, cache.clock.now()));
            assert_eq!(cache.listed(&everything().stale()).await, ["/a"]);
            let refused = cache.ask(get_with(A, &[("cache-control", "only-if-cached")])).await;
            assert_eq!(refused.code, StatusCode::GATEWAY_TIMEOUT);
            let accepted = cache.ask(get_with(A, &[("cache-control", "max-stale=5")])).await;
            assert_eq!(accepted.status.outcome(), Outcome::Stale(StaleReason::MaxStale));
            assert_eq!(accepted.header("age"), Some("10"));
            assert_eq!(accepted.status.to_string(), "hit; ttl=0; detail=\"expired, max-stale\"");
            let forced = cache.ask(with_mode(A, CacheMode::ForceCache)).await;
            assert!(forced.status.is_expired() && forced.word() == "stale");
        }
        assert_eq!(world.settled(get(A)).await.status.outcome(), EXPIRED);
        for cache in [&world, &other] {
            assert_eq!(cache.get(A).await.word(), "hit");
            assert!(!cache.handle().get_url(A).await.unwrap().unwrap().is_expired());
        }
        assert_eq!(world.handle().statistics().invalidations(), 2);
    }
}

/// The windows of RFC 5861 begin with the expiry, and later expiries do not begin them again.
#[tokio::test]
async fn stale_windows_count_from_the_first_expiry() {
    for by in ["url", "filter", "group"] {
        let fails = Arc::new(AtomicBool::new(false));
        let is_failing = Arc::clone(&fails);
        let origin = Origin::new(move |request| {
            let control = match request.uri().path() {
                "/firm" => "max-age=600, must-revalidate, stale-if-error=30",
                _ => "max-age=600, stale-if-error=30",
            };
            let mut response = response(&[("cache-control", control), ("cache-groups", "\"g\"")], "body");
            if is_failing.load(Ordering::SeqCst) {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            response
        });
        let world = Fixture::with(origin, memory(), |builder| builder);
        let firm = "http://example.com/firm";
        world.fill(&[A, firm]).await;
        fails.store(true, Ordering::SeqCst);
        world.clock.advance(100 * SECOND);
        let expire = async || {
            let handle = world.handle();
            match by {
                "url" => drop((handle.expire_url(A).await.unwrap(), handle.expire_url(firm).await.unwrap())),
                "filter" => assert_eq!(handle.expire_matching(&everything()).await.unwrap(), 2),
                _ => handle.expire_group("http://example.com", "g").await.unwrap(),
            }
        };
        expire().await;
        world.clock.advance(20 * SECOND);
        let stale = world.get(A).await;
        assert_eq!((stale.word(), stale.header("age")), ("stale", Some("120")), "{by}");
        assert!(stale.status.is_expired());
        assert_eq!(world.get(firm).await.code, StatusCode::SERVICE_UNAVAILABLE, "{by}");
        expire().await;
        world.clock.advance(11 * SECOND);
        assert_eq!(world.get(A).await.code, StatusCode::SERVICE_UNAVAILABLE, "{by}");
    }
}

#[tokio::test]
async fn expiry_by_a_clock_that_is_ahead_holds_at_once() {
    for by in ["url", "filter", "group"] {
        let storage = memory();
        let world = world(&storage);
        world.fill(&[GROUPED]).await;
        let ahead = beside(&storage, &world);
        ahead.clock.advance(4 * SECOND);
        match by {
            "url" => drop(ahead.handle().expire_url(GROUPED).await.unwrap()),
            "filter" => assert_eq!(ahead.handle().expire_matching(&everything()).await.unwrap(), 1),
            _ => ahead.handle().expire_group("http://example.com", "g").await.unwrap(),
        }
        assert_eq!(world.get(GROUPED).await.status.outcome(), EXPIRED, "{by}");
    }
}

#[tokio::test]
async fn stale_while_revalidate_serves_the_expired_response() {
    let world = world(&memory());
    let uri = "http://example.com/?control=max-age=600,stale-while-revalidate=30";
    world.fill(&[uri]).await;
    world.handle().expire_url(uri).await.unwrap();
    let stale = world.settled(get(uri)).await;
    assert_eq!(stale.status.outcome(), Outcome::Stale(StaleReason::WhileRevalidate));
    assert_eq!(world.get(uri).await.word(), "hit");
    assert_eq!(world.origin.count(), 2);
}

#[tokio::test]
async fn expiry_of_a_url_reaches_all_variants() {
    for (storage, _folder) in stores().await {
        let world = world(&storage);
        let languages = ["en", "de", "fr"];
        for language in languages {
            world.settled(in_language(SEVERAL, language)).await;
        }
        assert_eq!(world.handle().expire_url(SEVERAL).await.unwrap(), 1);
        assert_eq!(world.listed(&everything().stale()).await.len(), 3);
        for language in languages {
            assert_eq!(world.settled(in_language(SEVERAL, language)).await.status.outcome(), EXPIRED);
            assert_eq!(world.settled(in_language(SEVERAL, language)).await.word(), "hit");
        }
        // A single variant, by its entity tag.
        for (tag, chosen) in [("\"en\"", "en"), ("\"de\"", "de")] {
            let filter = everything().matching(move |entry| entry.headers()["etag"] == tag);
            assert_eq!(world.handle().expire_matching(&filter).await.unwrap(), 1);
            for language in languages {
                let expected = if language == chosen { "revalidated" } else { "hit" };
                assert_eq!(world.settled(in_language(SEVERAL, language)).await.word(), expected, "{tag}");
            }
        }
    }
}

#[tokio::test]
async fn expire_matching_reaches_only_what_the_filter_chooses() {
    for (storage, _folder) in stores().await {
        let world = world(&storage);
        let chunked = "http://example.com/large?len=400000";
        world.fill(&[A, chunked]).await;
        let filter = everything().larger_than(1000);
        assert_eq!(world.handle().expire_matching(&filter).await.unwrap(), 1);
        assert_eq!(world.get(A).await.word(), "hit");
        let confirmed = world.settled(get(chunked)).await;
        assert_eq!((confirmed.status.outcome(), confirmed.body.len()), (EXPIRED, 400_000));
        assert_eq!(world.get(chunked).await.word(), "hit");
        // All that was stored before now.
        assert_eq!(world.handle().expire_matching(&everything()).await.unwrap(), 2);
        assert_eq!(world.get(A).await.word(), "revalidated");
    }
}

#[tokio::test]
async fn expiry_of_a_group_reaches_every_process() {
    for (storage, _folder) in stores().await {
        let world = world(&storage);
        world.fill(&[GROUPED, A]).await;
        let other = beside(&storage, &world);
        for round in 1..=10 {
            for cache in [&world, &other] {
                cache.clock.advance(6 * SECOND);
            }
            other.handle().expire_group("http://example.com", "g").await.unwrap();
            for cache in [&world, &other] {
                assert!(cache.handle().get_url(GROUPED).await.unwrap().unwrap().is_expired());
            }
            assert_eq!(other.settled(get(GROUPED)).await.status.outcome(), EXPIRED, "{round}");
            for cache in [&world, &other] {
                assert_eq!(cache.settled(get(GROUPED)).await.word(), "hit", "{round}");
            }
        }
        world.handle().invalidate_group("http://example.com", "g").await.unwrap();
        let missed = other.get(GROUPED).await;
        assert_eq!(missed.status.outcome(), Outcome::Miss(MissReason::Invalidated));
    }
}

#[tokio::test]
async fn fetch_that_began_before_the_expiry_of_its_group_comes_out_stale() {
    let storage = memory();
    let world = world(&storage);
    let other = beside(&storage, &world);
    const FIELDS: &[(&str, &str)] =
        &[("cache-control", "max-age=60"), ("cache-groups", "\"g\""), ("etag", "\"\"")];
    for (round, ends) in [&world, &other].into_iter().enumerate() {
        let (gate, answer) = in_flight(&world, with_mode(GROUPED, CacheMode::Reload), FIELDS).await;
        ends.handle().expire_group("http://example.com", "g").await.unwrap();
        gate.add_permits(1);
        assert_eq!(answer.await.unwrap().body, "in flight");
        world.layer.idle().await;
        let entry = world.handle().get_url(GROUPED).await.unwrap().expect("it is stored");
        assert!(entry.is_expired(), "{round}");
        for cache in [&world, &other] {
            cache.clock.advance(6 * SECOND);
        }
        assert_eq!(world.settled(get(GROUPED)).await.status.outcome(), EXPIRED, "{round}");
        assert_eq!(other.get(GROUPED).await.word(), "hit", "{round}");
    }
}

/// The stored response stays as it was: stale.
#[tokio::test]
async fn fetch_that_began_before_the_expiry_of_its_entry_does_not_replace_it() {
    const FIELDS: &[(&str, &str)] = &[("cache-control", "max-age=60")];
    for by_filter in [false, true] {
        let storage = memory();
        let world = world(&storage);
        let other = beside(&storage, &world);
        world.fill(&[A]).await;
        let (gate, answer) = in_flight(&world, with_mode(A, CacheMode::Reload), FIELDS).await;
        match by_filter {
            true => assert_eq!(other.handle().expire_matching(&everything()).await.unwrap(), 1),
            false => assert_eq!(other.handle().expire_url(A).await.unwrap(), 1),
        }
        gate.add_permits(1);
        assert_eq!(answer.await.unwrap().body, "in flight");
        world.layer.idle().await;
        assert!(world.handle().get_url(A).await.unwrap().unwrap().is_expired());
        assert_eq!(world.get(A).await.status.outcome(), EXPIRED);
    }
}

#[tokio::test]
async fn first_fetch_that_began_before_the_expiry_is_not_stored() {
    const FIELDS: &[(&str, &str)] = &[("cache-control", "max-age=60")];
    for by_filter in [false, true] {
        let world = world(&memory());
        let (gate, answer) = in_flight(&world, with_mode(A, CacheMode::Reload), FIELDS).await;
        match by_filter {
            true => assert_eq!(world.handle().expire_matching(&everything()).await.unwrap(), 0),
            false => assert_eq!(world.handle().expire_url(A).await.unwrap(), 0),
        }
        gate.add_permits(1);
        answer.await.unwrap();
        world.layer.idle().await;
        assert_eq!(world.get(A).await.word(), "miss");
        assert_eq!(world.get(A).await.word(), "hit");
    }
}

/// A variant is compared with its own record, so that it is stored. It is stale by the expiries of its head.
#[tokio::test]
async fn variant_in_flight_comes_out_stale() {
    const FIELDS: &[(&str, &str)] =
        &[("cache-control", "max-age=60"), ("vary", "accept-language"), ("etag", "\"\"")];
    for is_joined in [false, true] {
        let world = world(&memory());
        world.settled(in_language(SEVERAL, "en")).await;
        let (gate, answer) = in_flight(&world, get(SEVERAL), FIELDS).await;
        world.handle().expire_url(SEVERAL).await.unwrap();
        if !is_joined {
            gate.add_permits(1);
            answer.await.unwrap();
            world.layer.idle().await;
            assert_eq!(world.get(SEVERAL).await.status.outcome(), EXPIRED);
            continue;
        }
        // A request that comes after the expiry does not take the response of the earlier fetch for a fresh one.
        let mut late = Box::pin(world.get(SEVERAL));
        let ready = poll!(&mut late);
        gate.add_permits(1);
        answer.await.unwrap();
        let late = match ready {
            Poll::Ready(answer) => answer,
            Poll::Pending => late.await,
        };
        assert!(!late.status.is_collapsed());
        assert_eq!(world.origin.count(), 2, "it has asked the origin");
    }
}

/// Another process stores a response between the listing and the write.
#[tokio::test]
async fn response_stored_during_expire_matching_is_not_lost() {
    for (later, expected) in [(Duration::ZERO, "revalidated"), (SECOND, "hit")] {
        let storage = memory();
        let world = world(&storage);
        world.fill(&[A]).await;
        let other = beside(&storage, &world);
        other.clock.advance(later);
        let replaced = AtomicBool::new(false);
        let other = Arc::new(other);
        let replaces = Arc::clone(&other);
        let filter = everything().matching(move |_| {
            if !replaced.swap(true, Ordering::SeqCst) {
                let fetch = replaces.ask(with_mode(A, CacheMode::Reload)).now_or_never();
                assert_eq!(fetch.expect("the memory does not wait").word(), "miss");
            }
            true
        });
        let count = world.handle().expire_matching(&filter).await.unwrap();
        assert_eq!(count, u64::from(later.is_zero()));
        world.clock.set(other.clock.now());
        let entries: Vec<_> = world.handle().entries(&everything()).try_collect().await.unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].requested_at(), other.clock.now());
        assert_eq!(world.get(A).await.word(), expected);
    }
}

#[tokio::test]
async fn new_lifetime_ends_an_expiry() {
    let world = world(&memory());
    for by in ["url", "filter", "group"] {
        for language in ["en", "de"] {
            let request = get_with(&format!("{SEVERAL}&groups=g"), &[("accept-language", language)]);
            world.settled(request).await;
        }
        let handle = world.handle();
        match by {
            "url" => drop(handle.expire_url(&format!("{SEVERAL}&groups=g")).await.unwrap()),
            "filter" => assert_eq!(handle.expire_matching(&everything()).await.unwrap(), 2),
            _ => handle.expire_group("http://example.com", "g").await.unwrap(),
        }
        assert_eq!(world.listed(&everything().stale()).await.len(), 2, "{by}");
        assert_eq!(handle.reset_expiry(&everything(), Ttl::For(60 * SECOND)).await.unwrap(), 2);
        assert_eq!(world.listed(&everything().fresh()).await.len(), 2, "{by}");
    }
}

#[tokio::test]
async fn copy_of_an_expired_response_is_stale() {
    const EARLIER: &str = "http://example.com/earlier?groups=g";
    for by in ["url", "filter", "group"] {
        let (from, to) = (memory(), memory());
        let source = world(&from);
        source.fill(&[GROUPED, EARLIER]).await;
        let handle = source.handle();
        // The record of the group is copied before the expiry, and is not copied again.
        handle.copy_to(&to, &everything().url(EARLIER), |_| ()).await.unwrap();
        match by {
            "url" => drop(handle.expire_url(GROUPED).await.unwrap()),
            "filter" => assert_eq!(handle.expire_matching(&everything()).await.unwrap(), 2),
            _ => handle.expire_group("http://example.com", "g").await.unwrap(),
        }
        handle.copy_to(&to, &everything().url(GROUPED), |_| ()).await.unwrap();
        let target = beside(&to, &source);
        assert_eq!(target.get(EARLIER).await.word(), "hit", "{by}");
        assert_eq!(target.get(GROUPED).await.status.outcome(), EXPIRED, "{by}");
        assert_eq!(target.get(GROUPED).await.word(), "hit", "{by}");
    }
}

#[tokio::test]
async fn expiry_that_the_storage_refuses_is_reported() {
    use crate::support::faulty::{Faulty, Mode};
    let storage = Faulty::new(Mode::Well);
    let world = world(&BoxStorage::new(storage.clone()));
    world.fill(&[GROUPED]).await;
    storage.set(Mode::ReadOnly);
    let handle = world.handle();
    assert!(handle.expire_url(GROUPED).await.is_err());
    assert!(handle.expire_group("http://example.com", "g").await.is_err());
    assert!(handle.expire_matching(&everything()).await.is_err());
    assert!(handle.expire_group("example", "g").await.is_err(), "not an origin");
    assert!(handle.expire_url("/relative").await.is_err());
}

#[tokio::test]
async fn too_many_expiries_shorten_the_stale_window() {
    let world = world(&memory());
    let uri = "http://example.com/?control=max-age=600,stale-while-revalidate=30&groups=g";
    world.fill(&[uri]).await;
    for _ in 0..12 {
        world.handle().expire_group("http://example.com", "g").await.unwrap();
    }
    assert_eq!(world.settled(get(uri)).await.word(), "stale");
    assert_eq!(world.get(uri).await.word(), "hit");
    world.clock.advance(40 * SECOND);
    for _ in 0..12 {
        world.handle().expire_group("http://example.com", "g").await.unwrap();
    }
    // Which of them was the first is forgotten, so that the window counts from the reception.
    let answer = world.get(uri).await;
    assert_eq!(answer.status.outcome(), EXPIRED);
}
