//! The cases of the contract, one function each. A case panics where the storage breaks its clause.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is how a case fails

mod change;
mod compare;
mod listing;
mod read;
mod retention;
mod sharing;

use bytes::Bytes;

pub use self::change::*;
pub use self::compare::*;
pub use self::listing::*;
pub use self::read::*;
pub use self::retention::*;
pub use self::sharing::*;
use super::Harness;
use crate::storage::{Key, Kind, Record, Storage};
use crate::time::Timestamp;

/// Far from now by any clock, so that nothing expires by itself.
const LATER: Timestamp = Timestamp::from_secs(4_000_000_000);

async fn open<H: Harness>(harness: &H) -> H::Storage {
    let name = crate::storage::random_id().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    harness.open(&name).await.expect("a plain name is taken")
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

async fn payload<S: Storage>(storage: &S, key: Key) -> Option<Bytes> {
    storage.read(key).await.unwrap().map(|record| record.payload())
}
