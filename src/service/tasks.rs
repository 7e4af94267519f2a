//! Work that goes on beside the requests, and how to wait for its end.
//!
//! Promises: what is begun is counted until it has ended, however it ends; outside a runtime nothing is begun.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks(Arc<Running>);

#[derive(Debug, Default)]
struct Running {
    count: AtomicUsize,
    none_left: Notify,
}

/// The moment after so long a time; for the longest ones, one that is never waited for.
pub(crate) fn after(time: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
    Instant::now() + time.min(FAR)
}

/// How far a piece of work has come.
pub(crate) enum Driven<T> {
    Done(T),
    Spawned(JoinHandle<T>),
    /// It would have to wait, and there is no runtime to wait in.
    NoRuntime,
}

/// Counts a task for as long as it lives.
struct Counted(Arc<Running>);

impl Drop for Counted {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.none_left.notify_waiters();
        }
    }
}

impl Tasks {
    /// Begins work that waits; false: there is no runtime.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> bool {
        let Ok(runtime) = Handle::try_current() else { return false };
        let counted = self.count();
        runtime.spawn(async move {
            let _counted = counted;
            work.await;
        });
        true
    }

    /// Polls once, and spawns only what has to wait.
    pub(crate) fn drive<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Driven<T> {
        let mut work = Box::pin(work);
        if let Poll::Ready(done) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Driven::Done(done);
        }
        let Ok(runtime) = Handle::try_current() else { return Driven::NoRuntime };
        let counted = self.count();
        Driven::Spawned(runtime.spawn(async move {
            let _counted = counted;
            work.await
        }))
    }

    /// Waits until nothing is running.
    pub(crate) async fn idle(&self) {
        loop {
            let mut none_left = std::pin::pin!(self.0.none_left.notified());
            none_left.as_mut().enable();
            if self.0.count.load(Ordering::SeqCst) == 0 {
                return;
            }
            none_left.await;
        }
    }

    fn count(&self) -> Counted {
        self.0.count.fetch_add(1, Ordering::SeqCst);
        Counted(Arc::clone(&self.0))
    }
}
