//! Responses as files in a directory.
//!
//! A person can look into the directory, copy it, or commit it to version control, and several processes can share it.
//!
//! # Layout
//! ```text
//! 3f/                                                the entries whose names begin with 3f
//!   3f0c…/                                           an entry, which is all that is stored for one URI
//!     head                                           its first variant
//!     variant-<32 digits>                            a further variant
//!     chunk-<32 digits>-00000                        a chunk of a long body: which body, and which chunk
//!     index, lease, group                            small records that the cache needs beside them
//! .gitattributes                                     declares records as binary; created with the directory
//! .work/                                             locks and unfinished files; its .gitignore keeps it out of git
//! ```
//! Names are keyed hashes and random numbers, and reveal nothing about a URL. The bytes of the head contain the URL. Records
//! contain what the responses contained, including secrets: check them before you commit them.
//!
//! A file has the [bytes](super::Record::to_bytes) of one record and nothing else. A response that was recorded for tests
//! follows the same rules as any other: it is a miss once its retention time is over.
//!
//! # Durability
//!
//! Every change is made before the call returns. A process that is killed at any moment loses no change whose call has
//! returned. It leaves at most files in `.work`, which are never read and are removed after an hour. A machine that loses
//! power may lose the last changes, unless [`fsync`](DirectoryStorageBuilder::fsync) is set.
//!
//! A record is written under another name, and gets its own when it is complete, so a reader sees the old record or the new
//! one. A file that is truncated, damaged or written by a newer version counts as an absent record. Changing the retention
//! time of a record overwrites its first bytes in place, and not its payload.
//!
//! # Sharing
//!
//! Every change holds the lock of its part of the directory (one of 256), so [`write_if`](super::Storage::write_if) is atomic
//! among all processes that use the directory. Reading takes no lock. A lock that others hold for longer than the
//! [lock timeout](DirectoryStorageBuilder::lock_timeout) is a [`Timeout`](crate::ErrorKind::Timeout).
//!
//! The locks are those of the system (`flock`, `LockFileEx`), which end with their process. On a file system without locks,
//! changes fail. On one whose locks do not reach the other machines that share it, changes are atomic on each machine only.
//!
//! # The bound
//!
//! The storage is bounded approximately ([`max_bytes`](DirectoryStorageBuilder::max_bytes)). A thread counts the files after
//! the first write, and again whenever a sixteenth of the bound was written. If they take more than the bound, it removes
//! whole entries, the least recently used first, until 95 % of the bound are taken.
//!
//! - Counted is what the file system allocates for records of every kind, for their folders, and for the 256 folders above
//!   them. The directory's own list of names, and `.work` with its locks, add about 40 KiB.
//! - Each process that writes may exceed the bound by a sixteenth. A write beyond that waits until there is room.
//! - A hit writes nothing. The time of the last use is kept in memory, and written as the modification time of the head's file
//!   every five minutes and when the storage is closed.
//! - The value of a group is an entry of its own. Each use of a member keeps it from being evicted. If it is evicted, its
//!   members are misses.
//! - Expired records are not evicted before others. [`delete_expired`](super::Storage::delete_expired) removes them, and reads
//!   the first bytes of every file to find them.
//!
//! With [`unbounded`](DirectoryStorageBuilder::unbounded), which is meant for recorded responses, nothing is evicted, and no
//! hit changes a file or its times.
//!
//! # Other files
//!
//! Only files and folders that are named exactly as above belong to the storage. All others are neither read, listed, counted
//! nor removed, not even by [`clear`](super::Storage::clear). A folder that contains one stays.
//!
//! Files, or the whole directory, may be removed at any time. Their records are then misses, and so is a body of which a part
//! was removed. The next change creates the directory again. But a person takes no lock: a comparison may miss the removal,
//! and while `.work` is removed, two processes may change the same record at the same time.
//!
//! On Unix, everything that the storage creates is private to the user: folders have the mode 0700, files 0600. A directory
//! that exists keeps its mode.
//!
//! # Failures
//!
//! A directory that cannot be written is still read. Every change is then a [`ReadOnly`](crate::ErrorKind::ReadOnly) error.
//! On a full disk, new records are refused as [`Full`](crate::ErrorKind::Full).
//!
//! # Threads
//!
//! Files are opened, read and written on threads of the storage's own, so no thread of the runtime blocks. The threads end
//! with the last clone, when the calls that were made are done.

// `storage` implements the trait, and sends each operation to a thread of `workers`. There it runs as a function of `records`,
// `listing` or `maintenance`, which may block. Below them: `quota` (what the records take), `recency` (when they were used),
// `entries` (what is in a folder), `root` (paths, locks, unfinished files), and `lock`, `naming`, `error`.
mod builder;
mod entries;
mod error;
mod listing;
mod lock;
mod maintenance;
mod naming;
mod quota;
mod recency;
mod records;
mod root;
mod storage;
mod workers;

pub use self::builder::DirectoryStorageBuilder;
pub use self::storage::DirectoryStorage;
