//! The fetches under way, so that a request for the same entry follows one instead of making another.
//!
//! A flight knows nothing of HTTP: it has a key, the stamps that its leader has seen there, a future that fetches, and an
//! outcome of type `T`.
//!
//! # Invariants
//!
//! - There is at most one flight for a key and for what was seen there.
//! - A follower is woken when the outcome is there or the fetch has ended without one, in whatever way it ends.
//! - A fetch that can leave its request is driven by every task that waits for it: none of them needs another to be polled,
//!   or to stay.
//! - A flight is in the map for as long as a request may join it. Its leader, its followers and the readers of its
//!   response keep it there; the map itself keeps nothing alive.
//!
//! # Why a request does not miss a response that was just stored
//!
//! The response is announced first, then its flight leaves the map, and that increments `departures`. A request that looked
//! in the storage before, and finds no flight afterwards, sees that the count has changed, and looks once more.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use crate::service::wakers::{Slot, Wakers};
use crate::storage::{Key, Stamp};

/// The stamp that a lookup saw at a key; `None`: there was no record.
pub(crate) type Seen = Option<Stamp>;

type Map<T> = HashMap<Key, (u64, Weak<Flight<T>>)>;

pub(crate) struct Flights<T> {
    map: Mutex<Map<T>>,
    next: AtomicU64,
    departures: AtomicU64,
}

/// One fetch.
pub(crate) struct Flight<T> {
    position: Position<T>,
    /// The stamps that its leader saw at the key, or has put there itself.
    seen: Mutex<Vec<Seen>>,
    outcome: Mutex<Option<T>>,
    /// The fetch, if it can leave its request.
    drive: Mutex<Option<Drive>>,
    /// Another task wanted to poll the fetch while one was polling it.
    contended: AtomicBool,
    wakers: Arc<Wakers>,
}

/// Boxed, since a follower must be able to poll the fetch of a leader of another type.
pub(crate) type Drive = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A task that waits for a flight. When it stops waiting it wakes the others, one of which has to drive the fetch now.
struct Waiting<'a> {
    wakers: &'a Wakers,
    slot: Slot,
    is_over: bool,
}

/// Where a flight is in the map.
struct Position<T> {
    flights: Arc<Flights<T>>,
    at: Key,
    number: u64,
}

/// How a request goes on.
pub(crate) enum Joined<T: Default> {
    /// It leads the flight, which lasts as long as somebody holds it.
    Lead(Arc<Flight<T>>, Ticket<T>),
    Follow(Arc<Flight<T>>),
    /// It may not lead, and there is no flight to follow.
    Alone,
}

/// The duty to fetch and to publish an outcome. A dropped ticket publishes the default outcome: the fetch has ended
/// without one.
pub(crate) struct Ticket<T: Default> {
    /// Weak, for the flight may hold the fetch that holds this.
    flight: Weak<Flight<T>>,
    position: Position<T>,
    is_published: bool,
    /// A response may have been stored since this request looked.
    pub(crate) looks_again: bool,
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self { map: Mutex::default(), next: AtomicU64::new(0), departures: AtomicU64::new(0) }
    }
}

impl<T> Flights<T> {
    /// Returns how many flights have ended. Taken before a request looks in the storage.
    pub(crate) fn departures(&self) -> u64 {
        self.departures.load(Ordering::SeqCst)
    }

    /// Joins the flight for a key, or becomes its leader. `departures` is the count before this request looked, and `seen`
    /// what it saw then. A flight whose outcome `is_joinable` refuses has ended for those who come now.
    pub(crate) fn join(
        self: &Arc<Self>,
        at: Key,
        seen: Seen,
        departures: u64,
        may_lead: bool,
        is_joinable: impl Fn(&T) -> bool,
    ) -> Joined<T>
    where
        T: Default,
    {
        // Declared before the guard, so that it is dropped after it: it may be the last reference to its flight, whose `drop`
        // takes the lock.
        let there;
        let mut map = self.lock();
        there = map.get(&at).and_then(|(_, flight)| flight.upgrade());
        // The locks of a flight are taken under that of the map, here alone, and never the other way round.
        let is_open = |flight: &Flight<T>| flight.outcome().as_ref().is_none_or(&is_joinable);
        let mut has_ended = false;
        if let Some(flight) = &there {
            if is_open(flight) {
                // A request that saw something else came after a write by another process, or an invalidation: a response that
                // was asked for before that must not answer it.
                if flight.seen().contains(&seen) {
                    return Joined::Follow(Arc::clone(flight));
                }
            } else {
                has_ended = true;
            }
        }
        if !may_lead {
            return Joined::Alone;
        }
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let position = Position { flights: Arc::clone(self), at, number };
        let flight = Arc::new(Flight {
            position: position.clone(),
            seen: Mutex::new(vec![seen]),
            outcome: Mutex::new(None),
            drive: Mutex::new(None),
            contended: AtomicBool::new(false),
            wakers: Arc::default(),
        });
        // Weak, so that a fetch ends once no task waits for it.
        map.insert(at, (number, Arc::downgrade(&flight)));
        // Read under the lock, under which the count grows: a flight that ended since the lookup is seen here or in the map.
        let looks_again = has_ended || self.departures() != departures;
        drop(map);
        let ticket = Ticket { position, flight: Arc::downgrade(&flight), is_published: false, looks_again };
        Joined::Lead(flight, ticket)
    }

    fn remove(&self, at: Key, number: u64) {
        let mut map = self.lock();
        // A flight that was retired may have a successor at its key by now.
        if map.get(&at).is_some_and(|(there, _)| *there == number) {
            map.remove(&at);
            self.departures.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Map<T>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how many flights are under way.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }
}

impl<T> Flight<T> {
    /// Waits for the outcome.
    pub(crate) async fn landed(&self) -> T
    where
        T: Clone,
    {
        self.wait(|| self.outcome().clone()).await
    }

    /// Gives the fetch to the flight, so that followers can drive it, and waits for what it brings to its leader.
    pub(crate) async fn lead<R>(&self, drive: Drive, mut outcome: impl FnMut() -> Option<R>) -> R {
        *self.drive.lock().unwrap_or_else(PoisonError::into_inner) = Some(drive);
        self.wait(&mut outcome).await
    }

    async fn wait<R>(&self, mut ready: impl FnMut() -> Option<R>) -> R {
        let mut waiting = Waiting { wakers: &self.wakers, slot: self.wakers.slot(), is_over: false };
        poll_fn(|cx| {
            // Registered before the look, so that an outcome that comes in between wakes this task.
            drop(waiting.slot.wait(cx.waker()));
            if let Some(ready) = ready() {
                waiting.is_over = true;
                return Poll::Ready(ready);
            }
            self.poll_drive();
            match ready() {
                Some(ready) => {
                    waiting.is_over = true;
                    Poll::Ready(ready)
                }
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Polls the fetch on behalf of all that wait, unless another task is just doing that. That task then wakes all once
    /// more, since a wake-up may have come before this one was there to hear it.
    fn poll_drive(&self) {
        // Never waits for the lock: the task that holds it may be polling a slow origin.
        let mut drive = match self.drive.try_lock() {
            Ok(drive) => drive,
            Err(_) => {
                // Stored before the second try: either that succeeds, or the other task sees the mark when it lets go.
                self.contended.store(true, Ordering::SeqCst);
                let Ok(drive) = self.drive.try_lock() else { return };
                drive
            }
        };
        let Some(fetch) = drive.as_mut() else { return };
        // Wakes all: the task that polled it may be gone when the origin answers.
        let waker = Waker::from(Arc::clone(&self.wakers));
        let is_over = fetch.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let over = if is_over { drive.take() } else { None };
        drop(drive);
        drop(over); // outside the lock: dropping a future runs foreign code
        if self.contended.swap(false, Ordering::SeqCst) || is_over {
            self.wakers.wake_all();
        }
    }

    /// Stops new requests from joining. Current waiters are unaffected.
    pub(crate) fn retire(&self) {
        self.position.remove();
    }

    fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outcome(&self) -> MutexGuard<'_, Option<T>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.slot.leave();
            self.wakers.wake_all(); // any of them may have stopped as well
        }
    }
}

impl<T: Default> Ticket<T> {
    /// Notes a stamp that the leader is about to put at the key: a request that sees it there may follow.
    pub(crate) fn add_seen(&self, stamp: Stamp) {
        if let Some(flight) = self.flight.upgrade() {
            flight.seen().push(Some(stamp));
        }
    }

    /// Returns what each holder of the flight holds, without its type. Weak, since the holder of the ticket may be the
    /// future that the flight holds.
    pub(crate) fn token(&self) -> Weak<dyn Send + Sync>
    where
        T: Send + 'static,
    {
        let flight: Weak<Flight<T>> = Weak::clone(&self.flight);
        flight
    }

    /// Publishes the outcome. `stays` keeps the flight in the map, for requests that can still make use of the outcome.
    /// Returns the flight, if anybody still holds it.
    pub(crate) fn publish(mut self, outcome: T, stays: bool) -> Option<Arc<Flight<T>>> {
        self.end(outcome, stays)
    }

    fn end(&mut self, outcome: T, stays: bool) -> Option<Arc<Flight<T>>> {
        self.is_published = true;
        let flight = self.flight.upgrade()?;
        *flight.outcome() = Some(outcome);
        if !stays {
            self.position.remove();
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

impl<T> Clone for Position<T> {
    fn clone(&self) -> Self {
        Self { flights: Arc::clone(&self.flights), at: self.at, number: self.number }
    }
}

impl<T> Position<T> {
    fn remove(&self) {
        self.flights.remove(self.at, self.number);
    }
}

impl<T> Drop for Flight<T> {
    fn drop(&mut self) {
        self.position.remove();
    }
}
