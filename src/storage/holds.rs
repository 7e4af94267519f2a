//! Entries whose bodies are being read: a storage with a bound evicts them last.
//!
//! Promises: all that is held takes at most half of the bound, and none is held for longer than [`LIMIT`], so that slow readers
//! never keep a storage from taking new records.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Hold;

/// The longest that an entry is held. A body that takes longer to read goes on without, as one that was never held.
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// The entries of a storage that are held.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// How many entries are held: most evictions find none, and take no lock.
    count: AtomicUsize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    entries: HashMap<[u8; 16], Readers>,
    bytes: u64,
}

#[derive(Debug)]
struct Readers {
    count: usize,
    bytes: u64,
    /// When the last of them began.
    since: Instant,
}

struct Guard {
    holds: Arc<Holds>,
    entry: [u8; 16],
}

impl Holds {
    /// Holds an entry of which so many bytes are read, if all that is held stays within half of the bound.
    pub(super) fn hold(self: &Arc<Self>, entry: [u8; 16], bytes: u64, max_bytes: u64) -> Hold {
        let mut held = self.lock();
        let others = held.bytes;
        let readers =
            held.entries.entry(entry).or_insert(Readers { count: 0, bytes: 0, since: Instant::now() });
        let more = bytes.saturating_sub(readers.bytes);
        if others.saturating_add(more) > max_bytes / 2 {
            if readers.count == 0 {
                held.entries.remove(&entry);
            }
            return Hold::default();
        }
        readers.count += 1;
        readers.bytes += more;
        readers.since = Instant::now();
        held.bytes += more;
        self.count.store(held.entries.len(), Ordering::Release);
        drop(held);
        Hold::new(Guard { holds: Arc::clone(self), entry })
    }

    /// Whether any entry is held.
    pub(super) fn any(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Whether this entry is to be evicted after others.
    pub(super) fn is_held(&self, entry: &[u8; 16]) -> bool {
        self.is_held_at(entry, Instant::now())
    }

    fn is_held_at(&self, entry: &[u8; 16], now: Instant) -> bool {
        let lasts = |readers: &Readers| now.saturating_duration_since(readers.since) < LIMIT;
        self.any() && self.lock().entries.get(entry).is_some_and(lasts)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut held = self.holds.lock();
        let Some(readers) = held.entries.get_mut(&self.entry) else { return };
        readers.count -= 1;
        if readers.count == 0
            && let Some(gone) = held.entries.remove(&self.entry)
        {
            held.bytes -= gone.bytes;
        }
        self.holds.count.store(held.entries.len(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_held_until_its_last_reader_is_done() {
        let holds = Arc::new(Holds::default());
        let (one, other) = (holds.hold([1; 16], 10, 100), holds.hold([1; 16], 10, 100));
        drop(one);
        assert!(holds.is_held(&[1; 16]) && !holds.is_held(&[2; 16]));
        drop(other);
        assert!(!holds.any() && !holds.is_held(&[1; 16]));
        assert_eq!(holds.lock().bytes, 0);
    }

    #[test]
    fn at_most_half_of_the_bound_is_held() {
        let holds = Arc::new(Holds::default());
        let first = holds.hold([1; 16], 40, 100);
        let refused = holds.hold([2; 16], 11, 100);
        let same = holds.hold([1; 16], 40, 100);
        assert!(holds.is_held(&[1; 16]) && !holds.is_held(&[2; 16]));
        drop((first, refused, same));
        let now = holds.hold([2; 16], 11, 100);
        assert!(holds.is_held(&[2; 16]));
        drop(now);
    }

    #[test]
    fn none_is_held_for_ever() {
        let holds = Arc::new(Holds::default());
        let _hold = holds.hold([1; 16], 10, 100);
        let now = Instant::now();
        assert!(holds.is_held_at(&[1; 16], now + LIMIT - Duration::from_secs(1)));
        assert!(!holds.is_held_at(&[1; 16], now + LIMIT));
    }
}
