//! Removes expired records periodically.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::CacheHandle;
use crate::storage::Storage;

/// The shortest time between two sweeps. It keeps an interval of zero from taking a whole core.
const SHORTEST: Duration = Duration::from_millis(100);

/// Removes expired records for as long as it lives; [`CacheHandle::sweep_every`] returns one.
#[derive(Debug)]
#[must_use = "sweeping ends when this is dropped"]
pub struct Sweeper(Option<JoinHandle<()>>);

impl<S: Storage> CacheHandle<S> {
    /// Removes [expired records](Self::delete_expired) at this interval, in a tokio task.
    ///
    /// It ends when the sweeper is dropped, or the cache with all its services and handles. The interval is at least 100 ms.
    ///
    /// Use it for storages that remove expired records only when they need the room, if their size matters: a SQLite file or
    /// a directory, or memory without a bound. Outside a tokio runtime nothing is removed, and an event says so. A failure is
    /// an event too, and the next sweep runs as usual.
    pub fn sweep_every(&self, interval: Duration) -> Sweeper {
        let Ok(runtime) = Handle::try_current() else {
            tracing::warn!("sweep_every was called outside a tokio runtime: expired records are not removed");
            return Sweeper(None);
        };
        let (shared, across_partitions) = (Arc::downgrade(&self.shared), self.across_partitions);
        Sweeper(Some(runtime.spawn(async move {
            loop {
                tokio::time::sleep(interval.max(SHORTEST)).await;
                let Some(shared) = shared.upgrade() else { return };
                match (Self { shared, across_partitions }).delete_expired().await {
                    Ok(removed) => tracing::debug!(removed, "expired records removed"),
                    Err(error) => tracing::warn!(%error, "removing expired records failed"),
                }
            }
        })))
    }
}

impl Sweeper {
    /// Returns whether the task still runs.
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
