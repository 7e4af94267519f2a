//! Settings, and what becomes of the name.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::store::SqliteStorage;
use crate::error::{Error, ErrorKind, Result};

/// Settings of a [`SqliteStorage`], from [`SqliteStorage::builder`].
///
/// ```no_run
/// # async fn example() -> tower_response_cache::Result<()> {
/// use tower_response_cache::storage::SqliteStorage;
///
/// let storage = SqliteStorage::builder("~/.cache/app/http.sqlite")
///     .max_bytes(256 * 1024 * 1024)
///     .pragma("cache_size", "-8000")
///     .open()
///     .await?;
/// # Ok(()) }
/// ```
#[must_use]
pub struct SqliteStorageBuilder {
    pub(super) cache_name: PathBuf,
    pub(super) flags: OpenFlags,
    pub(super) busy_timeout: Duration,
    pub(super) pragmas: Vec<(String, String)>,
    pub(super) connection: Option<Connection>,
    pub(super) readers: usize,
    pub(super) read_in_task: bool,
    pub(super) max_bytes: u64,
}

impl SqliteStorageBuilder {
    pub(super) fn new(cache_name: PathBuf) -> Self {
        Self {
            cache_name,
            flags: OpenFlags::SQLITE_OPEN_READ_WRITE
                | OpenFlags::SQLITE_OPEN_CREATE
                | OpenFlags::SQLITE_OPEN_URI
                | OpenFlags::SQLITE_OPEN_NO_MUTEX,
            busy_timeout: Duration::from_secs(5),
            pragmas: Vec::new(),
            connection: None,
            readers: 2,
            read_in_task: false,
            max_bytes: 1024 * 1024 * 1024,
        }
    }

    /// The flags that every connection is opened with (rusqlite's own). Default: read and write, create, URI names.
    pub fn open_flags(mut self, flags: OpenFlags) -> Self {
        self.flags = flags;
        self
    }

    /// How long a connection waits for another's lock (SQLite's `busy_timeout`). Default: 5 s.
    pub fn busy_timeout(mut self, longest: Duration) -> Self {
        self.busy_timeout = longest;
        self
    }

    /// A pragma for every connection, set after this crate's own. Default: none.
    pub fn pragma(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.pragmas.push((name.into(), value.into()));
        self
    }

    /// A connection that is open already, for reading and writing, in place of the file that the name would open.
    /// Its own settings stay, its journal mode too. Default: none.
    pub fn connection(mut self, connection: Connection) -> Self {
        self.connection = Some(connection);
        self
    }

    /// How many threads read. One connection that is all there is (`:memory:`) does everything. Default: 2.
    pub fn readers(mut self, count: usize) -> Self {
        self.readers = count.max(1);
        self
    }

    /// Reads in the task that asks instead of handing over to a thread: lower latency by far, but a slow disk then
    /// stalls the runtime's worker. Default: false.
    pub fn read_in_task(mut self, yes: bool) -> Self {
        self.read_in_task = yes;
        self
    }

    /// How many bytes of records are kept at most; an entry may take half of it. Default: 1 GiB.
    pub fn max_bytes(mut self, most: u64) -> Self {
        self.max_bytes = most;
        self
    }

    /// Opens the store, and makes the file and its folders if they are missing.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a name that SQLite cannot take, a folder that cannot be made, or a file of another
    /// program; [`ErrorKind::Corrupt`] for one that is no SQLite file, damaged or of a later version;
    /// [`ErrorKind::Unavailable`] where the file cannot be opened. The file is left as it was.
    pub async fn open(self) -> Result<SqliteStorage> {
        let opened = tokio::task::spawn_blocking(move || SqliteStorage::open_blocking(self)).await;
        opened.unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Other, "opening the SQLite storage was interrupted").with_source(error))
        })
    }
}

impl fmt::Debug for SqliteStorageBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStorageBuilder")
            .field("cache_name", &self.cache_name)
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// `:memory:`, or an empty name: one connection is the whole database.
    Private(PathBuf),
    /// `file:…`: SQLite's own URI, which says all by itself.
    Uri(PathBuf),
    File(PathBuf),
}

impl Name {
    pub(super) fn parse(name: &Path) -> Result<Self> {
        let Some(text) = name.to_str() else { return Ok(Self::File(name.to_owned())) };
        if text.contains('\0') {
            return Err(Error::new(ErrorKind::Config, "a NUL cannot be part of a file's name"));
        }
        if text.is_empty() {
            return Err(Error::new(ErrorKind::Config, "the name is empty: give a path, or :memory:"));
        }
        if text == ":memory:"
            || (text.starts_with("file:") && text.contains("mode=memory"))
            || text.starts_with("file::memory:")
        {
            return Ok(Self::Private(name.to_owned()));
        }
        if text.starts_with("file:") {
            return Ok(Self::Uri(name.to_owned()));
        }
        let rest = text.strip_prefix("~/").or((text == "~").then_some(""));
        match (rest, std::env::home_dir()) {
            (Some(rest), Some(home)) => Ok(Self::File(home.join(rest))),
            (Some(_), None) => {
                Err(Error::new(ErrorKind::Config, "there is no home directory that ~ could mean"))
            }
            (None, _) => Ok(Self::File(name.to_owned())),
        }
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Private(path) | Self::Uri(path) | Self::File(path) => path,
        }
    }

    pub(super) fn make_parents(&self) -> Result<()> {
        let Self::File(path) = self else { return Ok(()) };
        let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
            return Ok(());
        };
        std::fs::create_dir_all(parent).map_err(|error| {
            Error::new(ErrorKind::Config, "the folder of the SQLite file cannot be made").with_source(error)
        })
    }
}
