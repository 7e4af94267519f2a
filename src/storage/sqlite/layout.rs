//! The tables of a file.
//!
//! # Invariants
//! - A file is made in one transaction: a process that is killed leaves it as it was.
//! - Of several processes that open a new file at once, one makes the tables.

use std::time::Duration;

use rusqlite::Connection;

use super::failure::patiently;
use super::inspect::{APPLICATION_ID, Found, Refusal, VERSION, inspect};

const TABLES: &str = "
    CREATE TABLE records (
        entry BLOB NOT NULL, kind INTEGER NOT NULL, slot BLOB NOT NULL, part INTEGER NOT NULL,
        stamp BLOB NOT NULL, until INTEGER NOT NULL, size INTEGER NOT NULL, content INTEGER NOT NULL,
        PRIMARY KEY (entry, kind, slot, part)
    ) WITHOUT ROWID;
    CREATE INDEX records_until ON records (until);
    CREATE TABLE contents (id INTEGER PRIMARY KEY, value BLOB NOT NULL);
    CREATE TABLE entries (
        entry BLOB PRIMARY KEY, used INTEGER NOT NULL, size INTEGER NOT NULL, records INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX entries_used ON entries (used);
    CREATE TABLE totals (bytes INTEGER NOT NULL);
    INSERT INTO totals VALUES (0);";

/// Makes the tables, unless they are there.
pub(super) fn make(connection: &Connection, patience: Duration) -> Result<(), Refusal> {
    patiently(patience, || connection.execute_batch("BEGIN IMMEDIATE"))?;
    // Looked at again: another process may have made them before this one had its turn.
    let made = inspect(connection).and_then(|found| {
        if found == Found::Ours {
            return Ok(());
        }
        connection.execute_batch(TABLES)?;
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
        Ok(connection.pragma_update(None, "user_version", VERSION)?)
    });
    match made {
        Ok(()) => Ok(patiently(patience, || connection.execute_batch("COMMIT"))?),
        Err(refusal) => {
            // A full disk has undone it already.
            if !connection.is_autocommit() {
                connection.execute_batch("ROLLBACK")?;
            }
            Err(refusal)
        }
    }
}
