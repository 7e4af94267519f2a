//! Sets an unusable file aside, so that a new one takes its place.
//!
//! # Invariants
//!
//! - Only the file that was found to be unusable is moved, never one that another process has created since.
//! - One such file is kept, the last one.
//! - One process at a time creates a file or sets one aside, see [`lock_directory`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::location::{FileId, with_suffix};
use super::schema::Unusable;

/// The treatment of a file that cannot be used.
///
/// Stored responses can be fetched again, so by default a new file is preferred to an error.
///
/// A file is *set aside* by appending `.damaged` to its name, which replaces an earlier file of that name. An event of the
/// level ERROR reports it. A file that is not a cache of this crate is never moved. Neither is a file that is read-only, that
/// a URI names, or that is opened without the flag to create it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recovery {
    /// Refuses every unusable file.
    ///
    /// Opening fails. If the damage is found later, the operations that meet it keep failing.
    Refuse,
    /// Sets a damaged file aside and creates a new one, both when opening and later.
    ///
    /// A file of a newer layout is refused: a newer version of the program may be using it right now, and would lose its
    /// cache again and again.
    #[default]
    Damaged,
    /// Also sets a file of a newer layout aside when opening, for a permanent downgrade.
    DamagedOrNewer,
}

impl Recovery {
    pub(super) fn covers(self, unusable: &Unusable) -> bool {
        match unusable {
            Unusable::Damaged => self != Self::Refuse,
            Unusable::NewerLayout => self == Self::DamagedOrNewer,
            _ => false,
        }
    }
}

/// How long to wait for the lock of the directory. Its holders need only a few system calls. The wait is bounded because in a
/// shared directory another user's process could keep the lock forever.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// Renames the file at a path, if it is still the one that was seen. Returns the new path.
///
/// Returns `None` if another process was first, or keeps the lock of the directory for too long.
pub(super) fn set_aside(path: &Path, seen: FileId) -> io::Result<Option<PathBuf>> {
    set_aside_within(LOCK_TIMEOUT, path, seen)
}

fn set_aside_within(timeout: Duration, path: &Path, seen: FileId) -> io::Result<Option<PathBuf>> {
    // Three files are moved one after another. If another process created a new file in between, the new file's WAL would be
    // moved, or the new file would share the index of the old one, and would be damaged in turn.
    let DirectoryLock::Held(_lock) = lock_directory_within(timeout, path) else { return Ok(None) };
    // Compared under the lock: another process may have set the file aside while this one waited.
    if FileId::at(path) != seen {
        return Ok(None);
    }
    let aside = with_suffix(path, ".damaged");
    for suffix in ["-wal", "-shm"] {
        remove_if_exists(&with_suffix(&aside, suffix))?;
    }
    match fs::rename(path, &aside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        renamed => renamed?,
    }
    // Processes that have the old file open keep its shared memory mapped. The new file must not use the same.
    remove_if_exists(&with_suffix(path, "-shm"))?;
    // SQLite would take a WAL that stayed for that of the new file.
    match fs::rename(with_suffix(path, "-wal"), with_suffix(&aside, "-wal")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    Ok(Some(aside))
}

/// The right to create the file at a path, or to set it aside.
pub(super) enum DirectoryLock {
    /// Released on drop. `None` if the system or the file system has no such lock: then the right is granted without one.
    Held(#[allow(dead_code)] Option<fs::File>),
    /// Another process kept the lock for too long.
    TimedOut,
}

/// Locks the directory of a path.
///
/// The lock is on the directory itself, so no lock file is left behind, and the system releases it when the process ends.
pub(super) fn lock_directory(path: &Path) -> DirectoryLock {
    lock_directory_within(LOCK_TIMEOUT, path)
}

#[cfg(unix)]
fn lock_directory_within(timeout: Duration, path: &Path) -> DirectoryLock {
    use fs4::{FileExt, TryLockError};

    use crate::storage::backoff::Backoff;

    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let Ok(directory) = fs::File::open(directory.unwrap_or(Path::new("."))) else {
        return DirectoryLock::Held(None);
    };
    let mut backoff = Backoff::new(timeout);
    loop {
        match FileExt::try_lock(&directory) {
            Ok(()) => return DirectoryLock::Held(Some(directory)),
            Err(TryLockError::Error(_)) => return DirectoryLock::Held(None),
            Err(TryLockError::WouldBlock) if backoff.wait() => {}
            Err(TryLockError::WouldBlock) => return DirectoryLock::TimedOut,
        }
    }
}

/// On these systems an open file cannot be renamed, which prevents the race.
#[cfg(not(unix))]
fn lock_directory_within(_: Duration, _: &Path) -> DirectoryLock {
    DirectoryLock::Held(None)
}

fn remove_if_exists(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn setting_aside_needs_lock_and_same_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache.sqlite");
        fs::write(&path, "damaged").unwrap();
        let seen = FileId::at(&path);
        let lock = lock_directory_within(Duration::ZERO, &path);
        assert!(set_aside_within(Duration::ZERO, &path, seen).unwrap().is_none());
        assert_eq!(fs::read(&path).unwrap(), b"damaged");
        drop(lock);
        let aside = set_aside_within(Duration::ZERO, &path, seen).unwrap().unwrap();
        assert_eq!(fs::read(aside).unwrap(), b"damaged");
        fs::write(&path, "new").unwrap();
        assert!(set_aside_within(Duration::ZERO, &path, seen).unwrap().is_none(), "it is another file");
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }
}
