//! A storage in one SQLite file, which several processes may share.
//!
//! The file survives restarts, and every process that opens it reads and writes the same cache. Hits are served without
//! writing to the file. [`SqliteStorage`] has an example.
//!
//! # Guarantees
//!
//! - **Durability.** Every write is committed before the call returns. Writes that wait at the same time are committed in
//!   one transaction, and a write that fails does not fail the others. The journal is a [write-ahead log] (WAL) with
//!   `synchronous = NORMAL`: a process that dies loses nothing, a machine that loses power may lose the last writes, and
//!   neither damages the file.
//! - **Atomicity.** [`write_if`](super::Storage::write_if) compares inside the transaction that writes, so it is atomic
//!   among all processes that have the file open.
//! - **Waiting.** "database is locked" is never returned. Every operation waits for its turn, up to the
//!   [busy timeout](SqliteStorageBuilder::busy_timeout), and then fails with [`Timeout`](crate::ErrorKind::Timeout).
//! - **Hardly any blocking.** SQLite runs on threads of its own, also for opening and closing the file. Only short reads run
//!   in the calling task, while they are fast. At most one read in a hundred blocks a worker of the runtime for more than
//!   1 ms. See [below](#where-reads-run).
//! - **A bound.** The records take at most [`max_bytes`](SqliteStorageBuilder::max_bytes) bytes. See [below](#the-bound).
//! - **Privacy.** On Unix, only the current user can access the files (mode 0600) and directories (mode 0700) that the
//!   storage creates. Existing ones keep their modes.
//! - **Foreign files stay as they are.** A file that is not a cache of this crate, or was made by a newer version of it, is
//!   refused when it is opened, and is not changed. [`Recovery`] can be set so that a newer file is renamed instead.
//!
//! [write-ahead log]: https://www.sqlite.org/wal.html
//!
//! # What to know
//!
//! ## Where reads run
//!
//! A read of a record whose pages are in memory takes a few microseconds in the calling task, and about 50 on a thread. But if
//! the disk is asked, a read in the task blocks a worker of the runtime until the disk has answered. So by default
//! ([`read_in_task`](SqliteStorageBuilder::read_in_task) changes that):
//!
//! - Reads run in the task while they are fast.
//! - A read that takes 1 ms or longer sends the following ones to the threads, until several in a row are fast there. If more
//!   than about one read in a hundred is slow, for example because a tenth of the cache is not in memory, reads stay on the
//!   threads.
//! - Of all reads, at most one in a hundred blocks a worker for 1 ms or longer, apart from one for each connection that reads in
//!   tasks. How long it is blocked depends on the disk: a record of 128 KiB has 32 pages, and each may be a read of its own.
//! - Records longer than 256 KiB are always read on a thread. Copying them takes long even from memory.
//! - A read also runs on a thread if the connections of the tasks are in use, if the database is busy, or if the file was
//!   replaced.
//!
//! All other operations run on the threads: writes, listings, [`contains`](super::Storage::contains).
//!
//! On Linux, a read is not slow if it took long only because the system ran other threads meanwhile. Elsewhere it is, so that on
//! a machine with more work than cores a few per cent of the reads run on threads although the disk is fast.
//!
//! ## Closing
//!
//! [`close`](SqliteStorage::close) completes all pending writes, merges the WAL into the file and ends the threads.
//! Dropping the last clone does the same in the background. Outside of a runtime the drop waits for it, for at most five
//! seconds. Inside a runtime it does not wait, so a program that ends right away may leave the WAL next to the file. The
//! next process to open the file finds everything.
//!
//! ## The bound
//!
//! When the records exceed [`max_bytes`](SqliteStorageBuilder::max_bytes), expired records are removed first, then whole
//! entries, the least recently used first. Entries whose body this process is reading are removed last. An entry may take
//! at most half of the bound.
//!
//! A hit writes nothing: the time of use is kept in memory. The times of many entries are written together every five
//! minutes, when the storage is closed, and when entries are evicted.
//!
//! Evicted records leave free space in the file, which later writes fill again. Since pages are not always full, the file
//! may grow to a third above the bound. Only [`vacuum`](SqliteStorage::vacuum) shrinks it. If the file is opened with a
//! lower bound than before, the next writes bring it within that bound.
//!
//! ## The write-ahead log
//!
//! The WAL is merged into the file as it grows. Above 32 MiB it is also truncated, as soon as all readers pause at the same
//! time. If they never do, for example because another program keeps a transaction open, then above 256 MiB of WAL records
//! longer than 4 KiB are refused with [`Full`](crate::ErrorKind::Full). Invalidations are still written.
//!
//! ## A full disk
//!
//! On a full disk, or in a file at its `max_page_count`, writes fail with [`Full`](crate::ErrorKind::Full) and stored
//! responses are still served. Writing resumes by itself when there is room again.
//!
//! ## Removed or replaced files
//!
//! On Unix, the file (with the `-wal` and `-shm` files next to it) may be removed or replaced at any time. Its records are
//! misses within a second. The next write creates a new file, or uses the one that is in its place, and all processes share
//! that one again. If the file in its place cannot be used, operations fail until it is gone. On other systems, an open file
//! cannot be removed.
//!
//! ## Damaged files
//!
//! A damaged file is renamed and a new one is created, both when the damage is found on opening and when it is found later.
//! [`Recovery`] changes that. Files up to 64 MiB are checked completely when they are opened; of longer files, only the
//! first page of each table is read. On Unix, a lock on the directory ensures that one process at a time creates or renames
//! the file.
//!
//! A damaged record counts as absent for the operations that read it (`read`, `values`, `write_if`). The operations that do
//! not read it (`keys`, `size`, `delete`, `retain`) count it until it is overwritten or expires.
//!
//! ## Read-only files
//!
//! A file that cannot be written (because of its mode, `mode=ro`, `immutable=1` or a read-only directory) is still read, and
//! every change fails with [`ReadOnly`](crate::ErrorKind::ReadOnly). For a file in a read-only directory, a URI filename must
//! say `immutable=1`; given a path, the storage detects the case itself.
//!
//! If a newer version of this crate migrates the file while this version has it open, this version keeps reading, and every
//! change fails with [`ReadOnly`](crate::ErrorKind::ReadOnly).
//!
//! # Settings
//!
//! [`SqliteStorage::builder`] sets them, and so do the options of an address given to [`connect`](super::connect) where the
//! last column says so.
//!
//! | setting | default | sets | in an address |
//! |---|---|---|---|
//! | [`max_bytes`](SqliteStorageBuilder::max_bytes) | 1 GiB | the bound | yes |
//! | [`readers`](SqliteStorageBuilder::readers) | 2 | the number of threads that read | yes |
//! | [`read_in_task`](SqliteStorageBuilder::read_in_task) | while fast | reading in the calling task | yes |
//! | [`busy_timeout`](SqliteStorageBuilder::busy_timeout) | 5 s | how long an operation waits for its turn | yes |
//! | [`use_temp`](SqliteStorageBuilder::use_temp) | false | a file in the temporary directory | yes |
//! | [`recover`](SqliteStorageBuilder::recover) | [`Damaged`](Recovery::Damaged) | what happens to an unusable file | yes |
//! | [`pragma`](SqliteStorageBuilder::pragma) | see there | SQLite's pragmas | no |
//! | [`open_flags`](SqliteStorageBuilder::open_flags) | see there | SQLite's open flags | no |
//! | [`connection`](SqliteStorageBuilder::connection) | none | a connection opened by the program | no |
//! | [`clock`](SqliteStorageBuilder::clock) | the system's | the clock | no |
//!
//! # Connections
//!
//! One connection writes, on a thread of its own. Each of the [`readers`](SqliteStorageBuilder::readers) is a further
//! connection on a further thread. Reads in the task use one connection for each core, at most 8, and only as many of them as
//! tasks read at the same time. Each connection that is in use takes up to 10 MB, which the pragma `cache_size` changes.
//!
//! A [`TieredStorage`](super::TieredStorage) uses a further connection, which tells it that the file was changed. There is none
//! if [`read_in_task`](SqliteStorageBuilder::read_in_task) is off.
//!
//! A single connection serves everything if a second one would open another database (`:memory:`) or would need a secret that
//! only the program knows (a [`connection`](SqliteStorageBuilder::connection) opened by the program).
//!
//! The driver's crates are re-exported as [`rusqlite`] and [`tokio_rusqlite`], so that their types match the ones that this
//! crate uses.
//!
//! # The file
//!
//! `application_id` is 0x54775243 ("TwRC"). `user_version` is the version of this layout, 1.
//!
//! | table | a row for | columns |
//! |---|---|---|
//! | `records` | a record | its key (`entry`, `kind`, `slot`, `part`), `stamp`, `until`, `size`, `content` |
//! | `contents` | the bytes of a record | `id`, `value` |
//! | `entries` | an entry | `entry`, `used`, `size`, `records` |
//! | `totals` | the whole storage | `bytes` |
//!
//! - `records.until` is when the record expires, in milliseconds since the Unix epoch. 2⁶³ − 1 means never. It is indexed.
//! - `records.size` is the length of the record's [bytes](super::Record::to_bytes) plus 256 for the row.
//! - `records.content` is the `id` of its row in `contents`. The bytes have a table of their own so that listing keys,
//!   finding expired records and moving their expiry never read or write a body.
//! - `entries.used` is when the entry was last used, in microseconds since the Unix epoch. It is indexed.
//! - `entries.size` is the sum of the sizes of its records, and `entries.records` is their number.
//! - `totals.bytes` is the sum of all sizes, which is compared with the bound. Records of every kind count.
//!
//! The value of a group is an entry of its own. Each use of a member of the group counts as a use of that entry, which keeps
//! it from being evicted. If it is evicted nevertheless, its members are misses.

mod builder;
mod change_signal;
mod error;
mod eviction;
mod expiry;
mod location;
mod open;
mod operation;
mod queries;
mod readers;
mod recovery;
mod reopen;
mod schema;
mod stall_budget;
mod storage;
mod suspension;
mod tables;
mod vacuum;
mod wal;
mod writer;

pub use rusqlite;
pub use tokio_rusqlite;

pub use self::builder::SqliteStorageBuilder;
pub use self::recovery::Recovery;
pub use self::storage::SqliteStorage;
