//! Detects that the database file was removed or replaced, and opens connections anew.
//!
//! # Invariants
//!
//! - A write goes to the file that is at the path when its transaction begins.
//! - A reading connection is opened anew within a second after its file was removed or replaced, and right after this
//!   storage has written to the new file.
//! - While the file in its place cannot be used, every operation fails, and nothing is read from the file before it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::location::{FileId, with_suffix};
use super::open::OpenOptions;
use super::recovery::set_aside;
use super::schema::Unusable;
use crate::error::{Error, ErrorKind, Result};

/// How often a reading connection checks its file. A check for every read would be slow. Also how long an unusable file is not
/// tried again.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How often opening is repeated if the file is replaced meanwhile. Another process does that once, when it sets a file aside.
const OPEN_ATTEMPTS: usize = 3;

/// Opens connections anew, as long as the storage is open. Shared by its writer and its readers.
pub(super) struct Reopener {
    options: OpenOptions,
    /// `None` if the database has no path, or the system cannot tell files apart.
    path: Option<PathBuf>,
    /// How many times a connection was opened anew. A connection that sees it grow checks its own file.
    generation: AtomicU64,
}

/// The files that a connection has open, as far as it knows them.
pub(super) struct FileCheck {
    files: Option<DatabaseFiles>,
    /// The generation at the last check.
    generation: u64,
    checked_at: Instant,
    /// Why the file that is in the place of this one could not be used.
    refused: Option<Error>,
}

/// The purpose of a connection.
#[derive(Clone, Copy)]
pub(super) enum Role {
    Writer,
    Reader {
        /// How long SQLite itself waits for other connections.
        busy_timeout: Duration,
    },
}

#[derive(Clone)]
struct DatabaseFiles {
    main: FileId,
    /// The WAL and the shared memory file. SQLite names them after the path of the database without symbolic links.
    companions: Vec<(PathBuf, FileId)>,
}

impl Reopener {
    /// Makes a reopener for connections to the file at `path`. With `None`, it never opens a connection anew.
    pub(super) fn new(options: OpenOptions, path: Option<PathBuf>) -> Self {
        Self { options, path, generation: AtomicU64::new(0) }
    }

    /// Returns the location as an event may show it, without the parameters of a URI.
    pub(super) fn location(&self) -> impl fmt::Display + '_ {
        &self.options.location
    }

    /// Returns how many times a connection was opened anew.
    pub(super) fn generation(&self) -> u64 {
        // Acquire pairs with the AcqRel in `reopen_if_replaced`: a connection that sees the new generation checks its file
        // after the new one was opened.
        self.generation.load(Ordering::Acquire)
    }

    /// Opens a further connection that reads.
    pub(super) fn open_reader(&self, busy_timeout: Duration) -> Result<Connection> {
        self.options.open_reader(busy_timeout)
    }

    /// Begins to check the file of a connection that was just opened.
    pub(super) fn begin_check(&self, connection: &Connection) -> FileCheck {
        let files = self.path.as_deref().and_then(|path| DatabaseFiles::of(path, connection));
        FileCheck { files, generation: self.generation(), checked_at: Instant::now(), refused: None }
    }

    /// Returns whether no check is due. Makes no system call.
    pub(super) fn is_recent(&self, check: &FileCheck, now: Instant) -> bool {
        check.files.is_none()
            || check.refused.is_none()
                && check.generation == self.generation()
                && now.duration_since(check.checked_at) < CHECK_INTERVAL
    }

    /// Checks once whether the connection's file is still at its path.
    pub(super) fn is_unchanged(&self, check: &mut FileCheck) -> bool {
        let (Some(path), Some(files)) = (&self.path, &check.files) else { return true };
        // Read before the file is looked at: if another connection is opened anew in between, the next check is due at once.
        let generation = self.generation();
        let found = FileId::at(path);
        let is_unchanged = found == files.main || found == FileId::Unknown;
        if is_unchanged {
            (check.generation, check.checked_at, check.refused) = (generation, Instant::now(), None);
        }
        is_unchanged
    }

    /// Returns whether the file at the path was found unusable less than a second ago.
    pub(super) fn refused_recently(&self, check: &FileCheck) -> bool {
        check.refused.is_some() && check.checked_at.elapsed() < CHECK_INTERVAL
    }

    /// Opens the connection anew if its file was removed or replaced.
    ///
    /// May take long, so it must not be called on a worker of the runtime.
    pub(super) fn reopen_if_replaced(
        &self,
        connection: &mut Connection,
        check: &mut FileCheck,
        role: Role,
    ) -> Result<()> {
        if self.is_unchanged(check) {
            return Ok(());
        }
        // Every operation would examine the unusable file again, some of them completely.
        if let Some(error) = check.refused.as_ref().filter(|_| self.refused_recently(check)) {
            return Err(error.clone());
        }
        let (Some(path), Some(files)) = (&self.path, &check.files) else { return Ok(()) };
        files.remove_stale_companions();
        check.checked_at = Instant::now();
        match self.open(path, role) {
            Ok((new, files)) => {
                tracing::warn!(
                    file = %self.location(),
                    "the cache's file was removed or replaced: the file at its path is used from now on"
                );
                let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
                *connection = new;
                *check =
                    FileCheck { files: Some(files), generation, checked_at: Instant::now(), refused: None };
                Ok(())
            }
            Err(error) => {
                let kind = match error.kind() {
                    // The settings were accepted when the storage was opened, so it is not they that are wrong.
                    ErrorKind::Config => ErrorKind::Unavailable,
                    kind => kind,
                };
                let message = "the cache's file was removed or replaced, and the file at its path cannot be used: \
                               remove that file";
                let error = Error::new(kind, message).with_source(error);
                check.refused = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Sets the damaged file of a connection aside. Returns its new path.
    ///
    /// Returns `None` if the file must stay, or is gone.
    pub(super) fn set_aside(&self, check: &FileCheck) -> Option<PathBuf> {
        let (Some(path), Some(files)) = (&self.path, &check.files) else { return None };
        if !self.options.may_set_aside(&Unusable::Damaged) {
            return None;
        }
        set_aside(path, files.main).ok().flatten()
    }

    fn open(&self, path: &Path, role: Role) -> Result<(Connection, DatabaseFiles)> {
        for _ in 0..OPEN_ATTEMPTS {
            let mut options = self.options.clone();
            options.examine()?;
            let before = FileId::at(path);
            // Also for a reader: the file may have to be created, which a reading connection does not do.
            let (writer, _) = options.open_writer()?;
            let connection = match role {
                Role::Writer => writer,
                Role::Reader { busy_timeout } => options.open_reader(busy_timeout)?,
            };
            // SQLite does not tell which file a connection has open. If the file at the path is the same before and after,
            // it is that one.
            if let Some(files) = DatabaseFiles::of(path, &connection)
                && (files.main == before || before == FileId::Missing)
            {
                return Ok((connection, files));
            }
        }
        let message = "the cache's file is replaced again and again: end the program that does so";
        Err(Error::new(ErrorKind::Unavailable, message))
    }
}

impl DatabaseFiles {
    /// Returns the files of a connection, or `None` if the system cannot tell files apart.
    fn of(path: &Path, connection: &Connection) -> Option<Self> {
        let main = FileId::at(path);
        let real = connection.path().filter(|path| !path.is_empty()).map(Path::new)?;
        let companions = ["-wal", "-shm"].map(|suffix| {
            let companion = with_suffix(real, suffix);
            let id = FileId::at(&companion);
            (companion, id)
        });
        matches!(main, FileId::File { .. }).then(|| Self { main, companions: companions.into() })
    }

    /// Removes the WAL and the shared memory of a file that is gone.
    ///
    /// SQLite would take them for those of the file that is at the path now. Those that another process has created since
    /// stay.
    fn remove_stale_companions(&self) {
        for (path, id) in &self.companions {
            if matches!(id, FileId::File { .. }) && FileId::at(path) == *id {
                // Either it is gone already, or opening the new file fails and reports why.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}
