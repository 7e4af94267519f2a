//! Responses as files in a directory, which a person can look into, copy or commit to version control.
//!
//! # What it promises
//! - A record is one file with the record's [bytes](super::Record::to_bytes) and nothing else. It is written under
//!   another name, and gets its own when it is whole: a reader sees the old record or the new one. What was cut short,
//!   damaged or written by a newer version counts as absent.
//! - Every change is made before its caller is answered; a process that dies at any moment loses nothing that was
//!   answered, and leaves no more than files in `.work`, which are never read and are removed later (after an hour). A
//!   machine that loses power may lose the last changes, unless [`fsync`](DirectoryStorageBuilder::fsync) is set.
//! - [`write_if`](super::Storage::write_if) compares and writes while it holds the lock of its part of the directory
//!   (one of 256), as every other change does, so it is atomic among all processes that use the directory. The locks are
//!   the system's (`flock`, `LockFileEx`), which end with their process. On a file system that has none, or not among
//!   the machines that share it, changes fail or are atomic on each machine only. Reading takes no lock. A lock that
//!   others keep for longer than the [lock timeout](DirectoryStorageBuilder::lock_timeout) is a
//!   [`Timeout`](crate::ErrorKind::Timeout).
//! - Nothing blocks the runtime: files are touched on threads of the store's own, opening too. They end with the last
//!   clone, when what was asked for is done.
//! - Moving the time of a record writes its first bytes in place, and not its payload.
//! - The store is bounded, about ([`max_bytes`](DirectoryStorageBuilder::max_bytes)): a thread counts what is there,
//!   after the first write and then whenever a sixteenth of the bound was written, and removes the entries used least
//!   recently, whole, down to 95 % of the bound. What the file system allocates for records of every kind, for their
//!   folders and for the 256 folders above them is counted; the directory's own list of names, and `.work` with its
//!   locks, come on top: some 40 KiB. A group's value is an entry of its own, which each use of a member keeps from
//!   being evicted; where it goes nevertheless, its members are a miss. Each process that writes may exceed the bound
//!   by a sixteenth: a write beyond that waits until room is made. A hit writes nothing: its time is remembered in
//!   memory, and written down as the time at which the head's file was changed, every five minutes and when the store
//!   is closed. What has expired does not go before the rest; [`delete_expired`](super::Storage::delete_expired) looks
//!   at the first bytes of every file.
//! - [`unbounded`](DirectoryStorageBuilder::unbounded) is for recorded responses: nothing is evicted, and no hit
//!   changes a file or its times.
//! - Only what is named exactly as below is ours: other files and folders are neither read, listed, counted nor removed,
//!   not even by [`clear`](super::Storage::clear), wherever they are. A folder that holds one stays.
//! - Removing files or the directory is fine at any time: what was in it is a miss, and the next change makes the
//!   directory again. A body of which a part was removed is a miss too. But what a person does there takes no lock: a
//!   comparison may miss it, and while `.work` is removed two processes may change the same record at once.
//! - A directory that cannot be written serves what it has, and answers every change with
//!   [`ReadOnly`](crate::ErrorKind::ReadOnly); a full disk refuses what is new as [`Full`](crate::ErrorKind::Full).
//! - What is made is private to the user, on Unix: folders have the mode 0700, files 0600. A directory that is there
//!   already keeps its mode.
//!
//! # The directory
//! ```text
//! 3f/                                                the entries whose names begin so
//!   3f0c…/                                           an entry: all that is stored for one URI
//!     head                                           its first variant
//!     variant-<32 digits>                            a further one
//!     chunk-<32 digits>-00000                        a piece of a large body: which body, which piece
//!     index, lease, group                            what the cache needs beside them
//! .gitattributes                                     says that records are bytes; made with the directory
//! .work/                                             locks and unfinished files; its .gitignore keeps it uncommitted
//! ```
//! Names are keyed hashes and random numbers and tell nothing of a URL; the head's bytes hold it. Records hold whatever
//! the responses did, secrets too: look before committing them.
//!
//! A record that was recorded for tests is still used by the rules of the cache: it is a miss when its time is over.

mod bound;
mod builder;
mod entries;
mod failure;
mod listing;
mod lock;
mod naming;
mod place;
mod recency;
mod records;
mod store;
mod upkeep;
mod workers;

pub use self::builder::DirectoryStorageBuilder;
pub use self::store::DirectoryStorage;
