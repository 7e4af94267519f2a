//! Giving free space back to the disk.
//!
//! Promises: no transaction takes long, unless the file was not made for that: others write between two of them.

use rusqlite::Connection;

/// How many pages one transaction gives back: it holds up all other writers. SQLite looks for each in the list of all free pages,
/// which takes 100 µs in a file of a GiB.
const AT_ONCE: u32 = 256;
/// A file with so few pages in use is written anew in less time than its free pages are given back one by one.
const FEW: u64 = 4096;

/// A part of the work.
pub(super) struct Step {
    /// Bytes by which the database is shorter.
    pub(super) freed: u64,
    pub(super) is_last: bool,
}

/// Gives some pages back in a short transaction; all at once where little is in use, or where the file was not made for that.
pub(super) fn step(connection: &Connection) -> rusqlite::Result<Step> {
    let pragma = |name: &str| {
        connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0).map(i64::unsigned_abs))
    };
    let (page_size, before, free) = (pragma("page_size")?, pragma("page_count")?, pragma("freelist_count")?);
    let has_steps = pragma("auto_vacuum")? != 0;
    if !has_steps || (before.saturating_sub(free) <= FEW && free > u64::from(AT_ONCE)) {
        connection.execute_batch(match has_steps {
            true => "VACUUM",
            false => "PRAGMA auto_vacuum = INCREMENTAL; VACUUM",
        })?;
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
