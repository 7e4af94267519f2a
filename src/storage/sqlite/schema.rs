//! Whether a file is ours, before anything is changed.
//!
//! Promises: nothing is written; a file that is refused is the same afterwards, byte for byte.

use rusqlite::{Connection, ErrorCode};

use super::location::Location;
use crate::error::{Error, ErrorKind, Result};

/// "TwRC".
pub(super) const APPLICATION_ID: i32 = 0x5477_5243;
/// The version of the tables, which is their `user_version`.
pub(super) const VERSION: i32 = 1;
/// Up to this length a file is checked whole.
const CHECKED_WHOLE: i64 = 64 << 20;

const TABLES: [&str; 4] = ["contents", "entries", "records", "totals"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// No file, or an empty database: ours to make.
    Nothing,
    Ours,
}

/// Why a file cannot be used.
pub(super) enum Refusal {
    Sqlite(rusqlite::Error),
    Foreign,
    Newer,
    Damaged,
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::Foreign,
            Some(ErrorCode::DatabaseCorrupt) => Self::Damaged,
            _ => Self::Sqlite(error),
        }
    }
}

impl Refusal {
    pub(super) fn at(self, location: &Location) -> Error {
        let (kind, what, source) = match self {
            Self::Foreign => (
                ErrorKind::Corrupt,
                "is not a cache of this crate: it is left as it is; name another file",
                None,
            ),
            Self::Newer => (
                ErrorKind::Config,
                "was made by a newer version of this crate: upgrade, or name another file",
                None,
            ),
            Self::Damaged => {
                (ErrorKind::Corrupt, "is damaged: it is left as it is; remove it, or name another file", None)
            }
            Self::Sqlite(error) if super::failure::is_busy(&error) => {
                (ErrorKind::Timeout, "is busy: others kept it for longer than the busy timeout", None)
            }
            Self::Sqlite(error) => (
                ErrorKind::Config,
                "cannot be opened: check the path, its permissions and the settings",
                Some(error),
            ),
        };
        let error = Error::new(kind, format!("{location}: {what}"));
        match source.filter(|_| !matches!(location, Location::Uri(_))) {
            Some(source) => error.with_source(source), // names the path; a URI could hold more
            None => error,
        }
    }
}

/// Looks at a file, without making or changing any.
pub(super) fn survey(location: &Location) -> Result<Found, Refusal> {
    let header = location.path().map(|_| Header::read(location));
    match header {
        Some(Header::Absent | Header::Empty) => return Ok(Found::Nothing),
        Some(Header::Foreign) => return Err(Refusal::Foreign),
        _ => {}
    }
    // As an immutable file it gets no files beside it. If others wrote it meanwhile, look again with locks.
    let before = location.at_rest();
    if let (Some(_), Some(immutable)) = (before, location.immutable()) {
        let found = look(&immutable, Location::open_read_only);
        if location.at_rest() == before && !matches!(found, Err(Refusal::Sqlite(_))) {
            return found;
        }
    }
    match look(location, Location::open_read_only) {
        Err(Refusal::Sqlite(error)) => match (error.sqlite_error_code(), header) {
            (Some(ErrorCode::CannotOpen), None) => Ok(Found::Nothing),
            // A transaction was cut short, and only a writer may finish it.
            (Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen), Some(Header::Ours)) => Ok(Found::Ours),
            _ => Err(Refusal::Sqlite(error)),
        },
        result => result,
    }
}

fn look(
    location: &Location,
    open: impl Fn(&Location) -> rusqlite::Result<Connection>,
) -> Result<Found, Refusal> {
    let connection = open(location)?;
    let found = inspect(&connection)?;
    if found == Found::Ours {
        check(&connection)?;
    }
    Ok(found)
}

/// Whose database this is.
pub(super) fn inspect(connection: &Connection) -> Result<Found, Refusal> {
    // One state of the file, while another process may be making it.
    let _reading = match connection.is_autocommit() {
        true => Some(connection.unchecked_transaction()?),
        false => None,
    };
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    if application != APPLICATION_ID {
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
        let is_empty = application == 0 && version == 0 && tables == 0;
        return if is_empty { Ok(Found::Nothing) } else { Err(Refusal::Foreign) };
    }
    match version {
        VERSION => Ok(Found::Ours),
        version if version > VERSION => Err(Refusal::Newer),
        _ => Err(Refusal::Damaged), // no version of this crate wrote it
    }
}

/// Whether our tables are there and whole.
fn check(connection: &Connection) -> Result<(), Refusal> {
    for table in TABLES {
        let is_there = connection.table_exists(None, table)?;
        if !is_there {
            return Err(Refusal::Damaged);
        }
        // Reads the table's first page.
        let mut statement = connection.prepare(&format!("SELECT * FROM {table} LIMIT 1"))?;
        statement.query([])?.next()?;
    }
    let totals: i64 = connection.query_row("SELECT count(*) FROM totals", [], |row| row.get(0))?;
    if totals != 1 {
        return Err(Refusal::Damaged);
    }
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    if pragma("page_count")?.saturating_mul(pragma("page_size")?) <= CHECKED_WHOLE {
        let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(Refusal::Damaged);
        }
    }
    Ok(())
}

/// Whose a file says it is, by its first page alone.
#[derive(Clone, Copy)]
enum Header {
    Absent,
    Empty,
    Ours,
    /// A database that does not say whose it is: our own, when its first transaction is in the log yet.
    Unknown,
    Foreign,
    Unreadable,
}

impl Header {
    /// Reads it as SQLite reads an immutable file, which makes no files beside it. Not as a plain file: closing one
    /// would end the locks that this process has on it through other connections.
    fn read(location: &Location) -> Self {
        match location.path().map(std::fs::metadata) {
            Some(Ok(file)) if file.len() == 0 => return Self::Empty,
            Some(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => return Self::Absent,
            _ => {}
        }
        let Some(alone) = location.without_log() else { return Self::Unreadable };
        let id = alone.open_read_only().and_then(|connection| {
            connection.pragma_query_value(None, "application_id", |row| row.get::<_, i32>(0))
        });
        match id {
            Ok(APPLICATION_ID) => Self::Ours,
            Ok(0) => Self::Unknown,
            Ok(_) => Self::Foreign,
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => Self::Foreign,
            Err(_) => Self::Unreadable,
        }
    }
}
