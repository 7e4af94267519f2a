//! The cases of the contract, one function each.
//!
//! A case panics if the storage breaks the clause that it checks.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is how a case fails

mod cancel;
mod change;
mod close;
mod compare;
mod listing;
mod read;
mod retention;
mod sharing;

use std::time::Duration;

use bytes::Bytes;

pub use self::cancel::*;
pub use self::change::*;
pub use self::close::*;
pub use self::compare::*;
pub use self::listing::*;
pub use self::read::*;
pub use self::retention::*;
pub use self::sharing::*;
use super::{Harness, in_time};
use crate::storage::{Key, Kind, Record, Retain, Storage};
use crate::time::Timestamp;

/// A time in the year 2096, so that no record expires while the suite runs.
const LATER: Timestamp = Timestamp::from_secs(4_000_000_000);

/// Opens an empty storage, with a name that no other case uses.
async fn open<H: Harness>(harness: &H) -> H::Storage {
    let name = crate::hex::text(&crate::storage::random_id());
    harness.open(&name).await.expect("a plain name is accepted")
}

fn head(number: u8) -> Key {
    Key::head([number; 16])
}

fn chunk(number: u8, part: u32) -> Key {
    head(number).sibling(Kind::Chunk, [9; 16], part)
}

fn record(payload: impl Into<Bytes>) -> Record {
    Record::new(payload, LATER)
}

/// Returns bytes that take as much room in a storage that compresses.
fn incompressible(seed: u8, len: usize) -> Vec<u8> {
    // A linear congruential generator by Knuth, of which the high bits are good enough.
    let mut state = u64::from(seed);
    let next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

async fn payload<S: Storage>(storage: &S, key: Key) -> Option<Bytes> {
    storage.read(key).await.unwrap().map(|record| record.payload())
}

/// Checks that the storage still works, with a key that has no record. It has none afterwards.
async fn assert_usable<S: Storage>(storage: &S, key: Key) {
    let (first, second) = (record("first"), record("second"));
    storage.write(key, first.clone()).await.unwrap();
    assert!(storage.write_if(key, Some(first.stamp()), second).await.unwrap());
    assert_eq!(payload(storage, key).await.unwrap(), "second");
    assert_eq!(storage.retain(&[key], Retain::AtLeast(LATER)).await.unwrap(), 1);
    assert!(storage.delete(key).await.unwrap());
    assert!(!storage.contains(key).await.unwrap());
}
