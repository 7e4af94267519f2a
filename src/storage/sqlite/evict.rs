//! Keeps the store within its bound.

use rusqlite::{Connection, params};

use super::writer::now;

/// What a record counts for beside its bytes: its row and its place in the indexes.
pub(super) const OVERHEAD: usize = 160;

/// After eviction so much of the bound is used, in percent: not every write evicts.
const AFTERWARDS: u64 = 95;
/// So many pages are given back to the file system at once.
const PAGES: u32 = 256;

/// Removes what has expired, and then whole entries, those not used lately first, once the bound is passed.
pub(super) fn evict(connection: &Connection, max_bytes: u64) -> rusqlite::Result<()> {
    let total = || {
        let mut query = connection.prepare_cached("SELECT bytes FROM total")?;
        query.query_row([], |row| row.get::<_, i64>(0)).map(|bytes| u64::try_from(bytes).unwrap_or(0))
    };
    if total()? <= max_bytes {
        return Ok(());
    }
    let enough = max_bytes / 100 * AFTERWARDS;
    connection.prepare_cached("DELETE FROM records WHERE until <= ?1")?.execute([now()])?;
    while total()? > enough {
        let mut oldest = connection.prepare_cached("SELECT entry FROM entries ORDER BY used LIMIT 16")?;
        let oldest: Vec<[u8; 16]> =
            oldest.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        if oldest.is_empty() {
            break;
        }
        for entry in oldest {
            connection.prepare_cached("DELETE FROM records WHERE entry = ?1")?.execute(params![entry])?;
            if total()? <= enough {
                break;
            }
        }
    }
    let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
    let mut freed = vacuum.query([])?;
    while freed.next()?.is_some() {}
    Ok(())
}
