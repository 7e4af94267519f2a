//! The settings of a tiered storage.

use std::time::Duration;

use super::TieredStorage;
use crate::storage::Storage;
use crate::time::Clock;

/// A builder for a [`TieredStorage`], which [`TieredStorage::builder`] returns.
#[derive(Clone, Debug)]
#[must_use]
pub struct TieredStorageBuilder<N, F> {
    pub(super) near: N,
    pub(super) far: F,
    pub(super) settings: Settings,
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) max_lag: Duration,
    pub(super) serve_while_far_is_down: Duration,
    pub(super) far_timeout: Duration,
    pub(super) clock: Clock,
}

impl<N: Storage, F: Storage> TieredStorageBuilder<N, F> {
    pub(super) fn new(near: N, far: F) -> Self {
        let settings = Settings {
            max_lag: Duration::from_secs(1),
            serve_while_far_is_down: Duration::ZERO,
            far_timeout: Duration::from_millis(250),
            clock: Clock::system(),
        };
        Self { near, far, settings }
    }

    /// Sets for how long a change by another process may remain unseen.
    ///
    /// A copy that was checked longer ago is compared with the far storage before it is served, by one small read. If the far
    /// storage [signals changes](Storage::change_count), a copy is compared after each signal instead, and this is the longest
    /// time for which the signal may be silent without being lost. With zero, every copy is compared each time.
    ///
    /// Default: 1 second.
    pub fn max_lag(mut self, lag: Duration) -> Self {
        self.settings.max_lag = lag;
        self
    }

    /// Sets for how long a copy is served after the far storage has stopped answering.
    ///
    /// Such a copy may be older than [`max_lag`](Self::max_lag): changes and invalidations by other processes are not seen
    /// meanwhile. [`CacheStatus::level`](crate::CacheStatus::level) tells these responses apart. The time counts from the last
    /// comparison of the copy.
    ///
    /// Default: zero, which serves no such copy.
    pub fn serve_while_far_is_down(mut self, time: Duration) -> Self {
        self.settings.serve_while_far_is_down = time;
        self
    }

    /// Sets how long a read may take in the far storage before that counts as down.
    ///
    /// The far storage is then asked again once per second by one read, and all other reads that need it fail at once, so that
    /// they are misses. It must be shorter than the cache's
    /// [`operation_timeout`](crate::CacheLayerBuilder::operation_timeout): otherwise that time ends first, and the cache stops
    /// using both storages for a while. Reads of bodies may take longer.
    ///
    /// Default: 250 milliseconds.
    pub fn far_timeout(mut self, timeout: Duration) -> Self {
        self.settings.far_timeout = timeout;
        self
    }

    /// Sets the clock.
    ///
    /// Lags are measured by the machine's monotonic clock, unless this is a mock clock.
    ///
    /// Default: the system's clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.settings.clock = clock;
        self
    }

    /// Creates the storage.
    pub fn build(self) -> TieredStorage<N, F> {
        TieredStorage::from_builder(self)
    }
}
