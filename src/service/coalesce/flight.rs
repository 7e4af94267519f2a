//! Which fetches are under way, so that a request for the same follows instead of making another.
//!
//! Promises: at most one flight for a place and for what stood there; who follows is woken when the head has come or
//! nobody fetches any more, however that happens; a fetch that can leave its request is driven by all who wait for it, so
//! that none of them needs the others to be polled, or to stay; a flight is in the map for as long as somebody may join
//! it, and no longer.
//!
//! Why nobody misses a response that was just stored: it is announced first, then its flight leaves the map, and the
//! count of such departures grows with that. Who looked in the store before, and finds no flight after, finds the count
//! changed, and looks once more.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use super::download::Download;
use super::lease::Lease;
use super::wakers::{Slot, Wakers};
use crate::storage::{Key, Record, Stamp, Storage};

/// What stood in a place when somebody looked.
pub(crate) type Seen = Option<Stamp>;

type Map<S> = HashMap<Key, (u64, Weak<Flight<S>>)>;

pub(crate) struct Flights<S: Storage> {
    map: Mutex<Map<S>>,
    next: AtomicU64,
    departures: AtomicU64,
}

/// One fetch.
pub(crate) struct Flight<S: Storage> {
    registration: Registration<S>,
    /// What its leader saw in the place, and what it has put there itself.
    seen: Mutex<Vec<Seen>>,
    course: Mutex<Option<Landed<S>>>,
    /// The fetch, if it can leave its request.
    drive: Mutex<Option<Drive>>,
    /// Somebody wanted to go on with the fetch while another was at it.
    contended: AtomicBool,
    wakers: Arc<Wakers>,
}

pub(crate) type Drive = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Somebody who waits for a flight. Whoever stops waiting wakes the others, who may have to go on with the fetch.
struct Waiting<'a> {
    wakers: &'a Wakers,
    slot: Slot,
    is_over: bool,
}

/// What came of a fetch, for those who follow.
pub(crate) enum Landed<S: Storage> {
    /// A response that is being stored; it may answer others.
    Streaming(Arc<Download<S>>),
    /// The stored response was freshened.
    Freshened(Key, Record),
    /// Something was stored: look.
    Look,
    /// The origin could not be reached, or answered with an error (of this status).
    Failed(Option<u16>),
    /// The response is for its caller alone.
    Private,
    /// Nobody fetches any more.
    Abandoned,
}

/// Where a flight is in the map.
struct Position<S: Storage> {
    flights: Arc<Flights<S>>,
    at: Key,
    number: u64,
}

/// Removes a flight from the map when it is dropped.
pub(crate) struct Registration<S: Storage>(Position<S>);

/// How a request goes on.
pub(crate) enum Entry<S: Storage> {
    /// With the flight, which lasts as long as somebody holds it.
    Lead(Arc<Flight<S>>, Lead<S>),
    Follow(Arc<Flight<S>>),
    /// By itself.
    Alone,
}

/// The duty to fetch and to say what came of it. Dropped without a word, it says that nobody fetches any more.
pub(crate) struct Lead<S: Storage> {
    /// Weak, for the flight may hold the fetch that holds this.
    flight: Weak<Flight<S>>,
    position: Position<S>,
    landed: bool,
    /// Something may have been stored since this request looked.
    pub(crate) looks_again: bool,
    /// The request went out without its caller's conditions and range: they are answered from the response.
    pub(crate) narrows: bool,
    /// It fetches for the store alone.
    pub(crate) is_background: bool,
    /// Its place is one beside a variant that is not stored yet, where no lookup comes to.
    pub(crate) is_beside: bool,
    /// No other process fetches the same.
    pub(crate) lease: Option<Lease<S>>,
}

impl<S: Storage> Default for Flights<S> {
    fn default() -> Self {
        Self { map: Mutex::default(), next: AtomicU64::new(0), departures: AtomicU64::new(0) }
    }
}

impl<S: Storage> Clone for Landed<S> {
    fn clone(&self) -> Self {
        match self {
            Self::Streaming(download) => Self::Streaming(Arc::clone(download)),
            Self::Freshened(key, record) => Self::Freshened(*key, record.clone()),
            Self::Look => Self::Look,
            Self::Failed(status) => Self::Failed(*status),
            Self::Private => Self::Private,
            Self::Abandoned => Self::Abandoned,
        }
    }
}

impl<S: Storage> Flights<S> {
    /// Taken before one looks in the store.
    pub(crate) fn departures(&self) -> u64 {
        self.departures.load(Ordering::SeqCst)
    }

    /// Joins the flight for a place, or becomes its leader. `departures` as they were before this request looked, and
    /// `seen` what it saw then.
    pub(crate) fn enter(self: &Arc<Self>, at: Key, seen: Seen, departures: u64, may_lead: bool) -> Entry<S> {
        // Let go of only after the lock: it may be the last of its flight, which then leaves the map.
        let there;
        let led = {
            let mut map = self.lock();
            there = map.get(&at).and_then(|(_, flight)| flight.upgrade());
            match &there {
                Some(flight) if flight.has_seen(seen) => None,
                _ if !may_lead => return Entry::Alone,
                _ => {
                    let number = self.next.fetch_add(1, Ordering::SeqCst);
                    let position = Position { flights: Arc::clone(self), at, number };
                    let flight = Arc::new(Flight {
                        registration: Registration(position.clone()),
                        seen: Mutex::new(vec![seen]),
                        course: Mutex::new(None),
                        drive: Mutex::new(None),
                        contended: AtomicBool::new(false),
                        wakers: Arc::default(),
                    });
                    map.insert(at, (number, Arc::downgrade(&flight)));
                    let looks_again = self.departures() != departures;
                    let lead = Lead {
                        position,
                        flight: Arc::downgrade(&flight),
                        landed: false,
                        looks_again,
                        narrows: false,
                        is_background: false,
                        is_beside: false,
                        lease: None,
                    };
                    Some((flight, lead))
                }
            }
        };
        match (led, there) {
            (Some((flight, lead)), _) => Entry::Lead(flight, lead),
            (None, Some(flight)) => Entry::Follow(flight),
            (None, None) => Entry::Alone,
        }
    }

    fn remove(&self, at: Key, number: u64) {
        let mut map = self.lock();
        if map.get(&at).is_some_and(|(there, _)| *there == number) {
            map.remove(&at);
            self.departures.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Map<S>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are under way.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }
}

impl<S: Storage> Flight<S> {
    /// Waits until the head has come.
    pub(crate) async fn landed(&self) -> Landed<S> {
        self.wait(|| self.course().clone()).await
    }

    /// Waits for what the fetch itself brings its leader; it is given to the flight, so that others can go on with it.
    pub(crate) async fn lead<T>(&self, drive: Drive, mut outcome: impl FnMut() -> Option<T>) -> T {
        *self.drive.lock().unwrap_or_else(PoisonError::into_inner) = Some(drive);
        self.wait(&mut outcome).await
    }

    async fn wait<T>(&self, mut ready: impl FnMut() -> Option<T>) -> T {
        let mut waiting = Waiting { wakers: &self.wakers, slot: self.wakers.slot(), is_over: false };
        poll_fn(|cx| {
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

    /// Goes on with the fetch, on behalf of all who wait, unless somebody is just doing that: then whoever is at it wakes
    /// all once more, since a wake-up may have come before this one was there to hear it.
    fn poll_drive(&self) {
        let mut drive = match self.drive.try_lock() {
            Ok(drive) => drive,
            Err(_) => {
                self.contended.store(true, Ordering::SeqCst);
                let Ok(drive) = self.drive.try_lock() else { return };
                drive
            }
        };
        let Some(fetch) = drive.as_mut() else { return };
        let waker = Waker::from(Arc::clone(&self.wakers));
        let is_over = fetch.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let over = if is_over { drive.take() } else { None };
        drop(drive);
        drop(over);
        if self.contended.swap(false, Ordering::SeqCst) || is_over {
            self.wakers.wake_all();
        }
    }

    /// Nobody comes to it any more; who waits goes on waiting.
    pub(crate) fn retire(&self) {
        self.registration.0.remove();
    }

    /// Whether nothing was written to its place since the leader looked, but by the leader.
    fn has_seen(&self, seen: Seen) -> bool {
        self.seen().contains(&seen)
    }

    fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn course(&self) -> MutexGuard<'_, Option<Landed<S>>> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
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

impl<S: Storage> Lead<S> {
    /// The leader is about to put this in the place.
    pub(crate) fn puts(&self, seen: Seen) {
        if let Some(flight) = self.flight.upgrade() {
            flight.seen().push(seen);
        }
    }

    /// Whether others than the leader hold the flight.
    pub(crate) fn is_followed(&self) -> bool {
        self.flight.strong_count() > 1
    }

    /// What keeps the flight in the map while others may come.
    pub(crate) fn registration(&self) -> Registration<S> {
        Registration(self.position.clone())
    }

    /// Says what came of it. The flight, if anybody is there.
    pub(crate) fn land(mut self, landed: Landed<S>) -> Option<Arc<Flight<S>>> {
        self.end(landed)
    }

    fn end(&mut self, landed: Landed<S>) -> Option<Arc<Flight<S>>> {
        self.landed = true;
        let flight = self.flight.upgrade()?;
        let others_may_come = matches!(landed, Landed::Streaming(_));
        *flight.course() = Some(landed);
        if !others_may_come {
            self.position.remove();
        }
        flight.wakers.wake_all();
        Some(flight)
    }
}

impl<S: Storage> Drop for Lead<S> {
    fn drop(&mut self) {
        if !self.landed {
            self.end(Landed::Abandoned);
        }
    }
}

impl<S: Storage> Clone for Position<S> {
    fn clone(&self) -> Self {
        Self { flights: Arc::clone(&self.flights), at: self.at, number: self.number }
    }
}

impl<S: Storage> Position<S> {
    fn remove(&self) {
        self.flights.remove(self.at, self.number);
    }
}

impl<S: Storage> Drop for Registration<S> {
    fn drop(&mut self) {
        self.0.remove();
    }
}
