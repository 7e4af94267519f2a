//! The tasks that wait for one thing.
//!
//! Promises: whoever is noted before the thing changes is woken by the change, once; a task that is noted twice is kept
//! once; who gives its slot back is not woken any more. As a waker, it wakes all: so one poll on behalf of many reaches
//! each of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

#[derive(Debug, Default)]
pub(crate) struct Wakers(Mutex<Slots>);

#[derive(Debug, Default)]
struct Slots {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// A place among those who wait; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    wakers: Arc<Wakers>,
    number: usize,
}

impl Wakers {
    pub(crate) fn slot(self: &Arc<Self>) -> Slot {
        let mut slots = self.lock();
        let number = slots.free.pop().unwrap_or_else(|| {
            slots.wakers.push(None);
            slots.wakers.len() - 1
        });
        drop(slots);
        Slot { wakers: Arc::clone(self), number }
    }

    pub(crate) fn wake_all(&self) {
        let count = self.lock().wakers.len();
        for number in 0..count {
            let waker = self.lock().wakers.get_mut(number).and_then(Option::take);
            waker.into_iter().for_each(Waker::wake); // not under the lock: a waker may run anything
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.wake_all();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_all();
    }
}

impl Slot {
    /// Notes who waits here. Who waited before is given back, to be let go of where no lock is held: that may end a
    /// task, with all that it has.
    #[must_use]
    pub(crate) fn wait(&self, waker: &Waker) -> Option<Waker> {
        let mut slots = self.wakers.lock();
        let place = slots.wakers.get_mut(self.number)?;
        if place.as_ref().is_some_and(|there| there.will_wake(waker)) {
            return None;
        }
        place.replace(waker.clone())
    }

    /// Nobody waits here for now.
    pub(crate) fn leave(&self) {
        let waker = self.wakers.lock().wakers.get_mut(self.number).and_then(Option::take);
        drop(waker);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let waker = {
            let mut slots = self.wakers.lock();
            slots.free.push(self.number);
            slots.wakers.get_mut(self.number).and_then(Option::take)
        };
        drop(waker); // not under the lock, see `wait`
    }
}
