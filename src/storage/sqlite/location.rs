//! Where the file is: a path, a URI filename or memory.
//!
//! Promises: what is shown in errors holds no parameter of a URI.

use std::fmt;
use std::path::{Path, PathBuf};
#[cfg(unix)]
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use rusqlite::{Connection, OpenFlags};

use crate::error::{Error, ErrorKind, Result};
use crate::storage::path::expand_home;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Location {
    Memory,
    Path(PathBuf),
    Uri(String),
}

impl Location {
    /// Reads a cache name. `~` is `home`.
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

    /// A cache name as a file in the system's temporary directory.
    pub(super) fn temporary(name: &Path, directory: &Path) -> Result<Self> {
        use std::path::Component;
        let is_inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        match Self::parse(name, None) {
            Ok(Self::Path(path)) if path.components().all(is_inside) && path.file_name().is_some() => {
                Ok(Self::Path(directory.join(path)))
            }
            _ => Err(Error::new(
                ErrorKind::Config,
                "with use_temp the cache name is a relative path, without `~` and `..`",
            )),
        }
    }

    /// The same file, whatever the working directory is later.
    pub(super) fn absolute(self) -> Self {
        match self {
            Self::Path(path) => Self::Path(std::path::absolute(&path).unwrap_or(path)),
            other => other,
        }
    }

    pub(super) fn open(&self, flags: OpenFlags) -> rusqlite::Result<Connection> {
        match self {
            Self::Memory => Connection::open_in_memory_with_flags(flags),
            Self::Path(path) => Connection::open_with_flags(path, flags & !OpenFlags::SQLITE_OPEN_URI),
            Self::Uri(uri) => Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI),
        }
    }

    /// Opens what is there. A URI that asks for its file to be created is opened without that, which SQLite refuses
    /// together.
    pub(super) fn open_existing(&self, flags: OpenFlags) -> rusqlite::Result<Connection> {
        match self {
            Self::Uri(uri) if parameters(uri).any(|part| part == "mode=rwc") => {
                Self::Uri(without_parameter(uri, "mode")).open(flags)
            }
            _ => self.open(flags),
        }
    }

    /// Opens what is there for reading only; creates nothing.
    pub(super) fn open_read_only(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        match self {
            Self::Uri(uri) => Self::Uri(without_parameter(uri, "mode")).open(flags),
            _ => self.open(flags),
        }
    }

    /// The same file, as one that nobody changes: SQLite then makes no files beside it. `None` when a log beside it
    /// holds a part of it, and for what is not a path.
    pub(super) fn immutable(&self) -> Option<Self> {
        let Self::Path(path) = self else { return None };
        if std::fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0) {
            return None;
        }
        self.without_log()
    }

    /// The same file, as if no log were beside it.
    pub(super) fn without_log(&self) -> Option<Self> {
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

    /// When the file was written last, and its length, if nobody has it open and no transaction was cut short.
    pub(super) fn at_rest(&self) -> Option<(SystemTime, u64)> {
        let Self::Path(path) = self else { return None };
        let is_alone = ["-wal", "-shm", "-journal"].iter().all(|end| !beside(path, end).exists());
        let file = std::fs::metadata(path).ok().filter(|_| is_alone)?;
        Some((file.modified().ok()?, file.len()))
    }

    /// True when a second connection would be to another database, or would share the first one's locks.
    pub(super) fn takes_one_connection(&self, flags: OpenFlags) -> bool {
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

    /// Makes the directories above a path.
    pub(super) fn make_parents(&self) -> Result<()> {
        let Self::Path(path) = self else { return Ok(()) };
        let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
            return Ok(());
        };
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(parent).map_err(|error| {
            let message = format!("{}: the directory cannot be made: choose another", parent.display());
            Error::new(ErrorKind::Config, message).with_source(error)
        })
    }

    /// Makes the file, if it is not there, as one that its user alone can read. SQLite gives the files beside it the same mode.
    /// What is in the way of that is in the way of the opening too, which then says so.
    pub(super) fn make_private(&self) {
        #[cfg(unix)]
        if let Some(path) = self.file() {
            use std::os::unix::fs::OpenOptionsExt;
            // Closing a file ends the locks that this process has on it through other connections: each opening waits until the
            // one that made the file has closed it.
            static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
            let _making = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
            let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            drop(made);
        }
    }

    /// The path of a file, also where a URI names it.
    #[cfg(unix)]
    fn file(&self) -> Option<PathBuf> {
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
                // An authority other than the machine itself is an error of SQLite's.
                let name = match name.strip_prefix("//") {
                    Some(rest) => rest.strip_prefix("localhost").unwrap_or(rest),
                    None => name,
                };
                if name.is_empty() || name == ":memory:" || !parameters(uri).all(creates) {
                    return None;
                }
                let name = percent_encoding::percent_decode_str(name).collect::<Vec<u8>>();
                // An escaped NUL would end the name earlier for SQLite.
                let name = (!name.contains(&0)).then_some(name)?;
                Some(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(name).into())
            }
        }
    }

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

/// Which file a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum There {
    Gone,
    File(u64, u64),
    /// It cannot be told: then nothing is done.
    Unknown,
}

impl There {
    #[cfg(unix)]
    pub(super) fn at(path: &Path) -> Self {
        use std::os::unix::fs::MetadataExt;
        match std::fs::metadata(path) {
            Ok(file) => Self::File(file.dev(), file.ino()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::Gone,
            Err(_) => Self::Unknown,
        }
    }

    /// Where an open file can be neither removed nor replaced.
    #[cfg(not(unix))]
    pub(super) fn at(_: &Path) -> Self {
        Self::Unknown
    }
}

/// A file that SQLite keeps beside a database.
pub(super) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn parameters(uri: &str) -> impl Iterator<Item = &str> {
    let uri = uri.split('#').next().unwrap_or_default();
    uri.split_once('?').map(|(_, query)| query).unwrap_or_default().split('&')
}

fn without_parameter(uri: &str, name: &str) -> String {
    let path = uri.split(['?', '#']).next().unwrap_or_default();
    let kept: Vec<&str> =
        parameters(uri).filter(|part| !part.is_empty() && part.split('=').next() != Some(name)).collect();
    if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) }
}
