//! The wakers of all tasks that wait for one event.
//!
//! Each waiting task has a [`WakerSlot`], which holds one waker. [`Wakers`] is itself a waker that wakes all of them, so
//! that one poll of a shared body or of a shared fetch registers every waiting task at once.
//!
//! # Invariants
//!
//! - A waker that is registered before [`Wakers::wake_all`] begins is woken by it, once.
//! - A slot keeps one waker, however often its task registers.
//! - A slot whose waker was unregistered, or that was dropped, wakes no task.
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

/// The state under the lock.
#[derive(Debug, Default)]
struct Slots {
    /// By slot number. It is at most as long as the largest number of tasks that have waited at one time.
    wakers: Vec<Option<Waker>>,
    /// The numbers of the slots that are not in use.
    free: Vec<usize>,
}

/// Holds the waker of one task until it is dropped.
#[derive(Debug)]
pub(crate) struct WakerSlot {
    wakers: Arc<Wakers>,
    number: usize,
}

impl Wakers {
    /// Returns a slot for one more task.
    pub(crate) fn slot(self: &Arc<Self>) -> WakerSlot {
        let mut slots = self.lock();
        let number = slots.free.pop().unwrap_or_else(|| {
            slots.wakers.push(None);
            slots.wakers.len() - 1
        });
        drop(slots);
        WakerSlot { wakers: Arc::clone(self), number }
    }

    /// Wakes all tasks that are registered now.
    pub(crate) fn wake_all(&self) {
        // The length is read once: a task whose slot is added after this registers first, and then checks by itself whether
        // the event has happened.
        let count = self.lock().wakers.len();
        for number in 0..count {
            // The lock is released before each call: a waker may run any code, including code that registers here.
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

impl WakerSlot {
    /// Registers the waker of a task, and returns the one that it replaces.
    ///
    /// The caller must drop the replaced waker while it holds no lock: it may be the last reference to a task, so that the
    /// task's future is dropped with it.
    #[must_use]
    pub(crate) fn register(&self, waker: &Waker) -> Option<Waker> {
        let mut slots = self.wakers.lock();
        let registered = slots.wakers.get_mut(self.number)?;
        // A task is usually polled with the same waker again: cloning it each time would cost two atomic operations.
        if registered.as_ref().is_some_and(|current| current.will_wake(waker)) {
            return None;
        }
        registered.replace(waker.clone())
    }

    /// Removes the waker. The slot can be used for another wait.
    pub(crate) fn unregister(&self) {
        // The guard is dropped at the end of this statement, before the waker is.
        let waker = self.wakers.lock().wakers.get_mut(self.number).and_then(Option::take);
        drop(waker);
    }
}

impl Drop for WakerSlot {
    fn drop(&mut self) {
        let waker = {
            let mut slots = self.wakers.lock();
            // Emptied under the same lock, so that the next owner of the number does not find another task's waker.
            let waker = slots.wakers.get_mut(self.number).and_then(Option::take);
            // The last slot is removed, so that the usual single waiter needs no list of free slots.
            if self.number + 1 == slots.wakers.len() {
                slots.wakers.pop();
            } else {
                slots.free.push(self.number);
            }
            waker
        };
        drop(waker); // outside the lock, see `register`
    }
}
