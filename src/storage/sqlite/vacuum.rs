//! Returns the free pages of the file to the disk.
//!
//! # Invariants
//!
//! - Other connections can write between two short transactions, unless the file was created without `auto_vacuum`.

use rusqlite::Connection;

/// How many pages one transaction returns. All other writes wait for it, and SQLite finds each page in the list of all free
/// pages, which takes 100 µs in a file of a GiB.
const PAGES_PER_STEP: u32 = 256;
/// The most pages in use for which the whole file is rewritten. For so few, that is faster than returning free pages one by one.
const MAX_REWRITTEN_PAGES: u64 = 4096;

/// The result of one step.
pub(super) struct Step {
    /// How many bytes the database has become shorter.
    pub(super) freed: u64,
    pub(super) is_last: bool,
}

/// Returns some free pages to the disk, in a short transaction.
///
/// Returns all of them at once if few pages are in use, or if the file was created without `auto_vacuum`.
pub(super) fn step(connection: &Connection) -> rusqlite::Result<Step> {
    let pragma = |name: &str| {
        connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0).map(i64::unsigned_abs))
    };
    let (page_size, before, free) = (pragma("page_size")?, pragma("page_count")?, pragma("freelist_count")?);
    let has_steps = pragma("auto_vacuum")? != 0;
    let is_rewritten = before.saturating_sub(free) <= MAX_REWRITTEN_PAGES && free > u64::from(PAGES_PER_STEP);
    if !has_steps || is_rewritten {
        connection.execute_batch(match has_steps {
            true => "VACUUM",
            // The mode of a file changes when it is rewritten, so that later calls can go in steps.
            false => "PRAGMA auto_vacuum = INCREMENTAL; VACUUM",
        })?;
        let freed = before.saturating_sub(pragma("page_count")?);
        return Ok(Step { freed: freed.saturating_mul(page_size), is_last: true });
    }
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let freed = pragma("page_count").and_then(|before| {
        connection.execute_batch(&format!("PRAGMA incremental_vacuum({PAGES_PER_STEP})"))?;
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
