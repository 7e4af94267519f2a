//! Counts what happens in a cache, for its statistics and its metrics.
//!
//! # Invariants
//!
//! - Every event is counted once in the statistics, and once in the metrics.
//! - A hit costs one relaxed addition, and with the feature `metrics` two accesses to the recorder.

use std::sync::Arc;

use super::counts::{Count, Gauge};
use super::latency::{Latency, Stopwatch};
use super::meter::{ByteCounter, GaugeGuard, Meter, Timer};
use super::statistics::Statistics;
use super::stripes::Stripes;
use crate::control::CacheStatus;

/// The counters of one cache, which its partitions share.
pub(crate) struct Observer {
    stripes: Stripes,
    meter: Meter,
    pub(crate) origin_latency: Latency,
    pub(crate) storage_latency: Latency,
}

impl Observer {
    /// Returns the counters of a cache.
    ///
    /// `label` tells its metrics from those of other caches.
    pub(crate) fn new(label: &str) -> Arc<Self> {
        Arc::new(Self {
            stripes: Stripes::default(),
            meter: Meter::new(label),
            origin_latency: Latency::default(),
            storage_latency: Latency::default(),
        })
    }

    /// Counts an event.
    #[inline]
    pub(crate) fn count(&self, count: Count) {
        let number = count.number();
        self.stripes.add(number);
        self.meter.count(number);
    }

    /// Counts a response by its status.
    ///
    /// A response of a background refresh is not counted as the answer to a request.
    #[inline]
    pub(crate) fn answered(&self, status: &CacheStatus) {
        if !status.is_background {
            self.count(Count::Answer(status.outcome));
            if status.collapsed {
                self.count(Count::Collapsed);
            }
            if let Some(level) = status.level {
                self.count(Count::Level(level));
            }
        }
        if let Some(reason) = status.stored.reason() {
            self.count(Count::Unstored(reason));
        }
    }

    /// Returns the counter for the bytes of a response's body.
    #[inline]
    pub(crate) fn byte_counter(&self, status: &CacheStatus) -> ByteCounter {
        self.meter.byte_counter(status)
    }

    /// Raises a gauge until the guard is dropped.
    pub(crate) fn raise(&self, gauge: Gauge) -> GaugeGuard {
        self.meter.raise(gauge)
    }

    /// Starts to measure how long the origin takes for the head of a response.
    pub(crate) fn time_origin(&self) -> Stopwatch<'_> {
        self.origin_latency.start()
    }

    /// Starts to measure how long a storage operation takes.
    pub(crate) fn time_storage(&self) -> Stopwatch<'_> {
        self.storage_latency.start()
    }

    /// Starts to measure a storage operation for the metrics.
    pub(crate) fn begin(&self, operation: &'static str) -> Timer<'_> {
        self.meter.begin(operation)
    }

    /// Reports how much the storage holds.
    #[cfg(feature = "metrics")]
    pub(crate) fn report_usage(&self, usage: crate::storage::Usage) {
        self.meter.report_usage(usage);
    }

    /// Returns the numbers so far.
    pub(crate) fn statistics(&self) -> Statistics {
        Statistics::new(self.stripes.sums())
    }
}
