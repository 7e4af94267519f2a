//! The event and the metric of entries that a storage with a bound evicted.

/// Reports evicted entries. `store` is the kind of storage, and the name of the field and label that says so.
pub(super) fn evicted(store: &'static str, entries: u64) {
    if entries == 0 {
        return;
    }
    tracing::debug!(store, entries, "evicted");
    #[cfg(feature = "metrics")]
    metrics::counter!("http_cache_storage_evictions_total", "store" => store).increment(entries);
}
