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
//! | Redis cluster | none | `max_lag` | a command |
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
//!   another 512 KiB, and a connection that gets a message for each key of this cache that any client changes.
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

mod builder;
mod changes;
mod level;
mod outage;
mod storage;
mod time;

pub use self::builder::TieredStorageBuilder;
pub use self::level::Level;
pub use self::storage::TieredStorage;
