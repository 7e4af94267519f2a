//! The records of an entry, decoded and encoded.
//!
//! An entry consists of a **head record** (the selecting names, a generation, and the first variant with its
//! body if that is small), further **variant records**, and **chunk records** of long bodies and of parts of bodies. The key of the
//! head may also hold a **tombstone** (an invalidation) or a **placeholder** (a fetch is writing chunks).
//! Neither of these can be served.
//!
//! This is the only module that turns a response into a record and back. It may call `policy` and `storage`.
//!
//! # Invariants
//! - A decoded record equals the one that was encoded, including the bytes, order and repetition of header
//!   fields.
//! - All other bytes decode to nothing, never to an error or a panic.
//! - The body of a decoded record is a slice of the bytes of the record.
//! - The fields of a record that is made here own exactly their bytes, whatever buffer they came in.

mod codec;
mod expiries;
mod head;
mod packed;
mod parts;
mod retention;
#[cfg(test)]
mod tests;

pub(crate) use self::codec::{decode, packed_record, placeholder, record};
pub(crate) use self::expiries::{Expiries, Expiry, earlier};
pub(crate) use self::head::{
    ChunkKeys, DecodedRecord, FirstOfSearch, GroupValue, Head, Membership, Search, StoredBody, StoredContent,
    StoredResponse, Tagged, Variant,
};
pub(crate) use self::packed::fit;
pub(crate) use self::parts::{Extent, Parts};
pub(crate) use self::retention::{GRACE, LOOKUP_LIMIT, TOMBSTONE, with_slack};
