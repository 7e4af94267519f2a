//! The settings of a storage in SQLite, and opening it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;

use super::location::Location;
use super::open::OpenOptions;
use super::recovery::Recovery;
use super::stall_budget::StallBudget;
use super::storage::SqliteStorage;
use crate::error::{Error, ErrorKind, Result};
use crate::time::Clock;

/// The most connections that read. Each has a thread and a page cache of its own, and more of them than cores only cost memory.
const MAX_READERS: usize = 64;

/// The most connections that read in tasks. Measured with bodies of 64 KiB, each takes 5 to 10 MB once it is in use, for its
/// page cache and the gaps that the allocator leaves. If more tasks read at the same time, threads serve them.
const MAX_IN_TASK_READERS: usize = 8;

/// The smallest bound. An entry takes at most half of it, which must hold at least a small response and its row.
const MIN_BYTES: i64 = 4096;

/// A builder of a [`SqliteStorage`].
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
    cache_name: PathBuf,
    use_temp: bool,
    flags: OpenFlags,
    busy_timeout: Duration,
    pragmas: Vec<(String, String)>,
    connection: Option<Connection>,
    readers: usize,
    /// `None` as long as reads are fast.
    read_in_task: Option<bool>,
    max_bytes: u64,
    recovery: Recovery,
    clock: Clock,
}

impl SqliteStorageBuilder {
    pub(super) fn new(cache_name: PathBuf) -> Self {
        Self {
            cache_name,
            use_temp: false,
            flags: OpenFlags::default(),
            busy_timeout: Duration::from_secs(5),
            pragmas: Vec::new(),
            connection: None,
            readers: 2,
            read_in_task: None,
            max_bytes: 1 << 30,
            recovery: Recovery::default(),
            clock: Clock::system(),
        }
    }

    /// Sets whether the file is in the system's temporary directory.
    ///
    /// The cache name is then a path relative to [`std::env::temp_dir`]. The file may be gone after the machine restarts.
    /// If several users share that directory, they cannot read the file, but one of them may create a file of that name
    /// first. In that case name a directory of your own instead.
    ///
    /// Default: false.
    pub fn use_temp(mut self, use_temp: bool) -> Self {
        self.use_temp = use_temp;
        self
    }

    /// Sets SQLite's open flags.
    ///
    /// Default: [`OpenFlags::default`], which is read and write, create, URI filenames, and no mutex. Each connection is
    /// used by one thread at a time, so it needs none.
    pub fn open_flags(mut self, flags: OpenFlags) -> Self {
        self.flags = flags;
        self
    }

    /// Sets how long an operation waits for its turn while other connections write.
    ///
    /// After that it fails with [`Timeout`](ErrorKind::Timeout).
    ///
    /// Default: 5 seconds.
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// Sets a pragma on every connection.
    ///
    /// It is set after the storage's own pragmas and so overrides them. Those are `journal_mode = WAL`,
    /// `synchronous = NORMAL`, `wal_autocheckpoint = 4000`, `journal_size_limit` = 32 MiB and `auto_vacuum = INCREMENTAL`.
    /// `page_size`, `auto_vacuum` and `encoding` only have an effect when the file is created.
    ///
    /// Default: no further pragmas.
    pub fn pragma(mut self, name: impl Into<String>, value: impl fmt::Display) -> Self {
        self.pragmas.push((name.into().to_ascii_lowercase(), value.to_string()));
        self
    }

    /// Uses a connection that the program has opened.
    ///
    /// This is for a connection with a key, a VFS or functions of its own. All reads and writes take turns on it. The
    /// storage sets only the pragmas given to [`pragma`](SqliteStorageBuilder::pragma), and ignores the cache name, the open
    /// flags and the number of readers.
    ///
    /// Default: the storage opens its own connections.
    pub fn connection(mut self, connection: Connection) -> Self {
        self.connection = Some(connection);
        self
    }

    /// Sets how many connections read, each on a thread of its own.
    ///
    /// More than 64 count as 64. With 0, reads and writes take turns on one connection.
    ///
    /// Default: 2.
    pub fn readers(mut self, readers: usize) -> Self {
        self.readers = readers;
        self
    }

    /// Sets whether reads run in the calling task.
    ///
    /// A read in the task takes about a tenth of the time of one on a thread, but a slow disk stalls a worker of the runtime.
    /// With `true`, every read runs in the task, even if each stalls a worker for 10 ms or more. With `false`, every read runs
    /// on a thread. With `None`, reads run in the task while they are fast, and on threads while the disk is slow: at most one
    /// in a hundred stalls a worker for more than 1 ms. See the [module](super#where-reads-run).
    ///
    /// Reads in the task use further connections, one for each core, at most 8. If all of them are in use, a thread reads.
    ///
    /// Default: `None`, in the task while reads are fast. With 0 [readers](SqliteStorageBuilder::readers), `None` is the same
    /// as `false`.
    pub fn read_in_task(mut self, read_in_task: impl Into<Option<bool>>) -> Self {
        self.read_in_task = read_in_task.into();
        self
    }

    /// Sets how many bytes the records may take together.
    ///
    /// An entry takes at most half of that. At least 4096. See the [module](super#the-bound) for what is evicted.
    ///
    /// Default: 1 GiB.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets what happens to a file that is damaged or has a newer layout.
    ///
    /// Default: [`Recovery::Damaged`], a damaged file is set aside and a new one is created.
    pub fn recover(mut self, recovery: Recovery) -> Self {
        self.recovery = recovery;
        self
    }

    /// Sets the clock.
    ///
    /// It tells which entry was used least recently, and which records have expired when room is made.
    ///
    /// Default: the system's clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Opens the storage.
    ///
    /// Creates the file if it does not exist, and up to two missing folders above it. A path of which more is missing, or
    /// whose first folder is missing, is probably mistyped. Runs on a thread of its own, so it does not block the runtime.
    ///
    /// # Errors
    ///
    /// Returns [`Config`](ErrorKind::Config) if the cache name, a pragma or the bound is wrong, if the path cannot be opened
    /// or created, or if the file was made by a newer version. Returns [`Corrupt`](ErrorKind::Corrupt) if the file is not a
    /// cache of this crate, or is damaged and [not set aside](SqliteStorageBuilder::recover). Returns
    /// [`Timeout`](ErrorKind::Timeout) if other connections kept the file for longer than the busy timeout. Returns
    /// [`Unavailable`](ErrorKind::Unavailable) if no thread can be started.
    pub async fn open(self) -> Result<SqliteStorage> {
        let (reply, opened) = oneshot::channel();
        std::thread::Builder::new()
            .name("sqlite-open".to_owned())
            .spawn(move || {
                // If the caller is gone, the storage is dropped here, which closes it.
                let _ = reply.send(self.open_blocking());
            })
            .map_err(|error| {
                Error::new(ErrorKind::Unavailable, "no thread can be started to open the storage")
                    .with_source(error)
            })?;
        opened.await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Other, "the thread that opens the storage has panicked"))
        })
    }

    fn open_blocking(self) -> Result<SqliteStorage> {
        // rusqlite passes the timeout to SQLite as an `i32` of milliseconds, and panics if it does not fit.
        let busy_timeout = self.busy_timeout.min(Duration::from_millis(i32::MAX as u64));
        let max_bytes = i64::try_from(self.max_bytes).unwrap_or(i64::MAX);
        if max_bytes < MIN_BYTES {
            return Err(Error::new(ErrorKind::Config, "max_bytes is below 4096, so nothing could be stored"));
        }
        let readers = self.readers.min(MAX_READERS);
        let location = match &self.connection {
            Some(_) => Location::Memory,
            None if self.use_temp => Location::temporary(&self.cache_name, &std::env::temp_dir())?,
            None => Location::parse(&self.cache_name, std::env::home_dir())?,
        };
        let options = OpenOptions {
            location,
            flags: self.flags,
            busy_timeout,
            pragmas: self.pragmas,
            recovery: self.recovery,
            readers,
            in_task_readers: match self.read_in_task {
                Some(false) => 0,
                // Without readers, one connection is wanted.
                None if readers == 0 => 0,
                _ => std::thread::available_parallelism().map_or(1, usize::from).min(MAX_IN_TASK_READERS),
            },
        };
        let opened = match self.connection {
            Some(connection) => options.adopt(connection)?,
            None => options.open()?,
        };
        let stall_budget = self.read_in_task.is_none().then(StallBudget::new);
        SqliteStorage::new(opened, stall_budget, busy_timeout, max_bytes, self.clock)
    }
}

impl fmt::Debug for SqliteStorageBuilder {
    /// Omits the cache name and the values of pragmas, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStorageBuilder")
            .field("readers", &self.readers)
            .field("read_in_task", &self.read_in_task)
            .field("busy_timeout", &self.busy_timeout)
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}
