//! Tests the guarantees of `DirectoryStorage` beyond the contract.
//!
//! They are about the files and their names, the bound, and other processes and programs in the same directory.

mod bound;
mod disk;
mod files;
mod killed;
mod names;
mod sharing;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use futures_util::TryStreamExt;
use tower_response_cache::storage::{DirectoryStorage, Key, Storage};

pub(crate) use crate::on_disk::{chunk, directory, head, record, until};

/// Returns the folder of an entry.
pub(crate) fn entry(root: &Path, n: u8) -> PathBuf {
    root.join(format!("{n:02x}")).join(format!("{n:02x}").repeat(16))
}

/// Returns every file below a directory, with its bytes.
///
/// Files that are removed meanwhile may be missing.
pub(crate) fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for file in std::fs::read_dir(folder).into_iter().flatten() {
            let path = file.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(bytes) = std::fs::read(&path) {
                found.insert(path, bytes);
            }
        }
    }
    found
}

/// Returns the names in the work folder that are not locks.
pub(crate) fn unfinished(root: &Path) -> Vec<String> {
    let Ok(files) = std::fs::read_dir(root.join(".work")) else { return Vec::new() };
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with("lock-") && name != ".gitignore").collect()
}

pub(crate) async fn keys(storage: &DirectoryStorage) -> Vec<Key> {
    let mut keys: Vec<Key> = storage.keys().try_collect().await.unwrap();
    keys.sort();
    keys
}
