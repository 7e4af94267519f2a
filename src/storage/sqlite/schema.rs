//! Recognizes, checks and creates the tables of a cache's file.
//!
//! # Invariants
//!
//! - Examining a file writes nothing. A file that is refused is the same afterwards, byte for byte.
//! - The tables are created in one transaction, so a process that is killed leaves the file as it was.
//! - If several processes open a new file at once, one of them creates the tables.

use std::time::Duration;

use rusqlite::{Connection, ErrorCode};

use super::error::{is_busy, retry_while_busy};
use super::location::Location;
use crate::error::{Error, ErrorKind, Result};

/// The `application_id` of a cache's file, "TwRC".
const APPLICATION_ID: i32 = 0x5477_5243;
/// The `user_version` of a cache's file, which is the version of its tables.
pub(super) const VERSION: i32 = 1;
/// The length in bytes up to which a file is checked completely. Reading that much takes a fraction of a second, and opening
/// must not take longer because the cache is large.
const MAX_FULL_CHECK: i64 = 64 << 20;

const TABLES: [&str; 4] = ["contents", "entries", "records", "totals"];

const CREATE_TABLES: &str = "
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

/// The content of a usable file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contents {
    /// No file, or a database without tables. The tables may be created.
    Nothing,
    /// The tables of a cache.
    Cache,
}

/// The reason why a file cannot be used.
pub(super) enum Unusable {
    Sqlite(rusqlite::Error),
    /// It is not a cache of this crate.
    Foreign,
    /// A newer version of this crate has made it.
    NewerLayout,
    Damaged,
}

impl From<rusqlite::Error> for Unusable {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::Foreign,
            Some(ErrorCode::DatabaseCorrupt) => Self::Damaged,
            _ => Self::Sqlite(error),
        }
    }
}

impl Unusable {
    /// Returns the error for the caller.
    pub(super) fn into_error(self, location: &Location) -> Error {
        let (kind, what, source) = match self {
            Self::Foreign => (
                ErrorKind::Corrupt,
                "is not a cache of this crate, and is left unchanged: use another file",
                None,
            ),
            Self::NewerLayout => (
                ErrorKind::Config,
                "was made by a newer version of this crate: upgrade this program, or use another file",
                None,
            ),
            Self::Damaged => (
                ErrorKind::Corrupt,
                "is damaged, and is left unchanged: remove it, or use another file",
                None,
            ),
            // Without the source, which says that the database is locked.
            Self::Sqlite(error) if is_busy(&error) => (
                ErrorKind::Timeout,
                "is busy: other connections kept it for longer than the busy timeout",
                None,
            ),
            Self::Sqlite(error) => (
                ErrorKind::Config,
                "cannot be opened: check the path, its permissions and the settings",
                Some(error),
            ),
        };
        let error = Error::new(kind, format!("{location}: {what}"));
        // SQLite's message repeats the location, and a URI's parameters may be secret.
        match source.filter(|_| !matches!(location, Location::Uri(_))) {
            Some(source) => error.with_source(source),
            None => error,
        }
    }
}

/// Determines whether a file can be used, without creating or changing any file.
pub(super) fn examine(location: &Location) -> Result<Contents, Unusable> {
    let header = location.path().map(|_| Header::read(location));
    match header {
        Some(Header::Missing | Header::Empty) => return Ok(Contents::Nothing),
        Some(Header::Foreign) => return Err(Unusable::Foreign),
        _ => {}
    }
    // A connection to an immutable file creates no WAL and no shared memory file next to it. But it takes no locks either,
    // so its result only counts if no other connection has changed the file meanwhile.
    let before = location.idle_state();
    if let (Some(_), Some(immutable)) = (before, location.as_immutable()) {
        let found = examine_database(&immutable);
        if location.idle_state() == before && !matches!(found, Err(Unusable::Sqlite(_))) {
            return found;
        }
    }
    match examine_database(location) {
        Err(Unusable::Sqlite(error)) => match (error.sqlite_error_code(), header) {
            (Some(ErrorCode::CannotOpen), None) => Ok(Contents::Nothing),
            // A process died within a transaction, which only a connection that may write can roll back. Opening does.
            (Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen), Some(Header::Cache)) => Ok(Contents::Cache),
            _ => Err(Unusable::Sqlite(error)),
        },
        result => result,
    }
}

fn examine_database(location: &Location) -> Result<Contents, Unusable> {
    let connection = location.open_read_only()?;
    let found = detect(&connection)?;
    if found == Contents::Cache {
        check_tables(&connection)?;
    }
    Ok(found)
}

/// Determines what a database contains, by its `application_id` and `user_version`.
pub(super) fn detect(connection: &Connection) -> Result<Contents, Unusable> {
    // Another process may be creating the tables: all statements must see the same state. Within a transaction they do.
    let _transaction = match connection.is_autocommit() {
        true => Some(connection.unchecked_transaction()?),
        false => None,
    };
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    if application != APPLICATION_ID {
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
        let is_empty = application == 0 && version == 0 && tables == 0;
        return if is_empty { Ok(Contents::Nothing) } else { Err(Unusable::Foreign) };
    }
    match version {
        VERSION => Ok(Contents::Cache),
        version if version > VERSION => Err(Unusable::NewerLayout),
        // No version of this crate has written it.
        _ => Err(Unusable::Damaged),
    }
}

/// Returns an error if the tables are not there, or are damaged.
fn check_tables(connection: &Connection) -> Result<(), Unusable> {
    for table in TABLES {
        let is_there = connection.table_exists(None, table)?;
        if !is_there {
            return Err(Unusable::Damaged);
        }
        // Reads the first page of the table.
        let mut statement = connection.prepare(&format!("SELECT * FROM {table} LIMIT 1"))?;
        statement.query([])?.next()?;
    }
    let totals: i64 = connection.query_row("SELECT count(*) FROM totals", [], |row| row.get(0))?;
    if totals != 1 {
        return Err(Unusable::Damaged);
    }
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    if pragma("page_count")?.saturating_mul(pragma("page_size")?) <= MAX_FULL_CHECK {
        let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(Unusable::Damaged);
        }
    }
    Ok(())
}

/// The description of a file in its first page.
#[derive(Clone, Copy)]
enum Header {
    Missing,
    Empty,
    Cache,
    /// A database without an `application_id`. It may be a cache whose first transaction is still in the WAL.
    Unknown,
    Foreign,
    Unreadable,
}

impl Header {
    /// Reads the first page through a connection to an immutable file.
    ///
    /// Such a connection creates no files. The page is not read from a plain file, since closing that would end all POSIX
    /// locks of this process on it, including those that SQLite holds through other connections.
    fn read(location: &Location) -> Self {
        match location.path().map(std::fs::metadata) {
            Some(Ok(file)) if file.len() == 0 => return Self::Empty,
            Some(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => return Self::Missing,
            _ => {}
        }
        let Some(immutable) = location.as_immutable_without_wal() else { return Self::Unreadable };
        let id = immutable.open_read_only().and_then(|connection| {
            connection.pragma_query_value(None, "application_id", |row| row.get::<_, i32>(0))
        });
        match id {
            Ok(APPLICATION_ID) => Self::Cache,
            Ok(0) => Self::Unknown,
            Ok(_) => Self::Foreign,
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => Self::Foreign,
            Err(_) => Self::Unreadable,
        }
    }
}

/// Creates the tables, unless they exist.
pub(super) fn create_tables(connection: &Connection, busy_timeout: Duration) -> Result<(), Unusable> {
    retry_while_busy(busy_timeout, || connection.execute_batch("BEGIN IMMEDIATE"))?;
    // Detected again under the write lock: another process may have created them while this one waited for it.
    let created = detect(connection).and_then(|found| {
        if found == Contents::Cache {
            return Ok(());
        }
        connection.execute_batch(CREATE_TABLES)?;
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
        Ok(connection.pragma_update(None, "user_version", VERSION)?)
    });
    match created {
        Ok(()) => Ok(retry_while_busy(busy_timeout, || connection.execute_batch("COMMIT"))?),
        Err(unusable) => {
            // After some errors, such as a full disk, SQLite has rolled the transaction back already.
            if !connection.is_autocommit() {
                connection.execute_batch("ROLLBACK")?;
            }
            Err(unusable)
        }
    }
}
