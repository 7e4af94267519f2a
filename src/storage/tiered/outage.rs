//! Whether the far storage answers.
//!
//! # Invariants
//! - While it does not, one read per second asks it. All others fail at once.
//! - If it [has several servers](crate::storage::Storage::server_of), this holds for each of them by itself.
//! - Its errors are returned as [`Busy`](ErrorKind::Busy). After a few errors of another kind, the cache would stop using both
//!   storages for a while, the near one too.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::time::Time;
use crate::error::{Error, ErrorKind, Result};

/// How often a far storage that is down is asked again, in milliseconds.
const RETRY_INTERVAL: u64 = 1000;

/// How many servers are told apart. Further ones share the state of others, so that they fail with these.
const SERVERS: usize = 64;

/// The states of the servers of the far storage.
#[derive(Debug)]
pub(super) struct Outages([Outage; SERVERS]);

impl Default for Outages {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Outage::default()))
    }
}

impl Outages {
    /// Returns the state of the server with a number.
    pub(super) fn of(&self, server: u16) -> &Outage {
        &self.0[usize::from(server) % SERVERS]
    }
}

/// The state of one server.
#[derive(Debug, Default)]
pub(super) struct Outage {
    /// Until when it is not asked. Zero while it answers. Relaxed, since it publishes no other memory.
    down_until: AtomicU64,
}

impl Outage {
    pub(super) fn is_down(&self, now: u64) -> bool {
        now < self.down_until.load(Ordering::Relaxed)
    }

    /// Runs a read of the server, unless that is down, and notes whether it answers within a time.
    pub(super) async fn ask<T>(
        &self,
        time: &Time,
        timeout: Duration,
        read: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        if !self.admits(time) {
            return Err(is_down());
        }
        let answer = in_time(timeout, read).await;
        match answer {
            Err(error) if !is_about_record(&error) => {
                let retry_at = time.now().saturating_add(RETRY_INTERVAL);
                if self.down_until.swap(retry_at, Ordering::Relaxed) == 0 {
                    tracing::warn!(%error, "the far storage does not answer: only copies are served until it does");
                }
                Err(is_down().with_source(error))
            }
            answer => {
                // Loaded first, so that tasks do not contend for it while the storage answers.
                if self.down_until.load(Ordering::Relaxed) > 0
                    && self.down_until.swap(0, Ordering::Relaxed) > 0
                {
                    tracing::info!("the far storage answers again");
                }
                answer
            }
        }
    }

    /// Returns whether a read may ask the far storage. While that is down, it is the next attempt.
    fn admits(&self, time: &Time) -> bool {
        let down_until = self.down_until.load(Ordering::Relaxed);
        if down_until == 0 {
            return true;
        }
        let now = time.now();
        let retry_at = now.saturating_add(RETRY_INTERVAL);
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        now >= down_until && self.down_until.compare_exchange(down_until, retry_at, success, failure).is_ok()
    }
}

/// Replaces an error by which the cache would stop using both storages.
pub(super) fn as_busy(error: Error) -> Error {
    if is_about_record(&error) { error } else { is_down().with_source(error) }
}

/// Returns whether an error concerns one record, so that the storage itself works.
fn is_about_record(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Busy | ErrorKind::TooLarge | ErrorKind::Full | ErrorKind::ReadOnly | ErrorKind::Config
    )
}

fn is_down() -> Error {
    let message = "the far storage does not answer, and there is no current copy in the near one";
    Error::new(ErrorKind::Busy, message)
}

async fn in_time<T>(timeout: Duration, read: impl Future<Output = Result<T>>) -> Result<T> {
    // Outside a runtime there are no timers.
    if tokio::runtime::Handle::try_current().is_err() {
        return read.await;
    }
    let late = |_| Err(Error::new(ErrorKind::Timeout, "the far storage did not answer in time"));
    tokio::time::timeout(timeout, read).await.unwrap_or_else(late)
}
