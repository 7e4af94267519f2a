//! Setting a file aside that cannot be used, so that a new one takes its place.
//!
//! Promises: only the file that was found to be of no use is moved, never one that another process has made since; one such file is
//! kept, the last.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::inspect::Refusal;
use super::location::beside;
use super::source::There;

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

/// Renames the file at a path, if it is still this one; says to which name.
pub(super) fn set_aside(path: &Path, seen: There) -> io::Result<Option<PathBuf>> {
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
    // A log that stayed would be taken for the new file's.
    match fs::rename(beside(path, "-wal"), beside(&aside, "-wal")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    remove(&beside(path, "-shm"))?;
    Ok(Some(aside))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
