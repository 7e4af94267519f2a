//! What an entry consists of, and how it becomes records and back: the only place that does so.
//!
//! An entry is a **head** (the selecting names, a generation, and the first variant with its body if that is small),
//! further **variants**, and **chunks** of large bodies. In the head's place there may also be a **tombstone** (an
//! invalidation) or a **placeholder** (somebody writes chunks); neither can be served.
//!
//! Promises: what is decoded is what was encoded, header bytes, order and repetition included; any other bytes decode
//! to nothing, never to an error or a panic; the body of a decoded record is a slice of the record's bytes; the fields of
//! a record that is made here own exactly their bytes, whatever buffer they came in.

mod codec;
mod head;
mod packed;
mod retention;
#[cfg(test)]
mod tests;

pub(crate) use self::codec::{decode, record};
pub(crate) use self::head::{
    ChunkKeys, GroupValue, Head, Membership, Slot, StoredBody, StoredResponse, Tagged, Variant,
};
pub(crate) use self::retention::{GRACE, LOOKUP_LIMIT, TOMBSTONE, with_slack};
