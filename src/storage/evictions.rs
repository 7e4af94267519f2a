//! The event and the metric of entries that a storage with a bound evicted.

/// Reports entries that a storage of this kind evicted.
pub(super) fn evicted(storage: &'static str, entries: u64) {
    if entries == 0 {
        return;
    }
    tracing::debug!(storage, entries, "evicted");
    #[cfg(feature = "metrics")]
    metrics::counter!("http_cache_storage_evictions_total", "storage" => storage).increment(entries);
}
