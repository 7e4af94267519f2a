//! The background tasks of one cache, and a way to wait for them.
//!
//! # Invariants
//!
//! - A task is counted from before it is spawned until its future is dropped: when it returns, when it panics, and when its
//!   runtime shuts down.
//! - Without a tokio runtime no task is spawned, and the caller is told.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Spawns tasks and counts those that are running. Clones share the count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks(Arc<Running>);

/// The count of running tasks, which all clones share.
#[derive(Debug, Default)]
struct Running {
    count: AtomicUsize,
    /// Notified each time the count falls to zero.
    none_left: Notify,
}

/// Returns the instant at which a duration from now is over.
///
/// A duration that would overflow the clock is cut to thirty years, as tokio does for a sleep without an end.
pub(crate) fn after(time: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
    Instant::now() + time.min(FAR)
}

/// Tells what [`Tasks::drive`] has done with a future.
pub(crate) enum Driven<T> {
    /// The future completed in its first poll.
    Done(T),
    /// The future goes on in a spawned task.
    Spawned(JoinHandle<T>),
    /// The future has to wait, and there is no runtime to wait in. It has been dropped.
    NoRuntime,
}

/// Keeps a task counted until it is dropped.
struct Counted(Arc<Running>);

pin_project_lite::pin_project! {
    /// A task that is counted.
    ///
    /// It owns the count, which is therefore dropped, after the work, also if the task panics or its runtime goes away. It is
    /// written by hand because an async block has room for a captured future twice.
    struct CountedTask<F> {
        #[pin]
        work: F,
        _counted: Counted,
    }
}

impl<F: Future> Future for CountedTask<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().work.poll(cx)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // SeqCst pairs with the load in `idle`: that registers for the notification first and loads the count afterwards,
        // while this decrements first and notifies afterwards. One of the two must see the other, or `idle` would sleep
        // through the last task. It also makes everything that the task wrote visible to the task that `idle` returns to.
        if self.0.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.none_left.notify_waiters();
        }
    }
}

impl Tasks {
    /// Spawns a future. Returns `false` if there is no runtime.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> bool {
        let Ok(runtime) = Handle::try_current() else { return false };
        // Counted here, not in the task: `idle` must wait for a task that has been spawned and not been polled yet.
        runtime.spawn(CountedTask { work, _counted: self.count() });
        true
    }

    /// Polls a future once, and spawns it only if it has to wait.
    ///
    /// Writes to a storage in memory complete in their first poll. They then need no task and no runtime, and the next
    /// lookup finds them.
    pub(crate) fn drive<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Driven<T> {
        // Boxed because a future that was polled may not move any more, and this one may move into a task.
        let mut work = Box::pin(work);
        // Nothing is lost by the no-op waker: a pending future is polled again by its task, and registers that one's waker.
        if let Poll::Ready(done) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Driven::Done(done);
        }
        let Ok(runtime) = Handle::try_current() else { return Driven::NoRuntime };
        Driven::Spawned(runtime.spawn(CountedTask { work, _counted: self.count() }))
    }

    /// Waits until no task is running.
    pub(crate) async fn idle(&self) {
        // Loops because a task may have been spawned between the notification and this poll.
        loop {
            let mut none_left = std::pin::pin!(self.0.none_left.notified());
            // Registers before the count is loaded: a task that ends between the two would notify no waiter otherwise.
            none_left.as_mut().enable();
            if self.0.count.load(Ordering::SeqCst) == 0 {
                return;
            }
            none_left.await;
        }
    }

    /// Counts a task until the guard is dropped.
    fn count(&self) -> Counted {
        self.0.count.fetch_add(1, Ordering::SeqCst);
        Counted(Arc::clone(&self.0))
    }
}
