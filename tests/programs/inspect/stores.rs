//! Storages other than a SQLite file.

use super::program::inspect;
use super::world::{World, fill, word};
#[cfg(feature = "redis")]
use crate::servers::{self, redis::Redis};

const A: &str = "https://shop.example/a.json";

#[cfg(feature = "directory")]
#[tokio::test]
async fn directory_supports_every_command() {
    let world = World::new().await;
    let store = world.other("directory", "folder");
    fill(&store).await;
    same_commands(&store, &world).await;
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn redis_supports_every_command() {
    let redis = match Redis::start(&[]) {
        Ok(redis) => redis,
        Err(why) if servers::must_be_there() => panic!("{why}"),
        Err(why) => return println!("skipped: {why}"),
    };
    let world = World::new().await;
    let store = format!("redis://127.0.0.1:{}/0?cache_name=app", redis.port);
    fill(&store).await;
    redis.ok(&["SET", "a neighbour", "stays"]);
    same_commands(&store, &world).await;
    assert_eq!(redis.ok(&["GET", "a neighbour"]), "stays");
    drop(redis);
    inspect(&store, &["list"]).refused(3);
}

async fn same_commands(store: &str, world: &World) {
    let listed = inspect(store, &["list"]).done();
    assert_eq!(listed.names(), ["a.json", "b.html", "missing", "old.html", "v", "v"]);
    assert_eq!(inspect(store, &["stats", "--json"]).done().json()["responses"], 6);
    assert_eq!(inspect(store, &["show", A, "--body"]).done().out, r#"{"a":true}"#);
    assert!(inspect(store, &["verify"]).done().out.contains("no damage"));
    let copy = world.other("sqlite", "copy.sqlite");
    assert!(inspect(store, &["copy", &copy]).done().out.starts_with("copied 6 "));
    assert_eq!(word(&copy, A).await, "hit");
    inspect(store, &["delete", A, "--yes"]).done();
    assert_eq!(inspect(store, &["list"]).done().rows().len(), 5);
    inspect(store, &["expire"]).done();
    inspect(store, &["prune"]).done();
    assert!(inspect(store, &["vacuum"]).done().out.contains("nothing to do"));
    assert!(inspect(store, &["purge", "--yes"]).done().out.contains("deleted 5 "));
    assert_eq!(inspect(store, &["list"]).code, 1);
    assert!(inspect(&copy, &["copy", store]).done().out.starts_with("copied 6 "));
    assert_eq!(word(store, A).await, "hit");
}
