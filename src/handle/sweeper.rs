//! Removes what has expired, now and then.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::CacheHandle;
use crate::storage::Storage;

/// The shortest time between two sweeps.
const SHORTEST: Duration = Duration::from_millis(100);

/// Sweeps for as long as it lives: see [`CacheHandle::sweep_every`].
#[derive(Debug)]
#[must_use = "sweeping ends when this is dropped"]
pub struct Sweeper(Option<JoinHandle<()>>);

impl<S: Storage> CacheHandle<S> {
    /// [Removes what has expired](Self::delete_expired) each time that this interval has passed, in a task on tokio, until
    /// the sweeper is dropped, or the cache with all its services and handles. At least 100 ms.
    ///
    /// Worth it for stores that remove nothing by themselves before they need the room: a SQLite file or a directory that
    /// shall be small, or memory without a bound. Outside a tokio runtime nothing is swept, and an event says so. A failure is
    /// an event too, and the next sweep comes at its time.
    pub fn sweep_every(&self, interval: Duration) -> Sweeper {
        let Ok(runtime) = Handle::try_current() else {
            tracing::warn!("nothing is swept: sweep_every was called outside a tokio runtime");
            return Sweeper(None);
        };
        let (shared, everywhere) = (Arc::downgrade(&self.shared), self.everywhere);
        Sweeper(Some(runtime.spawn(async move {
            loop {
                tokio::time::sleep(interval.max(SHORTEST)).await;
                let Some(shared) = shared.upgrade() else { return };
                match (Self { shared, everywhere }).delete_expired().await {
                    Ok(removed) => tracing::debug!(removed, "swept"),
                    Err(error) => tracing::warn!(%error, "a sweep failed"),
                }
            }
        })))
    }
}

impl Sweeper {
    /// Whether it is still at work.
    pub fn is_running(&self) -> bool {
        self.0.as_ref().is_some_and(|task| !task.is_finished())
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
