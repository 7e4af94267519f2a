//! The settings of coalescing: how requests and processes share one fetch.

use std::time::Duration;

use super::CacheLayerBuilder;
use crate::storage::Storage;

/// # Sharing a fetch
///
/// How requests, and processes on one storage, share one fetch.
impl<S: Storage> CacheLayerBuilder<S> {
    /// Lets requests for the same entry share one fetch (RFC 9111 §4, "collapsed requests").
    ///
    /// Followers get the response while it is still coming, each at its own pace. A response that is for one caller alone
    /// is fetched by each caller. Coalescing needs a tokio runtime.
    ///
    /// Default: `true`.
    pub fn coalesce(mut self, coalesce: bool) -> Self {
        self.config.coalesce = coalesce;
        self
    }

    /// Sets how long followers wait for the head of the response that the leader fetches.
    ///
    /// After that one follower fetches as well, and the others wait for its response once more as long; then each fetches
    /// by itself. A body of which nothing came for this long accepts no new followers.
    ///
    /// Default: 10 s.
    pub fn coalesce_timeout(mut self, longest: Duration) -> Self {
        self.config.coalesce_timeout = longest;
        self
    }

    /// Fetches and stores the whole response where a request wants a range of one that is not stored.
    ///
    /// The caller's range is served from it. A caller that goes away before it has its range ends the fetch, unless
    /// [`finish_on_drop`](Self::finish_on_drop) is set.
    ///
    /// Default: `false`. The request is forwarded as it is, and the partial response is not stored.
    pub fn fetch_whole_for_range(mut self, fetch: bool) -> Self {
        self.config.fetch_whole_for_range = fetch;
        self
    }

    /// Stores partial responses, and asks the origin only for the bytes that are missing.
    ///
    /// A response with status 206 to a request for one range is stored as a part of its representation. A request is answered
    /// from the parts that are there. The bytes between them are fetched when the caller has come to them, stored too, and sent
    /// in their place. Parts are combined only if they have the same strong validator and the same complete length (RFC 9110
    /// §15.3.7.3). The origin is asked for missing bytes by Range and If-Range. If it has another representation by then, its
    /// response is sent instead, or, if a response has begun already, that ends with [`BodyErrorKind::Changed`].
    ///
    /// A body that breaks off, from the origin or because its caller drops it, leaves what has come as a part. The next request
    /// goes on from there. Bytes that the storage loses while a response is read, as by an eviction, are fetched again.
    ///
    /// A part without a strong validator answers requests for bytes within itself. A part whose Content-Range is malformed, has no
    /// complete length, or does not agree with the request and the content is not stored.
    ///
    /// Default: `false`. Partial responses are not stored. A response in several parts may end with an error that the response of
    /// the origin would not have had, and each part that is added writes the list of parts again.
    ///
    /// [`BodyErrorKind::Changed`]: crate::BodyErrorKind::Changed
    pub fn store_parts(mut self, store: bool) -> Self {
        self.config.store_parts = store;
        self
    }

    /// Fetches long bodies in aligned slices of this length, each of which is stored as a part.
    ///
    /// The origin is asked for the slice with the first byte that a request wants, and for the next one when the caller has come
    /// to it. So a request for a few bytes of a long body costs a slice, requests for different parts of it run side by side, and
    /// each slice is fetched once for all of them. A slice whose response has begun is stored to its end even if its caller goes
    /// away. An origin that ignores Range is answered as ever, and so is a response that cannot be stored or has no strong
    /// validator: its first request is sent twice, and later ones for the same URL once.
    ///
    /// It applies to GET without conditions, for the whole or for one range that says where it begins. It sets
    /// [`store_parts`](Self::store_parts). A list of parts has room for 4,096, so that slices should be longer than the longest
    /// body divided by 4,096: slices of 4 MiB are for up to 16 GiB.
    ///
    /// Default: 0, no slices. A slice costs a request to the origin, and short bodies gain nothing by them.
    pub fn slices(mut self, bytes: u64) -> Self {
        self.config.slices = Some(bytes).filter(|bytes| *bytes > 0);
        self.config.store_parts |= bytes > 0;
        self
    }

    /// Fetches the next slices of a body before its caller has come to them, at most this many.
    ///
    /// A caller that reads on then does not wait for the origin at the beginning of each [slice](Self::slices). Slices that the
    /// request does not want are not fetched. Those that were begun are stored even if the caller goes away.
    ///
    /// Default: 0. The next slice is asked for when the caller has read the one before.
    pub fn prefetch(mut self, slices: u32) -> Self {
        self.config.prefetch = u64::from(slices);
        self
    }

    /// Lets one process at a time fetch an entry, among all that share the storage.
    ///
    /// Before a process fetches, it acquires a lease: a record in the storage that lasts at most this long. Other
    /// processes wait for the response that the holder stores, for as long as the lease lasts and
    /// [`coalesce_timeout`](Self::coalesce_timeout) permits. Meanwhile they start no background refresh, so that a response
    /// that may be served stale is. The lease of a process that dies runs out. Where the storage does not answer, each
    /// process fetches.
    ///
    /// Choose a time longer than the origin takes for a whole response. A lease costs a read and two small writes for each
    /// fetch. It needs [`coalesce`](Self::coalesce).
    ///
    /// Default: no lease. Each process fetches for itself.
    pub fn lease(mut self, longest: Duration) -> Self {
        self.config.lease = Some(longest);
        self
    }

    /// Reads a body to its end, and stores it, even if its caller drops it.
    ///
    /// A task drives each such body. Without this setting, such a task runs only for a caller that has its answer already
    /// while the origin sends more than the caller asked for: after its range or its 304, where the fetch replaces a stored
    /// response or is for the [whole](Self::fetch_whole_for_range). A caller that goes away before its answer leaves
    /// nothing behind.
    ///
    /// Default: `false`. A body that its caller drops is not stored.
    pub fn finish_on_drop(mut self, finish: bool) -> Self {
        self.config.finish_on_drop = finish;
        self
    }

    /// Reserves the key in the storage before fetching on a miss.
    ///
    /// It costs one small write for each miss, and closes a gap in storages that evict entries early. Without it, an
    /// invalidation can be lost if its record is evicted within ten minutes, while a fetch that found nothing stored has
    /// been under way since before the invalidation.
    ///
    /// Default: `false`.
    pub fn reserve_on_miss(mut self, reserve: bool) -> Self {
        self.config.reserve_on_miss = reserve;
        self
    }
}
