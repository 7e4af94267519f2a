//! Setting a file aside that cannot be used, so that a new one takes its place.
//!
//! Promises: only the file that was found to be of no use is moved, never one that another process has made since; one such file is
//! kept, the last. One process at a time sets a file aside or makes one: see [`alone`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::inspect::Refusal;
use super::location::{There, beside};

/// What becomes of a cache's file that cannot be used as it is: a cache can be fetched again, so that a new file is worth more than
/// an error.
///
/// The file is renamed, with `.damaged` behind its name, in place of one of that name; an event of the level ERROR tells of
/// it. A file that is no cache of this crate is never touched, and neither is one that is read-only, is named by a URI, or is
/// opened without leave to create it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recovery {
    /// Refuses it: opening fails, and what fails while the storage is open goes on failing.
    Refuse,
    /// Sets a damaged file aside, when it is opened and while it is open, and begins a new one. Refuses a file of a newer layout:
    /// a newer version of the program may be using it at this moment, and would have its cache taken away again and
    /// again.
    #[default]
    Damaged,
    /// Sets a file of a newer layout aside too, when it is opened: for going back to an older version for good.
    DamagedOrNewer,
}

impl Recovery {
    pub(super) fn covers(self, refusal: &Refusal) -> bool {
        match refusal {
            Refusal::Damaged => self != Self::Refuse,
            Refusal::Newer => self == Self::DamagedOrNewer,
            _ => false,
        }
    }
}

/// How long others are waited for. They need a few calls to the system; a neighbour in a shared directory may keep the lock.
const PATIENCE: Duration = Duration::from_secs(1);

/// Renames the file at a path, if it is still this one; says to which name. `None`: another process was first, or keeps its
/// turn for long.
pub(super) fn set_aside(path: &Path, seen: There) -> io::Result<Option<PathBuf>> {
    set_aside_within(PATIENCE, path, seen)
}

fn set_aside_within(patience: Duration, path: &Path, seen: There) -> io::Result<Option<PathBuf>> {
    // Three files are moved one after another. A process that made a new file meanwhile would have its log moved too, or share
    // the old file's index with it, and the new file would be damaged in turn.
    let Turn::Ours(_turn) = alone_within(patience, path) else { return Ok(None) };
    if There::at(path) != seen {
        return Ok(None); // another process was first
    }
    let aside = beside(path, ".damaged");
    for end in ["-wal", "-shm"] {
        remove(&beside(&aside, end))?;
    }
    match fs::rename(path, &aside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        renamed => renamed?,
    }
    // Processes that have the old file open keep its index alive, which the new file must not share with them.
    remove(&beside(path, "-shm"))?;
    // A log that stayed would be taken for the new file's.
    match fs::rename(beside(path, "-wal"), beside(&aside, "-wal")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    Ok(Some(aside))
}

/// The turn to make the file at a path, or to set it aside.
pub(super) enum Turn {
    /// Given up when it is dropped. `None` where the system has no such lock.
    Ours(#[allow(dead_code)] Option<fs::File>),
    Taken,
}

/// Takes the turn, which is a lock on the file's directory: so nothing is left behind, and it ends with its process. Where
/// there is no such lock everyone has a turn.
pub(super) fn alone(path: &Path) -> Turn {
    alone_within(PATIENCE, path)
}

#[cfg(unix)]
fn alone_within(patience: Duration, path: &Path) -> Turn {
    use fs4::{FileExt, TryLockError};

    use crate::storage::backoff::Backoff;

    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let Ok(directory) = fs::File::open(directory.unwrap_or(Path::new("."))) else { return Turn::Ours(None) };
    let mut backoff = Backoff::new(patience);
    loop {
        match FileExt::try_lock(&directory) {
            Ok(()) => return Turn::Ours(Some(directory)),
            Err(TryLockError::Error(_)) => return Turn::Ours(None),
            Err(TryLockError::WouldBlock) if backoff.wait() => {}
            Err(TryLockError::WouldBlock) => return Turn::Taken,
        }
    }
}

/// Where a file that is open cannot be renamed, there is nothing to take turns for.
#[cfg(not(unix))]
fn alone_within(_: Duration, _: &Path) -> Turn {
    Turn::Ours(None)
}

fn remove(path: &Path) -> io::Result<()> {
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
    fn a_file_is_set_aside_only_in_turn() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache.sqlite");
        fs::write(&path, "damaged").unwrap();
        let seen = There::at(&path);
        let turn = alone_within(Duration::ZERO, &path);
        assert!(set_aside_within(Duration::ZERO, &path, seen).unwrap().is_none());
        assert_eq!(fs::read(&path).unwrap(), b"damaged");
        drop(turn);
        let aside = set_aside_within(Duration::ZERO, &path, seen).unwrap().unwrap();
        assert_eq!(fs::read(aside).unwrap(), b"damaged");
        fs::write(&path, "new").unwrap();
        assert!(set_aside_within(Duration::ZERO, &path, seen).unwrap().is_none(), "it is another file");
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }
}
