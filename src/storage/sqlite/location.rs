//! The location of the database, which is a path, a URI filename or memory.
//!
//! # Invariants
//!
//! - The text of a location, as errors and events show it, contains no parameter of a URI.

use std::fmt;
use std::path::{Path, PathBuf};
#[cfg(unix)]
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use rusqlite::{Connection, OpenFlags};

use crate::error::{Error, ErrorKind, Result};
use crate::storage::path::{create_folder, expand_home};

/// The location of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Location {
    Memory,
    Path(PathBuf),
    /// A [URI filename](https://www.sqlite.org/uri.html), as the program wrote it.
    Uri(String),
}

impl Location {
    /// Parses a cache name, in which `~` is `home`.
    pub(super) fn parse(name: &Path, home: Option<PathBuf>) -> Result<Self> {
        let path = expand_home(name, home, "the cache name")?;
        let bytes = name.as_os_str().as_encoded_bytes();
        if bytes == b":memory:" {
            return Ok(Self::Memory);
        }
        if bytes.starts_with(b"file:") {
            return match name.to_str() {
                Some(uri) => Ok(Self::Uri(uri.to_owned())),
                None => Err(Error::new(ErrorKind::Config, "the cache name is a URI that is not UTF-8")),
            };
        }
        Ok(Self::Path(path))
    }

    /// Returns the location of a cache name in the system's temporary directory.
    ///
    /// # Errors
    ///
    /// Returns `Config` if the name could lead out of that directory.
    pub(super) fn temporary(name: &Path, directory: &Path) -> Result<Self> {
        use std::path::Component;
        let is_inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        match Self::parse(name, None) {
            Ok(Self::Path(path)) if path.components().all(is_inside) && path.file_name().is_some() => {
                Ok(Self::Path(directory.join(path)))
            }
            _ => Err(Error::new(
                ErrorKind::Config,
                "with use_temp the cache name must be a relative path without `~` and `..`",
            )),
        }
    }

    /// Returns the same location as an absolute path.
    ///
    /// A later change of the working directory then does not matter.
    pub(super) fn absolute(self) -> Self {
        match self {
            Self::Path(path) => Self::Path(std::path::absolute(&path).unwrap_or(path)),
            other => other,
        }
    }

    /// Opens a connection.
    pub(super) fn open(&self, flags: OpenFlags) -> rusqlite::Result<Connection> {
        match self {
            Self::Memory => Connection::open_in_memory_with_flags(flags),
            Self::Path(path) => Connection::open_with_flags(path, flags & !OpenFlags::SQLITE_OPEN_URI),
            Self::Uri(uri) => Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI),
        }
    }

    /// Opens a connection with flags that do not create the file.
    ///
    /// SQLite refuses such flags for a URI with `mode=rwc`, so that parameter is left out.
    pub(super) fn open_existing(&self, flags: OpenFlags) -> rusqlite::Result<Connection> {
        match self {
            Self::Uri(uri) if parameters(uri).any(|part| part == "mode=rwc") => {
                Self::Uri(without_parameter(uri, "mode")).open(flags)
            }
            _ => self.open(flags),
        }
    }

    /// Opens a connection that only reads, and does not create the file.
    ///
    /// SQLite refuses these flags for a URI whose `mode` asks for more, so that parameter is left out.
    pub(super) fn open_read_only(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        match self {
            Self::Uri(uri) => Self::Uri(without_parameter(uri, "mode")).open(flags),
            _ => self.open(flags),
        }
    }

    /// Returns the same file as an immutable one.
    ///
    /// For such a file, SQLite creates no WAL and no shared memory file.
    ///
    /// Returns `None` if a WAL holds a part of the database, since SQLite would ignore it, or if the location is not a path.
    pub(super) fn as_immutable(&self) -> Option<Self> {
        let Self::Path(path) = self else { return None };
        if std::fs::metadata(with_suffix(path, "-wal")).is_ok_and(|log| log.len() > 0) {
            return None;
        }
        self.as_immutable_without_wal()
    }

    /// Returns the same file as an immutable one, even if it has a WAL.
    ///
    /// SQLite then ignores the WAL.
    pub(super) fn as_immutable_without_wal(&self) -> Option<Self> {
        let Self::Path(path) = self else { return None };
        let path = std::path::absolute(path).ok()?;
        let mut uri = String::from("file://");
        let slashes = path.to_str()?.replace(std::path::MAIN_SEPARATOR, "/");
        if !slashes.starts_with('/') {
            uri.push('/');
        }
        for byte in slashes.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' | b':' => {
                    uri.push(char::from(byte));
                }
                _ => uri.push_str(&format!("%{byte:02X}")),
            }
        }
        uri.push_str("?immutable=1");
        Some(Self::Uri(uri))
    }

    /// Returns the modification time and the length of a file that no connection uses.
    ///
    /// Returns `None` if there are files next to it that SQLite keeps while a connection is open, or leaves behind when a
    /// process dies within a transaction.
    pub(super) fn idle_state(&self) -> Option<(SystemTime, u64)> {
        let Self::Path(path) = self else { return None };
        let is_idle = ["-wal", "-shm", "-journal"].iter().all(|suffix| !with_suffix(path, suffix).exists());
        let file = std::fs::metadata(path).ok().filter(|_| is_idle)?;
        Some((file.modified().ok()?, file.len()))
    }

    /// Returns whether everything must go through one connection.
    ///
    /// A second connection would open another database, or would share the locks of the first one.
    pub(super) fn needs_single_connection(&self, flags: OpenFlags) -> bool {
        let shared = OpenFlags::SQLITE_OPEN_MEMORY | OpenFlags::SQLITE_OPEN_SHARED_CACHE;
        flags.intersects(shared)
            || match self {
                Self::Memory => true,
                Self::Path(_) => false,
                Self::Uri(uri) => {
                    uri.starts_with("file::memory:")
                        || parameters(uri).any(|part| part == "mode=memory" || part == "cache=shared")
                }
            }
    }

    /// Creates the folder of a path, accessible to the current user only.
    pub(super) fn create_parent_directories(&self) -> Result<()> {
        let Self::Path(path) = self else { return Ok(()) };
        let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
            return Ok(());
        };
        create_folder(parent)
    }

    /// Creates a missing file so that only the current user can access it.
    ///
    /// SQLite gives the files next to it the same mode. An error is ignored here, because opening the database fails for the
    /// same reason and reports it.
    pub(super) fn create_private_file(&self) {
        #[cfg(unix)]
        if let Some(path) = self.file_path() {
            use std::os::unix::fs::OpenOptionsExt;
            // Closing any descriptor of a file ends all POSIX locks of this process on it, including those that SQLite holds
            // through other connections. So only one thread at a time creates the file, and no connection is opened before
            // the descriptor that created it is closed.
            static CREATION: Mutex<()> = Mutex::new(());
            let _creation = CREATION.lock().unwrap_or_else(PoisonError::into_inner);
            let created = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            drop(created);
        }
    }

    /// Returns the path of the file that opening this location creates.
    ///
    /// Also parses the path of a URI, unless opening it creates no file.
    #[cfg(unix)]
    fn file_path(&self) -> Option<PathBuf> {
        match self {
            Self::Memory => None,
            Self::Path(path) => Some(path.clone()),
            Self::Uri(uri) => {
                let creates = |part: &str| match part.split_once('=') {
                    Some(("mode", mode)) => mode == "rwc",
                    Some(("vfs", vfs)) => vfs.starts_with("unix"),
                    Some(("immutable", _)) => false,
                    _ => true,
                };
                let name = uri.strip_prefix("file:")?.split(['?', '#']).next()?;
                // SQLite refuses any other authority than `localhost`.
                let name = match name.strip_prefix("//") {
                    Some(rest) => rest.strip_prefix("localhost").unwrap_or(rest),
                    None => name,
                };
                if name.is_empty() || name == ":memory:" || !parameters(uri).all(creates) {
                    return None;
                }
                let name = percent_encoding::percent_decode_str(name).collect::<Vec<u8>>();
                // SQLite ends the name at an escaped NUL, so the file that it opens would be another one.
                let name = (!name.contains(&0)).then_some(name)?;
                Some(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(name).into())
            }
        }
    }

    /// Returns the path, if the location is one.
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::Path(path) => Some(path),
            _ => None,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str(":memory:"),
            Self::Path(path) => path.display().fmt(f),
            Self::Uri(uri) => f.write_str(uri.split(['?', '#']).next().unwrap_or_default()),
        }
    }
}

/// The identity of the file at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileId {
    Missing,
    File {
        device: u64,
        inode: u64,
    },
    /// It cannot be determined. The file is then treated as unchanged.
    Unknown,
}

impl FileId {
    #[cfg(unix)]
    pub(super) fn at(path: &Path) -> Self {
        use std::os::unix::fs::MetadataExt;
        match std::fs::metadata(path) {
            Ok(file) => Self::File { device: file.dev(), inode: file.ino() },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::Missing,
            Err(_) => Self::Unknown,
        }
    }

    /// On these systems an open file cannot be removed, so there is nothing to compare.
    #[cfg(not(unix))]
    pub(super) fn at(_: &Path) -> Self {
        Self::Unknown
    }
}

/// Returns the path with a suffix.
///
/// SQLite names the files that it keeps next to a database in that way.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Returns the parameters of a URI filename, each as `name=value`.
fn parameters(uri: &str) -> impl Iterator<Item = &str> {
    let uri = uri.split('#').next().unwrap_or_default();
    uri.split_once('?').map(|(_, query)| query).unwrap_or_default().split('&')
}

/// Returns a URI filename without one of its parameters.
fn without_parameter(uri: &str, name: &str) -> String {
    let path = uri.split(['?', '#']).next().unwrap_or_default();
    let kept: Vec<&str> =
        parameters(uri).filter(|part| !part.is_empty() && part.split('=').next() != Some(name)).collect();
    if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) }
}
