//! The directory itself: its folders, its locks and the files that are being written.
//!
//! Promises: what is made is private to the user (on Unix: 0700, 0600); a folder that somebody removed is made again by
//! the next change; a file that is being written is removed if it never gets its name.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::failure::{busy, failed_change, found, is_absent};
use super::lock::{self, Lock};
use super::naming;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Key;

/// After so long nobody still writes a file.
const ABANDONED: Duration = Duration::from_secs(60 * 60);
/// How long a listing waits for those who change what it lists.
const LOOK: Duration = Duration::from_millis(250);
/// How often a folder is made that somebody else removes.
const TRIES: u32 = 5;

/// Records are bytes: a version control that changed their line ends would damage them.
const ATTRIBUTES: &str = "[0-9a-f][0-9a-f]/** binary\n";

pub(super) struct Place {
    root: PathBuf,
    pub(super) fsync: bool,
    patience: Duration,
}

impl Place {
    /// The directory, which is made if it is not there.
    pub(super) fn open(root: PathBuf, fsync: bool, patience: Duration) -> Result<Self> {
        let config = |what, error| {
            let message = format!("{}: {what}: choose another", root.display());
            Error::new(ErrorKind::Config, message).with_source(error)
        };
        match found(fs::read_dir(&root)) {
            Ok(Some(_)) => {}
            Ok(None) => {
                make_folder(&root).map_err(|error| config("the directory cannot be made", error))?;
                // Not there: then a version control that is set to change line ends does so here too.
                let _ = fs::write(root.join(".gitattributes"), ATTRIBUTES);
            }
            Err(error) => return Err(config("the directory cannot be read", error)),
        }
        Ok(Self { root, fsync, patience })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn shard(&self, number: u8) -> PathBuf {
        self.root.join(naming::shard(number))
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
        let mut path = self.root.join(naming::WORK);
        path.push(name);
        path
    }

    /// Waits until nobody else changes this shard.
    pub(super) fn lock(&self, shard: u8) -> Result<Lock> {
        let path = self.work(&naming::lock(shard));
        let lock = self.in_work(|| lock::take(&path, self.patience)).map_err(failed_change)?;
        lock.ok_or_else(busy)
    }

    /// The same for one who only looks; `None` where there is no such lock, since nobody ever changed the shard, or where
    /// somebody keeps it.
    pub(super) fn lock_to_look(&self, shard: u8) -> Option<Lock> {
        lock::take_existing(&self.work(&naming::lock(shard)), self.patience.min(LOOK)).ok()?
    }

    /// The right to make room, once nobody else does; `None` if that takes too long.
    pub(super) fn lock_sweep(&self) -> Option<Lock> {
        let path = self.work(naming::SWEEP);
        self.in_work(|| lock::take(&path, self.patience)).ok()?
    }

    /// A file with these bytes, which has no name that anybody reads yet.
    pub(super) fn unfinished(&self, bytes: &[u8]) -> io::Result<Unfinished> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let path = self.work(&naming::unique(naming::NEW));
        let mut file = self.in_work(|| options.open(&path))?;
        let unfinished = Unfinished(Some(path));
        file.write_all(bytes)?;
        if self.fsync {
            file.sync_all()?;
        }
        Ok(unfinished)
    }

    /// Whether files can be written here, read and removed.
    pub(super) fn check(&self) -> io::Result<()> {
        const BYTES: &[u8] = b"check";
        let unfinished = self.unfinished(BYTES)?;
        let is_whole = match &unfinished.0 {
            Some(path) => fs::read(path)? == BYTES,
            None => true,
        };
        drop(unfinished);
        fs::read_dir(&self.root)?;
        match is_whole {
            true => Ok(()),
            false => Err(io::Error::other("a file does not hold what was written to it")),
        }
    }

    /// Gives a file its name, in place of one that has it. The shard is locked.
    pub(super) fn finish(&self, mut unfinished: Unfinished, key: Key) -> io::Result<()> {
        let Some(from) = unfinished.0.take() else { return Ok(()) };
        let (folder, to) = (self.entry(key.entry), self.record(key));
        let mut made = Ok(());
        if let Err(error) = fs::rename(&from, &to) {
            made = if is_absent(&error) { make_folder(&folder) } else { Err(error) };
            made = made.and_then(|()| fs::rename(&from, &to));
        }
        if made.is_err() {
            drop(Unfinished(Some(from)));
            return made;
        }
        self.settle(&folder)
    }

    /// Moves an entry's folder to where nobody reads it; gives back where. The shard is locked.
    pub(super) fn set_aside(&self, entry: [u8; 16]) -> io::Result<PathBuf> {
        let to = self.work(&naming::unique(naming::GONE));
        fs::rename(self.entry(entry), &to).map(|()| to)
    }

    /// Where changes have to be on the disk: the names in this folder, and in those above it.
    pub(super) fn settle(&self, folder: &Path) -> io::Result<()> {
        if !self.fsync || cfg!(not(unix)) {
            return Ok(());
        }
        for folder in folder.ancestors().take_while(|folder| folder.starts_with(&self.root)) {
            // One that went with what was in it has nothing to settle.
            if let Some(folder) = found(File::open(folder))? {
                folder.sync_all()?;
            }
        }
        Ok(())
    }

    /// Removes what a process left that died while it wrote or removed something.
    pub(super) fn remove_abandoned(&self) {
        let Ok(files) = fs::read_dir(self.root.join(naming::WORK)) else { return };
        let now = SystemTime::now();
        for file in files.flatten() {
            let name = file.file_name();
            let is_old = || {
                let changed = file.metadata().and_then(|file| file.modified());
                changed.is_ok_and(|changed| now.duration_since(changed).is_ok_and(|age| age > ABANDONED))
            };
            match name.to_str() {
                // Nothing in it can be read any more, whoever removes it.
                Some(name) if name.starts_with(naming::GONE) => drop(fs::remove_dir_all(file.path())),
                Some(name) if name.starts_with(naming::NEW) && is_old() => drop(fs::remove_file(file.path())),
                _ => {}
            }
        }
    }

    /// Does something in the work folder, which is made if it is not there.
    fn in_work<T>(&self, mut act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let mut tries = 0;
        loop {
            match act() {
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries < TRIES => tries += 1,
                result => return result,
            }
            make_folder(&self.root.join(naming::WORK))?;
            // So that a version control takes records and nothing else.
            let ignore = self.work(".gitignore");
            if found(fs::metadata(&ignore))?.is_none() {
                fs::write(ignore, "*\n")?;
            }
        }
    }
}

/// A file without a name of its own; removed when it is dropped.
#[must_use]
pub(super) struct Unfinished(Option<PathBuf>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = fs::remove_file(path); // swept later
        }
    }
}

/// Makes a folder, and those above it.
fn make_folder(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}
