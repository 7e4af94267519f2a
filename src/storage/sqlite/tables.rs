//! Writing: the rows of one transaction, and the sums kept beside them.
//!
//! Promises: `contents`, `entries` and the total always agree with `records`. Every function expects a transaction that
//! its caller commits, or rolls back as a whole when the function fails.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::rows;
use crate::storage::contract::Retain;
use crate::storage::key::Key;
use crate::storage::record::Stamp;

/// What a row takes beside its value, about: key, stamp, times, indexes, the row of its entry, and its share of pages
/// that are not full.
pub(super) const ROW: u64 = 256;

const REMOVE: &str = "DELETE FROM records WHERE entry = ?1 AND kind = ?2 AND slot = ?3 AND part = ?4
    RETURNING entry, size, content";

/// A record as it is written.
pub(super) struct Encoded {
    pub(super) stamp: Stamp,
    pub(super) until: i64,
    pub(super) value: bytes::Bytes,
}

/// Where the table has a row with this entry, among others.
fn order(entry: &rusqlite::types::Value) -> &[u8] {
    match entry {
        rusqlite::types::Value::Blob(entry) => entry,
        _ => &[],
    }
}

/// A row of `records` that was deleted.
struct Removed {
    /// `None` where the row is damaged: no sum contains it.
    entry: Option<[u8; 16]>,
    size: i64,
    content: i64,
}

/// The tables within a transaction.
pub(super) struct Table<'a> {
    connection: &'a Connection,
    /// The sum of all sizes.
    pub(super) total: i64,
}

impl<'a> Table<'a> {
    pub(super) fn load(connection: &'a Connection) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare_cached("SELECT bytes FROM totals")?;
        let total = statement.query_row([], |row| row.get(0))?;
        Ok(Self { connection, total })
    }

    pub(super) fn connection(&self) -> &'a Connection {
        self.connection
    }

    /// Writes the total back.
    pub(super) fn store(&self) -> rusqlite::Result<()> {
        self.execute("UPDATE totals SET bytes = ?1", params![self.total]).map(drop)
    }

    /// Writes a record; false when its entry would then take more than `limit`.
    pub(super) fn put(
        &mut self,
        key: Key,
        record: &Encoded,
        used: i64,
        limit: i64,
    ) -> rusqlite::Result<bool> {
        let there: Option<(i64, i64)> = self
            .connection
            .prepare_cached(
                "SELECT size, content FROM records WHERE entry = ?1 AND kind = ?2 AND slot = ?3 AND part = ?4",
            )?
            .query_row(params![key.entry, key.kind as u8, key.slot, key.part], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        let size = i64::try_from(record.value.len() as u64 + ROW).unwrap_or(i64::MAX);
        let more = size.saturating_sub(there.map_or(0, |(size, _)| size));
        if more > 0 && self.entry_size(key.entry)?.saturating_add(more) > limit {
            return Ok(false);
        }
        self.execute(
            "INSERT INTO entries (entry, used, size, records) VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT (entry) DO UPDATE SET used = max(used, excluded.used), size = size + excluded.size,
            records = records + excluded.records",
            params![key.entry, used, more, i64::from(there.is_none())],
        )?;
        self.total = self.total.saturating_add(more);
        let content = match there {
            Some((_, content)) => {
                self.execute(
                    "INSERT INTO contents (id, value) VALUES (?1, ?2)
                    ON CONFLICT (id) DO UPDATE SET value = excluded.value",
                    params![content, &record.value[..]],
                )?;
                content
            }
            None => {
                self.execute("INSERT INTO contents (value) VALUES (?1)", params![&record.value[..]])?;
                self.connection.last_insert_rowid()
            }
        };
        self.execute(
            "INSERT INTO records (entry, kind, slot, part, stamp, until, size, content)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
            ON CONFLICT (entry, kind, slot, part) DO UPDATE
            SET stamp = excluded.stamp, until = excluded.until, size = excluded.size",
            params![
                key.entry,
                key.kind as u8,
                key.slot,
                key.part,
                record.stamp.to_bytes(),
                record.until,
                size,
                content
            ],
        )?;
        Ok(true)
    }

    /// Removes records; says how many were there.
    pub(super) fn remove(&mut self, keys: &[Key]) -> rusqlite::Result<u64> {
        let mut removed = Vec::new();
        for key in keys {
            removed.extend(self.removed(REMOVE, params![key.entry, key.kind as u8, key.slot, key.part])?);
        }
        self.settle(removed)
    }

    /// Removes the records whose time is over, of whatever kind, the earliest first and at most `limit` of them; says how
    /// many.
    pub(super) fn remove_expired(&mut self, now: i64, limit: u32) -> rusqlite::Result<u64> {
        // One by one, in the table's order: SQLite would go through the whole table for a list of keys of four columns.
        let mut statement = self.connection.prepare_cached(
            "SELECT entry, kind, slot, part FROM records WHERE until <= ?1 ORDER BY until LIMIT ?2",
        )?;
        let row = |row: &rusqlite::Row<'_>| {
            // Of kinds that this version does not know too, and damaged ones.
            let column = |at| row.get::<_, rusqlite::types::Value>(at);
            Ok([column(0)?, column(1)?, column(2)?, column(3)?])
        };
        let mut keys =
            statement.query_map(params![now, limit], row)?.collect::<rusqlite::Result<Vec<_>>>()?;
        keys.sort_unstable_by(|one, other| order(&one[0]).cmp(order(&other[0])));
        let mut removed = Vec::with_capacity(keys.len());
        for key in &keys {
            removed.extend(self.removed(REMOVE, params![key[0], key[1], key[2], key[3]])?);
        }
        self.settle(removed)
    }

    /// Gives the pages of the tables so many bytes of memory; says what they had, in SQLite's own measure.
    pub(super) fn set_cache(&self, size: i64) -> rusqlite::Result<i64> {
        let before = self.connection.pragma_query_value(None, "cache_size", |row| row.get(0))?;
        self.connection.pragma_update(None, "cache_size", size)?;
        Ok(before)
    }

    /// Removes an entry whole.
    pub(super) fn remove_entry(&mut self, entry: [u8; 16]) -> rusqlite::Result<()> {
        let removed = self
            .removed("DELETE FROM records WHERE entry = ?1 RETURNING entry, size, content", params![entry])?;
        self.settle(removed)?;
        self.execute("DELETE FROM entries WHERE entry = ?1", params![entry]).map(drop)
    }

    /// Deletes rows of `records`, of kinds that this version does not know too.
    fn removed(&self, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<Vec<Removed>> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params, |row| {
            Ok(Removed { entry: row.get(0).ok(), size: row.get(1)?, content: row.get(2)? })
        })?;
        rows.collect()
    }

    /// Removes the contents of deleted rows, and subtracts their sizes; says how many there were.
    fn settle(&mut self, mut removed: Vec<Removed>) -> rusqlite::Result<u64> {
        // In the order in which the tables have them: those of one page together.
        removed.sort_unstable_by_key(|removed| removed.content);
        let mut less: BTreeMap<[u8; 16], (i64, i64)> = BTreeMap::new();
        for Removed { entry, size, content } in &removed {
            self.execute("DELETE FROM contents WHERE id = ?1", params![content])?;
            let Some(entry) = *entry else { continue };
            let (bytes, records) = less.entry(entry).or_default();
            *bytes = bytes.saturating_add(*size);
            *records += 1;
        }
        for (entry, (bytes, records)) in less {
            self.execute(
                "UPDATE entries SET size = size - ?2, records = records - ?3 WHERE entry = ?1",
                params![entry, bytes, records],
            )?;
            self.execute("DELETE FROM entries WHERE entry = ?1 AND records <= 0", params![entry])?;
            self.total = self.total.saturating_sub(bytes);
        }
        Ok(removed.len() as u64)
    }

    /// Moves the times of records; says how many were there.
    pub(super) fn retain(&self, keys: &[Key], retain: Retain) -> rusqlite::Result<u64> {
        let mut there = 0;
        for key in keys {
            let until: Option<i64> = self
                .connection
                .prepare_cached(
                    "SELECT until FROM records WHERE entry = ?1 AND kind = ?2 AND slot = ?3 AND part = ?4",
                )?
                .query_row(params![key.entry, key.kind as u8, key.slot, key.part], |row| row.get(0))
                .optional()?;
            let Some(until) = until else { continue };
            there += 1;
            let moved = rows::until(retain.apply(rows::time(until)));
            if moved != until {
                self.execute(
                    "UPDATE records SET until = ?5 WHERE entry = ?1 AND kind = ?2 AND slot = ?3 AND part = ?4",
                    params![key.entry, key.kind as u8, key.slot, key.part, moved],
                )?;
            }
        }
        Ok(there)
    }

    /// Removes everything.
    pub(super) fn clear(&mut self) -> rusqlite::Result<()> {
        self.connection.execute_batch("DELETE FROM contents; DELETE FROM records; DELETE FROM entries;")?;
        self.total = 0;
        Ok(())
    }

    pub(super) fn execute(&self, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<usize> {
        self.connection.prepare_cached(sql)?.execute(params)
    }

    fn entry_size(&self, entry: [u8; 16]) -> rusqlite::Result<i64> {
        let mut statement = self.connection.prepare_cached("SELECT size FROM entries WHERE entry = ?1")?;
        Ok(statement.query_row([entry], |row| row.get(0)).optional()?.unwrap_or(0))
    }
}
