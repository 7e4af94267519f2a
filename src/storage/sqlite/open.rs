//! Opens connections, after making sure that the file is ours.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rusqlite::{Connection, MAIN_DB, OpenFlags, TransactionBehavior};

use super::builder::{Name, SqliteStorageBuilder};
use super::failure::failed;
use crate::error::{Error, ErrorKind, Result};

/// "TRC1".
const APPLICATION_ID: i32 = 0x5452_4331;
const LAYOUT: i32 = 1;

const SCHEMA: &str = "
CREATE TABLE records (
    entry BLOB NOT NULL, kind INTEGER NOT NULL, slot BLOB NOT NULL, part INTEGER NOT NULL,
    stamp BLOB NOT NULL, until INTEGER NOT NULL, size INTEGER NOT NULL, value BLOB NOT NULL
);
CREATE UNIQUE INDEX records_key ON records (entry, kind, slot, part);
CREATE INDEX records_until ON records (until);
CREATE TABLE entries (entry BLOB PRIMARY KEY NOT NULL, bytes INTEGER NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX entries_used ON entries (used);
CREATE TABLE total (id INTEGER PRIMARY KEY CHECK (id = 1), bytes INTEGER NOT NULL);
INSERT INTO total VALUES (1, 0);
CREATE TRIGGER records_insert AFTER INSERT ON records BEGIN
    INSERT INTO entries VALUES (new.entry, new.size, 0) ON CONFLICT DO UPDATE SET bytes = bytes + new.size;
    UPDATE total SET bytes = bytes + new.size;
END;
CREATE TRIGGER records_update AFTER UPDATE OF size ON records WHEN new.size <> old.size BEGIN
    UPDATE entries SET bytes = bytes + new.size - old.size WHERE entry = new.entry;
    UPDATE total SET bytes = bytes + new.size - old.size;
END;
CREATE TRIGGER records_delete AFTER DELETE ON records BEGIN
    UPDATE entries SET bytes = bytes - old.size WHERE entry = old.entry;
    DELETE FROM entries WHERE entry = old.entry AND bytes <= 0;
    UPDATE total SET bytes = bytes - old.size;
END;";

/// The connection that writes, ready for use, and whether it can.
pub(super) fn open_writer(builder: &mut SqliteStorageBuilder, name: &Name) -> Result<(Connection, bool)> {
    let given = builder.connection.take();
    let own = given.is_none();
    let mut connection = match given {
        Some(connection) => connection,
        None => {
            if let Name::File(path) = name {
                check_header(path)?;
            }
            connect(builder, name)?
        }
    };
    let read_only = connection.is_readonly(MAIN_DB).map_err(failed)?;
    adopt_or_create(&mut connection, read_only)?;
    if own && !read_only {
        // Only now that it is ours: the journal mode is written into the file.
        let _: String =
            connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(failed)?;
        connection.execute_batch("PRAGMA synchronous = NORMAL").map_err(failed)?;
    }
    set_pragmas(&connection, &builder.pragmas)?;
    Ok((connection, read_only))
}

/// A connection that reads.
pub(super) fn open_reader(builder: &SqliteStorageBuilder, name: &Name) -> Result<Connection> {
    let connection = connect(builder, name)?;
    set_pragmas(&connection, &builder.pragmas)?;
    Ok(connection)
}

fn connect(builder: &SqliteStorageBuilder, name: &Name) -> Result<Connection> {
    let open = |flags| Connection::open_with_flags(name.path(), flags);
    let read_only = |flags: OpenFlags| {
        let others = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        (flags - others) | OpenFlags::SQLITE_OPEN_READ_ONLY
    };
    let connection = open(builder.flags).or_else(|error| {
        // A file that may not be written is read.
        if name.path().exists() { open(read_only(builder.flags)).map_err(|_| error) } else { Err(error) }
    });
    let connection = connection.map_err(|error| {
        Error::new(
            ErrorKind::Unavailable,
            "the SQLite file cannot be opened or made: is its folder writable?",
        )
        .with_source(error)
    })?;
    connection.busy_timeout(builder.busy_timeout).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

fn set_pragmas(connection: &Connection, pragmas: &[(String, String)]) -> Result<()> {
    for (name, value) in pragmas {
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(Error::new(
                ErrorKind::Config,
                "the name of a pragma is letters, digits and underscores",
            ));
        }
        connection
            .pragma_update(None, name, value.as_str())
            .map_err(|error| Error::new(ErrorKind::Config, "a pragma could not be set").with_source(error))?;
    }
    Ok(())
}

/// Looks at the file's first bytes before SQLite does: opening another program's database could already change it.
fn check_header(path: &Path) -> Result<()> {
    let mut header = Vec::with_capacity(100);
    let Ok(file) = File::open(path) else { return Ok(()) }; // missing, or SQLite says why it cannot be opened
    if file.take(100).read_to_end(&mut header).is_err() || header.is_empty() {
        return Ok(());
    }
    if !header.starts_with(b"SQLite format 3\0") || header.len() < 100 {
        return Err(Error::new(ErrorKind::Corrupt, "the file is not a SQLite database: choose another path"));
    }
    let number =
        |at: usize| header.get(at..at + 4).and_then(|bytes| Some(i32::from_be_bytes(bytes.try_into().ok()?)));
    // A file that SQLite made and nobody has used yet has a schema of version 0.
    let (unused, id, layout) = (number(40) == Some(0), number(68), number(60));
    if !unused && id != Some(APPLICATION_ID) {
        return Err(foreign());
    }
    if layout > Some(LAYOUT) {
        return Err(later());
    }
    Ok(())
}

fn foreign() -> Error {
    Error::new(ErrorKind::Config, "the file is another program's database: choose another path")
}

fn later() -> Error {
    Error::new(
        ErrorKind::Corrupt,
        "the file was made by a later version of this crate: update, or choose another path",
    )
}

/// Makes the tables in an empty database; refuses one that is not ours.
fn adopt_or_create(connection: &mut Connection, read_only: bool) -> Result<()> {
    let check = |connection: &Connection| -> Result<bool> {
        let number = |pragma| connection.query_row(pragma, [], |row| row.get::<_, i32>(0)).map_err(failed);
        let tables = number("SELECT count(*) FROM sqlite_master")?;
        let (id, layout) = (number("PRAGMA application_id")?, number("PRAGMA user_version")?);
        match (tables, id) {
            (0, _) => Ok(false),
            (_, APPLICATION_ID) if layout > LAYOUT => Err(later()),
            (_, APPLICATION_ID) => {
                let whole = connection.query_row("SELECT bytes FROM total", [], |row| row.get::<_, i64>(0));
                whole
                    .and_then(|_| connection.prepare("SELECT stamp, until, value FROM records").map(|_| true))
                    .map_err(|error| {
                        Error::new(
                            ErrorKind::Corrupt,
                            "the SQLite file is damaged: delete it, and the cache begins anew",
                        )
                        .with_source(error)
                    })
            }
            _ => Err(foreign()),
        }
    };
    if check(connection)? {
        return Ok(());
    }
    if read_only {
        return Err(Error::new(ErrorKind::Config, "the SQLite file is empty and cannot be written"));
    }
    // Takes effect in a database that has no tables yet.
    connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL").map_err(failed)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive).map_err(failed)?;
    if !check(&transaction)? {
        transaction.execute_batch(SCHEMA).map_err(failed)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
        transaction.pragma_update(None, "user_version", LAYOUT).map_err(failed)?;
    }
    transaction.commit().map_err(failed)
}
