//! Opens a cache's file, and creates it if it does not exist.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::error::retry_while_busy;
use super::location::{FileId, Location};
use super::recovery::{Recovery, lock_directory, set_aside};
use super::schema::{Contents, Unusable, create_tables, detect, examine};
use super::wal::TRUNCATE_ABOVE;
use crate::error::{Error, ErrorKind, Result};

/// How many statements a connection keeps prepared. There are fewer, so none is ever prepared twice.
const STATEMENTS: usize = 64;
/// How many pages the WAL holds before SQLite merges them. Compared with SQLite's default of 1000, measured throughput of
/// writes is 1.2 times (128 KiB) to 1.4 times (1 KiB) as high.
const CHECKPOINT_PAGES: i64 = 4000;
/// Pragmas that have no effect once a database has its first page.
const CREATION_PRAGMAS: [&str; 3] = ["page_size", "auto_vacuum", "encoding"];

/// How the connections of a storage are opened.
#[derive(Clone)]
pub(super) struct OpenOptions {
    pub(super) location: Location,
    pub(super) flags: OpenFlags,
    pub(super) busy_timeout: Duration,
    pub(super) pragmas: Vec<(String, String)>,
    pub(super) recovery: Recovery,
    /// How many connections read on threads.
    pub(super) readers: usize,
    /// How many connections read in the calling task.
    pub(super) in_task_readers: usize,
}

/// The open connections of a storage.
pub(super) struct Opened {
    pub(super) writer: Connection,
    pub(super) readers: Vec<Connection>,
    pub(super) in_task_readers: Vec<Connection>,
    pub(super) read_only: bool,
    /// How to open a connection anew.
    pub(super) options: OpenOptions,
    /// The path of the file, to detect that it is replaced. `None` if the database has no path.
    pub(super) path: Option<PathBuf>,
}

impl OpenOptions {
    /// Opens all connections. Creates the file if it does not exist.
    pub(super) fn open(mut self) -> Result<Opened> {
        self.location = self.location.absolute();
        // As it is now: opening a file that is read-only changes the location and the flags of `self`.
        let options = self.clone();
        let is_single = self.location.needs_single_connection(self.flags);
        if !is_single {
            self.examine()?;
        }
        let (writer, read_only) = self.open_writer()?;
        let file = writer.path().filter(|path| !is_single && !path.is_empty()).map(PathBuf::from);
        let count = |wanted| if file.is_some() { wanted } else { 0 };
        let readers =
            (0..count(self.readers)).map(|_| self.open_reader(self.busy_timeout)).collect::<Result<_>>()?;
        // A task must not sleep while the database is busy: then a thread reads instead.
        let in_task_readers = (0..count(self.in_task_readers))
            .map(|_| self.open_reader(Duration::ZERO))
            .collect::<Result<_>>()?;
        let path = options.location.path().map(PathBuf::from).or(file.clone()).filter(|_| file.is_some());
        Ok(Opened { writer, readers, in_task_readers, read_only, options, path })
    }

    /// Returns whether a file that cannot be used may be set aside.
    ///
    /// A file that its user has made read-only stays where it is.
    pub(super) fn may_set_aside(&self, unusable: &Unusable) -> bool {
        let is_writable = |path| std::fs::metadata(path).is_ok_and(|file| !file.permissions().readonly());
        self.flags.contains(OpenFlags::SQLITE_OPEN_CREATE)
            && self.recovery.covers(unusable)
            && self.location.path().is_some_and(is_writable)
    }

    /// Examines the file without changing it. Sets an unusable file aside if the settings say so.
    pub(super) fn examine(&self) -> Result<()> {
        let path = self.location.path();
        // Identified before it is examined, so that only the examined file is set aside.
        let seen = path.map(FileId::at);
        match (examine(&self.location), path.zip(seen)) {
            (Ok(_), _) => Ok(()),
            (Err(unusable), Some((path, seen))) if self.may_set_aside(&unusable) => {
                let aside = set_aside(path, seen)
                    .map_err(|error| unusable.into_error(&self.location).with_source(error))?;
                match aside {
                    Some(aside) => tracing::error!(
                        aside = %aside.display(),
                        "the cache's file cannot be used: it is set aside, and a new one is made"
                    ),
                    // Another process was first, so the file at the path is a new one.
                    None => examine(&self.location)
                        .map(drop)
                        .map_err(|unusable| unusable.into_error(&self.location))?,
                }
                Ok(())
            }
            (Err(unusable), _) => Err(unusable.into_error(&self.location)),
        }
    }

    /// Opens the connection that writes. Creates the file and its tables if they do not exist.
    ///
    /// Returns the connection, and whether the file is read-only.
    pub(super) fn open_writer(&mut self) -> Result<(Connection, bool)> {
        if self.flags.contains(OpenFlags::SQLITE_OPEN_CREATE) {
            self.location.create_parent_directories()?;
            // Otherwise another process that sets the old file aside could move the WAL of the new one. The wait is bounded:
            // without the lock, the file is created all the same.
            let _lock = self.location.path().map(lock_directory);
            self.location.create_private_file();
        }
        let writer = self.connect_writer()?;
        let read_only = self.configure_writer(&writer, true)?;
        Ok((writer, read_only))
    }

    /// Takes a connection that the program has opened, for reads and writes.
    pub(super) fn adopt(mut self, writer: Connection) -> Result<Opened> {
        if let Some(path) = writer.path().filter(|path| !path.is_empty()) {
            self.location = Location::Path(path.into());
        }
        if !writer.is_autocommit() {
            return Err(Error::new(
                ErrorKind::Config,
                "the connection has an open transaction: end it first",
            ));
        }
        detect(&writer).map_err(|unusable| unusable.into_error(&self.location))?;
        let read_only = self.configure_writer(&writer, false)?;
        let (readers, in_task_readers) = (Vec::new(), Vec::new());
        Ok(Opened { writer, readers, in_task_readers, read_only, options: self, path: None })
    }

    fn connect_writer(&mut self) -> Result<Connection> {
        let opened = self.location.open(self.flags).map_err(Unusable::from).and_then(|connection| {
            connection.busy_timeout(self.busy_timeout)?;
            // SQLite opens a file only when a statement needs it.
            retry_while_busy(self.busy_timeout, || {
                connection.query_row("PRAGMA schema_version", [], |_| Ok(()))
            })?;
            Ok(connection)
        });
        match opened {
            Ok(connection) => Ok(connection),
            // In a read-only directory, SQLite cannot create the shared memory file, which it needs even for reading. An
            // immutable file is read without it.
            Err(unusable) => match self.location.as_immutable() {
                Some(immutable) if self.location.path().is_some_and(Path::is_file) => {
                    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                    let connection =
                        immutable.open(flags).map_err(|_| unusable.into_error(&self.location))?;
                    (self.location, self.flags) = (immutable, flags);
                    Ok(connection)
                }
                _ => Err(unusable.into_error(&self.location)),
            },
        }
    }

    /// Sets the pragmas of the writer and creates the tables. Returns whether the file is read-only.
    ///
    /// `is_own` is false for a connection that the program has opened, which gets only the program's pragmas.
    fn configure_writer(&self, writer: &Connection, is_own: bool) -> Result<bool> {
        let refused = |unusable: Unusable| unusable.into_error(&self.location);
        writer.set_prepared_statement_cache_capacity(STATEMENTS);
        writer.busy_timeout(self.busy_timeout).map_err(|error| refused(error.into()))?;
        let found = detect_while_busy(writer, self.busy_timeout).map_err(refused)?;
        let read_only = writer.is_readonly("main").map_err(|error| refused(error.into()))?;
        if read_only {
            if found == Contents::Nothing {
                let message =
                    format!("{}: is empty and cannot be written, so nothing could be served", self.location);
                return Err(Error::new(ErrorKind::Config, message));
            }
            self.apply_pragmas(writer, |_| true)?;
            return Ok(true);
        }
        self.apply_pragmas(writer, |name| CREATION_PRAGMAS.contains(&name))?;
        let apply_own = || {
            if !self.has_pragma("auto_vacuum") {
                // Allows `vacuum` to return free pages in small steps. A file that has pages already keeps its mode.
                writer.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
            }
            if !self.has_pragma("journal_mode") {
                // This fails while another connection is opening the file, and SQLite does not wait for it here.
                retry_while_busy(self.busy_timeout, || writer.pragma_update(None, "journal_mode", "WAL"))?;
            }
            writer.pragma_update(None, "synchronous", "NORMAL")?;
            writer.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
            writer.pragma_update(None, "journal_size_limit", TRUNCATE_ABOVE)
        };
        if is_own {
            apply_own().map_err(|error| refused(error.into()))?;
        }
        self.apply_pragmas(writer, |name| !CREATION_PRAGMAS.contains(&name))?;
        create_tables(writer, self.busy_timeout).map_err(refused)?;
        // From now on `retry_while_busy` waits instead of SQLite. The pauses of SQLite's own handler grow, so a connection
        // that has waited long asks less often, and is overtaken by every connection that has just come.
        writer.busy_timeout(Duration::ZERO).map_err(|error| refused(error.into()))?;
        Ok(false)
    }

    /// Opens a connection that reads.
    pub(super) fn open_reader(&self, busy_timeout: Duration) -> Result<Connection> {
        self.connect_reader(busy_timeout).map_err(|error| Unusable::from(error).into_error(&self.location))
    }

    fn connect_reader(&self, busy_timeout: Duration) -> rusqlite::Result<Connection> {
        let connection = self.location.open_existing(self.flags & !OpenFlags::SQLITE_OPEN_CREATE)?;
        // Also for a reader that must not wait afterwards: a pragma reads the schema, which other connections may be making.
        connection.busy_timeout(self.busy_timeout)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        for (name, value) in &self.pragmas {
            if name != "journal_mode" && !CREATION_PRAGMAS.contains(&name.as_str()) {
                // SQLite itself does not wait where two connections would wait for each other.
                retry_while_busy(self.busy_timeout, || connection.pragma_update(None, name, value))?;
            }
        }
        // The file itself is opened for writing, since the last connection to close merges the WAL.
        connection.pragma_update(None, "query_only", true)?;
        retry_while_busy(self.busy_timeout, || {
            connection.query_row("SELECT bytes FROM totals", [], |_| Ok(()))
        })?;
        connection.busy_timeout(busy_timeout)?;
        Ok(connection)
    }

    fn has_pragma(&self, pragma: &str) -> bool {
        self.pragmas.iter().any(|(name, _)| name == pragma)
    }

    /// Sets those of the program's pragmas that `filter` accepts.
    fn apply_pragmas(&self, connection: &Connection, filter: impl Fn(&str) -> bool) -> Result<()> {
        for (name, value) in self.pragmas.iter().filter(|(name, _)| filter(name)) {
            retry_while_busy(self.busy_timeout, || connection.pragma_update(None, name, value)).map_err(
                |error| {
                    let message = format!("the pragma {name} is refused: correct or remove it");
                    Error::new(ErrorKind::Config, message).with_source(error)
                },
            )?;
        }
        Ok(())
    }
}

/// Detects the contents of a database, and retries while it is busy.
fn detect_while_busy(connection: &Connection, busy_timeout: Duration) -> Result<Contents, Unusable> {
    // `retry_while_busy` looks at SQLite's errors only, so every other outcome leaves the closure through `found`.
    let mut found = Err(Unusable::Damaged);
    let waited = retry_while_busy(busy_timeout, || match detect(connection) {
        Err(Unusable::Sqlite(error)) => Err(error),
        other => {
            found = other;
            Ok(())
        }
    });
    waited.map_err(Unusable::from).and(found)
}
