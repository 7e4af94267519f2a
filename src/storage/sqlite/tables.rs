//! Changes of the tables within one transaction.
//!
//! # Invariants
//!
//! - `contents`, `entries` and the total always agree with `records`.
//! - Every function is called within a transaction, which its caller commits, or rolls back as a whole if the function fails.

use std::collections::BTreeMap;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params};

use super::queries;
use crate::storage::contract::Retain;
use crate::storage::key::Key;
use crate::storage::record::Stamp;

/// How many bytes a row takes besides its value, approximately. These are the key, stamp, times, indexes, the row of its entry,
/// and its share of the pages that are not full.
pub(super) const ROW_OVERHEAD: u64 = 256;

const DELETE: &str = "DELETE FROM records WHERE entry = ?1 AND kind = ?2 AND slot = ?3 AND part = ?4
    RETURNING entry, size, content";

/// A record in the form in which it is written.
pub(super) struct EncodedRecord {
    pub(super) stamp: Stamp,
    pub(super) until: i64,
    pub(super) value: bytes::Bytes,
}

/// A row of `records` that was deleted.
struct DeletedRow {
    /// `None` if the row is damaged. Then no sum contains it.
    entry: Option<[u8; 16]>,
    size: i64,
    content: i64,
}

/// The tables within a transaction.
pub(super) struct Tables<'a> {
    connection: &'a Connection,
    /// The sum of the sizes of all records. Kept here so that a transaction with many writes updates the row once.
    pub(super) total_bytes: i64,
}

impl<'a> Tables<'a> {
    /// Reads the total at the beginning of a transaction.
    pub(super) fn load(connection: &'a Connection) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare_cached("SELECT bytes FROM totals")?;
        let total_bytes = statement.query_row([], |row| row.get(0))?;
        Ok(Self { connection, total_bytes })
    }

    pub(super) fn connection(&self) -> &'a Connection {
        self.connection
    }

    /// Writes the total back at the end of a transaction.
    pub(super) fn save_total(&self) -> rusqlite::Result<()> {
        self.execute("UPDATE totals SET bytes = ?1", params![self.total_bytes]).map(drop)
    }

    /// Writes a record. Returns false if its entry would then take more than `max_entry_bytes`.
    pub(super) fn put(
        &mut self,
        key: Key,
        record: &EncodedRecord,
        used: i64,
        max_entry_bytes: i64,
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
        let size = i64::try_from(record.value.len() as u64 + ROW_OVERHEAD).unwrap_or(i64::MAX);
        // A record that becomes shorter is written even if its entry is too large, which a lower bound can cause.
        let more = size.saturating_sub(there.map_or(0, |(size, _)| size));
        if more > 0 && self.entry_size(key.entry)?.saturating_add(more) > max_entry_bytes {
            return Ok(false);
        }
        self.execute(
            "INSERT INTO entries (entry, used, size, records) VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT (entry) DO UPDATE SET used = max(used, excluded.used), size = size + excluded.size,
            records = records + excluded.records",
            params![key.entry, used, more, i64::from(there.is_none())],
        )?;
        self.total_bytes = self.total_bytes.saturating_add(more);
        let content = match there {
            // The row of `contents` may be missing if the file is damaged, so this inserts it where an update would not.
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

    /// Deletes records. Returns how many were there.
    pub(super) fn delete(&mut self, keys: &[Key]) -> rusqlite::Result<u64> {
        let mut deleted = Vec::new();
        for key in keys {
            deleted.extend(self.delete_rows(DELETE, params![key.entry, key.kind as u8, key.slot, key.part])?);
        }
        self.finish_deletion(deleted)
    }

    /// Deletes at most `limit` expired records of every kind, in the order of expiry. Returns how many.
    pub(super) fn delete_expired(&mut self, now: i64, limit: u32) -> rusqlite::Result<u64> {
        // Selected, then deleted one by one: for a list of keys of four columns SQLite would scan the whole table.
        let mut statement = self.connection.prepare_cached(
            "SELECT entry, kind, slot, part FROM records WHERE until <= ?1 ORDER BY until LIMIT ?2",
        )?;
        let row = |row: &rusqlite::Row<'_>| {
            // As plain values, since the rows include damaged ones and kinds that this version does not know.
            let column = |at| row.get::<_, Value>(at);
            Ok([column(0)?, column(1)?, column(2)?, column(3)?])
        };
        let mut keys =
            statement.query_map(params![now, limit], row)?.collect::<rusqlite::Result<Vec<_>>>()?;
        // In the order of the table, so that each page is visited once.
        keys.sort_unstable_by(|one, other| blob(&one[0]).cmp(blob(&other[0])));
        let mut deleted = Vec::with_capacity(keys.len());
        for key in &keys {
            deleted.extend(self.delete_rows(DELETE, params![key[0], key[1], key[2], key[3]])?);
        }
        self.finish_deletion(deleted)
    }

    /// Sets SQLite's `cache_size` pragma. Returns the value that it had.
    pub(super) fn set_cache_size(&self, size: i64) -> rusqlite::Result<i64> {
        let before = self.connection.pragma_query_value(None, "cache_size", |row| row.get(0))?;
        self.connection.pragma_update(None, "cache_size", size)?;
        Ok(before)
    }

    /// Deletes all records of an entry.
    pub(super) fn delete_entry(&mut self, entry: [u8; 16]) -> rusqlite::Result<()> {
        let sql = "DELETE FROM records WHERE entry = ?1 RETURNING entry, size, content";
        let deleted = self.delete_rows(sql, params![entry])?;
        self.finish_deletion(deleted)?;
        // `finish_deletion` leaves an entry whose number of records is wrong, as in a damaged file. It would stay the oldest
        // one for ever.
        self.execute("DELETE FROM entries WHERE entry = ?1", params![entry]).map(drop)
    }

    /// Deletes rows of `records`, including kinds that this version does not know.
    fn delete_rows(&self, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<Vec<DeletedRow>> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params, |row| {
            Ok(DeletedRow { entry: row.get(0).ok(), size: row.get(1)?, content: row.get(2)? })
        })?;
        rows.collect()
    }

    /// Deletes the contents of deleted rows and subtracts their sizes. Returns how many rows there were.
    fn finish_deletion(&mut self, mut deleted: Vec<DeletedRow>) -> rusqlite::Result<u64> {
        // In the order of the table, so that each page is visited once.
        deleted.sort_unstable_by_key(|row| row.content);
        // How many bytes and records each entry has lost, so that its row is updated once.
        let mut lost: BTreeMap<[u8; 16], (i64, i64)> = BTreeMap::new();
        for DeletedRow { entry, size, content } in &deleted {
            self.execute("DELETE FROM contents WHERE id = ?1", params![content])?;
            let Some(entry) = *entry else { continue };
            let (bytes, records) = lost.entry(entry).or_default();
            *bytes = bytes.saturating_add(*size);
            *records += 1;
        }
        for (entry, (bytes, records)) in lost {
            self.execute(
                "UPDATE entries SET size = size - ?2, records = records - ?3 WHERE entry = ?1",
                params![entry, bytes, records],
            )?;
            self.execute("DELETE FROM entries WHERE entry = ?1 AND records <= 0", params![entry])?;
            self.total_bytes = self.total_bytes.saturating_sub(bytes);
        }
        Ok(deleted.len() as u64)
    }

    /// Moves the expiry of records. Returns how many were there.
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
            let moved = queries::encode_time(retain.apply(queries::decode_time(until)));
            if moved != until {
                self.execute(
                    "UPDATE records SET until = ?5 WHERE entry = ?1 AND kind = ?2 AND slot = ?3 AND part = ?4",
                    params![key.entry, key.kind as u8, key.slot, key.part, moved],
                )?;
            }
        }
        Ok(there)
    }

    /// Deletes all records.
    pub(super) fn clear(&mut self) -> rusqlite::Result<()> {
        self.connection.execute_batch("DELETE FROM contents; DELETE FROM records; DELETE FROM entries;")?;
        self.total_bytes = 0;
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

/// Returns the bytes of a blob, or no bytes for another type, as in a damaged row.
fn blob(column: &Value) -> &[u8] {
    match column {
        Value::Blob(bytes) => bytes,
        _ => &[],
    }
}
