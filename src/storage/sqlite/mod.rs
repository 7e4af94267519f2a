//! Records in a SQLite file, which any number of processes of one machine share.
//!
//! Promises: every operation is one transaction, or part of one; whoever is answered finds what was written after the
//! process is killed (a power failure may lose the last moments, and never the file); "database is locked" reaches
//! nobody; a file that is not a store of ours, or damaged, is refused when it is opened and left untouched; the bound
//! on size is kept by evicting whole entries, those not used lately first, and a hit writes nothing.
//!
//! # Layout
//! | table | column | what it is |
//! |---|---|---|
//! | `records` | `entry`, `kind`, `slot`, `part` | the [`Key`](super::Key), unique |
//! | | `stamp` | the record's stamp: what `write_if` compares |
//! | | `until` | retained until, in milliseconds since the epoch; 9223372036854775807: never |
//! | | `size` | bytes that the record counts for |
//! | | `value` | the [record's bytes](super::Record::to_bytes) |
//! | `entries` | `entry` | the part of the key that an entry's records share |
//! | | `bytes` | the sum of their sizes, kept by triggers |
//! | | `used` | when one was last used, in milliseconds; brought up to date now and then |
//! | `total` | `bytes` | the sum of all sizes, kept by triggers |
//!
//! `application_id` is 0x54524331, `user_version` the version of this layout.
//!
//! # Reading and writing
//! One connection writes; what waits is committed in batches. Some threads read, from one queue. WAL, `synchronous =
//! NORMAL`. The journal is what other processes need for sharing, so the folder must be writable; a file that cannot
//! be written serves hits and stores nothing. Eviction frees pages for reuse; the file itself shrinks slowly.

mod builder;
mod evict;
mod failure;
mod open;
mod reader;
mod store;
mod writer;

pub use rusqlite;
pub use tokio_rusqlite;

pub use self::builder::SqliteStorageBuilder;
pub use self::store::SqliteStorage;
