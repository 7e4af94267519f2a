//! The numbers of the cache and of its storage.

use serde::Serialize;
use serde_json::{Map, Value};

use super::Shared;
use super::entry::millis;
use crate::observe::LatencyCounts;
use crate::storage::Storage;

/// The numbers since the cache was built.
#[derive(Debug, Serialize)]
pub(super) struct Numbers {
    /// When they were read, by the clock of the cache.
    time: Option<u64>,
    version: &'static str,
    counts: Map<String, Value>,
    outcomes: Vec<Outcome>,
    not_stored: Vec<Unstored>,
    latency: Latencies,
}

#[derive(Debug, Serialize)]
struct Outcome {
    outcome: &'static str,
    reason: &'static str,
    count: u64,
}

#[derive(Debug, Serialize)]
struct Unstored {
    reason: &'static str,
    count: u64,
}

#[derive(Debug, Serialize)]
struct Latencies {
    /// From a request to the head of the response.
    origin: Durations,
    /// Of the operations that had to be waited for.
    storage: Durations,
}

#[derive(Debug, Serialize)]
struct Durations {
    count: u64,
    micros: u64,
    /// Element n counts the durations below 2ⁿ microseconds and not below half of that.
    buckets: Vec<u64>,
}

impl From<LatencyCounts> for Durations {
    fn from(counts: LatencyCounts) -> Self {
        let LatencyCounts { micros, buckets } = counts;
        Self { count: buckets.iter().sum(), micros, buckets: buckets.to_vec() }
    }
}

pub(super) fn statistics<S: Storage>(shared: &Shared<S>) -> Numbers {
    let numbers = shared.handle.statistics();
    let counts = numbers.all().map(|(name, count)| (name.to_owned(), count.into()));
    let outcomes = numbers.outcomes().filter(|(.., count)| *count > 0);
    let unstored = numbers.unstored().filter(|(_, count)| *count > 0);
    let (origin, storage) = shared.handle.latencies();
    Numbers {
        time: millis(shared.handle.now()),
        version: env!("CARGO_PKG_VERSION"),
        counts: counts.into_iter().collect(),
        outcomes: outcomes.map(|(outcome, reason, count)| Outcome { outcome, reason, count }).collect(),
        not_stored: unstored.map(|(reason, count)| Unstored { reason, count }).collect(),
        latency: Latencies { origin: origin.into(), storage: storage.into() },
    }
}

/// The size and the health of the storage.
#[derive(Debug, Serialize)]
pub(super) struct State {
    works: bool,
    error: Option<String>,
    bytes: Option<u64>,
    max_bytes: Option<u64>,
}

pub(super) async fn storage<S: Storage>(shared: &Shared<S>) -> State {
    let checked = shared.handle.check().await;
    let usage = shared.handle.usage().await;
    let error = checked.err().or_else(|| usage.as_ref().err().cloned()).map(|error| error.to_string());
    let usage = usage.unwrap_or_default();
    State { works: error.is_none(), error, bytes: usage.bytes, max_bytes: usage.max_bytes }
}
