//! Keeps the write-ahead log (WAL) short.
//!
//! SQLite merges the WAL by itself, but begins it anew only when no connection reads from it. If one always does, the WAL would
//! grow without a bound.
//!
//! # Invariants
//!
//! - Above [`TRUNCATE_ABOVE`], the WAL is truncated as soon as all readers pause together: within [`TRUNCATE_TIMEOUT`], or at
//!   the next try.
//! - Above [`REFUSE_ABOVE`], only small records are written until the WAL could be truncated.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::location::with_suffix;

/// The length in bytes above which the WAL is truncated. SQLite begins to merge it at half of that (`wal_autocheckpoint`).
pub(super) const TRUNCATE_ABOVE: i64 = 32 << 20;
/// The length in bytes above which long records are refused. A reader that never ends must not fill the disk.
const REFUSE_ABOVE: i64 = 256 << 20;
/// How long a truncation waits for readers. All writes wait as long.
pub(super) const TRUNCATE_TIMEOUT: Duration = Duration::from_millis(250);
/// The pause after a truncation that failed. Without it, every batch of writes would wait for the next one.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// Truncates the WAL of one connection when it is long.
#[derive(Default)]
pub(super) struct WalMonitor {
    failed_at: Option<Instant>,
}

impl WalMonitor {
    /// Truncates the WAL if it is long. Returns whether it is too long all the same.
    pub(super) fn keep_short(&mut self, connection: &Connection, busy_timeout: Duration) -> bool {
        let len = length(connection);
        if len <= TRUNCATE_ABOVE {
            self.failed_at = None;
            return false;
        }
        if self.failed_at.is_none_or(|failed_at| failed_at.elapsed() >= RETRY_INTERVAL) {
            self.failed_at = match truncate(connection, TRUNCATE_TIMEOUT.min(busy_timeout)) {
                Ok(true) => None,
                _ => Some(Instant::now()),
            };
        }
        self.failed_at.is_some() && len > REFUSE_ABOVE
    }

    /// Returns whether the last truncation failed.
    pub(super) fn is_stuck(&self) -> bool {
        self.failed_at.is_some()
    }
}

/// Merges the whole WAL into the file and truncates it. Returns false if readers were in the way for the whole timeout.
///
/// Afterwards the connection has no busy timeout of SQLite's own, as is right for the writer.
pub(super) fn truncate(connection: &Connection, timeout: Duration) -> rusqlite::Result<bool> {
    // Here SQLite itself waits: the checkpoint calls the busy handler until no reader needs the WAL any more
    // (sqlite3_wal_checkpoint_v2).
    connection.busy_timeout(timeout)?;
    let is_busy = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
    connection.busy_timeout(Duration::ZERO)?;
    Ok(is_busy? == 0)
}

/// Returns the length of the WAL in bytes, or 0 if there is none.
fn length(connection: &Connection) -> i64 {
    let path = connection.path().filter(|path| !path.is_empty());
    let wal: Option<PathBuf> = path.map(|path| with_suffix(path.as_ref(), "-wal"));
    wal.and_then(|wal| std::fs::metadata(wal).ok())
        .map_or(0, |wal| i64::try_from(wal.len()).unwrap_or(i64::MAX))
}
