//! Work that several wait for, and that goes on when they no longer do.
//!
//! Promises: one at a time; who comes while it is under way, or before anybody has taken its result, gets that result;
//! whose deadline ends loses nothing for those who come later.

use std::future::Future;
use std::sync::{Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

/// `None`: the runtime has ended that it was done in.
type Work<T> = Shared<BoxFuture<'static, Option<T>>>;

pub(super) struct Underway<T: Clone>(Mutex<Option<Work<T>>>);

impl<T: Clone> Default for Underway<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone + Send + Sync + 'static> Underway<T> {
    /// What is under way, or else this.
    pub(super) fn join<F>(&self, begin: impl FnOnce() -> F) -> Work<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut work = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*work {
            Some(work) if work.peek().is_none() => work.clone(),
            _ => {
                let begun = begin();
                let begun = match tokio::runtime::Handle::try_current() {
                    Ok(runtime) => runtime.spawn(begun).map(Result::ok).boxed(),
                    Err(_) => begun.map(Some).boxed(),
                };
                work.insert(begun.shared()).clone()
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
    async fn it_is_done_once_and_without_who_asked_for_it() {
        let (work, done) = (Underway::default(), Arc::new(AtomicUsize::new(0)));
        let gate = Arc::new(Semaphore::new(0));
        let join = || {
            let (done, gate) = (Arc::clone(&done), Arc::clone(&gate));
            work.join(|| async move {
                gate.acquire().await.unwrap().forget();
                done.fetch_add(1, Ordering::Relaxed) + 1
            })
        };
        assert!(join().now_or_never().is_none(), "it waits, and who asked goes away");
        let other = join();
        gate.add_permits(1);
        assert_eq!(futures_util::join!(other, join()), (Some(1), Some(1)));
        gate.add_permits(1);
        assert_eq!(join().await, Some(2), "what was taken is not given again");
    }

    #[test]
    fn a_runtime_that_ends_takes_its_work_with_it_and_the_next_begins_anew() {
        let work = Underway::default();
        let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
        let first = runtime();
        assert!(first.block_on(async { work.join(std::future::pending::<u8>).now_or_never() }).is_none());
        drop(first);
        let second = runtime();
        assert_eq!(second.block_on(async { work.join(|| async { 1 }).await }), None);
        assert_eq!(second.block_on(async { work.join(|| async { 1 }).await }), Some(1));
    }
}
