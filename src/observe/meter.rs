//! Reports metrics through the `metrics` facade.
//!
//! # Invariants
//!
//! - Each metric goes to the recorder that is installed at that moment, so that a recorder may be installed at any time.
//! - A gauge that was raised at a recorder is lowered at the same recorder.
//! - Without a recorder, a count costs one check whether a recorder is installed.

use std::sync::OnceLock;
use std::time::Instant;

use metrics::{Counter, Key, Label, Metadata, Unit};

use super::counts::{Gauge, LEN, series};
use crate::control::{CacheStatus, Outcome};
use crate::error::{ErrorKind, Result};
use crate::storage::Usage;

/// The metadata of all metrics, which recorders may filter by.
static METADATA: Metadata<'static> =
    Metadata::new("tower_response_cache", metrics::Level::INFO, Some(module_path!()));

/// The values of the label `source`.
const SOURCES: [&str; 3] = ["storage", "origin", "collapsed"];
/// The values of the label `result`.
const RESULTS: [&str; 4] = ["ok", "timeout", "refused", "error"];
/// The values of the label `operation`.
const OPERATIONS: [&str; 8] =
    ["read", "read_chunk", "contains_all", "write", "overwrite", "write_if", "retain", "delete_many"];
/// The names of the gauges, in the order of [`Gauge`].
const GAUGES: [&str; 3] = [
    "http_cache_origin_requests_in_flight",
    "http_cache_background_refreshes_in_flight",
    "http_cache_storage_breaker_open",
];

/// The names of the gauges of the storage's usage.
const USAGE: [&str; 2] = ["http_cache_storage_bytes", "http_cache_storage_max_bytes"];

/// Reports the metrics of one cache.
///
/// It keeps the key of each metric, made on first use: a key owns its labels, so that making one allocates.
pub(super) struct Meter {
    label: String,
    counts: [OnceLock<Key>; LEN],
    bytes: [OnceLock<Key>; SOURCES.len()],
    operations: [[OnceLock<Key>; RESULTS.len()]; OPERATIONS.len()],
    gauges: [OnceLock<Key>; GAUGES.len()],
    usage: [OnceLock<Key>; USAGE.len()],
}

/// Raises a gauge by one until it is dropped.
pub(crate) struct GaugeGuard(metrics::Gauge);

/// Counts the bytes of a body as its caller gets them.
pub(crate) struct ByteCounter(Counter);

/// Measures the duration of a storage operation.
pub(crate) struct Timer<'a> {
    meter: &'a Meter,
    operation: &'static str,
    began: Instant,
}

impl Meter {
    pub(super) fn new(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            counts: [const { OnceLock::new() }; LEN],
            bytes: [const { OnceLock::new() }; SOURCES.len()],
            operations: [const { [const { OnceLock::new() }; RESULTS.len()] }; OPERATIONS.len()],
            gauges: [const { OnceLock::new() }; GAUGES.len()],
            usage: [const { OnceLock::new() }; USAGE.len()],
        }
    }

    /// Returns the key of a metric, with the label of this cache.
    fn key(&self, name: &'static str, labels: &[(&'static str, &'static str)]) -> Key {
        let cache = Label::new("cache", self.label.clone());
        let labels = labels.iter().map(|(name, value)| Label::from_static_parts(name, value));
        Key::from_parts(name, [cache].into_iter().chain(labels).collect::<Vec<_>>())
    }

    /// Increments a counter.
    #[inline]
    pub(super) fn count(&self, number: usize) {
        let key = self.counts[number].get_or_init(|| {
            let (name, labels) = series(number);
            self.key(name, &labels)
        });
        metrics::with_recorder(|recorder| recorder.register_counter(key, &METADATA).increment(1));
    }

    /// Returns the counter for the body of a response with a status.
    #[inline]
    pub(super) fn byte_counter(&self, status: &CacheStatus) -> ByteCounter {
        let source = match status.outcome {
            _ if status.is_background => return ByteCounter::none(),
            Outcome::Refused | Outcome::Failed | Outcome::Fallback => return ByteCounter::none(),
            Outcome::Hit | Outcome::Stale(_) | Outcome::Revalidated(_) => 0,
            Outcome::Miss(_) | Outcome::Bypass(_) => 1 + usize::from(status.collapsed),
        };
        let key = self.bytes[source]
            .get_or_init(|| self.key("http_cache_body_bytes_total", &[("source", SOURCES[source])]));
        ByteCounter(metrics::with_recorder(|recorder| recorder.register_counter(key, &METADATA)))
    }

    /// Raises a gauge until the guard is dropped.
    pub(super) fn raise(&self, gauge: Gauge) -> GaugeGuard {
        let number = match gauge {
            Gauge::OriginRequests => 0,
            Gauge::Refreshes => 1,
            Gauge::BreakerOpen => 2,
        };
        let key = self.gauges[number].get_or_init(|| self.key(GAUGES[number], &[]));
        let gauge = metrics::with_recorder(|recorder| recorder.register_gauge(key, &METADATA));
        gauge.increment(1);
        GaugeGuard(gauge)
    }

    /// Sets the gauges of the bytes that the storage holds and may hold.
    ///
    /// A number that the storage does not know is not reported.
    pub(super) fn report_usage(&self, usage: Usage) {
        for (number, bytes) in [usage.bytes, usage.max_bytes].into_iter().enumerate() {
            let Some(bytes) = bytes else { continue };
            let key = self.usage[number].get_or_init(|| self.key(USAGE[number], &[]));
            metrics::with_recorder(|recorder| {
                recorder.register_gauge(key, &METADATA).set(bytes as f64);
            });
        }
    }

    /// Starts to measure a storage operation.
    pub(super) fn begin(&self, operation: &'static str) -> Timer<'_> {
        Timer { meter: self, operation, began: Instant::now() }
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

impl ByteCounter {
    /// Returns a counter that counts nothing.
    pub(crate) fn none() -> Self {
        Self(Counter::noop())
    }

    /// Adds a number of bytes.
    #[inline]
    pub(crate) fn add(&self, bytes: usize) {
        self.0.increment(bytes as u64);
    }
}

impl Timer<'_> {
    /// Records the duration of the operation under its result.
    pub(crate) fn end<T>(self, result: &Result<T>) {
        let took = self.began.elapsed();
        let number = match result.as_ref().map_err(crate::error::Error::kind) {
            Ok(_) => 0,
            Err(ErrorKind::Timeout) => 1,
            Err(ErrorKind::TooLarge | ErrorKind::ReadOnly | ErrorKind::Full | ErrorKind::Denied) => 2,
            Err(_) => 3,
        };
        let Some(operation) = OPERATIONS.iter().position(|name| *name == self.operation) else { return };
        let key = self.meter.operations[operation][number].get_or_init(|| {
            let labels = [("operation", self.operation), ("result", RESULTS[number])];
            self.meter.key("http_cache_storage_operation_duration_seconds", &labels)
        });
        metrics::with_recorder(|recorder| recorder.register_histogram(key, &METADATA).record(took));
    }
}

/// Describes each metric and its unit to the installed recorder.
///
/// A recorder may pass the descriptions on, as in the `# HELP` lines of Prometheus's text format. A recorder that is
/// installed later does not get them.
///
/// Needs the feature `metrics`.
pub fn describe_metrics() {
    const COUNTERS: [(&str, Unit, &str); 12] = [
        ("http_cache_requests_total", Unit::Count, "Requests answered, by outcome and reason"),
        ("http_cache_requests_collapsed_total", Unit::Count, "Requests answered by another request's fetch"),
        (
            "http_cache_near_copies_served_total",
            Unit::Count,
            "Requests answered with a copy of the near level",
        ),
        ("http_cache_responses_stored_total", Unit::Count, "Responses stored"),
        ("http_cache_responses_freshened_total", Unit::Count, "Stored responses freshened"),
        ("http_cache_responses_not_stored_total", Unit::Count, "Responses not stored, by reason"),
        ("http_cache_body_bytes_total", Unit::Bytes, "Body bytes that callers received, by source"),
        ("http_cache_origin_errors_total", Unit::Count, "Errors of the inner service"),
        ("http_cache_background_refreshes_total", Unit::Count, "Background refreshes, by result"),
        ("http_cache_body_resumptions_total", Unit::Count, "Bodies that broke off, by result"),
        ("http_cache_invalidations_total", Unit::Count, "Entries invalidated, by cause"),
        ("http_cache_storage_evictions_total", Unit::Count, "Entries evicted, by kind of storage"),
    ];
    const HELP: [&str; 3] = [
        "Requests to the inner service that wait for the head of a response",
        "Background refreshes that are running",
        "1 while a circuit breaker of the storage is open, so that requests go on without the storage",
    ];
    metrics::with_recorder(|recorder| {
        for (name, unit, help) in COUNTERS {
            recorder.describe_counter(name.into(), Some(unit), help.into());
        }
        for (name, help) in GAUGES.into_iter().zip(HELP) {
            recorder.describe_gauge(name.into(), Some(Unit::Count), help.into());
        }
        let help = ["Bytes that the storage holds", "The bound on the bytes that the storage holds"];
        for (name, help) in USAGE.into_iter().zip(help) {
            recorder.describe_gauge(name.into(), Some(Unit::Bytes), help.into());
        }
        let (name, help) =
            ("http_cache_storage_operation_duration_seconds", "Duration of a storage operation");
        recorder.describe_histogram(name.into(), Some(Unit::Seconds), help.into());
    });
}
