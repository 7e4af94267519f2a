//! Who is told what happens in a cache.
//!
//! Promises: what is told is counted once, in the statistics and in the metrics alike; telling of a hit costs one relaxed
//! addition, and with the feature `metrics` two looks at the recorder.

use std::sync::Arc;

use super::counts::{Count, Gauge};
use super::meter::{Level, Meter, Tally, Timer};
use super::statistics::Statistics;
use super::stripes::Stripes;
use crate::control::CacheStatus;

pub(crate) struct Observer {
    stripes: Stripes,
    meter: Meter,
}

impl Observer {
    /// `label`: tells this cache's metrics from another's.
    pub(crate) fn new(label: &str) -> Arc<Self> {
        Arc::new(Self { stripes: Stripes::default(), meter: Meter::new(label) })
    }

    #[inline]
    pub(crate) fn count(&self, count: Count) {
        let number = count.number();
        self.stripes.add(number);
        self.meter.count(number);
    }

    /// A response has its status. One that was fetched for the store alone is no request's.
    #[inline]
    pub(crate) fn answered(&self, status: &CacheStatus) {
        if !status.is_background {
            self.count(Count::Answer(status.outcome));
            if status.collapsed {
                self.count(Count::Collapsed);
            }
        }
        if let Some(reason) = status.stored.reason() {
            self.count(Count::Unstored(reason));
        }
    }

    /// What counts the bytes of a body.
    #[inline]
    pub(crate) fn tally(&self, status: &CacheStatus) -> Tally {
        self.meter.tally(status)
    }

    /// Something is under way for as long as the level is kept.
    pub(crate) fn raise(&self, gauge: Gauge) -> Level {
        self.meter.raise(gauge)
    }

    /// An operation of the store begins.
    pub(crate) fn begin(&self, operation: &'static str) -> Timer<'_> {
        self.meter.begin(operation)
    }

    /// Shows what the storage keeps.
    #[cfg(feature = "metrics")]
    pub(crate) fn show_usage(&self, usage: crate::storage::Usage) {
        self.meter.show_usage(usage);
    }

    pub(crate) fn statistics(&self) -> Statistics {
        Statistics::new(self.stripes.sums())
    }
}
