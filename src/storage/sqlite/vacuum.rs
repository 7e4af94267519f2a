//! Giving free space back to the disk.

use rusqlite::Connection;

/// How many pages one transaction gives back: it holds up all other writers.
const AT_ONCE: u32 = 1024;

/// A part of the work.
pub(super) struct Step {
    /// Bytes by which the database is shorter.
    pub(super) freed: u64,
    pub(super) is_last: bool,
}

/// Gives some pages back in a short transaction; a file that was not made for that is written anew, at once.
pub(super) fn step(connection: &Connection) -> rusqlite::Result<Step> {
    let pragma = |name: &str| {
        connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0).map(i64::unsigned_abs))
    };
    let page_size = pragma("page_size")?;
    if pragma("auto_vacuum")? == 0 {
        let before = pragma("page_count")?;
        connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; VACUUM")?;
        let freed = before.saturating_sub(pragma("page_count")?);
        return Ok(Step { freed: freed.saturating_mul(page_size), is_last: true });
    }
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let freed = pragma("page_count").and_then(|before| {
        connection.execute_batch(&format!("PRAGMA incremental_vacuum({AT_ONCE})"))?;
        let (after, free) = (pragma("page_count")?, pragma("freelist_count")?);
        connection.execute_batch("COMMIT")?;
        Ok((before.saturating_sub(after), free))
    });
    if freed.is_err() && !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK")?;
    }
    let (pages, free) = freed?;
    Ok(Step { freed: pages.saturating_mul(page_size), is_last: pages == 0 || free == 0 })
}
