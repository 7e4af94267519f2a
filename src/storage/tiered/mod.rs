//! A storage that keeps copies of another storage's records in a nearer one.
//!
//! [`TieredStorage`] is made of any two storages. The *far* one decides: it holds every record, and comparisons, retention and
//! deletions happen there. The *near* one, usually in memory, holds copies of what was read or written, within its own bound.
//!
//! ```text
//!   this process                                       other processes
//!   request ──► near: copies of records ── hit          near  near
//!                 │ no copy, or it must be compared        │     │
//!                 ▼                                        ▼     ▼
//!              far: every record (Redis, SQLite, …), shared by all
//! ```
//!
//! # Invariants
//!
//! - A change by this handle or a clone of it is seen by every read that begins after the call has returned.
//! - A change by another process is seen after at most [`max_lag`](TieredStorageBuilder::max_lag). If the far storage
//!   [signals changes](super::Storage::change_count), it is seen as soon as the signal arrives.
//! - Once the signal is lost, no copy that was read or compared under it is served without another comparison. Until the signal
//!   returns, a copy is served only within `max_lag` of its last comparison.
//! - A copy that has expired is not served.
//! - Leases are never copied. Tombstones, placeholders and groups are copied, and seen as soon as any other record.
//! - A near storage that fails, loses or evicts records costs time, and nothing else.
//!
//! # How a copy is known to be current
//!
//! Each copy carries a mark: the number of changes that this process had made to its key when it was last read from or compared
//! with the far storage, the far storage's change count at that time, and the time itself. A copy is served if these numbers are
//! still the same, or without a signal, if the time is less than `max_lag` ago. Otherwise its stamp is
//! [compared](super::Storage::stamps), which transfers a few bytes and not the record. The numbers are read before the far storage
//! is, so a change at the same time makes the copy look old, never current.
//!
//! The mark is part of the record in memory. A near storage that does not [keep records](super::Storage::keeps_records), such as
//! one in a file, loses it, so that each read of a copy is compared. That is right, but only faster than the far storage if
//! transferring the payload is what takes long.
//!
//! # What to put where
//!
//! | far | signal | a change elsewhere is seen after | a comparison costs |
//! |---|---|---|---|
//! | Redis, one server or Sentinel | client tracking (RESP3) | the way of a message; `max_lag` if the link hangs | a command |
//! | Redis cluster | client tracking on each master | the way of a message; 200 ms while a slot moves; `max_lag` if a node hangs | a command |
//! | SQLite | `PRAGMA data_version` | 1 ms, or `max_lag` if that is shorter | a query in memory |
//! | directory | none | `max_lag` | opening a file |
//! | MongoDB, DynamoDB | none | `max_lag` | a query |
//! | memory | none needed | at once, within this process | nothing worth a tier |
//!
//! # What it costs
//!
//! - A hit that is answered from a copy takes 1.02 to 1.10 times as long as one from a `MemoryStorage` alone, also over Redis and
//!   SQLite (`cargo bench --features sqlite,redis --bench tiers`).
//! - The counters take 512 KiB, and the mark 40 bytes, for which every record in memory has room. The signal of Redis takes
//!   another 512 KiB, and a connection that gets a message for each key of this cache that any client changes. A cluster takes
//!   170 KiB more, and one such connection for each master, over which the list of all nodes is sent five times per second: about
//!   130 bytes for each of them.
//! - A write goes to the far storage first and takes as long as there. The copy is written afterwards.
//! - SQLite's signal does not say what was changed. After any commit to the file, also one by this process, each copy is compared
//!   once when it is read next, which takes about as long as reading a short record. Redis names the keys, so only their copies
//!   are compared.
//! - Listings, sizes and the usage are those of the far storage.
//!
//! # With other wrappers
//!
//! The copies are best kept as they are served: `TieredStorage<MemoryStorage, CompressedStorage<EncryptedStorage<RedisStorage>>>`,
//! or by address `tiered+redis://…?compress=zstd&encrypt=env:CACHE_KEY`. A compressed near storage holds more, and restores a copy
//! each time it is served; since it does not keep records, it also compares it each time. [`connect`](super::connect) refuses
//! `tiered+` before `memory:` or given twice.
//!
//! # When the far storage is down
//!
//! A read that the far storage does not answer within [`far_timeout`](TieredStorageBuilder::far_timeout) fails, and for a second
//! all reads that need it fail at once. Requests are then misses, as with any storage that fails. Copies are served within the
//! promises above, or for longer by [`serve_while_far_is_down`](TieredStorageBuilder::serve_while_far_is_down).
//!
//! The servers of a Redis cluster fail one by one. If one does not answer, only reads of its entries fail, and all others go on.
//!
//! # In a Redis cluster
//!
//! The signal of a key comes from the master that owns its slot. Five times per second this master is asked whether it still is
//! a master, owns the slot, keeps it, and sees the majority of the cluster. The others are asked as well. While any of them
//! contradicts it, the slot has no signal, and its copies are compared after `max_lag`. When its owner is found, each copy is
//! compared once.
//!
//! | what happens | a change elsewhere is seen after |
//! |---|---|
//! | a slot moves | at most 200 ms and the way of the answer, then `max_lag` until the move is over |
//! | a replica is promoted (`CLUSTER FAILOVER`) | the time in which its master learns of it, then as above |
//! | a master dies or hangs | `max_lag`, while its entries cannot be read; then the replica has the signal |
//! | a master that hung goes on, and does not know its successor | as soon as any other master answers, at most 200 ms |
//!
//! In any case a copy is served for at most `max_lag` after the last answer in which the owner confirmed it. A master that hung
//! may believe for some milliseconds that it still is one. A process that reaches no other master until then believes it, too.
//!
//! If a master was replaced that did not say so itself, the storage also connects to the cluster anew, so that reads and writes
//! find the replica although the old connections are open. The old ones are used until then.

mod builder;
mod changes;
mod level;
mod outage;
mod storage;
mod time;

pub use self::builder::TieredStorageBuilder;
pub use self::level::Level;
pub use self::storage::TieredStorage;
