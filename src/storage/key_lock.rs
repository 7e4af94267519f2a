//! A lock on a key, among the tasks of one process.
//!
//! # Invariants
//! - While a task holds the guard of a key, every other call of [`lock_key`] for that key waits.
//! - Dropping the guard releases the key, also when a cancelled future drops it.
//! - No task holds two guards: keys share the locks, so a second guard may be one that the task holds already.

use std::hash::{DefaultHasher, Hash, Hasher};

use tokio::sync::{Mutex, MutexGuard};

use super::Key;

/// Enough that two keys which are used at once seldom share a lock, and few enough for a static array.
const LOCKS_LEN: usize = 64;

// Global, not a field of a storage: the provided methods of `Storage` have no place for state. Two storages that use them
// share the locks, which costs time but not correctness.
static LOCKS: [Mutex<()>; LOCKS_LEN] = [const { Mutex::const_new(()) }; LOCKS_LEN];

/// The right to compare and change the record of a key.
pub(crate) struct KeyGuard {
    /// `None` in a test that plays two processes, which would not have this lock in common.
    _guard: Option<MutexGuard<'static, ()>>,
}

/// Waits until no other task of this process holds the key.
///
/// The provided `write_if`, `retain` and `delete_expired` hold the guard from their read to their write. A write that does
/// not compare, to a key that others compare, must hold it as well: it could otherwise fall between the two and be lost.
pub(crate) async fn lock_key(key: Key) -> KeyGuard {
    #[cfg(feature = "testing")]
    if two_processes::are_played() {
        return KeyGuard { _guard: None };
    }
    // Always the same keys, unlike `RandomState`: every caller must find the same lock.
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    let guard = LOCKS[(hasher.finish() % LOCKS_LEN as u64) as usize].lock().await;
    KeyGuard { _guard: Some(guard) }
}

impl KeyGuard {
    /// Marks the moment between the comparison and the change.
    ///
    /// Another process may change the record at this moment. The contract suite lets one do so; elsewhere this does nothing.
    #[allow(clippy::unused_async)] // without the feature `testing`
    pub(crate) async fn compared(&self) {
        #[cfg(feature = "testing")]
        two_processes::compared().await;
    }
}

/// Plays two processes in one task.
///
/// It shows what a storage does that keeps the lock of its process while another process changes the record. Which of them
/// goes first is not left to chance.
#[cfg(feature = "testing")]
pub(crate) mod two_processes {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::{Context, Poll};

    /// The part that the future plays which this thread polls.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Played {
        Nothing,
        /// The process that is interrupted when it has compared.
        First,
        /// The first process, which has just compared.
        Compared,
        /// The process that changes the record meanwhile.
        Second,
    }

    thread_local! {
        // Of the thread, not of the task, since it is set for the time of one poll only.
        static PLAYED: Cell<Played> = const { Cell::new(Played::Nothing) };
    }

    /// Ends the part that a thread plays, also if the poll panics.
    struct Scope;

    impl Drop for Scope {
        fn drop(&mut self) {
            PLAYED.set(Played::Nothing);
        }
    }

    pub(super) fn are_played() -> bool {
        PLAYED.get() != Played::Nothing
    }

    pub(super) async fn compared() {
        let mut is_interrupted = false;
        poll_fn(|_| {
            if is_interrupted || PLAYED.get() != Played::First {
                return Poll::Ready(());
            }
            is_interrupted = true;
            PLAYED.set(Played::Compared);
            // `interrupted` polls this again by itself when the second process has ended.
            Poll::Pending
        })
        .await;
    }

    /// Polls a future as a part of one process. Returns whether it stopped because it has compared.
    fn poll<F: Future>(
        part: Played,
        future: std::pin::Pin<&mut F>,
        context: &mut Context<'_>,
    ) -> (Poll<F::Output>, bool) {
        let _scope = Scope;
        PLAYED.set(part);
        let polled = future.poll(context);
        (polled, PLAYED.get() == Played::Compared)
    }

    /// Runs an operation of one process, and one of another process at the moment when the first has compared.
    ///
    /// If the first operation does not stop there, because its storage compares in another way, the second runs after it.
    pub(crate) async fn interrupted<A, B>(
        first: impl Future<Output = A>,
        second: impl Future<Output = B>,
    ) -> (A, B) {
        let (mut first, mut second) = (pin!(first), pin!(second));
        let early = poll_fn(|context| match poll(Played::First, first.as_mut(), context) {
            (Poll::Ready(done), _) => Poll::Ready(Some(done)),
            (Poll::Pending, true) => Poll::Ready(None),
            (Poll::Pending, false) => Poll::Pending,
        })
        .await;
        let between = poll_fn(|context| poll(Played::Second, second.as_mut(), context).0).await;
        match early {
            Some(done) => (done, between),
            // It need not stop again, as when a call compares several records.
            None => (poll_fn(|context| poll(Played::Second, first.as_mut(), context).0).await, between),
        }
    }
}
