//! A task that several callers wait for, and that outlives them.
//!
//! # Invariants
//! - At most one task runs at a time.
//! - A caller that joins while the task runs gets its result. So does a caller that joins after the task has
//!   ended and before any caller has taken the result.
//! - A caller that stops waiting does not stop the task.

use std::future::Future;
use std::sync::{Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

/// The result of a task, or `None` if its runtime has ended before the task.
type TaskResult<T> = Shared<BoxFuture<'static, Option<T>>>;

/// The place of one task, which each caller starts or joins.
pub(super) struct SharedTask<T: Clone>(Mutex<Option<TaskResult<T>>>);

impl<T: Clone> Default for SharedTask<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone + Send + Sync + 'static> SharedTask<T> {
    /// Joins the running task, or starts one.
    pub(super) fn join<F>(&self, start: impl FnOnce() -> F) -> TaskResult<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        // Held until the new task is in place, so that two callers do not start one each. Nothing is awaited
        // under it.
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            // `peek` is `Some` once a caller has taken the result: what comes later is a new request.
            Some(task) if task.peek().is_none() => task.clone(),
            _ => {
                let started = start();
                let task = match tokio::runtime::Handle::try_current() {
                    // Spawned, so that it continues when all callers have given up.
                    Ok(runtime) => runtime.spawn(started).map(Result::ok).boxed(),
                    // Outside a runtime its callers drive it.
                    Err(_) => started.map(Some).boxed(),
                };
                current.insert(task.shared()).clone()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn task_runs_once_and_outlives_its_caller() {
        let (task, runs) = (SharedTask::default(), Arc::new(AtomicUsize::new(0)));
        let gate = Arc::new(Semaphore::new(0));
        let join = || {
            let (runs, gate) = (Arc::clone(&runs), Arc::clone(&gate));
            task.join(|| async move {
                gate.acquire().await.unwrap().forget();
                runs.fetch_add(1, Ordering::Relaxed) + 1
            })
        };
        assert!(join().now_or_never().is_none(), "it waits, and its caller goes away");
        let other = join();
        gate.add_permits(1);
        assert_eq!(futures_util::join!(other, join()), (Some(1), Some(1)));
        gate.add_permits(1);
        assert_eq!(join().await, Some(2), "a result that was taken is not given again");
    }

    #[test]
    fn task_that_ended_with_its_runtime_is_started_again() {
        let task = SharedTask::default();
        let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
        let first = runtime();
        assert!(first.block_on(async { task.join(std::future::pending::<u8>).now_or_never() }).is_none());
        drop(first);
        let second = runtime();
        assert_eq!(second.block_on(async { task.join(|| async { 1 }).await }), None);
        assert_eq!(second.block_on(async { task.join(|| async { 1 }).await }), Some(1));
    }
}
