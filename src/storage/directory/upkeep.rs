//! Making room within the bound, and removing everything.
//!
//! Promises: what goes is whole entries, the one used longest ago first, uses noted in memory included, and those that this process
//! reads a body of last, until 95 % of the bound are taken; files that are not ours stay; an entry that changed since it was looked at stays too.
//! A reader sees an entry or does not see it: its folder goes in one step, and its files after that.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use super::entries;
use super::failure::failed_change;
use super::recency::Recency;
use super::records::Records;
use crate::error::Result;
use crate::storage::Key;
use crate::storage::evictions::evicted;
use crate::storage::holds::Holds;

struct Candidate {
    /// One of its bodies is being read.
    is_held: bool,
    used: SystemTime,
    entry: [u8; 16],
    size: u64,
}

/// Counts what is there if it is time, and evicts if it is too much, until nothing more is to do.
pub(super) fn sweep(records: &Records, recency: &Recency, holds: &Holds) {
    while records.bound.is_due() && sweep_once(records, recency, holds) {}
}

/// One process at a time; says whether something was written meanwhile, which it may have missed.
fn sweep_once(records: &Records, recency: &Recency, holds: &Holds) -> bool {
    let Some(most) = records.bound.max_bytes() else { return false };
    let Some(_alone) = records.place.lock_sweep() else { return false };
    // Another thread may have done it while this one waited for its turn.
    if !records.bound.is_due() {
        return false;
    }
    records.place.remove_abandoned();
    records.bound.count_begins();
    let mut candidates = Vec::new();
    let mut total: u64 = 0;
    let mut folders = [0_u64; 256];
    for shard in 0..=u8::MAX {
        for entry in entries::entries(&records.place, shard).unwrap_or_default() {
            let Ok(usage) = entries::usage(&records.place, entry) else { continue };
            total = total.saturating_add(usage.size);
            if usage.size > 0 {
                let used = recency.used(entry).unwrap_or(usage.changed).max(usage.changed);
                let is_held = holds.has_entry(&entry);
                candidates.push(Candidate { is_held, used, entry, size: usage.size });
            }
        }
        let folder = entries::folder(&records.place.shard(shard));
        folders[usize::from(shard)] = folder;
        total = total.saturating_add(folder);
    }
    if total > most {
        candidates.sort_unstable_by_key(|candidate| (candidate.is_held, candidate.used));
        let mut gone = 0;
        for candidate in candidates {
            if total <= most - most / 20 {
                break;
            }
            // A reader may have begun since.
            let may_go = candidate.is_held || !holds.has_entry(&candidate.entry);
            if may_go && evict(records, recency, &candidate).unwrap_or(false) {
                total = total.saturating_sub(candidate.size);
                gone += 1;
                // It may have been the last of its shard, or one of so many that their folder is shorter now.
                let shard = candidate.entry[0];
                let before = std::mem::replace(
                    &mut folders[usize::from(shard)],
                    entries::folder(&records.place.shard(shard)),
                );
                total = total.saturating_sub(before.saturating_sub(folders[usize::from(shard)]));
            }
        }
        evicted("directory", gone);
    }
    records.bound.counted(total)
}

/// Counts what all entries take.
pub(super) fn count(records: &Records) -> Result<u64> {
    let mut total: u64 = 0;
    for shard in 0..=u8::MAX {
        for entry in entries::entries(&records.place, shard).map_err(failed_change)? {
            let usage = entries::usage(&records.place, entry).map_err(failed_change)?;
            total = total.saturating_add(usage.size);
        }
        total = total.saturating_add(entries::folder(&records.place.shard(shard)));
    }
    Ok(total)
}

/// Removes an entry if it was not used since; says whether.
fn evict(records: &Records, recency: &Recency, candidate: &Candidate) -> Result<bool> {
    let lock = records.place.lock(candidate.entry[0])?;
    let usage = entries::usage(&records.place, candidate.entry).map_err(failed_change)?;
    let used = recency.used(candidate.entry).unwrap_or(usage.changed).max(usage.changed);
    if used > candidate.used {
        return Ok(false);
    }
    if !usage.has_others
        && let Ok(aside) = set_aside(records, candidate.entry)
    {
        drop(lock);
        let _ = fs::remove_dir_all(aside); // swept later
        return Ok(true);
    }
    remove_one_by_one(records, candidate.entry)?;
    Ok(true)
}

/// Removes all records of a shard. Entries that are set aside are removed with what is abandoned.
pub(super) fn clear(records: &Records, shard: u8) -> Result<()> {
    if entries::entries(&records.place, shard).map_err(failed_change)?.is_empty() {
        return Ok(());
    }
    let _lock = records.place.lock(shard)?;
    records.bound.forget();
    for entry in entries::entries(&records.place, shard).map_err(failed_change)? {
        let files = entries::files(&records.place, entry).map_err(failed_change)?;
        let is_ours = files.iter().all(|file| file.key.is_some());
        if !is_ours || set_aside(records, entry).is_err() {
            remove_one_by_one(records, entry)?;
        }
    }
    Ok(())
}

/// The shard is locked.
fn set_aside(records: &Records, entry: [u8; 16]) -> io::Result<PathBuf> {
    let aside = records.place.set_aside(entry)?;
    let _ = fs::remove_dir(records.place.shard(entry[0])); // others are in it
    records.place.settle(&records.place.shard(entry[0]))?;
    Ok(aside)
}

/// Removes an entry's records, what others are found by first. The shard is locked.
fn remove_one_by_one(records: &Records, entry: [u8; 16]) -> Result<()> {
    let files = entries::files(&records.place, entry).map_err(failed_change)?;
    let mut keys: Vec<Key> = files.iter().filter_map(|file| file.key).collect();
    keys.sort_unstable();
    records.remove(&keys).map(drop)
}
