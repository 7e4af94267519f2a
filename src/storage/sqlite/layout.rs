//! The tables of a file, and the steps from older ones.
//!
//! Promises: a file is made, or brought to this version, in one transaction: whoever is killed leaves it as it was, and
//! of several processes that open it at once, one does the work.

use std::time::Duration;

use rusqlite::Connection;

use super::failure::patiently;
use super::inspect::{APPLICATION_ID, Found, Refusal, inspect};

/// Version 1. Version 0 is a file that carries our application id and has no tables.
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

/// What leads from each version to the next, the first from version 0. A change of the tables is one more step.
const STEPS: [&str; 1] = [TABLES];
/// The version of the tables, which is their `user_version`.
pub(super) const VERSION: i32 = STEPS.len() as i32;

/// Brings a file to this version, unless another process was first.
pub(super) fn upgrade(connection: &Connection, patience: Duration) -> Result<(), Refusal> {
    patiently(patience, || connection.execute_batch("BEGIN IMMEDIATE"))?;
    // Looked at again: another process may have done it before this one had its turn.
    let upgraded = inspect(connection).and_then(|found| {
        let from = match found {
            Found::Ours => return Ok(()),
            Found::Nothing => 0,
            Found::Older(version) => version,
        };
        for step in STEPS.iter().skip(from) {
            connection.execute_batch(step)?;
        }
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
        Ok(connection.pragma_update(None, "user_version", VERSION)?)
    });
    match upgraded {
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
