//! Where responses are kept: the [`Storage`] trait and the storages built in.
//!
//! A storage is a map from [`Key`] to [`Record`] and knows nothing about HTTP; everything richer (variants, large
//! bodies, expiry) is made of plain records by the cache, so that every storage has it.
//!
//! | storage | feature | kept in | shared by |
//! |---|---|---|---|
//! | `MemoryStorage` | `memory` (default) | this process | its clones |
//! | `SqliteStorage` | `sqlite` | a file | processes of one machine |
//! | `DirectoryStorage` | `directory` | files in a directory | processes of one machine |
//! | `RedisStorage` | `redis` | a Redis server, or a cluster of them | many machines |
//! | `MongoDbStorage` | `mongodb` | a MongoDB server, a replica set or a sharded cluster | many machines |
//! | `DynamoDbStorage` | `dynamodb` | a table of AWS DynamoDB | many machines |
//! | [`BoxStorage`] | – | any of them, chosen when the program runs | as the storage inside |
//!
//! [`connect`] opens any of them by one address.

#[cfg_attr(
    not(all(
        feature = "memory",
        feature = "sqlite",
        feature = "directory",
        feature = "redis",
        feature = "mongodb",
        feature = "dynamodb"
    )),
    allow(dead_code)
)]
// their options
mod address;
mod boxed;
mod connect;
mod contract;
#[cfg(feature = "directory")]
pub mod directory;
#[cfg(feature = "dynamodb")]
pub mod dynamodb;
#[cfg(feature = "directory")]
mod envelope;
#[cfg(any(feature = "memory", feature = "sqlite", feature = "directory"))]
mod evictions;
mod exclusive;
mod hold;
#[cfg(any(feature = "memory", feature = "sqlite", feature = "directory"))]
mod holds;
mod key;
#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "mongodb")]
pub mod mongodb;
#[cfg(any(feature = "directory", feature = "redis", feature = "dynamodb"))]
mod naming;
#[cfg(any(feature = "sqlite", feature = "directory"))]
mod path;
mod record;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(any(feature = "redis", feature = "mongodb", feature = "dynamodb"))]
mod remote;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(any(feature = "sqlite", feature = "directory"))]
mod turns;
#[cfg(any(feature = "sqlite", feature = "directory"))]
mod uses;

pub use self::boxed::BoxStorage;
pub use self::connect::connect;
pub use self::contract::{Retain, Storage, Usage};
#[cfg(feature = "directory")]
pub use self::directory::{DirectoryStorage, DirectoryStorageBuilder};
#[cfg(feature = "dynamodb")]
pub use self::dynamodb::{DynamoDbSource, DynamoDbStorage, DynamoDbStorageBuilder};
pub use self::hold::Hold;
pub use self::key::{Key, Kind, ParseKeyError};
#[cfg(feature = "memory")]
pub use self::memory::{MemoryStorage, MemoryStorageBuilder};
#[cfg(feature = "mongodb")]
pub use self::mongodb::{MongoDbServer, MongoDbStorage, MongoDbStorageBuilder};
pub use self::record::{Record, Stamp};
#[cfg(feature = "redis")]
pub use self::redis::{RedisServer, RedisStorage, RedisStorageBuilder};
#[cfg(feature = "sqlite")]
pub use self::sqlite::{SqliteStorage, SqliteStorageBuilder};

pub(crate) use self::exclusive::exclusive;
pub(crate) use self::record::{Decoded, FORM_VERSION, heap_bytes, random_id};
