//! A storage in MongoDB, which processes on many machines can share.
//!
//! Works with MongoDB 4.4 and later: a single server, a replica set or a sharded cluster.
//!
//! ```no_run
//! use tower_response_cache::CacheLayer;
//! use tower_response_cache::storage::MongoDbStorage;
//!
//! # async fn open() -> tower_response_cache::Result<()> {
//! let storage = MongoDbStorage::builder("mongodb://cache.internal/?replicaSet=main")
//!     .cache_name("app")
//!     .connect()
//!     .await?;
//! let layer = CacheLayer::new(storage);
//! # Ok(())
//! # }
//! ```
//!
//! # Guarantees
//! - **Atomic comparison.** [`write_if`](super::Storage::write_if) compares on the server, so it is atomic
//!   among all processes that use the collection.
//! - **Few round trips.** An operation is one command. If the server refuses a `write_if`, one more command
//!   finds out whether an earlier attempt of the same write has arrived. An operation on more than 20,000
//!   keys, and a listing, is split into several commands. A write that races with another write may be
//!   repeated, at most three times.
//! - **Consistent reads.** Reads go to the primary, whatever read preference the address or the options name.
//!   With the write concern `majority` (the default) they use the read concern `majority`, so that a failover
//!   does not take back what was read. With any other write concern they use `local`, so that they see what
//!   was written before.
//! - **Exact times.** Retention times are exact to the millisecond. A record without an expiry is never dropped.
//! - **Bounded memory.** The storage itself keeps at most 8 MiB: up to 512 heads and variants of at most 16 KiB
//!   that were read most recently. If the server returns the same bytes again, they are not decoded again.
//! - **Bounded waiting.** No operation takes longer than the
//!   [`response_timeout`](MongoDbStorageBuilder::response_timeout), whichever part of the connection or the
//!   server hangs. A server that comes back is used again; the storage does not have to be reopened.
//! - **Cancellation.** If the future of a write is dropped while its command is under way, the command runs
//!   to its end in the background. Later operations of this process on the same keys wait for it, at most
//!   half a second from the beginning of the command. After that, or if the connection breaks, the server may
//!   still carry out a command that it has already received.
//! - **No open cursors.** Listings read pages by an index and leave no cursor open on the server.
//! - **Nothing confidential in messages.** Errors and events contain no address, name or credential, and none
//!   of the server's own texts.
//!
//! # Settings
//! A storage is built from an address, from the driver's own options or from a ready client (see
//! [`MongoDbServer`]). A setting of the [builder](MongoDbStorageBuilder) takes precedence over the option of
//! the same name in an address.
//!
//! | builder | address | default |
//! |---|---|---|
//! | [`cache_name`](MongoDbStorageBuilder::cache_name) | the path, or `cache_name` | `http-cache` |
//! | [`collection`](MongoDbStorageBuilder::collection) | `collection` | `records` |
//! | [`connect_timeout`](MongoDbStorageBuilder::connect_timeout) | `connect_timeout`, in seconds | 1 second |
//! | [`response_timeout`](MongoDbStorageBuilder::response_timeout) | `response_timeout`, in seconds | 10 seconds |
//! | [`write_concern`](MongoDbStorageBuilder::write_concern) | the driver's `w`, `journal`, `wTimeoutMS` | `majority` |
//!
//! All other options of an address are the driver's. Its `connectTimeoutMS` takes precedence over
//! `connect_timeout`. Its `serverSelectionTimeoutMS` is 1 second where neither the address nor the driver's
//! options set it; the driver's own default of 30 seconds would hold up requests.
//!
//! # Permissions
//! The user needs the role `readWrite` on the database, or the actions `find`, `insert`, `update`, `remove`
//! and `createIndex`. A user who may only read is served hits; writes then fail as
//! [`ReadOnly`](crate::ErrorKind::ReadOnly). A user named in the address is authenticated against the
//! database in the address, unless `authSource` names another one.
//!
//! # Operation
//! - **Size.** The storage has no bound of its own. The TTL monitor of the server deletes expired records
//!   once a minute, by the clock of the server. Until then every operation still returns them; the cache does
//!   not serve them.
//! - **Indexes** are created in the background at the first write, and again after the server was
//!   unavailable. Without the permission to create them the storage still works. One event reports it, and
//!   expired records then stay until [`delete_expired`](super::Storage::delete_expired) is called.
//! - **Sharding** is not required. The collection may be sharded by `_id` alone, as `{_id: 1}` or `{_id:
//!   "hashed"}`, because every command names its records by `_id`. The storage uses no transactions.
//! - **Runtime.** The background tasks of the driver run on the tokio runtime of the first operation.
//!
//! # Documents
//! The database is the cache name; its collection is `records` unless
//! [`collection`](MongoDbStorageBuilder::collection) names another. Each document is one record:
//!
//! | field | type | content |
//! |---|---|---|
//! | `_id` | string | the [key](super::Key) in 74 hexadecimal digits |
//! | `kind` | string | `head`, `variant`, `chunk`, `lease`, `group` or `index` |
//! | `stamp` | binary | 16 bytes, new with each write |
//! | `until` | string | the retention time in 20 decimal digits |
//! | `expires` | date | the retention time for the TTL index |
//! | `value` | binary | the [bytes](super::Record::to_bytes) of the record, at most 8 MiB |
//!
//! The digits of `_id` are the entry (32), the kind (2), the slot (32) and the part (8), so the records of an
//! entry are next to each other. `until` counts milliseconds since the Unix epoch; 18446744073709551615 means
//! never. `expires` is `MaxKey`, which the TTL monitor ignores, for records that never expire or expire after
//! the year 9999.
//!
//! | index | purpose |
//! |---|---|
//! | `expires: 1`, `expireAfterSeconds: 0` | deletes expired records |
//! | `kind: 1, _id: 1` | counts and lists responses without reading chunks |
//!
//! ```text
//! use app
//! db.records.countDocuments({kind: "head"})                       number of URLs
//! db.records.find({kind: "head"}, {value: 0}).sort({expires: 1})  heads, those that expire first at the top
//! db.records.find({_id: /^0123…/}, {value: 0})                    all records of one entry
//! ```
//!
//! The driver is re-exported as [`driver`], so that its types always match.

mod builder;
mod connection;
mod detached;
mod document;
mod error;
mod indexes;
mod server;
mod storage;

pub use ::mongodb as driver;

pub use self::builder::MongoDbStorageBuilder;
pub use self::server::MongoDbServer;
pub use self::storage::MongoDbStorage;
