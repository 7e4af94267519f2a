//! Responses in MongoDB, which many processes on many machines may share.
//!
//! Works with MongoDB 4.4 and later: one server, a replica set or a sharded cluster.
//!
//! # What it promises
//! - An operation is one command. [`write_if`](super::Storage::write_if) compares on the server, so it is atomic among
//!   all who use it; where it is told no, one more command learns whether an earlier attempt had arrived.
//! - Reads go to the primary, whatever the address prefers. With the write concern `majority` (the default) they have
//!   the read concern `majority`, so that a failover takes back nothing that was read; with another one `local`, so
//!   that they see what was written before.
//! - Times are exact to the millisecond. What never expires is dropped by nobody.
//! - Nothing waits longer than the [`response_timeout`](MongoDbStorageBuilder::response_timeout), whatever hangs. A
//!   server that comes back is used again without the store being opened anew.
//! - An operation whose future is dropped is carried through, and who comes after it to the same keys in this process
//!   waits for it: half a second from its beginning at most. After that, or where the connection breaks, a command that
//!   the server already has may still be carried out.
//! - Listings go in pages by an index and leave no cursor open.
//! - Neither errors nor events hold addresses, names, credentials or the server's own texts.
//!
//! # What to know
//! - **Bounds.** The store has none of its own. Expired records are dropped by the server's TTL monitor, each minute; by
//!   the server's clock. Before that they are still given, by every operation alike.
//! - **Indexes** are made in the background with the first write, and again after the server was away. Without the right
//!   to make them the store works; an event tells of it once, and nobody drops what has expired but
//!   [`delete_expired`](super::Storage::delete_expired).
//! - **Rights** that a user needs on the database: `readWrite` (or `find`, `insert`, `update`, `remove` and `createIndex`).
//!   A user named in the address is looked for in the address's database unless it says `authSource`.
//! - **Sharding.** Nothing needs it. A collection may be sharded by `_id`, `{_id: 1}` or `{_id: "hashed"}`, and by nothing
//!   else, since every command names its records by `_id`. No transaction is used.
//! - **Runtime.** The driver's tasks live on the tokio runtime of the first operation.
//!
//! # The documents
//! The database is the cache name, its collection `records` (another is a setting). A document is a record:
//!
//! | field | type | |
//! |---|---|---|
//! | `_id` | string | the [key](super::Key) in 74 hexadecimal digits: entry (32), kind (2), slot (32), part (8); an entry's records are side by side |
//! | `kind` | string | `head`, `variant`, `chunk`, `lease`, `group`, `index` |
//! | `stamp` | binary | 16 bytes, new with each write |
//! | `until` | string | until when it is kept: milliseconds since the epoch in 20 decimal digits; 18446744073709551615 is never |
//! | `expires` | date | the same for the TTL index; `MaxKey`, which never expires, for never and for what is after the year 9999 |
//! | `value` | binary | the record's [bytes](super::Record::to_bytes), at most 8 MiB |
//!
//! | index | |
//! |---|---|
//! | `expires: 1`, `expireAfterSeconds: 0` | drops what has expired |
//! | `kind: 1, _id: 1` | counts and lists responses without looking at chunks |
//!
//! ```text
//! use app
//! db.records.countDocuments({kind: "head"})                       how many URLs
//! db.records.find({kind: "head"}, {value: 0}).sort({expires: 1})  those that go next
//! db.records.find({_id: /^0123…/}, {value: 0})                    all of one entry
//! ```
//!
//! The driver is re-exported as [`driver`], so that its types always fit.

mod abandoned;
mod builder;
mod document;
mod failure;
mod indexes;
mod link;
mod server;
mod store;

pub use ::mongodb as driver;

pub use self::builder::MongoDbStorageBuilder;
pub use self::server::MongoDbServer;
pub use self::store::MongoDbStorage;
