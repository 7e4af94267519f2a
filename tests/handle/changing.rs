//! Deleting responses, and changing their lifetimes.

use futures_util::{FutureExt, TryStreamExt};
use tower_response_cache::storage::{BoxStorage, Key, Kind, MemoryStorage, Record, Storage};
use tower_response_cache::{EntryFilter, Rule, Rules, Timestamp, Ttl};

use crate::support::{Answer, Fixture, Origin, get, response};
use crate::{A, SECOND, in_language, stores, world, world_with};

const LARGE: &str = "http://example.com/large?len=400000";
const SEVERAL: &str = "http://example.com/?vary=accept-language";
const DAY: u32 = 86_400;

fn everything() -> EntryFilter {
    EntryFilter::new()
}

fn with_tag(tag: &'static str) -> EntryFilter {
    everything().matching(move |entry| entry.headers()["etag"] == tag)
}

#[tokio::test]
async fn delete_matching_removes_only_matching_entries() {
    for (storage, _folder) in stores().await {
        let world = world(&storage);
        world.fill(&[A, LARGE, "http://example.com/error?status=404", "http://example.org/"]).await;
        let handle = world.handle();
        assert_eq!(handle.delete_matching(&everything().status(500..)).await.unwrap(), 0);
        assert_eq!(handle.delete_matching(&everything().status(404..=404)).await.unwrap(), 1);
        assert_eq!(world.listed(&everything().url("example.com")).await.len(), 2);
        assert_eq!(handle.delete_matching(&everything().url("example.com/**")).await.unwrap(), 2);
        assert_eq!(world.listed(&everything()).await, ["http://example.org/"]);
        assert_eq!(
            (world.get(A).await.word(), world.get("http://example.org/").await.word()),
            ("miss", "hit")
        );
        assert_eq!(handle.statistics().invalidations(), 3);
    }
}

/// A matching response whose body is still in transit is not stored afterwards.
#[tokio::test]
async fn delete_matching_covers_responses_in_transit() {
    for (storage, _folder) in stores().await {
        let world = world(&storage);
        for (filter, expected) in [("example.com/a", "miss"), ("example.com/b", "hit")] {
            let under_way = world.send(get(A)).await;
            world.handle().delete_matching(&everything().url(filter)).await.unwrap();
            Answer::read(under_way).await;
            assert_eq!(world.get(A).await.word(), expected, "{filter}");
            world.layer.idle().await;
            world.handle().delete_url(A).await.unwrap();
        }
    }
}

/// Tags and groups have another key in each partition.
#[tokio::test]
async fn across_partitions_invalidates_tags_and_groups() {
    let origin =
        || Origin::new(|_| response(&[("cache-control", "max-age=60"), ("cache-groups", "\"g\"")], "body"));
    let storage = MemoryStorage::new();
    let cache = |name: &'static str| {
        Fixture::with(origin(), storage.clone(), |builder| {
            builder.partition(name).rules(Rules::new().rule(Rule::new().tag("t")))
        })
    };
    let (one, two, all) = (cache("1"), cache("2"), cache(""));
    for is_tag in [true, false] {
        for cache in [&one, &two] {
            cache.clock.advance(6 * SECOND);
            cache.get(A).await;
            assert_eq!(cache.get(A).await.word(), "hit");
        }
        all.clock.set(one.clock.now());
        let handle = all.layer.handle().across_partitions(true);
        handle.invalidate_tag("other").await.unwrap();
        handle.invalidate_group("http://example.org", "g").await.unwrap();
        assert_eq!(one.get(A).await.word(), "hit");
        match is_tag {
            true => handle.invalidate_tag("t").await.unwrap(),
            false => handle.invalidate_group("http://example.com", "g").await.unwrap(),
        }
        for cache in [&one, &two] {
            assert_eq!(cache.get(A).await.word(), "miss", "{is_tag}");
        }
    }
}

#[tokio::test]
async fn deleting_first_variant_removes_all_variants() {
    for (storage, _folder) in stores().await {
        let world = world(&storage);
        for language in ["en", "de", "fr"] {
            world.settled(in_language(SEVERAL, language)).await;
        }
        assert_eq!(world.handle().delete_matching(&with_tag("\"de\"")).await.unwrap(), 1);
        assert_eq!(world.settled(in_language(SEVERAL, "fr")).await.word(), "hit");
        assert_eq!(world.settled(in_language(SEVERAL, "de")).await.word(), "miss");
        assert_eq!(
            world.settled(in_language(SEVERAL, "de")).await.word(),
            "hit",
            "the variant can be stored again"
        );
        assert_eq!(world.handle().delete_matching(&with_tag("\"en\"")).await.unwrap(), 1);
        assert!(!world.handle().has(&in_language(SEVERAL, "fr")).await.unwrap());
    }
}

#[tokio::test]
async fn delete_matching_counts_thousands_of_entries() {
    let world = world(&BoxStorage::new(MemoryStorage::new()));
    for number in 0..10_000 {
        world.get(&format!("http://example.com/{}/{number}", number % 2)).await;
    }
    assert_eq!(world.handle().delete_matching(&everything().url("example.com/0/*")).await.unwrap(), 5_000);
    assert_eq!(world.handle().size().await.unwrap().entries, 5_000);
}

#[tokio::test]
async fn delete_expired_keeps_servable_responses() {
    for (storage, _folder) in stores().await {
        let world = world(&storage);
        world.fill(&[A, "http://example.com/loose?loose=1&age=10"]).await;
        assert_eq!(world.handle().delete_expired().await.unwrap(), 0);
        world.clock.advance(11 * SECOND);
        assert_eq!(world.handle().delete_expired().await.unwrap(), 1);
        assert_eq!(world.get(A).await.word(), "hit");
    }
}

#[tokio::test]
async fn clear_spares_other_partitions() {
    for (storage, _folder) in stores().await {
        let plain = world(&storage);
        let one = world_with(&storage, |builder| builder.partition("one"));
        for world in [&plain, &one] {
            world.fill(&[A, LARGE]).await;
        }
        assert_eq!(one.handle().clear().await.unwrap(), 2);
        assert_eq!((one.get(A).await.word(), plain.get(A).await.word()), ("miss", "hit"));
        one.layer.idle().await;
        assert_eq!(plain.handle().clear().await.unwrap(), 3);
        assert_eq!(storage.keys().try_collect::<Vec<_>>().await.unwrap(), []);
        one.fill(&[A]).await;
        plain.fill(&[A]).await;
        assert_eq!(one.handle().across_partitions(true).clear().await.unwrap(), 2);
        assert_eq!(storage.keys().try_collect::<Vec<_>>().await.unwrap(), []);
    }
}

#[tokio::test]
async fn reset_expiry_overrides_response_lifetime() {
    for (storage, _folder) in stores().await {
        let world = world(&storage);
        let picky = "http://example.com/picky?control=no-cache";
        world.fill(&[A, LARGE, picky]).await;
        world.clock.advance(100 * SECOND);
        assert_eq!(world.handle().reset_expiry(&everything(), 50 * SECOND).await.unwrap(), 3);
        for uri in [A, LARGE, picky] {
            let entry = world.handle().get_url(uri).await.unwrap().unwrap();
            assert_eq!((entry.ttl(), entry.is_fresh(), entry.age()), (50, true, 100 * SECOND), "{uri}");
        }
        world.clock.advance(49 * SECOND);
        let large = world.get(LARGE).await;
        assert_eq!((large.word(), large.body.len()), ("hit", 400_000));
        assert_eq!((world.get(A).await.word(), world.get(picky).await.word()), ("hit", "hit"));
        world.clock.advance(2 * SECOND);
        assert_eq!(world.get(A).await.word(), "revalidated");
        world.layer.idle().await;
        world.clock.advance(61 * SECOND);
        assert_eq!(world.get(A).await.word(), "revalidated", "the origin's own lifetime applies again");
    }
}

#[tokio::test]
async fn reset_expiry_extends_and_shortens_chunk_retention() {
    for (storage, _folder) in stores().await {
        let world = world(&storage);
        world.fill(&[LARGE]).await;
        let handle = world.handle();
        assert_eq!(handle.reset_expiry(&everything(), 100 * DAY * SECOND).await.unwrap(), 1);
        world.clock.advance(99 * DAY * SECOND);
        handle.delete_expired().await.unwrap();
        assert_eq!(world.get(LARGE).await.word(), "hit");
        assert_eq!(handle.reset_expiry(&everything(), Ttl::Forever).await.unwrap(), 1);
        world.clock.advance(9_999 * DAY * SECOND);
        assert_eq!(handle.delete_expired().await.unwrap(), 0);
        assert_eq!(world.get(LARGE).await.word(), "hit");
        let entry = handle.get_url(LARGE).await.unwrap().unwrap();
        assert_eq!((entry.expires_at(), entry.retain_until()), (Timestamp::NEVER, Timestamp::NEVER));
        assert_eq!(handle.reset_expiry(&everything(), SECOND).await.unwrap(), 1);
        world.clock.advance(8 * DAY * SECOND);
        assert!(handle.delete_expired().await.unwrap() >= 3, "the chunks have expired");
        assert_eq!(
            handle.prune().await.unwrap(),
            1,
            "the head is kept for ever until it is pruned, because variants may be found through it"
        );
        world.clock.advance(2 * 3600 * SECOND);
        assert_eq!(handle.delete_expired().await.unwrap(), 1);
        assert_eq!(storage.keys().try_collect::<Vec<_>>().await.unwrap(), []);
    }
}

#[tokio::test]
async fn shortened_lifetime_does_not_interrupt_readers() {
    // Without a validator, a response is kept only while it is fresh.
    const LONG: &str = "http://example.com/long?loose=1&len=2000000&age=86400";
    for (storage, _folder) in stores().await {
        let world = world(&storage);
        for ttl in [Ttl::For(SECOND), Ttl::Revalidate] {
            world.fill(&[LONG]).await;
            world.clock.advance(2 * 3600 * SECOND); // longer than the hour that readers of a replaced body have
            let under_way = world.send(get(LONG)).await;
            assert_eq!(world.handle().reset_expiry(&everything(), ttl).await.unwrap(), 1);
            world.clock.advance(2 * SECOND);
            world.handle().delete_expired().await.unwrap();
            let read = Answer::read(under_way).await;
            assert_eq!((read.word(), read.body.len()), ("hit", 2_000_000), "{ttl:?}");
        }
    }
}

#[tokio::test]
async fn reset_expiry_accepts_every_ttl_kind() {
    let world = world(&BoxStorage::new(MemoryStorage::new()));
    let handle = world.handle();
    world.fill(&[A]).await;
    world.clock.advance(10 * SECOND);
    let at = |time: Timestamp| Ttl::Until(time);
    let now = world.clock.now();
    for (ttl, left) in [
        (Ttl::from(5 * SECOND), 5),
        (at(now + 7 * SECOND), 7),
        (at(now - 3600 * SECOND), -10),
        (Ttl::Revalidate, -10),
        (Ttl::For(std::time::Duration::ZERO), 0),
    ] {
        assert_eq!(handle.reset_expiry(&everything(), ttl).await.unwrap(), 1, "{ttl:?}");
        assert_eq!(handle.get_url(A).await.unwrap().unwrap().ttl(), left, "{ttl:?}");
    }
    assert_eq!(world.get(A).await.word(), "revalidated");
    world.layer.idle().await;
    assert_eq!(handle.reset_expiry(&everything(), Ttl::DoNotStore).await.unwrap(), 1);
    assert!(!handle.has_url(A).await.unwrap());
}

#[tokio::test]
async fn longer_lived_variant_stays_reachable() {
    for (storage, _folder) in stores().await {
        let world = world(&storage);
        for language in ["en", "de"] {
            world.settled(in_language(SEVERAL, language)).await;
        }
        assert_eq!(world.handle().reset_expiry(&with_tag("\"de\""), 30 * DAY * SECOND).await.unwrap(), 1);
        world.clock.advance(29 * DAY * SECOND);
        world.handle().delete_expired().await.unwrap();
        assert_eq!(world.get(SEVERAL).await.word(), "miss");
        assert_eq!(world.ask(in_language(SEVERAL, "de")).await.word(), "hit");
    }
}

#[tokio::test]
async fn group_lasts_as_long_as_longest_member() {
    for (storage, _folder) in stores().await {
        let world = world(&storage);
        const GROUPED: &str = "http://example.com/?groups=all";
        world.fill(&[GROUPED]).await;
        assert_eq!(world.handle().reset_expiry(&everything(), 30 * DAY * SECOND).await.unwrap(), 1);
        world.clock.advance(29 * DAY * SECOND);
        world.handle().delete_expired().await.unwrap();
        assert_eq!(world.get(GROUPED).await.word(), "hit");
        world.handle().invalidate_group("http://example.com", "all").await.unwrap();
        assert_eq!(world.get(GROUPED).await.word(), "miss");
    }
}

#[tokio::test]
async fn reset_expiry_skips_concurrently_changed_record() {
    let memory = MemoryStorage::new();
    let world = world(&BoxStorage::new(memory.clone()));
    world.fill(&[A]).await;
    let keys: Vec<Key> = memory.keys().try_collect().await.unwrap();
    let head = keys.into_iter().find(|key| key.kind == Kind::Head).unwrap();
    let others = Record::new("another's", Timestamp::NEVER);
    let (stamp, memory_too) = (others.stamp(), memory.clone());
    let filter = everything().matching(move |_| {
        memory_too.write(head, others.clone()).now_or_never().unwrap().unwrap();
        true
    });
    assert_eq!(world.handle().reset_expiry(&filter, SECOND).await.unwrap(), 0);
    assert_eq!(memory.read(head).await.unwrap().unwrap().stamp(), stamp);
}

#[tokio::test]
async fn handle_may_delete_from_read_only_cache() {
    let storage = BoxStorage::new(MemoryStorage::new());
    world(&storage).fill(&[A]).await;
    let reader = world_with(&storage, |builder| builder.read_only(true));
    assert_eq!(reader.ask(get(A)).await.word(), "hit");
    assert_eq!(reader.handle().delete_url(A).await.unwrap(), 1);
    assert_eq!(reader.ask(get(A)).await.word(), "miss");
}
