//! The bodies that are being read, whose entries a storage with a bound evicts last.
//!
//! # Invariants
//! - The held bodies together take at most half of the bound, so slow readers never keep a storage from accepting new records.
//! - No body is held for longer than [`MAX_HOLD`] after its last reader began.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Hold, Key};

/// A body that takes longer to read is no longer held. A reader that stalls, or never ends, must not hold its entry forever.
const MAX_HOLD: Duration = Duration::from_secs(10 * 60);

/// The bodies of a storage that are held.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// The number of entries with a held body. Most evictions find that there are none, and need not take the lock.
    entries_len: AtomicUsize,
    held: Mutex<HeldBodies>,
}

#[derive(Debug, Default)]
struct HeldBodies {
    entries: HashMap<[u8; 16], Vec<Body>>,
    /// The length of all held bodies together.
    bytes: u64,
}

#[derive(Debug)]
struct Body {
    slot: [u8; 16],
    readers: usize,
    /// Zero once the hold has expired and no longer counts towards the limit.
    bytes: u64,
    /// When the last reader began.
    since: Instant,
}

/// Ends one reader's hold when it is dropped.
struct Guard {
    holds: Arc<Holds>,
    chunk: Key,
}

impl Holds {
    /// Holds a body if all held bodies then take at most half of the bound.
    pub(super) fn hold(self: &Arc<Self>, chunk: Key, bytes: u64, max_bytes: u64) -> Hold {
        let now = Instant::now();
        {
            let mut held = self.lock();
            if held.bytes.saturating_add(bytes) > max_bytes / 2 {
                held.release_expired(now);
            }
            let all = held.bytes;
            let bodies = held.entries.entry(chunk.entry).or_default();
            match bodies.iter_mut().find(|body| body.slot == chunk.slot) {
                // Further readers of a body take no more memory, and renew its time limit. If it has expired and its room was
                // given away, it needs room again.
                Some(body) => {
                    body.readers += 1;
                    let missing = bytes.saturating_sub(body.bytes);
                    if all.saturating_add(missing) <= max_bytes / 2 {
                        (body.bytes, body.since) = (body.bytes + missing, now);
                        held.bytes += missing;
                    }
                }
                None if all.saturating_add(bytes) <= max_bytes / 2 => {
                    bodies.push(Body { slot: chunk.slot, readers: 1, bytes, since: now });
                    held.bytes += bytes;
                }
                None => {
                    held.remove_if_empty(&chunk.entry);
                    return Hold::default();
                }
            }
            // Release, so that an eviction that reads this number finds the body behind the lock.
            self.entries_len.store(held.entries.len(), Ordering::Release);
        }
        Hold::new(Guard { holds: Arc::clone(self), chunk })
    }

    /// Returns whether any body is held.
    pub(super) fn any(&self) -> bool {
        self.entries_len.load(Ordering::Acquire) > 0
    }

    /// Returns whether a body of this entry is held.
    pub(super) fn has_entry(&self, entry: &[u8; 16]) -> bool {
        self.is_held_at(entry, None, Instant::now())
    }

    /// Returns whether this body is held.
    #[cfg(feature = "memory")]
    pub(super) fn has_body(&self, entry: &[u8; 16], slot: &[u8; 16]) -> bool {
        self.is_held_at(entry, Some(slot), Instant::now())
    }

    fn is_held_at(&self, entry: &[u8; 16], slot: Option<&[u8; 16]>, now: Instant) -> bool {
        let is_held = |body: &Body| {
            slot.is_none_or(|slot| body.slot == *slot) && now.saturating_duration_since(body.since) < MAX_HOLD
        };
        self.any() && self.lock().entries.get(entry).is_some_and(|bodies| bodies.iter().any(is_held))
    }

    fn lock(&self) -> MutexGuard<'_, HeldBodies> {
        // A panic elsewhere leaves only counts behind, which hold back evictions at worst.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HeldBodies {
    /// Stops counting the bodies whose hold has expired, even though they still have readers.
    fn release_expired(&mut self, now: Instant) {
        for body in self.entries.values_mut().flatten() {
            if now.saturating_duration_since(body.since) >= MAX_HOLD {
                self.bytes -= std::mem::take(&mut body.bytes);
            }
        }
    }

    fn remove_if_empty(&mut self, entry: &[u8; 16]) {
        if self.entries.get(entry).is_some_and(Vec::is_empty) {
            self.entries.remove(entry);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut held = self.holds.lock();
        let mut released = 0;
        if let Some(bodies) = held.entries.get_mut(&self.chunk.entry)
            && let Some(at) = bodies.iter().position(|body| body.slot == self.chunk.slot)
        {
            bodies[at].readers -= 1;
            if bodies[at].readers == 0 {
                released = bodies.swap_remove(at).bytes;
            }
        }
        held.bytes -= released;
        held.remove_if_empty(&self.chunk.entry);
        self.holds.entries_len.store(held.entries.len(), Ordering::Release);
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
    fn entry_is_held_until_last_reader_ends() {
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
    fn held_bodies_take_at_most_half_of_bound() {
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
    fn expired_holds_make_room_for_others() {
        let holds = Arc::new(Holds::default());
        let slow = holds.hold(body(1, 1), 50, 100);
        let refused = holds.hold(body(2, 1), 50, 100);
        assert!(!holds.has_entry(&[2; 16]));
        holds.lock().release_expired(Instant::now() + MAX_HOLD);
        let other = holds.hold(body(2, 1), 50, 100);
        assert!(holds.has_entry(&[2; 16]));
        drop((slow, refused));
        assert_eq!(holds.lock().bytes, 50);
        drop(other);
        assert_eq!((holds.lock().bytes, holds.any()), (0, false));
    }

    #[test]
    fn renewed_hold_needs_room_again() {
        let holds = Arc::new(Holds::default());
        let slow = holds.hold(body(1, 1), 50, 100);
        let expire = || {
            let mut held = holds.lock();
            let long_ago = Instant::now().checked_sub(MAX_HOLD).expect("a machine that runs for longer");
            held.entries
                .values_mut()
                .flatten()
                .filter(|body| body.slot == [1; 16])
                .for_each(|body| body.since = long_ago);
            held.release_expired(Instant::now());
        };
        expire();
        let other = holds.hold(body(2, 2), 50, 100);
        let without_room = holds.hold(body(1, 1), 50, 100);
        assert!(holds.has_entry(&[2; 16]) && !holds.has_entry(&[1; 16]));
        assert_eq!(holds.lock().bytes, 50);
        drop(other);
        let renewed = holds.hold(body(1, 1), 50, 100);
        assert!(holds.has_entry(&[1; 16]));
        assert_eq!(holds.lock().bytes, 50);
        drop((slow, without_room, renewed));
        assert_eq!((holds.lock().bytes, holds.any()), (0, false));
    }

    #[test]
    fn holds_expire() {
        let holds = Arc::new(Holds::default());
        let _hold = holds.hold(body(1, 1), 10, 100);
        let now = Instant::now();
        assert!(holds.is_held_at(&[1; 16], None, now + MAX_HOLD - Duration::from_secs(1)));
        assert!(!holds.is_held_at(&[1; 16], None, now + MAX_HOLD));
    }
}
