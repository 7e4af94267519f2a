//! A storage in Redis, which many processes on many machines may share.
//!
//! It works with Redis 6 and later, Valkey and Dragonfly. Redis may be one server, a cluster, or a master that sentinels
//! watch. No modules are needed. [`RedisStorage`] has an example.
//!
//! # Guarantees
//!
//! - **Round trips.** A read, a write and a deletion are one command each. A hit of up to 32 KiB takes one round trip. A further
//!   variant takes two, and a longer body one more. [`write_if`](super::Storage::write_if) takes one command if the key is empty
//!   or a stamp is given, and at most four otherwise.
//! - **Few packets.** If many tasks read at the same time, their commands are sent together, up to 32 at once. Chunks of bodies are
//!   sent by themselves.
//! - **Atomicity.** [`write_if`](super::Storage::write_if) compares on the server, so it is atomic among all clients.
//! - **No blocking.** All tasks share a few connections, on which a command never waits for another client's answer. Listing
//!   and clearing proceed in pages ([`SCAN`], [`UNLINK`]), so they do not block the server, and only touch this cache's keys.
//! - **Expiry.** The server removes a record once its time is over, and not before. Expiries are computed by this machine's
//!   clock and sent as a duration, so the server's clock does not matter.
//! - **Reconnecting.** A connection that was closed is replaced, and the command is repeated once, if that is safe. A connection
//!   that does not answer is tested before it is used again. Connecting continues even if the operation that needed it gives
//!   up at its deadline. With sentinels, a master that was demoted is looked up anew.
//! - **Changes.** A [`TieredStorage`](super::TieredStorage) sees what other clients change as soon as the server's message arrives
//!   (`CLIENT TRACKING`, Redis 6 or later). A further connection receives these messages, in a cluster one from each master. They
//!   are made when they are needed first. A ready pool or `ClusterClient` does not tell its servers, so it has no such signal.
//! - **Secrecy.** Neither errors nor events contain addresses, names, credentials or the server's own texts.
//!
//! # What to know
//!
//! ## Memory and eviction
//!
//! The storage has no bound of its own: set `maxmemory` and `maxmemory-policy` on the server. Use `allkeys-lru`, or
//! `noeviction` if the memory is enough.
//!
//! | `maxmemory-policy` | when the memory is full |
//! |---|---|
//! | `allkeys-lru` | recommended; the server evicts the records that were used least recently |
//! | `noeviction` | stored records are served; writes fail with [`Full`](crate::ErrorKind::Full) |
//! | `allkeys-lfu`, `allkeys-random` | may evict a tombstone soon after it was written |
//! | `volatile-lru`, `-lfu`, `-random` | evict tombstones, but no record that never expires |
//! | `volatile-ttl` | evicts tombstones before all other records |
//!
//! The server evicts single records. A body that lacks a chunk is a miss, and a body that loses a chunk while it is read ends
//! with an error, never short.
//!
//! An invalidation is a record, too: its *tombstone* is kept for ten minutes, the shortest time of all records. If the server
//! evicts it, a slow fetch that began before the invalidation may be stored after it. If the server evicts records within
//! minutes, or with another policy than the recommended ones, set `reserve_on_miss(true)` on the
//! [layer](crate::CacheLayerBuilder). Then no policy brings an invalidated response back.
//!
//! [`connect`](RedisStorage::connect) reports a `volatile-*` policy by an event, if the user may ask for it (`+info`). It does
//! not ask a cluster.
//!
//! The storage itself keeps at most 8 MiB: up to 512 heads and variants of at most 16 KiB that were read most recently. If the
//! server returns the same bytes again, they are not decoded again.
//!
//! ## Expired records
//!
//! The server removes them. [`delete_expired`](super::Storage::delete_expired) sends no command for a time that has come.
//!
//! ## Durability
//!
//! The server decides what survives. Records that it loses in a restart are misses. A failover may lose the last writes, and
//! an invalidation among them. So may a restart without `appendonly`. Replicas are never read.
//!
//! ## Connections
//!
//! Half of the connections are for writes, so that writes that the server delays (`CLIENT PAUSE`, a slow disk) do not delay
//! reads. Reads and writes share one connection if there is only one, and share a ready pool.
//!
//! A command may take as long as [`response_timeout`](RedisStorageBuilder::response_timeout). The cache's own deadlines are
//! shorter, and are the longest that a request waits.
//!
//! ## Clusters
//!
//! A cluster needs an address with `redis+cluster://`. [`connect`](RedisStorage::connect) detects a node of a cluster behind
//! `redis://`, and fails with [`Config`](crate::ErrorKind::Config). A single server in cluster mode works with
//! `redis://`, too.
//!
//! While a node is down, its entries are misses. After five failures in a row, all from that node, the cache does not use the
//! storage at all for two seconds. Below a [`TieredStorage`](super::TieredStorage) it goes on reading from the other nodes.
//!
//! The connections for the [signal of changes](super::tiered#in-a-redis-cluster) go to the IP address that each node announces,
//! or with TLS to its host name.
//!
//! ## Permissions
//!
//! A user (`ACL SETUSER`) needs `~<cache_name>:*` with `+get +set +unlink +exists +getrange +eval +scan +ping`, and for the
//! scripts `+setrange +persist +pexpire`. Two levels also need `+client|tracking`.
//! In a cluster it also needs `+cluster`, and with sentinels `+role`.
//!
//! # Settings
//!
//! [`RedisStorage::builder`] sets them, and so do the options of an address given to [`connect`](super::connect) where the last
//! column says so.
//!
//! | setting | default | sets | in an address |
//! |---|---|---|---|
//! | [`cache_name`](RedisStorageBuilder::cache_name) | `http-cache` | the prefix of all keys | yes |
//! | [`connections`](RedisStorageBuilder::connections) | 2 | the number of connections | yes |
//! | [`connect_timeout`](RedisStorageBuilder::connect_timeout) | 1 s | how long connecting may take | yes |
//! | [`response_timeout`](RedisStorageBuilder::response_timeout) | 10 s | how long an answer may take | yes |
//! | [`connection_config`](RedisStorageBuilder::connection_config) | see there | the driver's settings | no |
//! | [`pool_config`](RedisStorageBuilder::pool_config) | see there | the pool's settings | no |
//! | [`clock`](RedisStorageBuilder::clock) | the system's | the clock | no |
//!
//! The driver's crates are re-exported as [`redis`] and [`deadpool_redis`], so that their types match the ones that this crate
//! uses.
//!
//! # The keys
//!
//! All values are strings. `<entry>` and `<slot>` are 32 hexadecimal digits. The braces make a hash tag, so that all records of
//! an entry are on one node of a cluster.
//!
//! | key | a record for | removed by the server |
//! |---|---|---|
//! | `<cache_name>:{<entry>}:head` | a URL: its first variant with a small body, or a tombstone | when neither it, nor a variant, nor an invalidation needs it |
//! | `<cache_name>:{<entry>}:variant:<slot>` | a further variant | when it can be neither served nor validated any more |
//! | `<cache_name>:{<entry>}:chunk:<slot>:<part>` | 128 KiB of a larger body | an hour or more after the record that names it |
//! | `<cache_name>:{<entry>}:index:<slot>` | the entity tags of further variants | with these |
//! | `<cache_name>:{<entry>}:lease` | a lease between processes | when the lease ends |
//! | `<cache_name>:{<entry>}:group` | the value of a group | when its time is over |
//!
//! | bytes of a value | content |
//! |---|---|
//! | 0 to 19 | when it expires, in milliseconds since the Unix epoch, as decimal digits |
//! | 20 | the version of the record, 1 |
//! | 21 to 24 | CRC-32 of all bytes that follow |
//! | 25 to 40 | stamp |
//! | 41 to 48 | the expiry with which it was written |
//! | 49 … | the [payload](super::Record::payload) |
//!
//! The digits 18446744073709551615 mean never. The key's expiry in Redis is the time in these digits. A record that never
//! expires, or expires in more than eight years, has no expiry in Redis. A record is at most 16 MiB long.
//!
//! ```text
//! redis-cli --scan --pattern 'app:{*}:head' | wc -l         the number of URLs
//! redis-cli getrange 'app:{…}:head' 0 19                    when this record expires
//! redis-cli pttl 'app:{…}:head'                             in how many milliseconds
//! redis-cli strlen 'app:{…}:head'                           its length, with the 20 digits
//! ```
//!
//! [`SCAN`]: https://redis.io/docs/latest/commands/scan/
//! [`UNLINK`]: https://redis.io/docs/latest/commands/unlink/

mod batches;
mod builder;
mod commands;
mod connections;
mod error;
mod naming;
mod scan;
mod scripts;
mod server;
mod storage;
mod tracking;
mod value;

pub use deadpool_redis;
pub use deadpool_redis::redis;

pub use self::builder::RedisStorageBuilder;
pub use self::server::RedisServer;
pub use self::storage::RedisStorage;
