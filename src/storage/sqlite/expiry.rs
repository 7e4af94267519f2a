//! Removing what has expired where little is left: what is live is taken out, and everything else goes at once.
//!
//! The rows of expired records are spread over most pages of five trees, and each transaction that removes some of them writes
//! most of those pages again. Emptying the tables writes none: a million records go in a second.
//!
//! Promises: what is live is the same afterwards, row by row; it is done where that fits into one transaction that others can wait
//! for, and not begun elsewhere.

use std::collections::BTreeMap;

use rusqlite::types::Value;
use rusqlite::{OptionalExtension, Row, params};

use super::table::Table;

/// So many live rows are put back in about a quarter of a second.
const MOST_LIVE: i64 = 20_000;
const MOST_LIVE_BYTES: i64 = 32 << 20;
/// Where fewer have expired they go one by one.
const FEWEST_EXPIRED: i64 = 20_000;

/// A row of `records` and its content.
struct Live {
    record: [Value; 8],
    content: Option<Value>,
}

impl Live {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        let column = |at| row.get::<_, Value>(at);
        let record =
            [column(0)?, column(1)?, column(2)?, column(3)?, column(4)?, column(5)?, column(6)?, column(7)?];
        Ok(Self { record, content: row.get(8)? })
    }
}

/// Removes everything that has expired, if that is much and little is live; says how many records.
pub(super) fn keep_live(table: &mut Table<'_>, now: i64) -> rusqlite::Result<u64> {
    let connection = table.connection();
    let count = |sql: &str, most: i64| -> rusqlite::Result<i64> {
        connection.prepare_cached(sql)?.query_row(params![now, most], |row| row.get(0))
    };
    let live = "SELECT count(*) FROM (SELECT 1 FROM records WHERE until > ?1 LIMIT ?2)";
    let expired = "SELECT count(*) FROM (SELECT 1 FROM records WHERE until <= ?1 LIMIT ?2)";
    let live = count(live, MOST_LIVE + 1)?;
    if live > MOST_LIVE
        || count(expired, FEWEST_EXPIRED.max(live.saturating_mul(2)))? < FEWEST_EXPIRED.max(live)
    {
        return Ok(0);
    }
    let bytes = "SELECT coalesce(sum(size), 0) FROM (SELECT size FROM records WHERE until > ?1 LIMIT ?2)";
    if count(bytes, MOST_LIVE)? > MOST_LIVE_BYTES {
        return Ok(0);
    }
    let expired = count(expired, i64::MAX)?;
    let rows = "SELECT r.entry, r.kind, r.slot, r.part, r.stamp, r.until, r.size, r.content, c.value
        FROM records r LEFT JOIN contents c ON c.id = r.content WHERE r.until > ?1";
    let mut rows = connection.prepare_cached(rows)?;
    let live = rows.query_map([now], Live::of)?.collect::<rusqlite::Result<Vec<_>>>()?;
    // Each entry with its last use, its size and the number of its records.
    let mut entries: BTreeMap<Vec<u8>, (i64, i64, i64)> = BTreeMap::new();
    for Live { record, .. } in &live {
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
    table.clear()?;
    for Live { record, content } in &live {
        table.execute(
            "INSERT INTO records (entry, kind, slot, part, stamp, until, size, content)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            rusqlite::params_from_iter(record),
        )?;
        if let Some(content) = content {
            table.execute("INSERT INTO contents (id, value) VALUES (?1, ?2)", params![record[7], content])?;
        }
    }
    for (entry, (used, size, records)) in &entries {
        table.execute(
            "INSERT INTO entries (entry, used, size, records) VALUES (?1, ?2, ?3, ?4)",
            params![entry, used, size, records],
        )?;
        table.total = table.total.saturating_add(*size);
    }
    Ok(expired.unsigned_abs())
}
