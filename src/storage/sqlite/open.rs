//! Opening: looks first, then makes what is missing.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::aside::{Recovery, alone, set_aside};
use super::failure::patiently;
use super::inspect::{Found, Refusal, inspect, survey};
use super::layout;
use super::location::{Location, There};
use super::log::LONG;
use crate::error::{Error, ErrorKind, Result};

/// Statements that a connection keeps prepared: more than there are.
const STATEMENTS: usize = 64;
/// How many pages the log holds before it is merged. Measured against SQLite's 1000: writes are 1.2 times (128 KiB) to
/// 1.4 times (1 KiB) as many.
const MERGED_AFTER: i64 = 4000;
/// Must be set before a database has its first page.
const BEFORE_THE_FIRST_PAGE: [&str; 3] = ["page_size", "auto_vacuum", "encoding"];

#[derive(Clone)]
pub(super) struct Plan {
    pub(super) location: Location,
    pub(super) flags: OpenFlags,
    pub(super) busy_timeout: Duration,
    pub(super) pragmas: Vec<(String, String)>,
    pub(super) recovery: Recovery,
    /// Connections for reading on threads, and in tasks.
    pub(super) readers: usize,
    pub(super) in_task: usize,
}

pub(super) struct Opened {
    pub(super) writer: Connection,
    pub(super) readers: Vec<Connection>,
    pub(super) in_task: Vec<Connection>,
    pub(super) read_only: bool,
    /// How a connection is opened anew.
    pub(super) plan: Plan,
    /// The file that the connections are to; `None`: there is none of a name, or it is not watched.
    pub(super) path: Option<PathBuf>,
}

impl Plan {
    /// Opens the file, and makes it if it is not there.
    pub(super) fn open(mut self) -> Result<Opened> {
        self.location = self.location.absolute();
        let again = self.clone();
        let one = self.location.takes_one_connection(self.flags);
        if !one {
            self.survey()?;
        }
        let (writer, read_only) = self.open_first()?;
        let file = writer.path().filter(|path| !one && !path.is_empty()).map(PathBuf::from);
        let more = |count| if file.is_some() { count } else { 0 };
        let readers =
            (0..more(self.readers)).map(|_| self.open_reader(self.busy_timeout)).collect::<Result<_>>()?;
        // A task must not wait; what is busy goes to a thread.
        let in_task =
            (0..more(self.in_task)).map(|_| self.open_reader(Duration::ZERO)).collect::<Result<_>>()?;
        let path = again.location.path().map(PathBuf::from).or(file.clone()).filter(|_| file.is_some());
        Ok(Opened { writer, readers, in_task, read_only, plan: again, path })
    }

    /// Whether a file that cannot be used may be set aside. One that its user has made read-only stays where it is.
    pub(super) fn may_set_aside(&self, refusal: &Refusal) -> bool {
        let is_writable = |path| std::fs::metadata(path).is_ok_and(|file| !file.permissions().readonly());
        self.flags.contains(OpenFlags::SQLITE_OPEN_CREATE)
            && self.recovery.covers(refusal)
            && self.location.path().is_some_and(is_writable)
    }

    /// Looks at the file, without changing it; one that is of no use is set aside, where that is wanted.
    pub(super) fn survey(&self) -> Result<()> {
        let path = self.location.path();
        let seen = path.map(There::at);
        match (survey(&self.location), path.zip(seen)) {
            (Ok(_), _) => Ok(()),
            (Err(refusal), Some((path, seen))) if self.may_set_aside(&refusal) => {
                let set_aside = set_aside(path, seen).map_err(|error| {
                    refusal.at(&self.location).with_source(error) // what is in the way of it
                })?;
                match set_aside {
                    Some(aside) => tracing::error!(
                        aside = %aside.display(),
                        "the cache's file cannot be used: it is set aside, and a new one is made"
                    ),
                    None => survey(&self.location).map(drop).map_err(|refusal| refusal.at(&self.location))?,
                }
                Ok(())
            }
            (Err(refusal), _) => Err(refusal.at(&self.location)),
        }
    }

    /// Opens the connection that makes the file if it is not there; says whether it can only read.
    pub(super) fn open_first(&mut self) -> Result<(Connection, bool)> {
        if self.flags.contains(OpenFlags::SQLITE_OPEN_CREATE) {
            self.location.make_parents()?;
            // Not while another process moves the files of the one before, see there.
            let _turn = self.location.path().map(alone);
            self.location.make_private();
        }
        let writer = self.open_writer()?;
        let read_only = self.prepare(&writer, true)?;
        Ok((writer, read_only))
    }

    /// Takes a ready connection, for everything.
    pub(super) fn take(mut self, writer: Connection) -> Result<Opened> {
        if let Some(path) = writer.path().filter(|path| !path.is_empty()) {
            self.location = Location::Path(path.into());
        }
        if !writer.is_autocommit() {
            return Err(Error::new(ErrorKind::Config, "the connection has a transaction open: end it first"));
        }
        inspect(&writer).map_err(|refusal| refusal.at(&self.location))?;
        let read_only = self.prepare(&writer, false)?;
        Ok(Opened { writer, readers: Vec::new(), in_task: Vec::new(), read_only, plan: self, path: None })
    }

    fn open_writer(&mut self) -> Result<Connection> {
        let opened = self.location.open(self.flags).map_err(Refusal::from).and_then(|connection| {
            connection.busy_timeout(self.busy_timeout)?;
            patiently(self.busy_timeout, || connection.query_row("PRAGMA schema_version", [], |_| Ok(())))?;
            Ok(connection)
        });
        match opened {
            Ok(connection) => Ok(connection),
            // In a directory that cannot be written, SQLite has no place for the log's index.
            Err(refusal) => match self.location.immutable() {
                Some(immutable) if self.location.path().is_some_and(std::path::Path::is_file) => {
                    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                    let connection = immutable.open(flags).map_err(|_| refusal.at(&self.location))?;
                    (self.location, self.flags) = (immutable, flags);
                    Ok(connection)
                }
                _ => Err(refusal.at(&self.location)),
            },
        }
    }

    /// Sets the writer up, and makes the tables; says whether the file is read-only.
    fn prepare(&self, writer: &Connection, is_own: bool) -> Result<bool> {
        let refused = |refusal: Refusal| refusal.at(&self.location);
        writer.set_prepared_statement_cache_capacity(STATEMENTS);
        writer.busy_timeout(self.busy_timeout).map_err(|error| refused(error.into()))?;
        let found = patiently_inspect(writer, self.busy_timeout).map_err(refused)?;
        let read_only = writer.is_readonly("main").map_err(|error| refused(error.into()))?;
        if read_only {
            if found == Found::Nothing {
                let message =
                    format!("{}: is empty and cannot be written: nothing can be served", self.location);
                return Err(Error::new(ErrorKind::Config, message));
            }
            self.set_pragmas(writer, |_| true)?;
            return Ok(true);
        }
        self.set_pragmas(writer, |name| BEFORE_THE_FIRST_PAGE.contains(&name))?;
        let set = || {
            if !self.names("auto_vacuum") {
                // So that its space can be given back in small steps; a file that has pages stays as it is.
                writer.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
            }
            if !self.names("journal_mode") {
                // Whoever else is opening the file may be in the way, without SQLite's own waiting.
                patiently(self.busy_timeout, || writer.pragma_update(None, "journal_mode", "WAL"))?;
            }
            writer.pragma_update(None, "synchronous", "NORMAL")?;
            writer.pragma_update(None, "wal_autocheckpoint", MERGED_AFTER)?;
            writer.pragma_update(None, "journal_size_limit", LONG)
        };
        if is_own {
            set().map_err(|error| refused(error.into()))?;
        }
        self.set_pragmas(writer, |name| !BEFORE_THE_FIRST_PAGE.contains(&name))?;
        layout::make(writer, self.busy_timeout).map_err(refused)?;
        // Its turns are waited for outside of SQLite, whose own waiting lets newcomers overtake.
        writer.busy_timeout(Duration::ZERO).map_err(|error| refused(error.into()))?;
        Ok(false)
    }

    pub(super) fn open_reader(&self, wait: Duration) -> Result<Connection> {
        self.connect_reader(wait).map_err(|error| Refusal::from(error).at(&self.location))
    }

    fn connect_reader(&self, wait: Duration) -> rusqlite::Result<Connection> {
        let connection = self.location.open_existing(self.flags & !OpenFlags::SQLITE_OPEN_CREATE)?;
        connection.busy_timeout(wait)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        for (name, value) in &self.pragmas {
            if name != "journal_mode" && !BEFORE_THE_FIRST_PAGE.contains(&name.as_str()) {
                connection.pragma_update(None, name, value)?;
            }
        }
        // Opened for writing all the same: the last connection to close merges the log.
        connection.pragma_update(None, "query_only", true)?;
        patiently(self.busy_timeout, || connection.query_row("SELECT bytes FROM totals", [], |_| Ok(())))?;
        Ok(connection)
    }

    fn names(&self, pragma: &str) -> bool {
        self.pragmas.iter().any(|(name, _)| name == pragma)
    }

    fn set_pragmas(&self, connection: &Connection, which: impl Fn(&str) -> bool) -> Result<()> {
        for (name, value) in self.pragmas.iter().filter(|(name, _)| which(name)) {
            patiently(self.busy_timeout, || connection.pragma_update(None, name, value)).map_err(
                |error| {
                    Error::new(
                        ErrorKind::Config,
                        format!("the pragma {name} is refused: correct or remove it"),
                    )
                    .with_source(error)
                },
            )?;
        }
        Ok(())
    }
}

fn patiently_inspect(connection: &Connection, patience: Duration) -> Result<Found, Refusal> {
    let mut found = Err(Refusal::Damaged);
    let waited = patiently(patience, || {
        found = inspect(connection);
        match std::mem::replace(&mut found, Err(Refusal::Damaged)) {
            Err(Refusal::Sqlite(error)) => Err(error),
            other => {
                found = other;
                Ok(())
            }
        }
    });
    waited.map_err(Refusal::from).and(found)
}
