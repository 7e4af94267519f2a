//! The settings for tests and for work offline.

use super::CacheLayerBuilder;
use crate::storage::Storage;
use crate::time::Clock;

/// # Tests and work offline
///
/// A clock of your own, caches that do not write or do not ask the origin, and recordings.
impl<S: Storage> CacheLayerBuilder<S> {
    /// Sets the clock that the cache reads.
    ///
    /// Default: [`Clock::system`].
    pub fn clock(mut self, clock: Clock) -> Self {
        self.config.clock = clock;
        self
    }

    /// Answers from the storage, and stores or freshens nothing.
    ///
    /// It is for a storage that another cache fills. Invalidations are still written, since they hold for every cache on
    /// the storage: those of a successful unsafe request, and of the groups that its response names (RFC 9111 §4.4). What
    /// else this cache learns, it does not write. For example, a response to HEAD may show that the origin has another
    /// response; this cache then does not use the stored one until it is replaced.
    /// [`scope::read_only`](crate::scope::read_only) does the same for one task.
    ///
    /// Default: `false`.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.config.read_only = read_only;
        self
    }

    /// Answers from the storage or by 504, as if each request said `only-if-cached` (RFC 9111 §5.2.1.7).
    ///
    /// That includes requests that bypass the cache (by a filter, by a condition on the origin's state, or with content
    /// that is too long). Nothing is refreshed in the background. Requests with an unsafe method still go to the inner
    /// service, unless [`methods`](Self::methods) names the method.
    /// [`scope::only_if_cached`](crate::scope::only_if_cached) does the same for one task.
    ///
    /// Default: `false`.
    pub fn only_if_cached(mut self, only: bool) -> Self {
        self.config.only_if_cached = only;
        self
    }

    /// Records: asks the origin for each request, and keeps its response for ever.
    ///
    /// A recording is for [`replay`](Self::replay) in tests or for work offline. It keeps responses whatever they say about
    /// storing. A good storage for it is a `DirectoryStorage` (feature `directory`, `unbounded`), whose files a person can
    /// read, or a SQLite file.
    ///
    /// Requests are told apart by method, URI and content (methods other than GET need the feature `content-keys`), and by
    /// the fields that [`key_headers`](Self::key_headers) names. Use [`ignore_query_params`](Self::ignore_query_params) and
    /// the like to leave out secrets, and values that change from run to run. Of several responses to the same request the
    /// last one is kept. No other request or response invalidates it. Lifetimes and tags of
    /// [`CacheOptions`](crate::CacheOptions) and of rules do not count.
    ///
    /// Conditions and ranges of requests are not forwarded, so that each response is a whole one. Responses to HEAD are not
    /// kept; HEAD is answered from the response to GET. A response is stored as it is, with its cookies: look for secrets
    /// before you share a recording.
    ///
    /// Default: `false`.
    pub fn record(mut self, record: bool) -> Self {
        self.config.record = record;
        self
    }

    /// Replays a [recording](Self::record), and never asks the origin.
    ///
    /// A request without a recorded response is answered by 504, with a text that names the request. Conditions and ranges
    /// are answered from the recorded responses. No Age field is added.
    ///
    /// Default: `false`.
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// use tower_response_cache::{CacheLayer, storage::MemoryStorage};
    ///
    /// let storage = MemoryStorage::new(); // a program would use a directory or a file
    /// let recording = CacheLayer::builder(storage.clone()).record(true).build()?;
    /// let replaying = CacheLayer::builder(storage).replay(true).build()?;
    /// # }
    /// # Ok::<_, tower_response_cache::Error>(())
    /// ```
    pub fn replay(mut self, replay: bool) -> Self {
        self.config.replay = replay;
        self
    }
}
