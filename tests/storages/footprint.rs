//! The size of the futures of each storage.
//!
//! A cache nests the futures of its storage in several of its own. A large one costs its size several times for each
//! request in progress, and as much of the stack in a debug build.

use std::mem::size_of_val;

use tower_response_cache::Timestamp;
use tower_response_cache::storage::{Key, Record, Retain, Storage};

const MOST: usize = 2048;

fn check(name: &str, storage: &impl Storage) {
    let (key, record) = (Key::head([7; 16]), || Record::new("x", Timestamp::NEVER));
    for (operation, size) in [
        ("read", size_of_val(&storage.read(key))),
        ("write", size_of_val(&storage.write(key, record()))),
        ("write_if", size_of_val(&storage.write_if(key, None, record()))),
        ("contains_all", size_of_val(&storage.contains_all(&[key]))),
        ("retain", size_of_val(&storage.retain(&[key], Retain::AtMost(Timestamp::EPOCH)))),
        ("delete_many", size_of_val(&storage.delete_many(&[key]))),
    ] {
        assert!(size <= MOST, "{operation} of {name} takes {size} bytes");
    }
}

#[cfg(feature = "memory")]
#[test]
fn futures_of_memory_are_small() {
    check("memory", &tower_response_cache::storage::MemoryStorage::new());
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn futures_of_sqlite_are_small() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.sqlite");
    check("sqlite", &tower_response_cache::storage::SqliteStorage::open(path).await.unwrap());
}

#[cfg(feature = "directory")]
#[tokio::test]
async fn futures_of_directory_are_small() {
    let folder = tempfile::tempdir().unwrap();
    check("directory", &tower_response_cache::storage::DirectoryStorage::open(folder.path()).await.unwrap());
}

// Creating a storage does not connect, so no server is needed.

#[cfg(feature = "redis")]
#[tokio::test]
async fn futures_of_redis_are_small() {
    use tower_response_cache::storage::RedisStorage;
    check("redis", &RedisStorage::connect("redis://127.0.0.1:9").await.unwrap());
}

#[cfg(feature = "mongodb")]
#[tokio::test]
async fn futures_of_mongodb_are_small() {
    use tower_response_cache::storage::MongoDbStorage;
    check("mongodb", &MongoDbStorage::connect("mongodb://127.0.0.1:9").await.unwrap());
}

#[cfg(feature = "dynamodb")]
#[tokio::test]
async fn futures_of_dynamodb_are_small() {
    use tower_response_cache::storage::DynamoDbStorage;
    use tower_response_cache::storage::dynamodb::aws_sdk_dynamodb::{Client, config};
    let settings = config::Builder::new()
        .behavior_version(config::BehaviorVersion::latest())
        .region(config::Region::new("eu-north-1"))
        .endpoint_url("http://127.0.0.1:9")
        .allow_no_auth();
    let client = Client::from_conf(settings.build());
    check("dynamodb", &DynamoDbStorage::connect(client).await.unwrap());
}
