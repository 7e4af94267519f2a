//! How a store is opened.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;

use super::aside::Recovery;
use super::location::Location;
use super::open::Plan;
use super::store::SqliteStorage;
use crate::error::{Error, ErrorKind, Result};
use crate::time::Clock;

const MOST_READERS: usize = 64;

/// Opens a [`SqliteStorage`].
///
/// ```
/// use std::time::Duration;
/// use tower_response_cache::storage::{SqliteStorage, sqlite::rusqlite::OpenFlags};
///
/// # async fn open() -> tower_response_cache::Result<SqliteStorage> {
/// SqliteStorage::builder("file:/var/cache/app/responses.sqlite?cache=private")
///     .open_flags(OpenFlags::default())
///     .busy_timeout(Duration::from_secs(2))
///     .pragma("cache_size", -16_000)
///     .max_bytes(256 << 20)
///     .open()
///     .await
/// # }
/// ```
#[must_use]
pub struct SqliteStorageBuilder {
    name: PathBuf,
    use_temp: bool,
    flags: OpenFlags,
    busy_timeout: Duration,
    pragmas: Vec<(String, String)>,
    connection: Option<Connection>,
    readers: usize,
    read_in_task: bool,
    max_bytes: u64,
    recovery: Recovery,
    clock: Clock,
}

impl SqliteStorageBuilder {
    pub(super) fn new(cache_name: PathBuf) -> Self {
        Self {
            name: cache_name,
            use_temp: false,
            flags: OpenFlags::default(),
            busy_timeout: Duration::from_secs(5),
            pragmas: Vec::new(),
            connection: None,
            readers: 2,
            read_in_task: false,
            max_bytes: 1 << 30,
            recovery: Recovery::default(),
            clock: Clock::system(),
        }
    }

    /// Whether the file is in the system's temporary directory ([`std::env::temp_dir`]), under the cache name, which is
    /// then a relative path. It may be gone after a restart of the machine. Where users share that directory, others
    /// cannot read the file, but may make one of that name first: then name a directory of your own instead. Default:
    /// false.
    pub fn use_temp(mut self, use_temp: bool) -> Self {
        self.use_temp = use_temp;
        self
    }

    /// SQLite's open flags. Default: read and write, create, URI filenames, no mutex (each connection has one user at a
    /// time).
    pub fn open_flags(mut self, flags: OpenFlags) -> Self {
        self.flags = flags;
        self
    }

    /// How long an operation waits for its turn while other processes write. Default: 5 seconds.
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// Sets a pragma on every connection, after the store's own (`journal_mode = WAL`, `synchronous = NORMAL`,
    /// `wal_autocheckpoint = 4000`, `journal_size_limit` = 32 MiB, `auto_vacuum = INCREMENTAL`), so it overrides them.
    /// `page_size`, `auto_vacuum` and `encoding` have an effect when the file is made. Default: no more.
    pub fn pragma(mut self, name: impl Into<String>, value: impl fmt::Display) -> Self {
        self.pragmas.push((name.into().to_ascii_lowercase(), value.to_string()));
        self
    }

    /// A ready connection (one with a key, a VFS or functions of its own). Everything goes through it, reads in turn
    /// with writes, and the store sets no pragma but yours; the cache name, flags and readers have no effect. Default:
    /// the store opens its own.
    pub fn connection(mut self, connection: Connection) -> Self {
        self.connection = Some(connection);
        self
    }

    /// How many connections read, each on a thread of its own; at most 64. With none, reads take turns with writes.
    /// Default: 2.
    pub fn readers(mut self, readers: usize) -> Self {
        self.readers = readers;
        self
    }

    /// Whether to read in the calling task, on as many further connections as there are
    /// [readers](SqliteStorageBuilder::readers); when all are taken, a thread reads. Takes much less time for each read,
    /// but a slow disk then stalls a worker of the runtime, for 10 ms and more. Default: false.
    pub fn read_in_task(mut self, read_in_task: bool) -> Self {
        self.read_in_task = read_in_task;
        self
    }

    /// How many bytes the records may take together; an entry takes at most half. Default: 1 GiB.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets what becomes of a file that is damaged, or of a newer layout.
    ///
    /// Default: [`Recovery::Damaged`], a damaged file is set aside and a new one begun.
    pub fn recover(mut self, recovery: Recovery) -> Self {
        self.recovery = recovery;
        self
    }

    /// The clock that tells what was used last, and what has expired when room is made. Default: the system's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Opens the store, on a thread of its own; makes the file and the directories above it if they are not there.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config): the name, a pragma or the bound is wrong, the path cannot be opened or made, or the
    /// file was made by a newer version. [`Corrupt`](ErrorKind::Corrupt): the file is not a cache of this crate, or is
    /// damaged and [not set aside](SqliteStorageBuilder::recover). [`Timeout`](ErrorKind::Timeout): others kept it for longer than the busy timeout.
    pub async fn open(self) -> Result<SqliteStorage> {
        let (reply, answer) = oneshot::channel();
        std::thread::Builder::new()
            .name("sqlite-open".to_owned())
            .spawn(move || {
                let _ = reply.send(self.open_here()); // nobody waits: closed again, here
            })
            .map_err(|error| {
                Error::new(ErrorKind::Unavailable, "no thread can be started to open the store")
                    .with_source(error)
            })?;
        answer.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Other, "the store was not opened")))
    }

    fn open_here(self) -> Result<SqliteStorage> {
        // Beyond this rusqlite panics.
        let busy_timeout = self.busy_timeout.min(Duration::from_millis(i32::MAX as u64));
        let max_bytes = i64::try_from(self.max_bytes).unwrap_or(i64::MAX);
        if max_bytes < 4096 {
            return Err(Error::new(ErrorKind::Config, "max_bytes is below 4096: nothing could be stored"));
        }
        let readers = self.readers.min(MOST_READERS);
        let location = match &self.connection {
            Some(_) => Location::Memory,
            None if self.use_temp => Location::temporary(&self.name, &std::env::temp_dir())?,
            None => Location::parse(&self.name, std::env::home_dir())?,
        };
        let plan = Plan {
            location,
            flags: self.flags,
            busy_timeout,
            pragmas: self.pragmas,
            recovery: self.recovery,
            readers,
            in_task: if self.read_in_task { readers.max(1) } else { 0 },
        };
        let opened = match self.connection {
            Some(connection) => plan.take(connection)?,
            None => plan.open()?,
        };
        SqliteStorage::new(opened, busy_timeout, max_bytes, self.clock)
    }
}

impl fmt::Debug for SqliteStorageBuilder {
    /// Without the names of files and the values of pragmas, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStorageBuilder")
            .field("readers", &self.readers)
            .field("read_in_task", &self.read_in_task)
            .field("busy_timeout", &self.busy_timeout)
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}
