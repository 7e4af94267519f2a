//! The fetches that are running, so that requests for the same entry share one.
//!
//! A flight knows nothing of HTTP: it has a key, the stamps that its leader has seen there, a future that fetches, and an
//! outcome of type `T`.
//!
//! # Invariants
//!
//! - There is at most one flight for a key and for the stamp that was seen there.
//! - A follower is woken when the outcome has been published, and when the fetch has ended without one, however it ends.
//! - A fetch that can leave its request is driven by every task that waits for it. No task depends on another one being
//!   polled, or staying alive.
//! - A flight is in the map for as long as a request may join it. Its leader, its followers and the readers of its
//!   response keep it there. The map itself keeps no flight alive.
//!
//! # Why a request does not miss a response that was just stored
//!
//! The response is announced first, then its flight leaves the map, which increments `ended_flights` and notes the entries at
//! which the response may be stored. A request that looked in the storage before, and finds no flight afterwards, sees that
//! one of its entry has ended, and looks again. Flights of other entries do not concern it: with many misses at a time, some
//! end during every lookup, and each of the misses would ask the storage twice.
//!
//! # Locks
//!
//! All locks are std `Mutex`es, and none is held across an await. The locks of a flight are taken under that of the map,
//! never the other way round. A fetch is polled under the lock of its own, for which no task waits meanwhile: a task that
//! finds it locked leaves the polling to the other one.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use foldhash::fast::RandomState;

use crate::storage::{Key, Stamp};
use crate::wakers::{WakerSlot, Wakers};

/// The stamp that a lookup saw at a key. `None` if there was no record.
pub(crate) type SeenStamp = Option<Stamp>;

/// Keys are hashes already, so that the quick hasher is enough. It is seeded at random, as that of std.
type Map<T> = HashMap<Key, (u64, Weak<Flight<T>>), RandomState>;

/// How many ended flights are noted. If more have ended during a lookup, any of them may have been of its entry.
///
/// It is far above the number of requests that usually wait for a storage at the same time, and the notes take 16 KiB.
const MAX_NOTED: usize = 4096;

/// The flights that requests may join.
pub(crate) struct Flights<T> {
    running: Mutex<Running<T>>,
    /// The number of the next flight.
    next: AtomicU64,
    /// The number of flights that have left the map. One that concerns two entries counts twice.
    ///
    /// SeqCst, as the announced writes are: a request that reads the count, and then looks in the storage, must not see the
    /// two in another order.
    ended_flights: AtomicU64,
}

/// The flights in the map, and the last ones that have left it.
struct Running<T> {
    /// By key, each with its number.
    map: Map<T>,
    /// The entries of the flights that have ended last, in a ring: the entry with number `n` is at `n % MAX_NOTED`.
    ///
    /// The first bytes of an entry are enough, since they are those of a hash. If two are alike, a request looks once more.
    ended: Vec<u32>,
}

/// One fetch that requests may share.
pub(crate) struct Flight<T> {
    registration: Registration<T>,
    /// The stamps that the leader saw at the key, or is writing there itself.
    seen: Mutex<Vec<SeenStamp>>,
    outcome: Mutex<Option<T>>,
    /// The future of the fetch, if it can leave its request.
    fetch: Mutex<Option<SharedFetch>>,
    /// Another task wanted to poll the fetch while it was being polled.
    contended: AtomicBool,
    wakers: Arc<Wakers>,
}

/// The future of a fetch. Boxed, since a follower must be able to poll it without knowing the type of its leader.
pub(crate) type SharedFetch = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A task that waits for a flight.
///
/// When it stops waiting, it wakes the other waiters: it may have been the one that would have polled the fetch next.
struct Waiter<'a> {
    wakers: &'a Wakers,
    slot: WakerSlot,
    is_over: bool,
}

/// The place of a flight in the map.
struct Registration<T> {
    flights: Arc<Flights<T>>,
    at: Key,
    /// The other key at which the response may be stored, or the same.
    own: Key,
    number: u64,
}

/// Tells how a request has joined a flight.
pub(crate) enum Joined<T: Default> {
    /// It leads a new flight. The flight lasts as long as a reference to it is held.
    Lead(Arc<Flight<T>>, Ticket<T>),
    /// It follows a flight.
    Follow(Arc<Flight<T>>),
    /// It has to fetch for itself.
    ///
    /// It may not lead, and there is no flight to follow.
    Independent,
}

/// The leader's obligation to fetch and to publish an outcome.
///
/// If it is dropped before, it publishes the default outcome, which says that the fetch has ended without one.
pub(crate) struct Ticket<T: Default> {
    /// Weak, since the flight may hold the future that holds this ticket.
    flight: Weak<Flight<T>>,
    registration: Registration<T>,
    is_published: bool,
    /// A response may have been stored since the last lookup of the leader.
    pub(crate) looks_again: bool,
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        let running = Running { map: Map::default(), ended: Vec::new() };
        Self { running: Mutex::new(running), next: AtomicU64::new(0), ended_flights: AtomicU64::new(0) }
    }
}

impl<T> Flights<T> {
    /// Returns how many flights have ended.
    ///
    /// A request calls it before it looks in the storage.
    pub(crate) fn ended_flights(&self) -> u64 {
        self.ended_flights.load(Ordering::SeqCst)
    }

    /// Joins the flight for a key, or becomes the leader of a new one.
    ///
    /// `own` is another key at which the response may be stored, or the same. `ended_flights` is the count before the last
    /// lookup of the request, and `seen` the stamp that it saw. A flight with an outcome that `is_joinable` refuses counts as
    /// ended.
    pub(crate) fn join(
        self: &Arc<Self>,
        (at, own): (Key, Key),
        seen: SeenStamp,
        ended_flights: u64,
        may_lead: bool,
        is_joinable: impl Fn(&T) -> bool,
    ) -> Joined<T>
    where
        T: Default,
    {
        // Declared before the guard, so that it is dropped after it: it may be the last reference to its flight, whose `drop`
        // takes the lock.
        let existing;
        let mut running = self.lock();
        existing = running.map.get(&at).and_then(|(_, flight)| flight.upgrade());
        // The only place where the locks of a flight are taken under that of the map. The other order never occurs.
        let is_open = |flight: &Flight<T>| flight.lock_outcome().as_ref().is_none_or(&is_joinable);
        let mut has_ended = false;
        if let Some(flight) = &existing {
            if is_open(flight) {
                // A request that saw another stamp arrived after a write of another process, or after an invalidation. A
                // response whose fetch began before that must not answer it.
                if flight.seen().contains(&seen) {
                    return Joined::Follow(Arc::clone(flight));
                }
            } else {
                has_ended = true;
            }
        }
        if !may_lead {
            return Joined::Independent;
        }
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let registration = Registration { flights: Arc::clone(self), at, own, number };
        // With room for the stamps of both placeholders that a leader may write.
        let mut stamps = Vec::with_capacity(3);
        stamps.push(seen);
        let flight = Arc::new(Flight {
            registration: registration.clone(),
            seen: Mutex::new(stamps),
            outcome: Mutex::new(None),
            fetch: Mutex::new(None),
            contended: AtomicBool::new(false),
            wakers: Arc::default(),
        });
        // Weak, so that a fetch is dropped when no task waits for it any more.
        running.map.insert(at, (number, Arc::downgrade(&flight)));
        // Under the lock, because the count is incremented under it: a flight that has ended since the lookup is either
        // counted here, or was found in the map above.
        let now = self.ended_flights();
        let looks_again = has_ended || running.has_ended_since([at, own], ended_flights, now);
        drop(running);
        let ticket =
            Ticket { registration, flight: Arc::downgrade(&flight), is_published: false, looks_again };
        Joined::Lead(flight, ticket)
    }

    /// Removes a flight from the map, and counts it as ended.
    fn remove(&self, Registration { at, own, number, .. }: &Registration<T>) {
        let mut running = self.lock();
        // A retired flight may have a successor at its key by now, which must stay.
        if running.map.get(at).is_some_and(|(existing, _)| existing == number) {
            running.map.remove(at);
            running.note_ended(*at, self.ended_flights.fetch_add(1, Ordering::SeqCst));
            if own.entry != at.entry {
                running.note_ended(*own, self.ended_flights.fetch_add(1, Ordering::SeqCst));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Running<T>> {
        // Poison is ignored: nothing between the changes of the map, the count and the notes can panic.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of flights in the map.
    pub(crate) fn len(&self) -> usize {
        self.lock().map.len()
    }
}

impl<T> Running<T> {
    /// Notes the entry of a flight that has ended, after `before` others.
    fn note_ended(&mut self, at: Key, before: u64) {
        let place = (before % MAX_NOTED as u64) as usize;
        match self.ended.get_mut(place) {
            Some(noted) => *noted = note(at),
            None => self.ended.push(note(at)),
        }
    }

    /// Returns whether a flight of the keys' entries may have ended since the count was `before`. It is `now` by now.
    fn has_ended_since(&self, keys: [Key; 2], before: u64, now: u64) -> bool {
        let len = self.ended.len();
        let since = usize::try_from(now.saturating_sub(before)).unwrap_or(usize::MAX);
        if since > len {
            return true;
        }
        // The last of them is before `end`, and the ring goes on at its other end.
        let end = if len < MAX_NOTED { len } else { (now % MAX_NOTED as u64) as usize };
        let first = end.saturating_sub(since);
        let rest = since - (end - first);
        let notes = keys.map(note);
        self.ended[first..end].iter().chain(&self.ended[len - rest..]).any(|noted| notes.contains(noted))
    }
}

/// Returns by which number the entry of a key is noted.
fn note(at: Key) -> u32 {
    let [a, b, c, d, ..] = at.entry;
    u32::from_ne_bytes([a, b, c, d])
}

impl<T> Flight<T> {
    /// Waits for the outcome.
    pub(crate) async fn outcome(&self) -> T
    where
        T: Clone,
    {
        self.wait(|| self.lock_outcome().clone()).await
    }

    /// Gives the fetch to the flight. From then on, every task that waits drives it.
    pub(crate) fn set_fetch(&self, fetch: SharedFetch) {
        *self.fetch.lock().unwrap_or_else(PoisonError::into_inner) = Some(fetch);
    }

    /// Waits until `ready` returns a value, and drives the fetch meanwhile.
    pub(crate) async fn wait<R>(&self, mut ready: impl FnMut() -> Option<R>) -> R {
        let mut waiter = Waiter { wakers: &self.wakers, slot: self.wakers.slot(), is_over: false };
        poll_fn(|cx| {
            // Registers before `ready` is called, so that an outcome that is published in between wakes this task.
            drop(waiter.slot.register(cx.waker()));
            if let Some(ready) = ready() {
                waiter.is_over = true;
                return Poll::Ready(ready);
            }
            self.poll_fetch();
            match ready() {
                Some(ready) => {
                    waiter.is_over = true;
                    Poll::Ready(ready)
                }
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Polls the fetch on behalf of all waiters, unless another task is polling it.
    ///
    /// In that case the other task wakes all waiters when it is done: the fetch may have called its waker before this task
    /// had registered.
    fn poll_fetch(&self) {
        // Never waits for the lock: the task that holds it is running code of the inner service, which may take its time.
        let mut shared_fetch = match self.fetch.try_lock() {
            Ok(fetch) => fetch,
            Err(_) => {
                // Stored before the second attempt: either that succeeds, or the other task sees the flag after it has
                // released the lock.
                self.contended.store(true, Ordering::SeqCst);
                let Ok(fetch) = self.fetch.try_lock() else { return };
                fetch
            }
        };
        let Some(fetch) = shared_fetch.as_mut() else { return };
        // This waker wakes all waiters: the task that polls now may be gone when the origin answers.
        let waker = Waker::from(Arc::clone(&self.wakers));
        let is_over = fetch.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let over = if is_over { shared_fetch.take() } else { None };
        drop(shared_fetch);
        drop(over); // outside the lock: dropping the future runs code of the inner service
        if self.contended.swap(false, Ordering::SeqCst) || is_over {
            self.wakers.wake_all();
        }
    }

    /// Stops new requests from joining. Current waiters are unaffected.
    pub(crate) fn retire(&self) {
        self.registration.remove();
    }

    fn seen(&self) -> MutexGuard<'_, Vec<SeenStamp>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_outcome(&self) -> MutexGuard<'_, Option<T>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.slot.unregister();
            // All of them, since any single one may have stopped waiting as well.
            self.wakers.wake_all();
        }
    }
}

impl<T: Default> Ticket<T> {
    /// Adds a stamp that the leader is about to write at the key.
    ///
    /// A request that sees the stamp there may then follow.
    pub(crate) fn add_seen(&self, stamp: Stamp) {
        if let Some(flight) = self.flight.upgrade() {
            flight.seen().push(Some(stamp));
        }
    }

    /// Returns a reference to the flight without its type.
    ///
    /// It is weak, since the future that holds the ticket may be held by the flight.
    pub(crate) fn token(&self) -> Weak<dyn Send + Sync>
    where
        T: Send + 'static,
    {
        let flight: Weak<Flight<T>> = Weak::clone(&self.flight);
        flight
    }

    /// Publishes the outcome, and wakes all waiters.
    ///
    /// `stays` keeps the flight in the map, so that further requests can still use the outcome. Returns the flight if any
    /// reference to it is left.
    pub(crate) fn publish(&mut self, outcome: T, stays: bool) -> Option<Arc<Flight<T>>> {
        self.end(outcome, stays)
    }

    /// Publishes an outcome.
    fn end(&mut self, outcome: T, stays: bool) -> Option<Arc<Flight<T>>> {
        self.is_published = true;
        let flight = self.flight.upgrade()?;
        // The waiters are woken last, so that each of them finds the outcome.
        *flight.lock_outcome() = Some(outcome);
        if !stays {
            self.registration.remove();
        }
        flight.wakers.wake_all();
        Some(flight)
    }
}

impl<T: Default> Drop for Ticket<T> {
    fn drop(&mut self) {
        if !self.is_published {
            self.end(T::default(), false);
        }
    }
}

impl<T> Clone for Registration<T> {
    fn clone(&self) -> Self {
        Self { flights: Arc::clone(&self.flights), ..*self }
    }
}

impl<T> Registration<T> {
    /// Removes the flight from the map.
    fn remove(&self) {
        self.flights.remove(self);
    }
}

impl<T> Drop for Flight<T> {
    fn drop(&mut self) {
        self.registration.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the key of an entry, in which the number is where the notes look.
    fn key(number: u32) -> Key {
        let mut entry = [0; 16];
        entry[..4].copy_from_slice(&number.to_ne_bytes());
        Key::head(entry)
    }

    /// Leads a flight, and returns whether its leader looks again. `before` is the count before its lookup.
    fn fly(flights: &Arc<Flights<()>>, at: Key, before: u64) -> bool {
        match flights.join((at, at), None, before, true, |()| true) {
            Joined::Lead(_, ticket) => ticket.looks_again,
            _ => panic!("no flight is running"),
        }
    }

    #[test]
    fn leader_looks_again_after_a_flight_of_its_entry() {
        let flights = Arc::new(Flights::default());
        // Several times around the ring.
        for round in 0..3 * MAX_NOTED as u32 {
            let before = flights.ended_flights();
            let variant = key(round).sibling(crate::storage::Kind::Variant, [1; 16], 0);
            assert!(!fly(&flights, key(round), before), "none since the lookup");
            assert!(!fly(&flights, key(round + 1), before), "another entry");
            assert!(fly(&flights, key(round), before));
            assert!(fly(&flights, variant, before));
            assert!(!fly(&flights, key(round), flights.ended_flights()));
        }
    }

    #[test]
    fn leader_looks_again_after_a_flight_that_may_store_at_its_key() {
        let flights = Arc::new(Flights::<()>::default());
        drop(flights.join((key(1), key(2)), None, 0, true, |()| true));
        assert!(fly(&flights, key(2), 0) && fly(&flights, key(1), 0) && !fly(&flights, key(3), 0));
        let before = flights.ended_flights();
        fly(&flights, key(4), before);
        let Joined::Lead(_, ticket) = flights.join((key(5), key(4)), None, before, true, |()| true) else {
            panic!("no flight is running")
        };
        assert!(ticket.looks_again);
    }

    #[test]
    fn leader_looks_again_after_more_flights_than_are_noted() {
        for earlier in [0, 7, MAX_NOTED as u32] {
            let flights = Arc::new(Flights::default());
            for number in 0..earlier {
                fly(&flights, key(number), 0);
            }
            let before = flights.ended_flights();
            for number in 0..MAX_NOTED as u32 {
                fly(&flights, key(number), before);
            }
            assert!(!fly(&flights, key(u32::MAX), before), "all of them are noted");
            assert!(fly(&flights, key(u32::MAX - 1), before), "one more has ended");
            assert!(flights.lock().ended.len() <= MAX_NOTED);
        }
    }
}
