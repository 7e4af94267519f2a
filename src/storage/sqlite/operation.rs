//! What the writer can be asked for.

use rusqlite::Connection;

use super::table::{Encoded, Table};
use super::{live, rows};
use crate::storage::contract::Retain;
use crate::storage::key::Key;
use crate::storage::record::Stamp;
use crate::time::Timestamp;

/// The memory for pages while many records are removed: 64 MiB, in SQLite's measure.
const MUCH_CACHE: i64 = -(64 << 10);

/// A change of the store.
pub(super) enum Operation {
    Write {
        key: Key,
        when: When,
        record: Encoded,
    },
    Delete(Vec<Key>),
    Retain(Vec<Key>, Retain),
    /// Removes what expired; at most so many.
    DeleteExpired(Timestamp, u32),
    /// Removes all that expired, if that is nearly everything.
    KeepLive(Timestamp),
    Clear,
}

/// When a record is written.
pub(super) enum When {
    Always,
    /// When the record there has this stamp, or none is there.
    There(Option<Stamp>),
}

/// What came of an operation.
pub(super) enum Outcome {
    /// How many records were written, there or removed.
    Count(u64),
    /// The entry would take more than its share.
    TooLarge,
}

impl Operation {
    /// How many bytes it writes, about.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Write { record, .. } => record.value.len(),
            _ => 0,
        }
    }

    /// Carries it out within a transaction.
    pub(super) fn apply(&self, table: &mut Table<'_>, used: i64, limit: i64) -> rusqlite::Result<Outcome> {
        match self {
            Self::Write { key, when, record } => {
                if let When::There(seen) = when {
                    let there = stamp_there(table.connection(), *key)?;
                    if there == Some(record.stamp) {
                        return Ok(Outcome::Count(1));
                    }
                    if there != *seen {
                        return Ok(Outcome::Count(0));
                    }
                }
                let written = table.put(*key, record, used, limit)?;
                Ok(if written { Outcome::Count(1) } else { Outcome::TooLarge })
            }
            Self::Delete(keys) => table.remove(keys).map(Outcome::Count),
            Self::Retain(keys, retain) => table.retain(keys, *retain).map(Outcome::Count),
            Self::DeleteExpired(now, limit) => {
                // The rows are spread over all pages: without room for these, each would be written several times.
                let before = table.set_cache(MUCH_CACHE)?;
                let removed = table.remove_expired(rows::until(*now), *limit);
                table.set_cache(before)?;
                removed.map(Outcome::Count)
            }
            Self::KeepLive(now) => live::keep_live(table, rows::until(*now)).map(Outcome::Count),
            Self::Clear => table.clear().map(|()| Outcome::Count(0)),
        }
    }
}

/// The stamp of the record that a reader would get: a damaged one counts as absent here as well.
fn stamp_there(connection: &Connection, key: Key) -> rusqlite::Result<Option<Stamp>> {
    Ok(rows::read(connection, key)?.map(|record| record.stamp()))
}
