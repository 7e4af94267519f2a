//! Responses in Redis, which many processes on many machines may share.
//!
//! Works with Redis 6 and later, Valkey and Dragonfly; with one server, a cluster, or a master that sentinels watch.
//! No modules are needed.
//!
//! # What it promises
//! - An operation is one command, and a hit of up to 32 KiB one round trip (of a further variant two, of a longer body one more). All tasks share
//!   a few connections, on which their commands wait for nobody's answer but the server's.
//! - [`write_if`](super::Storage::write_if) compares on the server, so it is atomic among all who use it.
//! - Nothing blocks the server: listing and clearing go in pages ([`SCAN`], [`UNLINK`]) and touch this cache's keys
//!   alone. Each walk remembers the keys that it gave, 40 bytes for each, since the server may name some twice.
//! - The server drops a record by itself once its time is over, and not before. Expiries are reckoned by this machine's
//!   clock and sent as a duration, so the server's clock does not matter.
//! - What breaks is replaced: a connection that ended is made anew and the command repeated, once, if it may be; one
//!   that does not answer is examined before it is used again. Nothing waits for a connection longer than its deadline,
//!   and connecting goes on without who asked for it. Under sentinels, a master that is none any more is looked for anew.
//! - Neither errors nor events hold addresses, names, credentials or the server's own texts.
//!
//! # What to know
//! - **Bounds.** The store has none of its own: set `maxmemory` and a policy on the server. Under `allkeys-lru` (or
//!   `allkeys-lfu`) the server drops single records; a body that lacks a part is then a miss, and one that loses a
//!   part while it is read ends in an error, never short. An invalidation is a record too: where the server drops
//!   records within minutes, use the layer's [`strict`](crate::CacheLayerBuilder::strict). Under
//!   `noeviction` a full server goes on serving what it has; everything new is refused as
//!   [`Full`](crate::ErrorKind::Full).
//! - **The policy to set** is `allkeys-lru`, or `noeviction` where the memory is enough. The mark of an invalidation is kept for ten
//!   minutes, and has the shortest time of all records: `volatile-ttl` drops the marks before everything else, and a slow
//!   fetch that began before the invalidation is then stored after it. `volatile-lru`, `-lfu` and `-random` drop marks and
//!   never what never expires; `allkeys-lfu` and `allkeys-random` may drop a mark soon after it was written. With
//!   [`strict`](crate::CacheLayerBuilder::strict) none of them brings an invalidated response back. Connecting warns of
//!   `volatile-*`, where the user may ask for it (`+info`).
//! - **Expiry** is the server's: [`delete_expired`](super::Storage::delete_expired) asks nothing of it for a time that has come.
//! - **Connections**: half of them are for writes, so that writes that are held up (`CLIENT PAUSE`, a disk that is slow to
//!   save) hold up no reads. With one connection, or a ready pool, they share.
//! - **Durability** is the server's. What it forgets in a restart is a miss. A failover may lose the last writes, and an
//!   invalidation among them; so may a restart without `appendonly`. Replicas are never read.
//! - **Rights** that a user needs (`ACL SETUSER`): `~<cache_name>:*` with `+get +set +unlink +exists +getrange +eval
//!   +scan +ping`, and within the scripts `+setrange +persist +pexpire`; in a cluster also `+cluster`; under sentinels
//!   `+role`.
//! - **A node of a cluster** that is connected by `redis://` is found out when it is connected, and refused as
//!   [`Config`](crate::ErrorKind::Config): use `redis+cluster://`. A server alone that is in cluster mode works.
//! - **A cluster's node that is down** makes its entries misses. The cache leaves the whole store alone for two seconds
//!   after five failures in a row, which then come from that node.
//! - **A command's answer** may take [`response_timeout`](RedisStorageBuilder::response_timeout); the cache's own
//!   deadlines are shorter, and are what its callers wait at most.
//!
//! [`SCAN`]: https://redis.io/docs/latest/commands/scan/
//! [`UNLINK`]: https://redis.io/docs/latest/commands/unlink/
//!
//! # The keys
//! All are strings. `<entry>` and `<slot>` are 32 hexadecimal digits; the braces make a hash tag, so that the records of
//! an entry are on one node of a cluster.
//!
//! | key | a record for | dropped by the server |
//! |---|---|---|
//! | `<cache_name>:{<entry>}:head` | a URL: its first variant with a small body, or the mark of an invalidation | when neither it, nor a variant, nor an invalidation needs it |
//! | `<cache_name>:{<entry>}:variant:<slot>` | a further variant | when it can be neither served nor validated any more |
//! | `<cache_name>:{<entry>}:chunk:<slot>:<part>` | 128 KiB of a larger body | an hour or more after the record that names it |
//! | `<cache_name>:{<entry>}:index:<slot>` | the entity tags of further variants | as these |
//! | `<cache_name>:{<entry>}:lease`, `…:group` | a lease between processes, the value of a group | as they say |
//!
//! | bytes of a value | |
//! |---|---|
//! | 0 to 19 | until when it is kept: milliseconds since the epoch in decimal digits; 18446744073709551615 is never |
//! | 20 | the record's version, 1 |
//! | 21 to 24 | CRC-32 of what follows |
//! | 25 to 40 | stamp |
//! | 41 to 48 | the time that it was written with |
//! | 49 … | the [payload](super::Record::payload) |
//!
//! The native expiry is the time in front; what never expires, and what is kept for more than eight years, has none. A
//! record is at most 16 MiB long.
//!
//! ```text
//! redis-cli --scan --pattern 'app:{*}:head' | wc -l         how many URLs
//! redis-cli getrange 'app:{…}:head' 0 19                    until when this one is kept
//! redis-cli pttl 'app:{…}:head'                             in how many milliseconds it goes
//! redis-cli strlen 'app:{…}:head'                           how long it is
//! ```
//!
//! The driver's crates are re-exported as [`redis`] and [`deadpool_redis`], so that their types always fit.

mod builder;
mod failure;
mod link;
mod links;
mod listing;
mod naming;
mod scripts;
mod server;
mod store;
mod value;

pub use deadpool_redis;
pub use deadpool_redis::redis;

pub use self::builder::RedisStorageBuilder;
pub use self::server::RedisServer;
pub use self::store::RedisStorage;
