//! Where connections come from, and whether the file that they opened still has its name.
//!
//! Promises: what is written goes to the file that has the name when its transaction begins; a reader that finds another
//! file there, or none, within a second, and at once after this store has written to it, is opened anew. A file that
//! cannot be used is an error each time, and nothing is read from the one before.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::aside::set_aside;
use super::inspect::Refusal;
use super::location::{There, beside};
use super::open::Plan;
use crate::error::{Error, ErrorKind, Result};

/// How often a reader looks, and how long a file that cannot be used is not tried again.
const EVERY: Duration = Duration::from_secs(1);

/// Opens connections anew, for as long as the store is open.
pub(super) struct Source {
    plan: Plan,
    /// None where there is no file of a name, or no telling files apart.
    path: Option<PathBuf>,
    /// How many times a connection was opened anew: whoever sees it grow looks for itself.
    renewed: AtomicU64,
}

/// What one connection knows of the files it has open.
pub(super) struct Watch {
    files: Option<Files>,
    renewed: u64,
    looked: Instant,
    refused: Option<Error>,
}

/// What a connection is for.
#[derive(Clone, Copy)]
pub(super) enum Role {
    Writer,
    /// Waits for its turn for so long.
    Reader(Duration),
}

#[derive(Clone)]
struct Files {
    main: There,
    /// The files beside it: their paths, which SQLite names after the path without symbolic links.
    others: Vec<(PathBuf, There)>,
}

impl Source {
    /// The connections are to the file at this path; none: not watched.
    pub(super) fn new(plan: Plan, path: Option<PathBuf>) -> Self {
        Self { plan, path, renewed: AtomicU64::new(0) }
    }

    /// The file as an event may name it: without the parameters of a URI.
    pub(super) fn shown(&self) -> impl std::fmt::Display + '_ {
        &self.plan.location
    }

    /// How many times a connection was opened anew until now.
    pub(super) fn generation(&self) -> u64 {
        self.renewed.load(Ordering::Acquire)
    }

    pub(super) fn watch(&self, connection: &Connection) -> Watch {
        let files = self.path.as_deref().and_then(|path| Files::of(path, connection));
        Watch { files, renewed: self.generation(), looked: Instant::now(), refused: None }
    }

    /// True when nothing tells a reader to look; costs no call to the system.
    pub(super) fn is_fresh(&self, watch: &Watch) -> bool {
        watch.files.is_none()
            || watch.refused.is_none() && watch.renewed == self.generation() && watch.looked.elapsed() < EVERY
    }

    /// Looks once: true when the file has its name.
    pub(super) fn looks_same(&self, watch: &mut Watch) -> bool {
        let (Some(path), Some(files)) = (&self.path, &watch.files) else { return true };
        let renewed = self.generation();
        let there = There::at(path);
        let is_same = there == files.main || there == There::Unknown;
        if is_same {
            (watch.renewed, watch.looked, watch.refused) = (renewed, Instant::now(), None);
        }
        is_same
    }

    /// True when what is in the place of the file could not be used, a moment ago.
    pub(super) fn is_refused(&self, watch: &Watch) -> bool {
        watch.refused.is_some() && watch.looked.elapsed() < EVERY
    }

    /// Looks, and opens the connection anew if its file has lost the name. May take long: for threads that may.
    pub(super) fn renew(&self, connection: &mut Connection, watch: &mut Watch, role: Role) -> Result<()> {
        if self.looks_same(watch) {
            return Ok(());
        }
        if let Some(error) = watch.refused.as_ref().filter(|_| self.is_refused(watch)) {
            return Err(error.clone());
        }
        let (Some(path), Some(files)) = (&self.path, &watch.files) else { return Ok(()) };
        files.remove_others();
        watch.looked = Instant::now();
        match self.open(path, role) {
            Ok((new, files)) => {
                tracing::warn!(
                    "the cache's file was removed or replaced: the one that has its name is used now"
                );
                let renewed = self.renewed.fetch_add(1, Ordering::AcqRel) + 1;
                *connection = new;
                *watch = Watch { files: Some(files), renewed, looked: Instant::now(), refused: None };
                Ok(())
            }
            Err(error) => {
                let kind = match error.kind() {
                    ErrorKind::Config => ErrorKind::Unavailable, // it was right when the store was opened
                    kind => kind,
                };
                let message =
                    "the cache's file was removed or replaced, and what is in its place cannot be used";
                let error = Error::new(kind, message).with_source(error);
                watch.refused = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Sets the file aside that a connection has open, since it is damaged; `None`: it is to stay, or is gone.
    pub(super) fn set_aside(&self, watch: &Watch) -> Option<PathBuf> {
        let (Some(path), Some(files)) = (&self.path, &watch.files) else { return None };
        if !self.plan.may_set_aside(&Refusal::Damaged) {
            return None;
        }
        set_aside(path, files.main).ok().flatten()
    }

    fn open(&self, path: &Path, role: Role) -> Result<(Connection, Files)> {
        for _ in 0..3 {
            let mut plan = self.plan.clone();
            plan.survey()?;
            let before = There::at(path);
            let (writer, _) = plan.open_first()?;
            let connection = match role {
                Role::Writer => writer,
                Role::Reader(wait) => plan.open_reader(wait)?,
            };
            if let Some(files) = Files::of(path, &connection)
                && (files.main == before || before == There::Gone)
            {
                return Ok((connection, files));
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "the cache's file is replaced again and again"))
    }
}

impl Files {
    /// None: they cannot be told from others.
    fn of(path: &Path, connection: &Connection) -> Option<Self> {
        let main = There::at(path);
        let real = connection.path().filter(|path| !path.is_empty()).map(Path::new)?;
        let others = ["-wal", "-shm"].map(|end| {
            let other = beside(real, end);
            let there = There::at(&other);
            (other, there)
        });
        matches!(main, There::File(..)).then(|| Self { main, others: others.into() })
    }

    /// Removes what is left of a file that is gone: its log would be taken for the log of the next. Not what another
    /// process has made since.
    fn remove_others(&self) {
        for (path, there) in &self.others {
            if matches!(there, There::File(..)) && There::at(path) == *there {
                let _ = std::fs::remove_file(path); // gone, or in the way of the opening, which then says so
            }
        }
    }
}
