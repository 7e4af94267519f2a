//! Opens a storage from an address.

use super::BoxStorage;
use super::address::{Address, WRAPPER_OPTIONS, config, nearest, split_options, with_lower_scheme};
use crate::error::Result;

/// Opens the storage at an address.
///
/// An address is a scheme, a location, and options after a question mark: `redis://localhost/0?cache_name=app`. Special
/// characters in user names, passwords, paths and options are percent-encoded. Letter case does not matter in the scheme and in
/// units. Times are in seconds, or have a unit (`250ms`,
/// `10s`, `5m`, `1h`). Sizes are in bytes, or have a unit (`64MiB`, `1GB`).
///
/// # In this process
///
/// `memory:` opens a `MemoryStorage`.
///
/// Option: `max_bytes`.
///
/// # In files
///
/// `sqlite://PATH` or `sqlite:PATH` opens a `SqliteStorage`. The path is relative, begins with `/` or `~/`, or is
/// `:memory:`.
///
/// Options: `max_bytes`, `readers`, `read_in_task` (without it, while reads are fast), `busy_timeout`, `use_temp`, `recover`
/// (`refuse`, `damaged`, `damaged_or_newer`).
///
/// `directory://PATH` or `directory:PATH` opens a `DirectoryStorage`. The path is relative, or begins with `/` or `~/`.
///
/// Options: `max_bytes`, `unbounded`, `fsync`, `threads`, `lock_timeout`.
///
/// Up to two missing folders of a path are created, and none directly below the root: a path of which more is missing is
/// probably mistyped.
///
/// # On a Redis server
///
/// These addresses open a `RedisStorage`:
///
/// | address | server |
/// |---|---|
/// | `redis://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]` | one server |
/// | `redis+cluster://[USER[:PASSWORD]@]HOST[:PORT],…` | a cluster, of which some nodes are named |
/// | `redis+sentinel://[USER[:PASSWORD]@]HOST[:PORT],…[/DATABASE]` | the master that these sentinels watch |
/// | `redis+unix://PATH` | a Unix socket |
///
/// With `rediss` in place of `redis` the connection uses TLS (feature `redis-tls`). `valkey` and `valkeys` are accepted as
/// other names for `redis` and `rediss`.
///
/// Options: `cache_name`, `connections`, `connect_timeout`, `response_timeout`, `protocol` (`resp2`, `resp3`). Sentinels also
/// take `master` (required), `sentinel_username` and `sentinel_password`; a socket also takes `db`, `user` and `pass`.
///
/// # On a MongoDB server
///
/// These addresses open a `MongoDbStorage`:
///
/// | address | server |
/// |---|---|
/// | `mongodb://[USER[:PASSWORD]@]HOST[:PORT],…[/CACHE_NAME]` | a server, a replica set or a sharded cluster |
/// | `mongodb+srv://[USER[:PASSWORD]@]HOST[/CACHE_NAME]` | the servers that DNS lists for this name |
///
/// Options: `cache_name`, `collection`, `connect_timeout`, `response_timeout`, and all options of the driver, such as
/// `replicaSet` and `tls=true`.
///
/// # On DynamoDB
///
/// `dynamodb://[TABLE]` opens a `DynamoDbStorage` with the credentials of the environment.
///
/// Options: `cache_name` (the table, if the location does not name it), `region`, `endpoint`, `create_if_missing`,
/// `eventually_consistent`, `connect_timeout`, `response_timeout`.
///
/// # Two levels
///
/// `tiered+` before any other address opens a `TieredStorage`, which keeps copies of that storage's records in memory:
/// `tiered+redis://localhost/0?near=64MiB&max_lag=1s`.
///
/// Options, beside those of the other storage: `near` (the bound of the copies, as `max_bytes` of `memory:`), `max_lag`,
/// `serve_while_far_is_down`, `far_timeout`.
///
/// # Compressed and encrypted
///
/// Any address takes these options: `redis://localhost/0?compress=zstd&encrypt=env:CACHE_KEY`.
///
/// - `compress` stores payloads in a `CompressedStorage`. The value is `zstd`, `zstd:LEVEL` or `lz4` (the features of these
///   names).
/// - `encrypt` stores payloads in an `EncryptedStorage` (feature `encrypt`). The value is `env:` and the name of an environment
///   variable, which holds the text of a keyring. With both, payloads are compressed first.
///
/// # Servers
///
/// Without the option `cache_name`, the name of the cache is `http-cache`. A server that cannot be reached now is not an
/// error, since requests are served without it until it can be reached.
///
/// # Errors
/// Returns [`Config`](crate::ErrorKind::Config) if the scheme is unknown, if its storage needs a feature that is off, or if
/// an option is unknown or wrong. The message names the option, and never repeats a value. Returns the storage's own error if
/// opening it fails.
///
/// ```
/// # #[cfg(feature = "memory")] {
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tower_response_cache::Result<()> {
/// use tower_response_cache::{CacheLayer, storage};
///
/// let layer = CacheLayer::new(storage::connect("memory:?max_bytes=1000000").await?);
/// let error = storage::connect("memory:?size=3").await.unwrap_err();
/// assert_eq!(error.to_string(), "this storage has no option size: it has max_bytes");
/// # Ok(())
/// # }
/// # main().unwrap();
/// # }
/// ```
pub async fn connect(address: &str) -> Result<BoxStorage> {
    let address = with_lower_scheme(address);
    match address.strip_prefix("tiered+") {
        Some(far) => tiered(far).await,
        None => connect_wrapped(&address).await,
    }
}

/// Opens the storage at an address without `tiered+`, and wraps it as the address says.
async fn connect_wrapped(address: &str) -> Result<BoxStorage> {
    let (address, mut options) = split_options(address, &WRAPPER_OPTIONS)?;
    let (compress, encrypt) = (options.take("compress"), options.take("encrypt"));
    // Before the storage is opened, so that a wrong option is no reason to make a file.
    let keyring = encrypt.map(|source| keyring(&source)).transpose()?;
    let codec = compress.map(|name| codec(&name)).transpose()?;
    let mut storage = connect_single(&address).await?;
    if let Some(keyring) = keyring {
        storage = encrypted(storage, keyring)?;
    }
    if let Some(codec) = codec {
        storage = compressed(storage, codec)?;
    }
    Ok(storage)
}

#[cfg(feature = "encrypt")]
fn keyring(source: &str) -> Result<super::encrypted::Keyring> {
    match source.strip_prefix("env:").filter(|name| !name.is_empty()) {
        Some(variable) => super::encrypted::Keyring::from_env(variable),
        // A key in an address would be shown wherever the address is.
        None => Err(config(
            "the option encrypt must be env: and the name of an environment variable that holds the keys",
        )),
    }
}

#[cfg(feature = "encrypt")]
fn encrypted(inner: BoxStorage, keyring: super::encrypted::Keyring) -> Result<BoxStorage> {
    super::EncryptedStorage::new(inner, keyring).map(BoxStorage::new)
}

#[cfg(not(feature = "encrypt"))]
fn keyring(_: &str) -> Result<std::convert::Infallible> {
    Err(config("the option encrypt needs the feature encrypt of this crate, which is off: enable it"))
}

#[cfg(not(feature = "encrypt"))]
fn encrypted(_: BoxStorage, keyring: std::convert::Infallible) -> Result<BoxStorage> {
    match keyring {}
}

#[cfg(any(feature = "zstd", feature = "lz4"))]
fn codec(name: &str) -> Result<super::compressed::Codec> {
    name.parse()
}

#[cfg(any(feature = "zstd", feature = "lz4"))]
fn compressed(inner: BoxStorage, codec: super::compressed::Codec) -> Result<BoxStorage> {
    super::CompressedStorage::builder(inner).codec(codec).build().map(BoxStorage::new)
}

#[cfg(not(any(feature = "zstd", feature = "lz4")))]
fn codec(_: &str) -> Result<std::convert::Infallible> {
    Err(config("the option compress needs the feature zstd or lz4 of this crate, which are off: enable one"))
}

#[cfg(not(any(feature = "zstd", feature = "lz4")))]
fn compressed(_: BoxStorage, codec: std::convert::Infallible) -> Result<BoxStorage> {
    match codec {}
}

/// Opens the storage at an address without `tiered+`.
#[allow(unreachable_patterns)] // with all features on, no scheme is left for the arms of disabled features
async fn connect_single(address: &str) -> Result<BoxStorage> {
    let is_mongodb = address.starts_with("mongodb:") || address.starts_with("mongodb+srv:");
    #[cfg(feature = "mongodb")]
    if is_mongodb {
        // Not parsed here, because options of the driver may be given several times.
        return super::MongoDbStorage::connect(address).await.map(BoxStorage::new);
    }
    if is_mongodb {
        return Err(feature_off("mongodb"));
    }
    let Some(parsed) = Address::parse(address) else {
        return Err(config("the storage's address has no scheme: for a file write sqlite://PATH"));
    };
    let parsed = parsed?;
    let is_redis = parsed.scheme.starts_with("redis") || parsed.scheme.starts_with("valkey");
    match &*parsed.scheme {
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
        "memory" | "sqlite" | "directory" | "dynamodb" => Err(feature_off(&parsed.scheme)),
        _ if is_redis => Err(feature_off("redis")),
        scheme => Err(unknown_scheme(scheme)),
    }
}

/// Creates the error of an address whose scheme belongs to no storage.
fn unknown_scheme(scheme: &str) -> crate::Error {
    const SCHEMES: [&str; 6] = ["memory", "sqlite", "directory", "redis", "mongodb", "dynamodb"];
    let guess = nearest(scheme, SCHEMES.into_iter());
    let guess = guess.map_or_else(String::new, |name| format!(" (did you mean {name}?)"));
    config(format!(
        "no storage has this scheme{guess}: use memory, sqlite, directory, redis, mongodb or dynamodb"
    ))
}

/// Creates the error of an address whose storage is not compiled in.
fn feature_off(feature: &str) -> crate::Error {
    config(format!("this storage needs the feature {feature} of this crate, which is off: enable it"))
}

#[cfg(feature = "memory")]
async fn tiered(far: &str) -> Result<BoxStorage> {
    if far.starts_with("tiered+") {
        return Err(config("tiered+ is given twice: the copies of copies would save nothing"));
    }
    if far.starts_with("memory:") {
        return Err(config(
            "tiered+ before memory: would keep everything in memory twice: write memory: alone",
        ));
    }
    let (far, mut options) = split_options(far, &super::address::TIERED_OPTIONS)?;
    let mut near = super::MemoryStorage::builder();
    if let Some(bytes) = options.size("near")? {
        near = near.max_bytes(bytes);
    }
    let (max_lag, serve) = (options.time("max_lag")?, options.time("serve_while_far_is_down")?);
    let far_timeout = options.seconds("far_timeout")?;
    // Only then, so that a wrong option is no reason to make a file.
    let far = connect_wrapped(&far).await?;
    let mut builder = super::TieredStorage::builder(near.build(), far);
    if let Some(lag) = max_lag {
        builder = builder.max_lag(lag);
    }
    if let Some(time) = serve {
        builder = builder.serve_while_far_is_down(time);
    }
    if let Some(timeout) = far_timeout {
        builder = builder.far_timeout(timeout);
    }
    Ok(BoxStorage::new(builder.build()))
}

#[cfg(not(feature = "memory"))]
async fn tiered(_: &str) -> Result<BoxStorage> {
    Err(feature_off("memory"))
}

#[cfg(feature = "memory")]
fn memory(address: Address<'_>) -> Result<BoxStorage> {
    let Address { location, mut options, .. } = address;
    if !location.is_empty() && location != "//" {
        return Err(config("the address memory: takes no location: write memory: and its options"));
    }
    let mut builder = super::MemoryStorage::builder();
    if let Some(bytes) = options.size("max_bytes")? {
        builder = builder.max_bytes(bytes);
    }
    options.finish(&["max_bytes"])?;
    Ok(BoxStorage::new(builder.build()))
}

#[cfg(feature = "sqlite")]
async fn sqlite(address: Address<'_>) -> Result<BoxStorage> {
    let Address { location, mut options, .. } = address;
    let mut builder = super::SqliteStorage::builder(path(location)?);
    if let Some(bytes) = options.size("max_bytes")? {
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
    options.finish(&["max_bytes", "readers", "read_in_task", "busy_timeout", "use_temp", "recover"])?;
    builder.open().await.map(BoxStorage::new)
}

#[cfg(feature = "directory")]
async fn directory(address: Address<'_>) -> Result<BoxStorage> {
    let Address { location, mut options, .. } = address;
    let mut builder = super::DirectoryStorage::builder(path(location)?);
    let max_bytes = options.size("max_bytes")?;
    if let Some(bytes) = max_bytes {
        builder = builder.max_bytes(bytes);
    }
    if options.flag("unbounded")? == Some(true) {
        if max_bytes.is_some() {
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
    options.finish(&["max_bytes", "unbounded", "fsync", "threads", "lock_timeout"])?;
    builder.open().await.map(BoxStorage::new)
}

/// Returns the path of a storage in files.
#[cfg(any(feature = "sqlite", feature = "directory"))]
fn path(location: &str) -> Result<String> {
    let path = super::address::decode(location.strip_prefix("//").unwrap_or(location))?;
    match path.is_empty() {
        true => Err(config("a storage in files needs a path, as in sqlite://PATH")),
        false => Ok(path.into_owned()),
    }
}
