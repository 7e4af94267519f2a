//! The wakers of all tasks that wait for one event.
//!
//! Each waiting task has a [`Slot`] and keeps one waker in it. [`Wakers`] is itself a waker that wakes all of them, so that
//! one poll of a shared body or of a shared fetch registers every waiting task at once.
//!
//! # Invariants
//!
//! - A waker that is registered before [`Wakers::wake_all`] begins is woken by it, once.
//! - A slot keeps one waker, however often its task registers.
//! - A slot that has been left or dropped wakes no task.
//! - No waker is woken or dropped while the lock is held.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

/// Keeps the registered wakers.
///
/// The lock guards the slots and their free list. It is a std `Mutex` because no code awaits while holding it, and because
/// a waker may be called from any thread, also outside a runtime. It is the innermost lock: no other lock is taken under
/// it.
#[derive(Debug, Default)]
pub(crate) struct Wakers(Mutex<Slots>);

#[derive(Debug, Default)]
struct Slots {
    /// Never shrinks: it is as long as the largest number of tasks that have waited at one time.
    wakers: Vec<Option<Waker>>,
    /// The numbers of slots that were given back.
    free: Vec<usize>,
}

/// Reserves room for the waker of one task. Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    wakers: Arc<Wakers>,
    number: usize,
}

impl Wakers {
    /// Returns a slot for one more task.
    pub(crate) fn slot(self: &Arc<Self>) -> Slot {
        let mut slots = self.lock();
        let number = slots.free.pop().unwrap_or_else(|| {
            slots.wakers.push(None);
            slots.wakers.len() - 1
        });
        drop(slots);
        Slot { wakers: Arc::clone(self), number }
    }

    /// Wakes all tasks that are registered now.
    pub(crate) fn wake_all(&self) {
        // The number is read once: a slot that is added from here on belongs to a task that registers, and then looks
        // itself whether the event has happened.
        let count = self.lock().wakers.len();
        for number in 0..count {
            // The lock is released before each call: a waker may run any code, also code that registers here.
            let waker = self.lock().wakers.get_mut(number).and_then(Option::take);
            waker.into_iter().for_each(Waker::wake);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        // Poison is ignored: under the lock nothing panics between two states that belong together.
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
    /// Registers the waker of a task, and returns the one that it replaces.
    ///
    /// The caller drops that one where it holds no lock: it may be the last reference to a task, whose future and all that
    /// it owns is then dropped with it.
    #[must_use]
    pub(crate) fn wait(&self, waker: &Waker) -> Option<Waker> {
        let mut slots = self.wakers.lock();
        let place = slots.wakers.get_mut(self.number)?;
        // A task is usually polled with one waker again and again: cloning it each time would cost two atomic operations.
        if place.as_ref().is_some_and(|there| there.will_wake(waker)) {
            return None;
        }
        place.replace(waker.clone())
    }

    /// Removes the waker, and keeps the slot for the next wait.
    pub(crate) fn leave(&self) {
        // The guard is gone at the end of this statement, before the waker is dropped.
        let waker = self.wakers.lock().wakers.get_mut(self.number).and_then(Option::take);
        drop(waker);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let waker = {
            let mut slots = self.wakers.lock();
            // Emptied under the same lock, so that the next owner of the number does not find a stranger's waker.
            slots.free.push(self.number);
            slots.wakers.get_mut(self.number).and_then(Option::take)
        };
        drop(waker); // outside the lock, see `wait`
    }
}
