//! A store from one address.

use super::BoxStorage;
use super::address::{Address, config};
use crate::error::Result;

/// Opens the storage at an address:
///
/// | address | storage | options |
/// |---|---|---|
/// | `memory:` | `MemoryStorage` | `max_bytes` |
/// | `sqlite://PATH`, `sqlite:PATH` | `SqliteStorage`; the path is relative, begins with `/` or `~/`, or is `:memory:` | `max_bytes`, `readers`, `read_in_task`, `busy_timeout`, `use_temp`, `recover` (`refuse`, `damaged`, `damaged_or_newer`) |
/// | `directory://PATH`, `directory:PATH` | `DirectoryStorage`; the path is relative, or begins with `/` or `~/` | `max_bytes`, `unbounded`, `fsync`, `threads`, `lock_timeout` |
/// | `redis://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]` | `RedisStorage` on one server | `cache_name`, `connections`, `connect_timeout`, `response_timeout`, `protocol` (`resp2`, `resp3`) |
/// | `redis+cluster://[USER[:PASSWORD]@]HOST[:PORT],…` | on a cluster, of which some nodes are named | the same |
/// | `redis+sentinel://[USER[:PASSWORD]@]HOST[:PORT],…[/DATABASE]` | on the master that the named sentinels watch | the same and `master` (needed), `sentinel_username`, `sentinel_password` |
/// | `redis+unix://PATH` | on a socket | the same and `db`, `user`, `pass` |
/// | `mongodb://[USER[:PASSWORD]@]HOST[:PORT],…[/CACHE_NAME]` | `MongoDbStorage` on a server, a replica set or a sharded cluster | `cache_name`, `collection`, `connect_timeout`, `response_timeout` and all of the driver's, such as `replicaSet` |
/// | `mongodb+srv://[USER[:PASSWORD]@]HOST[/CACHE_NAME]` | on the servers that DNS lists for this name | the same |
/// | `dynamodb://[TABLE]` | `DynamoDbStorage`, with the environment's credentials | `cache_name` (the table, if the place does not name it), `region`, `endpoint`, `create_if_missing`, `eventually_consistent`, `connect_timeout`, `response_timeout` |
///
/// With `rediss` in place of `redis` the connection is by TLS (feature `redis-tls`); to MongoDB
/// with its option `tls=true`. Options follow a question mark, as in `redis://localhost/0?cache_name=app`. Special signs in user, password, path and options are percent-encoded.
/// Times are in seconds. Without `cache_name` it is `http-cache`. A server that cannot be reached now is no error,
/// since requests go on without it.
///
/// # Errors
/// [`Config`](crate::ErrorKind::Config): the scheme is unknown, its storage needs a feature that is off, or an option is
/// unknown or wrong; the message names it and never repeats a value. Whatever opening the storage fails with.
///
/// ```
/// # #[cfg(feature = "memory")] {
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tower_response_cache::Result<()> {
/// use tower_response_cache::{CacheLayer, storage};
///
/// let layer = CacheLayer::new(storage::connect("memory:?max_bytes=1000000").await?);
/// let error = storage::connect("memory:?size=3").await.unwrap_err();
/// assert_eq!(error.to_string(), "this store has no option size: it has max_bytes");
/// # Ok(())
/// # }
/// # main().unwrap();
/// # }
/// ```
#[allow(unreachable_patterns)] // the features that are off come last, and with all of them on nothing is left for that
pub async fn connect(address: &str) -> Result<BoxStorage> {
    let is_mongodb = address.starts_with("mongodb:") || address.starts_with("mongodb+srv:");
    #[cfg(feature = "mongodb")]
    if is_mongodb {
        // Not parsed here: its driver's options may be there several times.
        return super::MongoDbStorage::connect(address).await.map(BoxStorage::new);
    }
    if is_mongodb {
        return Err(off("mongodb"));
    }
    let Some(parsed) = Address::parse(address) else {
        return Err(config("the store's address has no scheme: for a file write sqlite://PATH"));
    };
    let parsed = parsed?;
    let is_redis = parsed.scheme.starts_with("redis") || parsed.scheme.starts_with("valkey");
    match parsed.scheme {
        #[cfg(feature = "memory")]
        "memory" => memory(parsed),
        #[cfg(feature = "sqlite")]
        "sqlite" => sqlite(parsed).await,
        #[cfg(feature = "directory")]
        "directory" => directory(parsed).await,
        #[cfg(feature = "redis")]
        _ if is_redis => super::RedisStorage::connect(address).await.map(BoxStorage::new),
        #[cfg(feature = "dynamodb")]
        "dynamodb" => super::DynamoDbStorage::connect(address).await.map(BoxStorage::new),
        "memory" | "sqlite" | "directory" | "dynamodb" => Err(off(parsed.scheme)),
        _ if is_redis => Err(off("redis")),
        _ => Err(config(
            "no store has this scheme: there are memory, sqlite, directory, redis, mongodb and dynamodb",
        )),
    }
}

fn off(feature: &str) -> crate::Error {
    config(format!("this store needs the feature {feature} of this crate, which is off"))
}

#[cfg(feature = "memory")]
fn memory(address: Address<'_>) -> Result<BoxStorage> {
    let Address { place, mut options, .. } = address;
    if !place.is_empty() && place != "//" {
        return Err(config("the store memory: has no place"));
    }
    let mut builder = super::MemoryStorage::builder();
    if let Some(bytes) = options.number("max_bytes")? {
        builder = builder.max_bytes(bytes);
    }
    options.finish("max_bytes")?;
    Ok(BoxStorage::new(builder.build()))
}

#[cfg(feature = "sqlite")]
async fn sqlite(address: Address<'_>) -> Result<BoxStorage> {
    let Address { place, mut options, .. } = address;
    let mut builder = super::SqliteStorage::builder(path(place)?);
    if let Some(bytes) = options.number("max_bytes")? {
        builder = builder.max_bytes(bytes);
    }
    if let Some(readers) = options.number("readers")? {
        builder = builder.readers(readers);
    }
    if let Some(timeout) = options.seconds("busy_timeout")? {
        builder = builder.busy_timeout(timeout);
    }
    if let Some(in_task) = options.flag("read_in_task")? {
        builder = builder.read_in_task(in_task);
    }
    if let Some(use_temp) = options.flag("use_temp")? {
        builder = builder.use_temp(use_temp);
    }
    if let Some(recover) = options.take("recover") {
        builder = builder.recover(match recover.as_str() {
            "refuse" => super::sqlite::Recovery::Refuse,
            "damaged" => super::sqlite::Recovery::Damaged,
            "damaged_or_newer" => super::sqlite::Recovery::DamagedOrNewer,
            _ => return Err(config("the option recover must be refuse, damaged or damaged_or_newer")),
        });
    }
    options.finish("max_bytes, readers, read_in_task, busy_timeout, use_temp and recover")?;
    builder.open().await.map(BoxStorage::new)
}

#[cfg(feature = "directory")]
async fn directory(address: Address<'_>) -> Result<BoxStorage> {
    let Address { place, mut options, .. } = address;
    let mut builder = super::DirectoryStorage::builder(path(place)?);
    let most = options.number("max_bytes")?;
    if let Some(bytes) = most {
        builder = builder.max_bytes(bytes);
    }
    if options.flag("unbounded")? == Some(true) {
        if most.is_some() {
            return Err(config("the options max_bytes and unbounded exclude each other"));
        }
        builder = builder.unbounded(true);
    }
    if let Some(fsync) = options.flag("fsync")? {
        builder = builder.fsync(fsync);
    }
    if let Some(threads) = options.number("threads")? {
        builder = builder.threads(threads);
    }
    if let Some(timeout) = options.seconds("lock_timeout")? {
        builder = builder.lock_timeout(timeout);
    }
    options.finish("max_bytes, unbounded, fsync, threads and lock_timeout")?;
    builder.open().await.map(BoxStorage::new)
}

/// The path of a storage in files.
#[cfg(any(feature = "sqlite", feature = "directory"))]
fn path(place: &str) -> Result<String> {
    let path = super::address::decode(place.strip_prefix("//").unwrap_or(place))?;
    match path.is_empty() {
        true => Err(config("a store in files needs a path, as in sqlite://PATH")),
        false => Ok(path.into_owned()),
    }
}
