//! The changes that the writer executes.

use rusqlite::Connection;

use super::tables::{EncodedRecord, Tables};
use super::{expiry, queries};
use crate::storage::contract::Retain;
use crate::storage::key::Key;
use crate::storage::record::Stamp;
use crate::time::Timestamp;

/// A change of the records.
pub(super) enum Operation {
    Write {
        key: Key,
        condition: Condition,
        record: EncodedRecord,
    },
    Delete(Vec<Key>),
    Retain(Vec<Key>, Retain),
    /// Deletes records that have expired at this time, at most so many.
    DeleteExpired(Timestamp, u32),
    /// Deletes all records that have expired at this time, if hardly any others are there.
    RebuildWithoutExpired(Timestamp),
    Clear,
}

/// The condition on which a record is written.
pub(super) enum Condition {
    Always,
    /// The record at the key has this stamp. `None`: no record is there.
    Stamp(Option<Stamp>),
}

/// The result of an operation.
pub(super) enum Outcome {
    /// How many records were written, were there, or were deleted.
    Count(u64),
    /// The entry would be larger than an entry may be.
    TooLarge,
}

impl Operation {
    /// Returns how many bytes the operation writes, without its rows.
    pub(super) fn written_bytes(&self) -> usize {
        match self {
            Self::Write { record, .. } => record.value.len(),
            _ => 0,
        }
    }

    /// Executes the operation within a transaction, at the time `used`.
    pub(super) fn apply(
        &self,
        tables: &mut Tables<'_>,
        used: i64,
        max_entry_bytes: i64,
    ) -> rusqlite::Result<Outcome> {
        match self {
            Self::Write { key, condition, record } => {
                if let Condition::Stamp(seen) = condition {
                    let there = stamp_at(tables.connection(), *key)?;
                    // An earlier attempt of this write has succeeded.
                    if there == Some(record.stamp) {
                        return Ok(Outcome::Count(1));
                    }
                    if there != *seen {
                        return Ok(Outcome::Count(0));
                    }
                }
                let is_written = tables.put(*key, record, used, max_entry_bytes)?;
                Ok(if is_written { Outcome::Count(1) } else { Outcome::TooLarge })
            }
            Self::Delete(keys) => tables.delete(keys).map(Outcome::Count),
            Self::Retain(keys, retain) => tables.retain(keys, *retain).map(Outcome::Count),
            Self::DeleteExpired(now, limit) => {
                expiry::delete_batch(tables, queries::encode_time(*now), *limit).map(Outcome::Count)
            }
            Self::RebuildWithoutExpired(now) => {
                expiry::rebuild_without_expired(tables, queries::encode_time(*now)).map(Outcome::Count)
            }
            Self::Clear => tables.clear().map(|()| Outcome::Count(0)),
        }
    }
}

/// Returns the stamp of the record that a read would return. So a damaged record counts as absent here as well.
fn stamp_at(connection: &Connection, key: Key) -> rusqlite::Result<Option<Stamp>> {
    Ok(queries::read(connection, key)?.map(|record| record.stamp()))
}
