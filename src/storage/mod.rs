//! The [`Storage`] trait, and the built-in storages.
//!
//! A storage is a map from [`Key`] to [`Record`] that knows nothing about HTTP. The cache builds everything else (variants,
//! large bodies, freshness, invalidation) from plain records, so it works alike on every storage.
//!
//! | storage | feature | keeps records in | shared by |
//! |---|---|---|---|
//! | `MemoryStorage` | `memory` (default) | this process | its clones |
//! | `SqliteStorage` | `sqlite` | a file | processes of one machine |
//! | `DirectoryStorage` | `directory` | files in a directory | processes of one machine |
//! | `RedisStorage` | `redis` | a Redis server or cluster | many machines |
//! | `MongoDbStorage` | `mongodb` | a MongoDB server, replica set or sharded cluster | many machines |
//! | `DynamoDbStorage` | `dynamodb` | a table of AWS DynamoDB | many machines |
//! | [`TieredStorage`] | – | two of these: copies in a nearer one | as the farther one |
//! | `CompressedStorage` | `zstd`, `lz4` | the storage inside, compressed | as the storage inside |
//! | `EncryptedStorage` | `encrypt` | the storage inside, encrypted | as the storage inside |
//! | [`BoxStorage`] | – | any of these, chosen at run time | as the storage inside |
//!
//! [`connect`] opens any of them from an address, such as `sqlite://cache.sqlite`.
//!
//! # Writing your own
//!
//! Implement [`Storage`]: five methods are required, and its [contract](Storage#contract) says what the cache relies on. The
//! macro `testing::storage_contract!` (feature `testing`) tests an implementation against the contract.
//!
//! # What a record is
//!
//! The cache stores all that belongs to one effective URI as an *entry*, made of records that share [`Key::entry`]. The
//! [`Kind`] says which part of the entry a record is:
//!
//! - A [head](Kind::Head) holds a response together with its body, if that is short. It may also be a tombstone, which an
//!   invalidation left, or a placeholder for a response that is being written.
//! - Each further [variant](Kind::Variant) of the response is a record of its own, and so is each [chunk](Kind::Chunk) of a
//!   longer body.
//! - [Indexes](Kind::Index), [leases](Kind::Lease) and [groups](Kind::Group) are small records that the cache needs beside
//!   them.
//!
//! A storage treats all kinds alike. It may use `entry` to keep the records of an entry together, and to evict them together.
//!
//! # Invariants
//!
//! - Every [`Record`] has a random [`Stamp`]. [`write_if`](Storage::write_if) replaces a record only if it still has the stamp
//!   that the caller saw. All agreement between processes is built on this method.
//! - A storage never judges whether a response is fresh. It keeps a record until its retention time, and may keep it longer.
//! - Bytes that cannot be read as a record are an absent record, never an error.
//! - Nothing in this module calls the other modules of the crate, except for errors, time and hexadecimal text. The storages
//!   do not call each other, except that a wrapper calls the storages inside. The code that they share is in the files beside this one.

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
// Each of its functions is used by some storages only.
mod address;
#[cfg(any(feature = "sqlite", feature = "directory"))]
mod backoff;
mod boxed;
#[cfg(any(feature = "zstd", feature = "lz4"))]
pub mod compressed;
mod connect;
mod contract;
#[cfg(feature = "directory")]
pub mod directory;
#[cfg(feature = "dynamodb")]
pub mod dynamodb;
#[cfg(feature = "encrypt")]
pub mod encrypted;
#[cfg(any(feature = "memory", feature = "sqlite", feature = "directory"))]
mod evictions;
mod hold;
#[cfg(any(feature = "memory", feature = "sqlite", feature = "directory"))]
mod holds;
mod key;
mod key_counters;
mod key_lock;
#[cfg(any(feature = "sqlite", feature = "directory"))]
mod last_uses;
#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "mongodb")]
pub mod mongodb;
#[cfg(any(feature = "directory", feature = "redis", feature = "dynamodb"))]
mod naming;
#[cfg(any(feature = "sqlite", feature = "directory"))]
mod path;
#[cfg(any(feature = "sqlite", feature = "redis", feature = "mongodb", feature = "dynamodb"))]
mod recent_records;
mod record;
#[cfg(feature = "directory")]
mod record_header;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(any(feature = "redis", feature = "mongodb", feature = "dynamodb"))]
mod remote;
#[cfg(feature = "sqlite")]
pub mod sqlite;
pub mod tiered;
#[cfg(any(feature = "zstd", feature = "lz4", feature = "encrypt"))]
mod unreadable;
#[cfg(any(feature = "zstd", feature = "lz4", feature = "encrypt"))]
mod wrapper;

pub use self::boxed::BoxStorage;
#[cfg(any(feature = "zstd", feature = "lz4"))]
pub use self::compressed::{CompressedStorage, CompressedStorageBuilder};
pub use self::connect::connect;
pub use self::contract::{Retain, Storage, Usage};
#[cfg(feature = "directory")]
pub use self::directory::{DirectoryStorage, DirectoryStorageBuilder};
#[cfg(feature = "dynamodb")]
pub use self::dynamodb::{DynamoDbSource, DynamoDbStorage, DynamoDbStorageBuilder};
#[cfg(feature = "encrypt")]
pub use self::encrypted::{EncryptedStorage, EncryptedStorageBuilder};
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
pub use self::tiered::{TieredStorage, TieredStorageBuilder};

pub(crate) use self::key_lock::lock_key;
#[cfg(feature = "testing")]
pub(crate) use self::key_lock::two_processes;
pub(crate) use self::record::{Decoded, FORM_VERSION, heap_bytes, random_id, random_ids};
