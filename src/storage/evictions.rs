//! Tells of entries that a store with a bound removed to make room.

/// `store`: what kind it is.
pub(super) fn evicted(store: &'static str, entries: u64) {
    if entries == 0 {
        return;
    }
    tracing::debug!(store, entries, "evicted");
    #[cfg(feature = "metrics")]
    metrics::counter!("http_cache_storage_evictions_total", "store" => store).increment(entries);
}
