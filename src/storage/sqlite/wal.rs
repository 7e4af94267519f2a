//! Keeping the write-ahead log short.
//!
//! SQLite merges the log by itself, and begins it anew when nobody reads from it; where somebody always does, it would
//! grow for ever.
//!
//! Promises: beyond [`LONG`] the log is cut as soon as all readers pause together, within [`WAIT`] or at the next try; if
//! they never do, only what is small is written beyond [`TOO_LONG`].

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::location::beside;

/// In bytes. Merging begins at half of it, see the pragmas.
pub(super) const LONG: i64 = 32 << 20;
pub(super) const TOO_LONG: i64 = 256 << 20;
/// How long everybody's writes may wait for readers to let go of the log.
pub(super) const WAIT: Duration = Duration::from_millis(250);
/// After a try that failed.
const PAUSE: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct Log {
    failed: Option<Instant>,
}

impl Log {
    /// Cuts the log if it is long; says whether it is too long all the same.
    pub(super) fn keep_short(&mut self, connection: &Connection, patience: Duration) -> bool {
        let len = length(connection);
        if len <= LONG {
            self.failed = None;
            return false;
        }
        if self.failed.is_none_or(|failed| failed.elapsed() >= PAUSE) {
            self.failed = match cut(connection, WAIT.min(patience)) {
                Ok(true) => None,
                _ => Some(Instant::now()), // tried again later
            };
        }
        self.failed.is_some() && len > TOO_LONG
    }

    /// True when the last try to cut it failed.
    pub(super) fn is_stuck(&self) -> bool {
        self.failed.is_some()
    }
}

/// Merges the whole log and empties it; false when readers were in the way for so long. Leaves the connection without a
/// timeout of SQLite's own, as the writer's is.
pub(super) fn cut(connection: &Connection, wait: Duration) -> rusqlite::Result<bool> {
    connection.busy_timeout(wait)?;
    let is_busy = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
    connection.busy_timeout(Duration::ZERO)?;
    Ok(is_busy? == 0)
}

/// How long the log is now; 0 where there is none.
fn length(connection: &Connection) -> i64 {
    let path = connection.path().filter(|path| !path.is_empty());
    let log: Option<PathBuf> = path.map(|path| beside(path.as_ref(), "-wal"));
    log.and_then(|log| std::fs::metadata(log).ok())
        .map_or(0, |log| i64::try_from(log.len()).unwrap_or(i64::MAX))
}
