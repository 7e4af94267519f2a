//! Deletes expired records, in batches or by rebuilding the tables.
//!
//! The rows of expired records are spread over most pages of five B-trees (three tables and two indexes), and each batch
//! writes most of those pages again. If hardly anything else is stored, it is faster to empty the tables and to insert the
//! other records again: emptying a table writes none of its pages, so a million records are deleted in a second.
//!
//! # Invariants
//!
//! - Records that have not expired are the same afterwards, row by row.
//! - No transaction takes much longer than [`BATCH_TIME`], since all other writes wait for it.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{OptionalExtension, Row, params};

use super::tables::Tables;

/// How long one transaction should take. It is half of the cache's default deadline of an operation.
const BATCH_TIME: Duration = Duration::from_millis(250);
/// The bounds of a batch. An unusually slow or fast transaction must not lead to tiny or endless ones.
const MIN_BATCH: u32 = 1000;
const MAX_BATCH: u32 = 64_000;
/// SQLite's `cache_size` for a batch, 64 MiB. SQLite takes a negative number as KiB.
const BATCH_CACHE_SIZE: i64 = -(64 << 10);

/// The most live rows, and bytes, that are inserted again. That takes about [`BATCH_TIME`].
const MAX_LIVE: i64 = 20_000;
const MAX_LIVE_BYTES: i64 = 32 << 20;
/// The fewest expired records for which the tables are rebuilt. A batch deletes fewer about as fast.
const MIN_EXPIRED: i64 = 20_000;

/// The number of records in the next batch.
///
/// The larger a batch, the more of its records are on the same page, so it adapts to the speed of the disk.
pub(super) struct BatchSize(u32);

impl BatchSize {
    pub(super) fn new() -> Self {
        Self(MIN_BATCH)
    }

    pub(super) fn get(&self) -> u32 {
        self.0
    }

    /// Adapts to the time that the last batch took.
    pub(super) fn adapt(&mut self, elapsed: Duration) {
        if elapsed < BATCH_TIME / 2 {
            self.0 = (self.0 * 2).min(MAX_BATCH);
        } else if elapsed > BATCH_TIME {
            self.0 = (self.0 / 2).max(MIN_BATCH);
        }
    }
}

/// Deletes at most `limit` expired records. Returns how many.
pub(super) fn delete_batch(tables: &mut Tables<'_>, now: i64, limit: u32) -> rusqlite::Result<u64> {
    // With a smaller cache, SQLite would write a page that it needs again several times.
    let before = tables.set_cache_size(BATCH_CACHE_SIZE)?;
    let deleted = tables.delete_expired(now, limit);
    tables.set_cache_size(before)?;
    deleted
}

/// A row of `records` with its content.
struct LiveRow {
    record: [Value; 8],
    content: Option<Value>,
}

impl LiveRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let column = |at| row.get::<_, Value>(at);
        let record =
            [column(0)?, column(1)?, column(2)?, column(3)?, column(4)?, column(5)?, column(6)?, column(7)?];
        Ok(Self { record, content: row.get(8)? })
    }
}

/// Deletes all expired records by rebuilding the tables. Returns how many.
///
/// Does nothing and returns 0 unless many records have expired and few have not.
pub(super) fn rebuild_without_expired(tables: &mut Tables<'_>, now: i64) -> rusqlite::Result<u64> {
    let connection = tables.connection();
    // Each count stops at its limit, so that it does not scan a large table only to find that this is not the case.
    let count = |sql: &str, limit: i64| -> rusqlite::Result<i64> {
        connection.prepare_cached(sql)?.query_row(params![now, limit], |row| row.get(0))
    };
    let live = "SELECT count(*) FROM (SELECT 1 FROM records WHERE until > ?1 LIMIT ?2)";
    let expired = "SELECT count(*) FROM (SELECT 1 FROM records WHERE until <= ?1 LIMIT ?2)";
    let live = count(live, MAX_LIVE + 1)?;
    if live > MAX_LIVE || count(expired, MIN_EXPIRED.max(live.saturating_mul(2)))? < MIN_EXPIRED.max(live) {
        return Ok(0);
    }
    let bytes = "SELECT coalesce(sum(size), 0) FROM (SELECT size FROM records WHERE until > ?1 LIMIT ?2)";
    if count(bytes, MAX_LIVE)? > MAX_LIVE_BYTES {
        return Ok(0);
    }
    let expired = count(expired, i64::MAX)?;
    let rows = "SELECT r.entry, r.kind, r.slot, r.part, r.stamp, r.until, r.size, r.content, c.value
        FROM records r LEFT JOIN contents c ON c.id = r.content WHERE r.until > ?1";
    let mut rows = connection.prepare_cached(rows)?;
    let live = rows.query_map([now], LiveRow::read)?.collect::<rusqlite::Result<Vec<_>>>()?;
    // Each entry with its time of use, its size and the number of its records.
    let mut entries: BTreeMap<Vec<u8>, (i64, i64, i64)> = BTreeMap::new();
    for LiveRow { record, .. } in &live {
        // A damaged row is inserted again, but no sum contains it.
        let (Value::Blob(entry), Value::Integer(size)) = (&record[0], &record[6]) else { continue };
        if !entries.contains_key(entry) {
            let mut used = connection.prepare_cached("SELECT used FROM entries WHERE entry = ?1")?;
            let used = used.query_row([entry], |row| row.get(0)).optional()?;
            entries.insert(entry.clone(), (used.unwrap_or(0), 0, 0));
        }
        if let Some((_, bytes, records)) = entries.get_mut(entry) {
            *bytes = bytes.saturating_add(*size);
            *records += 1;
        }
    }
    tables.clear()?;
    for LiveRow { record, content } in &live {
        tables.execute(
            "INSERT INTO records (entry, kind, slot, part, stamp, until, size, content)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            rusqlite::params_from_iter(record),
        )?;
        if let Some(content) = content {
            tables
                .execute("INSERT INTO contents (id, value) VALUES (?1, ?2)", params![record[7], content])?;
        }
    }
    for (entry, (used, size, records)) in &entries {
        tables.execute(
            "INSERT INTO entries (entry, used, size, records) VALUES (?1, ?2, ?3, ?4)",
            params![entry, used, size, records],
        )?;
        tables.total_bytes = tables.total_bytes.saturating_add(*size);
    }
    Ok(expired.unsigned_abs())
}
