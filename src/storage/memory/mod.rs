//! Records in this process, in bounded memory.
//!
//! Promises: never holds more than its bound, counted by the records' [weight](super::Record::weight) and a fixed share
//! for each; what is evicted is whole entries, those that were not used lately, and a scan through many entries that
//! are used once does not drive out those that are used often; a hit is one look-up and clones one pointer; an entry
//! that would take more than 48 % of the bound is refused, and what was there stays.
//!
//! Records of one entry are kept as one group. A head is read without a lock of ours, other records under a lock of their
//! entry that is never held while anything waits; changes of an entry take turns.

mod going;
mod group;
mod store;

pub use self::store::{MemoryStorage, MemoryStorageBuilder};
