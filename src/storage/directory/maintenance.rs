//! Making room within the bound, counting, and removing everything.
//!
//! # Invariants
//! - A sweep removes whole entries, the least recently used first, until 95 % of the bound are taken. Uses that are only in
//!   memory count. Entries of which this process reads a body are removed last.
//! - An entry that was used since the sweep looked at it stays.
//! - Files that do not belong to the storage stay.
//! - A reader sees an entry or does not see it: its folder is moved away in one step, and its files are removed afterwards. Only
//!   where the folder cannot be moved, or contains other files, the records are removed one by one.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use super::entries;
use super::error::change_error;
use super::recency::Recency;
use super::records::Records;
use crate::error::Result;
use crate::storage::Key;
use crate::storage::evictions::evicted;
use crate::storage::holds::Holds;

/// An entry that a sweep may remove.
struct Candidate {
    /// Whether one of its bodies is being read.
    is_held: bool,
    used: SystemTime,
    entry: [u8; 16],
    size: u64,
}

/// Counts the files if it is time, and evicts entries if they take too much.
pub(super) fn sweep(records: &Records, recency: &Recency, holds: &Holds) {
    // Again, as long as so much was written during a sweep that the next one is due.
    while records.quota.is_due() && sweep_once(records, recency, holds) {}
}

/// Sweeps once. Returns whether anything was written meanwhile, which the sweep may have missed.
fn sweep_once(records: &Records, recency: &Recency, holds: &Holds) -> bool {
    let Some(max_bytes) = records.quota.max_bytes() else { return false };
    // One process at a time: two of them would evict twice as much as is needed.
    let Some(_lock) = records.root.lock_for_sweep() else { return false };
    // Another thread may have made room while this one waited for the lock.
    if !records.quota.is_due() {
        return false;
    }
    records.root.remove_abandoned();
    records.quota.begin_count();
    let mut candidates = Vec::new();
    let mut total: u64 = 0;
    let mut folders = [0_u64; 256];
    for shard in 0..=u8::MAX {
        for entry in entries::entries(&records.root, shard).unwrap_or_default() {
            let Ok(usage) = entries::usage(&records.root, entry) else { continue };
            total = total.saturating_add(usage.size);
            if usage.size > 0 {
                let used = recency.last_use(entry).unwrap_or(usage.changed).max(usage.changed);
                let is_held = holds.has_entry(&entry);
                candidates.push(Candidate { is_held, used, entry, size: usage.size });
            }
        }
        let folder = entries::folder(&records.root.shard(shard));
        folders[usize::from(shard)] = folder;
        total = total.saturating_add(folder);
    }
    if total > max_bytes {
        candidates.sort_unstable_by_key(|candidate| (candidate.is_held, candidate.used));
        let mut removed = 0;
        for candidate in candidates {
            // Some room more than needed, so that the next write does not cause the next sweep.
            if total <= max_bytes - max_bytes / 20 {
                break;
            }
            // A reader may have begun since the candidates were collected.
            let may_evict = candidate.is_held || !holds.has_entry(&candidate.entry);
            if may_evict && evict(records, recency, &candidate).unwrap_or(false) {
                total = total.saturating_sub(candidate.size);
                removed += 1;
                // The folder of the shard may be gone, or shorter if it had many entries.
                let shard = candidate.entry[0];
                let before = std::mem::replace(
                    &mut folders[usize::from(shard)],
                    entries::folder(&records.root.shard(shard)),
                );
                total = total.saturating_sub(before.saturating_sub(folders[usize::from(shard)]));
            }
        }
        evicted("directory", removed);
    }
    records.quota.end_count(total)
}

/// Returns what all entries and the folders above them take.
pub(super) fn count(records: &Records) -> Result<u64> {
    let mut total: u64 = 0;
    for shard in 0..=u8::MAX {
        for entry in entries::entries(&records.root, shard).map_err(change_error)? {
            let usage = entries::usage(&records.root, entry).map_err(change_error)?;
            total = total.saturating_add(usage.size);
        }
        total = total.saturating_add(entries::folder(&records.root.shard(shard)));
    }
    Ok(total)
}

/// Removes an entry, unless it was used since the sweep looked at it. Returns whether it was removed.
fn evict(records: &Records, recency: &Recency, candidate: &Candidate) -> Result<bool> {
    let lock = records.root.lock(candidate.entry[0])?;
    let usage = entries::usage(&records.root, candidate.entry).map_err(change_error)?;
    let used = recency.last_use(candidate.entry).unwrap_or(usage.changed).max(usage.changed);
    if used > candidate.used {
        return Ok(false);
    }
    if !usage.has_foreign_files
        && let Ok(aside) = set_aside(records, candidate.entry)
    {
        // The files are out of reach, so other changes of the shard need not wait for their removal.
        drop(lock);
        let _ = fs::remove_dir_all(aside); // if this fails, `remove_abandoned` removes it
        return Ok(true);
    }
    remove_one_by_one(records, candidate.entry)?;
    Ok(true)
}

/// Removes all records of a shard. Folders that are set aside are left to `remove_abandoned`.
pub(super) fn clear(records: &Records, shard: u8) -> Result<()> {
    // Without a lock, so that clearing an empty directory writes nothing.
    if entries::entries(&records.root, shard).map_err(change_error)?.is_empty() {
        return Ok(());
    }
    let _lock = records.root.lock(shard)?;
    records.quota.forget();
    for entry in entries::entries(&records.root, shard).map_err(change_error)? {
        let files = entries::files(&records.root, entry).map_err(change_error)?;
        let all_ours = files.iter().all(|file| file.key.is_some());
        if !all_ours || set_aside(records, entry).is_err() {
            remove_one_by_one(records, entry)?;
        }
    }
    Ok(())
}

/// Moves an entry's folder away. The caller holds the lock of the shard.
fn set_aside(records: &Records, entry: [u8; 16]) -> io::Result<PathBuf> {
    let aside = records.root.set_aside(entry)?;
    let _ = fs::remove_dir(records.root.shard(entry[0])); // fails if there are other entries, which is fine
    records.root.sync_folders(&records.root.shard(entry[0]))?;
    Ok(aside)
}

/// Removes the records of an entry, in the order of their keys. The caller holds the lock of the shard.
///
/// The head comes first in this order: without it, a reader finds none of the others.
fn remove_one_by_one(records: &Records, entry: [u8; 16]) -> Result<()> {
    let files = entries::files(&records.root, entry).map_err(change_error)?;
    let mut keys: Vec<Key> = files.iter().filter_map(|file| file.key).collect();
    keys.sort_unstable();
    records.remove(&keys).map(drop)
}
