//! Making room within the bound.
//!
//! Promises: afterwards the total is at most the bound, or much is freed (after the bound was lowered; the next
//! transactions go on); what has expired goes before what has not, then entries go whole, the one used longest ago first,
//! uses noted in memory included, and those that are held last. A little more goes than must, so that the next write need not make room again.

use std::collections::HashSet;

use rusqlite::params;

use super::recency::Recency;
use super::rows;
use super::table::Table;
use crate::storage::holds::Holds;

/// How many entries one transaction evicts beyond need: it holds up all other writers.
const MOST_BEYOND_NEED: u64 = 256;
/// How many bytes are much for one transaction, unless it wrote as much itself.
const MUCH: i64 = 16 << 20;
const AT_ONCE: u32 = 64;

/// Evicts until the total, which was `before` when the transaction began, is within the bound, and on to 95 % of it; says
/// how many entries went.
pub(super) fn make_room(
    table: &mut Table<'_>,
    before: i64,
    bound: i64,
    recency: &Recency,
    holds: &Holds,
) -> rusqlite::Result<u64> {
    if table.total <= bound {
        return Ok(0);
    }
    let target = bound - bound / 20;
    let enough = table.total - MUCH.max((table.total - before).saturating_mul(2));
    // What never expires stays, whatever the clock says.
    let now = rows::until(recency.clock().now()).min(i64::MAX - 1);
    while table.total > target && table.total > enough && table.remove_expired(now, AT_ONCE)? > 0 {}
    let mut evicted = 0;
    let mut spared = HashSet::new();
    loop {
        let oldest = oldest(table)?;
        if oldest.is_empty() {
            return Ok(evicted);
        }
        for (entry, used) in oldest {
            let is_enough = table.total <= bound && evicted >= MOST_BEYOND_NEED;
            if table.total <= target || table.total <= enough || is_enough {
                return Ok(evicted);
            }
            match recency.since(entry, used) {
                Some(used) => set_used(table, entry, used)?,
                // It is in use at this moment. One that comes up again is the oldest of those alone that are.
                None if holds.has_entry(&entry) && spared.insert(entry) => {
                    set_used(table, entry, recency.tick())?;
                }
                None => {
                    table.remove_entry(entry)?;
                    evicted += 1;
                }
            }
        }
    }
}

/// Writes down when entries were used.
pub(super) fn set_used(table: &Table<'_>, entry: [u8; 16], used: i64) -> rusqlite::Result<()> {
    table
        .execute("UPDATE entries SET used = ?2 WHERE entry = ?1 AND used < ?2", params![entry, used])
        .map(drop)
}

fn oldest(table: &Table<'_>) -> rusqlite::Result<Vec<([u8; 16], i64)>> {
    let connection = table.connection();
    let mut statement =
        connection.prepare_cached("SELECT entry, used FROM entries ORDER BY used LIMIT ?1")?;
    let rows = statement.query_map([AT_ONCE], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}
