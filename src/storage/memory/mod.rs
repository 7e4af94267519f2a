//! Records in this process, in bounded memory.
//!
//! # Invariants
//! - All records together, with all that they have allocated, never take more than the bound, however many write at once.
//! - An entry takes half of the bound at most. Room within an entry is made of records that were released
//!   ([`Retain::AtMost`](super::Retain)), then of those that were written longest ago, and never of its head or of the
//!   body that is being written. A record that does not fit even so is refused, and the records that were there stay.
//! - Eviction takes whole entries. A scan through many entries that are used once does not drive out those that are used
//!   often, unless keeping these has lately cost hits.
//! - A hit takes no exclusive lock, allocates nothing, and clones one pointer.
//! - Listings hold a lock for some hundred records at a time and let other tasks run in between.
//! - Evicted records are dropped outside the locks.
//!
//! `table` finds entries, `group` keeps the records of one, `contest` decides what is evicted, and `listing` goes through
//! all of them. None of these calls the storages beside this one.

mod contest;
mod group;
mod listing;
mod store;
mod table;

pub use self::store::{MemoryStorage, MemoryStorageBuilder};
