//! The cases of the contract, one function each.
//!
//! A case panics if the storage breaks the clause that it checks. The message names the clause, what it says and what was
//! found.

mod cancel;
mod change;
mod close;
mod compare;
mod failures;
mod listing;
mod processes;
mod read;
mod retention;
mod sharing;

use std::time::Duration;

use bytes::Bytes;

pub use self::cancel::*;
pub use self::change::*;
pub use self::close::*;
pub use self::compare::*;
pub use self::failures::*;
pub use self::listing::*;
pub use self::processes::*;
pub use self::read::*;
pub use self::retention::*;
pub use self::sharing::*;
use super::Harness;
use super::demand::{Tested, demand, described, fail, join};
use crate::storage::{Key, Kind, Record, Retain, Storage};
use crate::time::Timestamp;

/// A time in the year 2096, so that no record expires while the suite runs.
const LATER: Timestamp = Timestamp::from_secs(4_000_000_000);

/// Opens an empty storage for a case that checks these clauses, with a name that no other case uses.
async fn open<H: Harness>(harness: &H, clauses: &'static [usize]) -> Tested<H::Storage> {
    open_named(harness, &random_name(), clauses).await
}

/// Opens the storage with this name.
async fn open_named<H: Harness>(harness: &H, name: &str, clauses: &'static [usize]) -> Tested<H::Storage> {
    match harness.open(name).await {
        Ok(storage) => Tested::new(storage, clauses),
        Err(error) => fail(
            clauses,
            "a name of ASCII letters and digits is accepted",
            format!("the error {error:?}"),
            "",
        ),
    }
}

/// Opens the same empty storage twice, if the harness can.
async fn open_twice<H: Harness>(
    harness: &H,
    clauses: &'static [usize],
) -> Option<(Tested<H::Storage>, Tested<H::Storage>)> {
    if !harness.shares() {
        return None;
    }
    let name = random_name();
    Some((open_named(harness, &name, clauses).await, open_named(harness, &name, clauses).await))
}

fn random_name() -> String {
    crate::hex::text(&crate::storage::random_id())
}

fn head(number: u8) -> Key {
    Key::head([number; 16])
}

fn chunk(number: u8, part: u32) -> Key {
    head(number).sibling(Kind::Chunk, [9; 16], part)
}

fn variant(number: u8) -> Key {
    head(number).sibling(Kind::Variant, [1; 16], 0)
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

/// Checks that the storage still works, with a key that has no record. It has none afterwards.
async fn demand_usable<S: Storage>(tested: &Tested<S>, key: Key, when: &str) {
    let clauses = tested.clauses;
    let rule = format!("the storage remains usable {when}");
    let (first, second) = (record("first"), record("second"));
    tested.write(key, first.clone()).await;
    demand!(clauses; tested.write_if(key, Some(first.stamp()), second).await, &rule; "`write_if` with the current stamp returns false");
    demand!(clauses; tested.text(key).await.as_deref() => Some("second"), &rule);
    demand!(clauses; tested.retain(&[key], Retain::AtLeast(LATER)).await => 1, &rule);
    demand!(clauses; tested.delete(key).await, &rule; "`delete` of a record returns false");
    demand!(clauses; !tested.contains(key).await, &rule; "a deleted record");
}
