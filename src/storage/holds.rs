//! Bodies that are being read: a storage with a bound evicts their entries last.
//!
//! Promises: all that is held takes at most half of the bound, and none is held for longer than [`LIMIT`] after its last reader
//! began, so that slow readers never keep a storage from taking new records.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Hold, Key};

/// A body that takes longer to read goes on without a hold.
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// The bodies of a storage that are held.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// How many entries have one: most evictions find none, and take no lock.
    count: AtomicUsize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    entries: HashMap<[u8; 16], Vec<Body>>,
    bytes: u64,
}

#[derive(Debug)]
struct Body {
    slot: [u8; 16],
    readers: usize,
    bytes: u64,
    /// When the last of them began.
    since: Instant,
}

struct Guard {
    holds: Arc<Holds>,
    chunk: Key,
}

impl Holds {
    /// Holds a body of so many bytes, if all that is held stays within half of the bound.
    pub(super) fn hold(self: &Arc<Self>, chunk: Key, bytes: u64, max_bytes: u64) -> Hold {
        let now = Instant::now();
        {
            let mut held = self.lock();
            if held.bytes.saturating_add(bytes) > max_bytes / 2 {
                held.forget_expired(now);
            }
            let all = held.bytes;
            let bodies = held.entries.entry(chunk.entry).or_default();
            match bodies.iter_mut().find(|body| body.slot == chunk.slot) {
                Some(body) => (body.readers, body.since) = (body.readers + 1, now),
                None if all.saturating_add(bytes) <= max_bytes / 2 => {
                    bodies.push(Body { slot: chunk.slot, readers: 1, bytes, since: now });
                    held.bytes += bytes;
                }
                None => {
                    held.forget_empty(&chunk.entry);
                    return Hold::default();
                }
            }
            self.count.store(held.entries.len(), Ordering::Release);
        }
        Hold::new(Guard { holds: Arc::clone(self), chunk })
    }

    /// Whether any entry is to be evicted after others.
    pub(super) fn any(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Whether this entry is to be evicted after others.
    pub(super) fn has_entry(&self, entry: &[u8; 16]) -> bool {
        self.is_held_at(entry, None, Instant::now())
    }

    /// Whether this body is to go after others of its entry.
    #[cfg(feature = "memory")]
    pub(super) fn has_body(&self, entry: &[u8; 16], slot: &[u8; 16]) -> bool {
        self.is_held_at(entry, Some(slot), Instant::now())
    }

    fn is_held_at(&self, entry: &[u8; 16], slot: Option<&[u8; 16]>, now: Instant) -> bool {
        let lasts = |body: &Body| {
            slot.is_none_or(|slot| body.slot == *slot) && now.saturating_duration_since(body.since) < LIMIT
        };
        self.any() && self.lock().entries.get(entry).is_some_and(|bodies| bodies.iter().any(lasts))
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Counts no more what is not held any more, though its readers are still there.
    fn forget_expired(&mut self, now: Instant) {
        for body in self.entries.values_mut().flatten() {
            if now.saturating_duration_since(body.since) >= LIMIT {
                self.bytes -= std::mem::take(&mut body.bytes);
            }
        }
    }

    fn forget_empty(&mut self, entry: &[u8; 16]) {
        if self.entries.get(entry).is_some_and(Vec::is_empty) {
            self.entries.remove(entry);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut held = self.holds.lock();
        let mut freed = 0;
        if let Some(bodies) = held.entries.get_mut(&self.chunk.entry)
            && let Some(at) = bodies.iter().position(|body| body.slot == self.chunk.slot)
        {
            bodies[at].readers -= 1;
            if bodies[at].readers == 0 {
                freed = bodies.swap_remove(at).bytes;
            }
        }
        held.bytes -= freed;
        held.forget_empty(&self.chunk.entry);
        self.holds.count.store(held.entries.len(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Kind;

    fn body(entry: u8, slot: u8) -> Key {
        Key::head([entry; 16]).sibling(Kind::Chunk, [slot; 16], 0)
    }

    #[test]
    fn an_entry_is_held_until_its_last_reader_is_done() {
        let holds = Arc::new(Holds::default());
        let (one, same, other) = (
            holds.hold(body(1, 1), 10, 100),
            holds.hold(body(1, 1), 10, 100),
            holds.hold(body(1, 2), 5, 100),
        );
        drop(one);
        let is_held = |slot: u8| holds.is_held_at(&[1; 16], Some(&[slot; 16]), Instant::now());
        assert!(is_held(1) && is_held(2) && !is_held(3) && !holds.has_entry(&[2; 16]));
        drop(same);
        assert!(!is_held(1) && holds.has_entry(&[1; 16]));
        drop(other);
        assert!(!holds.any() && !holds.has_entry(&[1; 16]));
        assert_eq!(holds.lock().bytes, 0);
    }

    #[test]
    fn at_most_half_of_the_bound_is_held() {
        let holds = Arc::new(Holds::default());
        let first = holds.hold(body(1, 1), 40, 100);
        let refused = holds.hold(body(2, 1), 11, 100);
        let same = holds.hold(body(1, 1), 40, 100);
        assert!(holds.has_entry(&[1; 16]) && !holds.has_entry(&[2; 16]));
        assert_eq!(holds.lock().entries.len(), 1);
        drop((first, refused, same));
        let now = holds.hold(body(2, 1), 11, 100);
        assert!(holds.has_entry(&[2; 16]));
        drop(now);
    }

    #[test]
    fn readers_that_stay_too_long_leave_room_for_others() {
        let holds = Arc::new(Holds::default());
        let slow = holds.hold(body(1, 1), 50, 100);
        let refused = holds.hold(body(2, 1), 50, 100);
        assert!(!holds.has_entry(&[2; 16]));
        holds.lock().forget_expired(Instant::now() + LIMIT);
        let other = holds.hold(body(2, 1), 50, 100);
        assert!(holds.has_entry(&[2; 16]));
        drop((slow, refused));
        assert_eq!(holds.lock().bytes, 50);
        drop(other);
        assert_eq!((holds.lock().bytes, holds.any()), (0, false));
    }

    #[test]
    fn none_is_held_for_ever() {
        let holds = Arc::new(Holds::default());
        let _hold = holds.hold(body(1, 1), 10, 100);
        let now = Instant::now();
        assert!(holds.is_held_at(&[1; 16], None, now + LIMIT - Duration::from_secs(1)));
        assert!(!holds.is_held_at(&[1; 16], None, now + LIMIT));
    }
}
