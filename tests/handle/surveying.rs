//! Damaged records, and records that no other record names.

use futures_util::TryStreamExt;
use tower_response_cache::storage::{BoxStorage, Key, Kind, Record, Storage};
use tower_response_cache::{EntryFilter, Rule, Rules, Timestamp, Ttl, VerifyReport};

use crate::{A, SECOND, World, in_language, stores, world, world_with};

const LARGE: &str = "http://example.com/large?len=400000";
const SEVERAL: &str = "http://example.com/?vary=accept-language";
const HOUR: u32 = 3600;

fn counts(verified: &VerifyReport) -> [u64; 5] {
    [verified.responses, verified.bytes, verified.undecodable, verified.incomplete, verified.orphans]
}

async fn verified(world: &World) -> [u64; 5] {
    counts(&world.handle().verify(|_| {}).await.unwrap())
}

/// Returns a cache that keeps every response for ever.
fn forever(storage: &BoxStorage) -> World {
    world_with(storage, |builder| builder.rules(Rules::new().rule(Rule::new().override_ttl(Ttl::Forever))))
}

async fn chunks(storage: &BoxStorage) -> Vec<Key> {
    let mut keys: Vec<Key> = storage.keys().try_collect().await.unwrap();
    keys.retain(|key| key.kind == Kind::Chunk);
    keys.sort();
    keys
}

#[tokio::test]
async fn verify_and_prune_leave_sound_storage_unchanged() {
    for (storage, _folder) in stores().await {
        let world = world(&storage);
        world.fill(&[A, LARGE, "http://example.com/deleted", "http://example.com/grouped?groups=a"]).await;
        for language in ["en", "de"] {
            world.settled(in_language(SEVERAL, language)).await;
        }
        world.handle().delete_url("http://example.com/deleted").await.unwrap();
        let before: Vec<_> =
            storage.values().map_ok(|(key, record)| (key, record.stamp())).try_collect().await.unwrap();
        let mut calls = 0;
        let found = world.handle().verify(|_| calls += 1).await.unwrap();
        assert_eq!(counts(&found), [5, 400_000 + 4 * 4, 0, 0, 0]);
        assert!(found.is_sound() && calls == 5);
        assert_eq!(world.handle().prune().await.unwrap(), 0);
        let after: Vec<_> =
            storage.values().map_ok(|(key, record)| (key, record.stamp())).try_collect().await.unwrap();
        assert_eq!(after, before);
    }
}

#[tokio::test]
async fn verify_finds_damage_in_every_partition() {
    for (storage, _folder) in stores().await {
        let one = world_with(&storage, |builder| builder.partition("one"));
        one.fill(&[A, LARGE, "http://example.com/other?len=300000"]).await;
        let world = world(&storage);
        assert_eq!(verified(&world).await, [3, 700_004, 0, 0, 0]);
        let chunks = chunks(&storage).await;
        let bodies: Vec<[u8; 16]> = chunks.iter().map(|key| key.slot).collect();
        let last = *chunks.last().unwrap();
        let first_of_another = *chunks.iter().find(|key| key.slot != last.slot).unwrap();
        assert!(bodies.len() > 4);
        storage.delete(last).await.unwrap();
        let short = storage.read(first_of_another).await.unwrap().unwrap();
        let record = Record::new(short.payload().slice(1..), short.retain_until());
        storage.write(first_of_another, record).await.unwrap();
        assert_eq!(verified(&world).await, [3, 4, 0, 2, 0]);
        storage.write(Key::head([1; 16]), Record::new("foreign", Timestamp::NEVER)).await.unwrap();
        let found = world.handle().verify(|_| {}).await.unwrap();
        assert_eq!(counts(&found), [3, 4, 1, 2, 0]);
        assert!(!found.is_sound());
    }
}

#[tokio::test]
async fn prune_expires_unreferenced_records() {
    for (storage, _folder) in stores().await {
        let world = forever(&storage);
        world.fill(&[LARGE]).await;
        for language in ["en", "de", "fr"] {
            world.settled(in_language(SEVERAL, language)).await;
        }
        // Only the head is deleted, so its chunks are no longer named.
        let head = world.handle().get_url(LARGE).await.unwrap().unwrap().key();
        storage.delete(head).await.unwrap();
        world.handle().delete_url(SEVERAL).await.unwrap();
        world.settled(in_language(SEVERAL, "en")).await;
        let parts = chunks(&storage).await.len() as u64;
        assert_eq!(verified(&world).await, [1, 4, 0, 0, parts + 2]);
        world.clock.advance(HOUR * SECOND);
        assert_eq!(world.handle().delete_expired().await.unwrap(), 0, "the tombstone was overwritten");
        assert_eq!(world.handle().prune().await.unwrap(), parts + 2);
        assert_eq!((verified(&world).await[4], world.handle().prune().await.unwrap()), (0, 0));
        world.clock.advance((HOUR + 1) * SECOND);
        world.handle().delete_expired().await.unwrap();
        assert_eq!(world.get(SEVERAL).await.word(), "miss");
        assert_eq!(world.ask(in_language(SEVERAL, "en")).await.word(), "hit");
        assert_eq!(chunks(&storage).await, []);
    }
}

#[tokio::test]
async fn prune_expires_unreachable_head() {
    for (storage, _folder) in stores().await {
        let world = forever(&storage);
        world.fill(&[A, SEVERAL]).await;
        world.settled(in_language(SEVERAL, "de")).await;
        let first = EntryFilter::new().matching(|entry| entry.headers()["etag"] == "\"\"");
        assert_eq!(world.handle().reset_expiry(&first, SECOND).await.unwrap(), 2);
        world.clock.advance(30 * 24 * HOUR * SECOND);
        world.handle().delete_expired().await.unwrap();
        assert_eq!(storage.size().await.unwrap(), 3, "the records were to be kept for ever");
        assert_eq!((verified(&world).await[4], world.handle().prune().await.unwrap()), (1, 1));
        world.clock.advance(2 * HOUR * SECOND);
        world.handle().delete_expired().await.unwrap();
        assert_eq!(storage.size().await.unwrap(), 2);
        assert_eq!(world.ask(in_language(SEVERAL, "de")).await.word(), "hit");
    }
}

#[tokio::test]
async fn prune_spares_body_being_written() {
    for (storage, _folder) in stores().await {
        let world = forever(&storage);
        let (mut piece, body) = world.begun(A).await;
        let body = tokio::spawn(body);
        for _ in 0..2 {
            piece.send_data("b".repeat(200_000).into()).await.unwrap();
        }
        while chunks(&storage).await.is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!((verified(&world).await[4], world.handle().prune().await.unwrap()), (0, 0));
        drop(piece);
        body.await.unwrap();
        world.layer.idle().await;
        world.clock.advance(2 * HOUR * SECOND);
        world.handle().delete_expired().await.unwrap();
        let whole = world.get(A).await;
        assert_eq!((whole.word(), whole.body.len()), ("hit", 400_001));
    }
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn verify_counts_undecodable_records() {
    use tower_response_cache::storage::SqliteStorage;
    use tower_response_cache::storage::sqlite::rusqlite::Connection;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.sqlite");
    let storage = BoxStorage::new(SqliteStorage::open(&path).await.unwrap());
    let world = world(&storage);
    world.fill(&[A, "http://example.com/b"]).await;
    let by_hand = Connection::open(&path).unwrap();
    by_hand
        .execute("UPDATE contents SET value = zeroblob(50) WHERE id = (SELECT min(id) FROM contents)", [])
        .unwrap();
    let found = verified(&world).await;
    assert_eq!((found[0], found[2]), (1, 1));
}
