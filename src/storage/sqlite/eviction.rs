//! Keeps the records within the bound, and remembers when entries were used.
//!
//! # Invariants
//!
//! - After a transaction the total is within the bound, or much was freed. The latter happens after the bound was lowered; the
//!   next transactions continue.
//! - Expired records are removed before others. Then whole entries are evicted, the least recently used first. Uses that are
//!   only kept in memory count.
//! - Entries that are held are evicted after all others.

use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use rusqlite::params;

use super::queries;
use super::tables::Tables;
use crate::storage::holds::Holds;
use crate::storage::last_uses::LastUses;
use crate::time::Clock;

/// How many entries one transaction evicts beyond the necessary ones. All other writes wait for it.
const MAX_EXTRA_EVICTIONS: u64 = 256;
/// The most bytes that one transaction frees, since all other writes wait for it. It frees more if it has written more than half
/// of that itself.
const MAX_FREED_BYTES: i64 = 16 << 20;
/// How many rows are read at once. A batch that is only partly used costs little.
const ROWS_AT_ONCE: u32 = 64;
/// How often the times of use are written, in milliseconds. Those of the last five minutes are lost if the process dies.
const FLUSH_INTERVAL: u64 = 5 * 60 * 1000;

/// Evicts entries if the total is above the bound. Returns how many.
///
/// `before` is the total at the beginning of the transaction. Evicts down to 95 % of the bound, so that the next writes need
/// not evict again.
pub(super) fn make_room(
    tables: &mut Tables<'_>,
    before: i64,
    max_bytes: i64,
    recency: &Recency,
    holds: &Holds,
) -> rusqlite::Result<u64> {
    if tables.total_bytes <= max_bytes {
        return Ok(0);
    }
    let target = max_bytes - max_bytes / 20;
    // At least twice as many bytes as this transaction has written, so that each write brings a storage closer to its bound.
    let least = tables.total_bytes - MAX_FREED_BYTES.max((tables.total_bytes - before).saturating_mul(2));
    // `i64::MAX` is never, which no clock may reach.
    let now = queries::encode_time(recency.clock().now()).min(i64::MAX - 1);
    while tables.total_bytes > target
        && tables.total_bytes > least
        && tables.delete_expired(now, ROWS_AT_ONCE)? > 0
    {}
    let mut evicted = 0;
    let mut spared = HashSet::new();
    loop {
        let oldest = oldest_entries(tables)?;
        if oldest.is_empty() {
            return Ok(evicted);
        }
        for (entry, used) in oldest {
            let is_enough = tables.total_bytes <= max_bytes && evicted >= MAX_EXTRA_EVICTIONS;
            if tables.total_bytes <= target || tables.total_bytes <= least || is_enough {
                return Ok(evicted);
            }
            match recency.used_since(entry, used) {
                // Used since its time was written, so it is not the oldest.
                Some(used) => set_used(tables, entry, used)?,
                // Its body is being read, so it moves behind all others. If it comes up again, all that remain are held.
                None if holds.has_entry(&entry) && spared.insert(entry) => {
                    set_used(tables, entry, recency.now())?;
                }
                None => {
                    tables.delete_entry(entry)?;
                    evicted += 1;
                }
            }
        }
    }
}

/// Writes the time at which an entry was used.
pub(super) fn set_used(tables: &Tables<'_>, entry: [u8; 16], used: i64) -> rusqlite::Result<()> {
    tables
        .execute("UPDATE entries SET used = ?2 WHERE entry = ?1 AND used < ?2", params![entry, used])
        .map(drop)
}

fn oldest_entries(tables: &Tables<'_>) -> rusqlite::Result<Vec<([u8; 16], i64)>> {
    let connection = tables.connection();
    let mut statement =
        connection.prepare_cached("SELECT entry, used FROM entries ORDER BY used LIMIT ?1")?;
    let rows = statement.query_map([ROWS_AT_ONCE], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

/// The times at which entries were used, in microseconds by the storage's clock.
///
/// They are kept in memory, so that a hit does not write to the file. The atomics are Relaxed: they publish no other memory.
pub(super) struct Recency {
    clock: Clock,
    uses: LastUses<i64>,
    /// The last time that [`now`](Recency::now) has returned.
    last: AtomicI64,
    /// When the times were last written, in milliseconds.
    flushed_at: AtomicU64,
}

impl Recency {
    pub(super) fn new(clock: Clock) -> Self {
        let flushed_at = AtomicU64::new(clock.now().as_millis());
        Self { clock, uses: LastUses::new(), last: AtomicI64::new(0), flushed_at }
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Returns the current time in microseconds, later than every time returned before.
    ///
    /// The clock counts milliseconds, in which many entries can be used. Distinct times keep them in order.
    pub(super) fn now(&self) -> i64 {
        let now = i64::try_from(self.clock.now().as_millis()).unwrap_or(i64::MAX).saturating_mul(1000);
        let next = |last: i64| Some(now.max(last.saturating_add(1)));
        match self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
            Ok(last) | Err(last) => now.max(last.saturating_add(1)),
        }
    }

    /// Remembers that an entry is used now.
    pub(super) fn touch(&self, entry: [u8; 16]) {
        self.uses.record(entry, || self.now());
    }

    /// Returns the time of the last use of an entry, if it is remembered and later than `used`.
    pub(super) fn used_since(&self, entry: [u8; 16], used: i64) -> Option<i64> {
        self.uses.get(entry).filter(|&last| last > used)
    }

    /// Returns true once every five minutes, when the times should be written.
    pub(super) fn flush_is_due(&self) -> bool {
        let now = self.clock.now().as_millis();
        let flushed_at = self.flushed_at.load(Ordering::Relaxed);
        // Of several tasks that find it due, one exchanges the value and flushes.
        now.saturating_sub(flushed_at) >= FLUSH_INTERVAL
            && self.flushed_at.compare_exchange(flushed_at, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Takes all times that are remembered.
    pub(super) fn take(&self) -> Vec<([u8; 16], i64)> {
        self.uses.take().into_iter().collect()
    }
}
