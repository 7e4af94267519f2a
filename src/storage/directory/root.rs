//! The paths, locks and unfinished files of the storage's directory.
//!
//! # Invariants
//! - Everything that is created is private to the user: on Unix, folders have the mode 0700 and files 0600.
//! - A folder that was removed by someone else is created again by the next change.
//! - A file that is being written is removed if it does not get its name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::error::{change_error, if_present, is_absent, lock_timeout_error};
use super::lock::{self, Lock};
use super::naming;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Key;
use crate::storage::path::{create_folder, create_private};

/// The age at which an unfinished file counts as abandoned. Writing a record takes far less, even on a slow disk.
const ABANDONED_AFTER: Duration = Duration::from_secs(60 * 60);
/// How long a listing waits for changes of the shard that it lists. A listing without the lock is nearly as good.
const LISTING_LOCK_TIMEOUT: Duration = Duration::from_millis(250);
/// How often one operation creates the work folder again, if someone keeps removing it.
const MAX_FOLDER_ATTEMPTS: u32 = 5;

/// The contents of `.gitattributes`. A version control that converted the line ends of records would damage them.
const ATTRIBUTES: &str = "[0-9a-f][0-9a-f]/** binary\n";

pub(super) struct Root {
    path: PathBuf,
    pub(super) fsync: bool,
    lock_timeout: Duration,
}

impl Root {
    /// Opens the directory, and creates it if it does not exist.
    pub(super) fn open(path: PathBuf, fsync: bool, lock_timeout: Duration) -> Result<Self> {
        match if_present(fs::read_dir(&path)) {
            Ok(Some(_)) => {}
            Ok(None) => {
                create_folder(&path)?;
                // Only needed for version control, so the storage works without it.
                let _ = fs::write(path.join(".gitattributes"), ATTRIBUTES);
            }
            Err(error) => {
                let message = format!("{}: the directory cannot be read: choose another", path.display());
                return Err(Error::new(ErrorKind::Config, message).with_source(error));
            }
        }
        Ok(Self { path, fsync, lock_timeout })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn shard(&self, number: u8) -> PathBuf {
        self.path.join(naming::shard(number))
    }

    pub(super) fn entry(&self, entry: [u8; 16]) -> PathBuf {
        let mut path = self.shard(entry[0]);
        path.push(naming::entry(entry));
        path
    }

    pub(super) fn record(&self, key: Key) -> PathBuf {
        let mut path = self.entry(key.entry);
        path.push(naming::record(key));
        path
    }

    fn work(&self, name: &str) -> PathBuf {
        let mut path = self.path.join(naming::WORK);
        path.push(name);
        path
    }

    /// Waits for the lock of a shard, which every change of the shard holds.
    pub(super) fn lock(&self, shard: u8) -> Result<Lock> {
        let path = self.work(&naming::shard_lock(shard));
        let lock = self.in_work_folder(|| lock::acquire(&path, self.lock_timeout)).map_err(change_error)?;
        lock.ok_or_else(lock_timeout_error)
    }

    /// Waits for the lock of a shard without writing anything.
    ///
    /// A directory that cannot be written can thus be listed.
    ///
    /// Returns `None` if the lock's file does not exist, since no process has changed the shard yet, or if others hold the
    /// lock for too long.
    pub(super) fn lock_for_listing(&self, shard: u8) -> Option<Lock> {
        let path = self.work(&naming::shard_lock(shard));
        lock::acquire_existing(&path, self.lock_timeout.min(LISTING_LOCK_TIMEOUT)).ok()?
    }

    /// Waits for the lock that a process holds while it makes room. Returns `None` if that takes too long.
    pub(super) fn lock_for_sweep(&self) -> Option<Lock> {
        let path = self.work(naming::SWEEP_LOCK);
        self.in_work_folder(|| lock::acquire(&path, self.lock_timeout)).ok()?
    }

    /// Writes a file under a name that no process reads.
    pub(super) fn write_unfinished(&self, bytes: &[u8]) -> io::Result<UnfinishedFile> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let path = self.work(&naming::unique(naming::NEW_PREFIX));
        let mut file = self.in_work_folder(|| options.open(&path))?;
        let unfinished = UnfinishedFile(Some(path));
        file.write_all(bytes)?;
        if self.fsync {
            // Before it gets its name: otherwise a power failure could leave the name with a truncated file.
            file.sync_all()?;
        }
        Ok(unfinished)
    }

    /// Checks that files can be written, read and removed.
    pub(super) fn check(&self) -> io::Result<()> {
        const BYTES: &[u8] = b"check";
        let unfinished = self.write_unfinished(BYTES)?;
        let is_whole = match &unfinished.0 {
            Some(path) => fs::read(path)? == BYTES,
            None => true,
        };
        drop(unfinished);
        fs::read_dir(&self.path)?;
        match is_whole {
            true => Ok(()),
            false => Err(io::Error::other("a file does not contain the bytes that were written to it")),
        }
    }

    /// Gives a file the name of a record, and replaces the record that had it. The caller holds the lock of the shard.
    pub(super) fn finish(&self, mut unfinished: UnfinishedFile, key: Key) -> io::Result<()> {
        let Some(from) = unfinished.0.take() else { return Ok(()) };
        let (folder, to) = (self.entry(key.entry), self.record(key));
        let mut renamed = Ok(());
        // The folder usually exists, so it is only created when the first attempt fails.
        if let Err(error) = fs::rename(&from, &to) {
            renamed = if is_absent(&error) { create_private(&folder) } else { Err(error) };
            renamed = renamed.and_then(|()| fs::rename(&from, &to));
        }
        if renamed.is_err() {
            drop(UnfinishedFile(Some(from)));
            return renamed;
        }
        self.sync_folders(&folder)
    }

    /// Moves an entry's folder to a name that no process reads, and returns its path.
    ///
    /// A reader thus sees all of the entry or nothing. The caller holds the lock of the shard.
    pub(super) fn set_aside(&self, entry: [u8; 16]) -> io::Result<PathBuf> {
        let to = self.work(&naming::unique(naming::REMOVED_PREFIX));
        fs::rename(self.entry(entry), &to).map(|()| to)
    }

    /// Writes the names in this folder, and in those above it, to the disk. Does nothing without `fsync`.
    pub(super) fn sync_folders(&self, folder: &Path) -> io::Result<()> {
        // Other systems cannot open a folder as a file.
        if !self.fsync || cfg!(not(unix)) {
            return Ok(());
        }
        for folder in folder.ancestors().take_while(|folder| folder.starts_with(&self.path)) {
            // The change may have removed the folder. Then only the one above it has a changed name.
            if let Some(folder) = if_present(File::open(folder))? {
                folder.sync_all()?;
            }
        }
        Ok(())
    }

    /// Removes what was left by processes that died while they wrote or removed something.
    pub(super) fn remove_abandoned(&self) {
        let Ok(files) = fs::read_dir(self.path.join(naming::WORK)) else { return };
        let now = SystemTime::now();
        for file in files.flatten() {
            let name = file.file_name();
            let is_old = || {
                let changed = file.metadata().and_then(|file| file.modified());
                changed
                    .is_ok_and(|changed| now.duration_since(changed).is_ok_and(|age| age > ABANDONED_AFTER))
            };
            match name.to_str() {
                // At any age: it is no longer read, and the process that set it aside can bear its removal.
                Some(name) if name.starts_with(naming::REMOVED_PREFIX) => {
                    drop(fs::remove_dir_all(file.path()))
                }
                Some(name) if name.starts_with(naming::NEW_PREFIX) && is_old() => {
                    drop(fs::remove_file(file.path()));
                }
                _ => {}
            }
        }
    }

    /// Runs an operation in the work folder. If the folder is missing, creates it and tries again.
    fn in_work_folder<T>(&self, mut operation: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let mut attempts = 0;
        loop {
            match operation() {
                Err(error) if error.kind() == io::ErrorKind::NotFound && attempts < MAX_FOLDER_ATTEMPTS => {
                    attempts += 1;
                }
                result => return result,
            }
            create_private(&self.path.join(naming::WORK))?;
            // Keeps locks and unfinished files out of version control.
            let ignore = self.work(".gitignore");
            if if_present(fs::metadata(&ignore))?.is_none() {
                fs::write(ignore, "*\n")?;
            }
        }
    }
}

/// A file that has not got its name yet. It is removed when this is dropped.
#[must_use]
pub(super) struct UnfinishedFile(Option<PathBuf>);

impl Drop for UnfinishedFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = fs::remove_file(path); // if this fails, `remove_abandoned` removes it
        }
    }
}
