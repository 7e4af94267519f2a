//! Records in the memory of this process.
//!
//! # Invariants
//! - All records together, with everything that they have allocated, never take more than the bound, however many tasks write
//!   at the same time.
//! - An entry takes at most half of the bound. If its records do not fit, the ones that were released with
//!   [`Retain::AtMost`](super::Retain) are removed first, and then the ones that were written longest ago. The head, and the
//!   body that is being written, are never removed for this. A record that still does not fit is refused, and the existing
//!   records stay.
//! - An eviction removes whole entries. A scan of many entries that are used once does not evict the entries that are used
//!   often, unless keeping these has cost hits lately.
//! - A hit takes no exclusive lock, allocates nothing, and clones one pointer.
//! - A listing holds a lock for at most a few hundred records at a time, and lets other tasks run in between.
//! - Evicted records are dropped outside the locks.
//!
//! # Files
//!
//! `storage` implements the trait on top of the others. `table` finds entries, `entry_records` holds the records of one entry,
//! `eviction_policy` decides which entry is evicted, and `listing` walks all of them. None of these calls another storage.

mod builder;
mod entry_records;
mod eviction_policy;
mod listing;
mod storage;
mod table;

pub use self::builder::MemoryStorageBuilder;
pub use self::storage::MemoryStorage;
