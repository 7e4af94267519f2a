//! The metrics, by the `metrics` facade.
//!
//! Promises: each is told to the recorder that is there at that moment, so that one that is installed later misses nothing
//! but what was before; a level that was raised is lowered at the same recorder; without a recorder a count is a look
//! whether there is one.

use std::sync::OnceLock;
use std::time::Instant;

use metrics::{Counter, Key, Label, Metadata, Unit};

use super::counts::{Gauge, LEN, series};
use crate::control::{CacheStatus, Outcome};
use crate::error::{ErrorKind, Result};
use crate::storage::Usage;

static METADATA: Metadata<'static> =
    Metadata::new("tower_response_cache", metrics::Level::INFO, Some(module_path!()));

const SOURCES: [&str; 3] = ["storage", "origin", "collapsed"];
const RESULTS: [&str; 4] = ["ok", "timeout", "refused", "error"];
const OPERATIONS: [&str; 8] =
    ["read", "read_chunk", "contains_all", "write", "overwrite", "write_if", "retain", "delete_many"];
const GAUGES: [&str; 3] = [
    "http_cache_origin_requests_in_flight",
    "http_cache_background_refreshes_in_flight",
    "http_cache_storage_left_alone",
];

const USAGE: [&str; 2] = ["http_cache_storage_bytes", "http_cache_storage_max_bytes"];

/// The keys of this cache's metrics, each made when it is first used.
pub(super) struct Meter {
    label: String,
    counts: [OnceLock<Key>; LEN],
    bytes: [OnceLock<Key>; SOURCES.len()],
    operations: [[OnceLock<Key>; RESULTS.len()]; OPERATIONS.len()],
    gauges: [OnceLock<Key>; GAUGES.len()],
    usage: [OnceLock<Key>; USAGE.len()],
}

/// Held while something is under way.
pub(crate) struct Level(metrics::Gauge);

/// Counts the bytes of a body as they are given out.
pub(crate) struct Tally(Counter);

/// Measures an operation of the store.
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

    fn key(&self, name: &'static str, labels: &[(&'static str, &'static str)]) -> Key {
        let cache = Label::new("cache", self.label.clone());
        let labels = labels.iter().map(|(name, value)| Label::from_static_parts(name, value));
        Key::from_parts(name, [cache].into_iter().chain(labels).collect::<Vec<_>>())
    }

    #[inline]
    pub(super) fn count(&self, number: usize) {
        let key = self.counts[number].get_or_init(|| {
            let (name, labels) = series(number);
            self.key(name, &labels)
        });
        metrics::with_recorder(|recorder| recorder.register_counter(key, &METADATA).increment(1));
    }

    #[inline]
    pub(super) fn tally(&self, status: &CacheStatus) -> Tally {
        let source = match status.outcome {
            _ if status.is_background => return Tally::none(),
            Outcome::Refused | Outcome::Failed => return Tally::none(),
            Outcome::Hit | Outcome::Stale(_) | Outcome::Revalidated(_) => 0,
            Outcome::Miss(_) | Outcome::Bypass(_) => 1 + usize::from(status.collapsed),
        };
        let key = self.bytes[source]
            .get_or_init(|| self.key("http_cache_body_bytes_total", &[("source", SOURCES[source])]));
        Tally(metrics::with_recorder(|recorder| recorder.register_counter(key, &METADATA)))
    }

    pub(super) fn raise(&self, gauge: Gauge) -> Level {
        let number = match gauge {
            Gauge::OriginRequests => 0,
            Gauge::Refreshes => 1,
            Gauge::LeftAlone => 2,
        };
        let key = self.gauges[number].get_or_init(|| self.key(GAUGES[number], &[]));
        let gauge = metrics::with_recorder(|recorder| recorder.register_gauge(key, &METADATA));
        gauge.increment(1);
        Level(gauge)
    }

    /// Shows what the storage keeps, and how much it may keep.
    pub(super) fn show_usage(&self, usage: Usage) {
        for (number, bytes) in [usage.bytes, usage.max_bytes].into_iter().enumerate() {
            let Some(bytes) = bytes else { continue };
            let key = self.usage[number].get_or_init(|| self.key(USAGE[number], &[]));
            metrics::with_recorder(|recorder| {
                recorder.register_gauge(key, &METADATA).set(bytes as f64);
            });
        }
    }

    pub(super) fn begin(&self, operation: &'static str) -> Timer<'_> {
        Timer { meter: self, operation, began: Instant::now() }
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

impl Tally {
    /// Counts nothing.
    pub(crate) fn none() -> Self {
        Self(Counter::noop())
    }

    #[inline]
    pub(crate) fn add(&self, bytes: usize) {
        self.0.increment(bytes as u64);
    }
}

impl Timer<'_> {
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

/// Tells the recorder that is installed what each metric means, and its unit: for those that pass it on (`# HELP` in
/// Prometheus's text). Needs the feature `metrics`.
pub fn describe_metrics() {
    const COUNTERS: [(&str, Unit, &str); 10] = [
        ("http_cache_requests_total", Unit::Count, "Requests answered, by outcome and reason"),
        ("http_cache_requests_collapsed_total", Unit::Count, "Requests answered by another one's fetch"),
        ("http_cache_responses_stored_total", Unit::Count, "Responses stored"),
        ("http_cache_responses_freshened_total", Unit::Count, "Stored responses freshened"),
        ("http_cache_responses_not_stored_total", Unit::Count, "Responses not stored, by reason"),
        ("http_cache_body_bytes_total", Unit::Bytes, "Bytes of bodies given to callers, by source"),
        ("http_cache_origin_errors_total", Unit::Count, "Errors of the inner service"),
        ("http_cache_background_refreshes_total", Unit::Count, "Background refreshes, by result"),
        ("http_cache_invalidations_total", Unit::Count, "Entries invalidated, by cause"),
        ("http_cache_storage_evictions_total", Unit::Count, "Entries evicted, by kind of store"),
    ];
    const HELP: [&str; 3] = [
        "Requests to the inner service that are under way",
        "Background refreshes that are under way",
        "1 while the storage is left alone since it failed",
    ];
    metrics::with_recorder(|recorder| {
        for (name, unit, help) in COUNTERS {
            recorder.describe_counter(name.into(), Some(unit), help.into());
        }
        for (name, help) in GAUGES.into_iter().zip(HELP) {
            recorder.describe_gauge(name.into(), Some(Unit::Count), help.into());
        }
        let help = ["Bytes that the storage keeps", "The bound on the bytes that the storage keeps"];
        for (name, help) in USAGE.into_iter().zip(help) {
            recorder.describe_gauge(name.into(), Some(Unit::Bytes), help.into());
        }
        let (name, help) = ("http_cache_storage_operation_duration_seconds", "Time of a storage operation");
        recorder.describe_histogram(name.into(), Some(Unit::Seconds), help.into());
    });
}
