//! Responses in one SQLite file that many processes may share.
//!
//! # What it promises
//! - Every write is one transaction that is committed before its caller is answered. Writes that wait at the same time
//!   are committed together; one that fails does not fail the others. The journal is a write-ahead log with
//!   `synchronous = NORMAL`: a process that dies loses nothing, a machine that loses power may lose the last writes,
//!   and neither damages the file.
//! - [`write_if`](super::Storage::write_if) compares inside the transaction that writes, so it is atomic among all
//!   processes that have the file open.
//! - "database is locked" reaches nobody: every operation waits for its turn up to the
//!   [busy timeout](SqliteStorageBuilder::busy_timeout), and then fails with [`Timeout`](crate::ErrorKind::Timeout).
//! - Nothing blocks the runtime: all of SQLite runs on threads of its own, opening and closing too. The one exception
//!   is asked for by [`read_in_task`](SqliteStorageBuilder::read_in_task).
//! - [`close`](SqliteStorage::close) writes everything that was taken, merges the log into the file and ends the threads. When
//!   the last clone is dropped the same is done beside: outside of a runtime the drop waits for it, five seconds at most;
//!   in one it does not, so that a program that ends at once leaves the log beside the file, where the next one
//!   finds everything.
//! - Files and folders that the storage makes are its user's alone (0600 and 0700 on Unix). Those that are there keep
//!   their modes.
//! - The store is bounded ([`max_bytes`](SqliteStorageBuilder::max_bytes)): what has expired goes first, then the entries
//!   used least recently, whole, and those that this process reads a body of last. A hit writes nothing: its time is remembered in memory, and written for many entries
//!   at once every five minutes, when the store is closed, and when something has to go. An entry takes at most half
//!   of the bound. The file keeps the space of what went and fills it again; it grows up to a third above the bound
//!   (pages that are not full) and shrinks by [`vacuum`](SqliteStorage::vacuum) alone. Opened with a lower bound than
//!   before, it gets there with its next writes.
//! - The log is merged as it grows and cut beyond 32 MiB, as soon as all readers pause together. If somebody never does
//!   (another program with an open transaction), records above 4 KiB are refused as [`Full`](crate::ErrorKind::Full)
//!   beyond 256 MiB of log; invalidations are still written.
//! - A disk that is full, or a file at its `max_page_count`, refuses what is new as [`Full`](crate::ErrorKind::Full) and
//!   serves what it has; when there is room it goes on by itself.
//! - Removing the file (and the `-wal` and `-shm` beside it), or putting another in its place, is fine at any time: what
//!   was in it is a miss within a second, a new file is made by the next write or the one in its place used, and
//!   processes share it again. What cannot be used there is an error until it is gone. (Where the system tells files
//!   apart: Unix; elsewhere an open file cannot be removed.)
//! - A damaged file is set aside, when it is opened and when it turns out while it is open, and a new one begun: see
//!   [`Recovery`], which can be set otherwise. Files up to 64 MiB are checked whole when they are opened, longer ones where
//!   their tables begin; a damaged record that turns up later counts as absent. One process at a time makes the file or sets
//!   it aside (on Unix, by a lock on its directory).
//! - A file that is not one of ours, or was made by a newer version of this crate, is refused when it is opened, and is not
//!   changed. Where a newer version brings the file to its layout while this one has it open, this one reads on and
//!   answers every change with [`ReadOnly`](crate::ErrorKind::ReadOnly).
//! - A file that cannot be written (its mode, `mode=ro`, `immutable=1`, a read-only directory) serves what it has, and
//!   answers every change with [`ReadOnly`](crate::ErrorKind::ReadOnly). A URI filename to a file in a read-only
//!   directory needs `immutable=1`; a path finds that out.
//! - A damaged record is absent for whatever reads it (`read`, `values`, `write_if`); what does not (`keys`, `size`,
//!   `delete`, `retain`) still counts it, until it is written anew or expires.
//!
//! # The file
//! `application_id` is 0x54775243, `user_version` the version of this layout (1).
//!
//! | table | a row for | columns |
//! |---|---|---|
//! | `records` | a record | `entry`, `kind`, `slot`, `part`: its key · `stamp` · `until`: milliseconds since the epoch, 2⁶³ − 1 is never; indexed · `size` · `content`: which row of `contents` |
//! | `contents` | a record's [bytes](super::Record::to_bytes) | `id` · `value` |
//! | `entries` | an entry | `entry` · `used`: when last, in microseconds, indexed · `size` · `records`: how many |
//! | `totals` | the store | `bytes`: the sum of the sizes |
//!
//! Contents are apart, so that listing, expiry and moved retention never read or write a body. `size` is the length of
//! the bytes and 256 for the row. Records of every kind count. A group is an
//! entry of its own, which each use of a member keeps from being evicted; where it goes nevertheless, its members are
//! a miss.
//!
//! # Connections
//! One connection writes; [`readers`](SqliteStorageBuilder::readers) more read, each on a thread of its own. Where a
//! second connection would see another database (`:memory:`), or would have to be told a secret (a ready
//! [`connection`](SqliteStorageBuilder::connection)), all goes through one.
//!
//! The driver's crates are re-exported as [`rusqlite`] and [`tokio_rusqlite`], so that their types always fit.

mod aside;
mod builder;
mod eviction;
mod failure;
mod inspect;
mod layout;
mod live;
mod location;
mod log;
mod open;
mod operation;
mod readers;
mod recency;
mod rows;
mod source;
mod store;
mod table;
mod vacuum;
mod writer;

pub use rusqlite;
pub use tokio_rusqlite;

pub use self::aside::Recovery;
pub use self::builder::SqliteStorageBuilder;
pub use self::store::SqliteStorage;
