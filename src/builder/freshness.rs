//! The settings of freshness.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::request;

use super::CacheLayerBuilder;
use crate::rules::Rules;
use crate::storage::Storage;

/// # Freshness
///
/// Which responses are stored, how long they are fresh, and when stale ones are served or refreshed. [`Rules`] says which
/// lifetime counts.
impl<S: Storage> CacheLayerBuilder<S> {
    /// Sets the rules on what is stored and for how long.
    ///
    /// They replace the rules that were set before. [`CacheLayer::set_rules`](crate::CacheLayer::set_rules) replaces them
    /// while the cache runs.
    ///
    /// Default: no rules. Lifetimes are those of RFC 9111.
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// use std::time::Duration;
    /// use tower_response_cache::{CacheLayer, Rules, storage::MemoryStorage};
    ///
    /// let layer = CacheLayer::builder(MemoryStorage::new())
    ///     .rules(Rules::new().default_ttl(Duration::from_secs(300)))
    ///     .build()?;
    /// # }
    /// # Ok::<_, tower_response_cache::Error>(())
    /// ```
    pub fn rules(mut self, rules: Rules) -> Self {
        self.config.rules = rules;
        self
    }

    /// Sets how long a response without a lifetime of its own is fresh, in percent of its age when it was fetched.
    ///
    /// That age is the time since the response's Last-Modified (RFC 9111 §4.2.2). `percent` is at most 100; 0 switches the
    /// heuristic off.
    ///
    /// Default: 10, the fraction that RFC 9111 §4.2.2 calls typical.
    pub fn heuristic_percent(mut self, percent: u8) -> Self {
        self.config.policy.heuristic_percent = percent;
        self
    }

    /// Sets the longest lifetime that the heuristic gives.
    ///
    /// Default: 1 day.
    pub fn max_heuristic_ttl(mut self, longest: Duration) -> Self {
        self.config.policy.max_heuristic_ttl = longest;
        self
    }

    /// Sets the response fields that this cache obeys in place of Cache-Control and Expires (RFC 9213 §2.2).
    ///
    /// They are targeted fields, such as `Example-Cache-Control` for the caches of one operator. Of several that a response
    /// has, the first one in this list counts, if it is a valid Structured Field and not empty. Where none of them is,
    /// Cache-Control and Expires count. All of them are passed on. An empty list switches CDN-Cache-Control off.
    ///
    /// How long a stored response is fresh follows from the list of the cache that serves it, but whether it was stored from
    /// the list of the cache that stored it. Give all caches on one storage the same list.
    ///
    /// Default: `CDN-Cache-Control` in a shared cache, and none in a private one.
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// use tower_response_cache::{CacheLayer, storage::MemoryStorage};
    ///
    /// let layer = CacheLayer::builder(MemoryStorage::new())
    ///     .shared(true)
    ///     .targeted_fields(["example-cache-control", "cdn-cache-control"])
    ///     .build()?;
    /// # }
    /// # Ok::<_, tower_response_cache::Error>(())
    /// ```
    pub fn targeted_fields<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.config.targeted_fields = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Stores responses with Set-Cookie in a shared cache too.
    ///
    /// Such a response is stored only if it is fresh by its own fields or by a rule. One that gives no lifetime, or that
    /// has to be validated before each use, is not stored. The risk: a user who is served the stored response receives a
    /// cookie that was made for another user.
    ///
    /// Default: `false`. A shared cache stores no response with Set-Cookie.
    pub fn store_set_cookie(mut self, store: bool) -> Self {
        self.config.policy.store_set_cookie = store;
        self
    }

    /// Sets how long a stale response with a validator is kept, so that it can still be revalidated.
    ///
    /// Default: 7 days.
    pub fn stale_retention(mut self, window: Duration) -> Self {
        self.config.policy.stale_retention = window;
        self
    }

    /// Makes entity tags for stored responses whose origin sends none.
    ///
    /// Clients then get 304 for what they have, and may continue an interrupted download by If-Range. The tag is strong. It
    /// stands for the bytes of the body, the content coding and the variant, so that it is the same when the same response is
    /// fetched again. It is computed while the body is stored.
    ///
    /// - It is made for a 200 to a method that only reads. The response that is being fetched is sent without it, since it
    ///   is known only after the last byte; the hits that follow have it.
    /// - The origin never gets it. The cache validates by what the origin sends, such as Last-Modified. From the conditions of
    ///   clients such tags are removed before a request is sent, together with the Range of their If-Range, so that the
    ///   origin sends the whole response. If-Match without any other tag is sent as it is, and the origin refuses it by 412:
    ///   without it, the request would change any version.
    /// - Tags are recognized by their form: `"trc:"` with 32 hexadecimal digits. Behind another cache with this setting, the
    ///   tags of that one are removed from the conditions of clients too, which costs whole responses.
    /// - Caches without this setting neither send nor compare the tags that others have stored.
    ///
    /// Default: `false`.
    pub fn make_etags(mut self, make: bool) -> Self {
        self.config.make_etags = make;
        self
    }

    /// Drops stored responses that no request has used for this long (a time to idle).
    ///
    /// It limits how long a response is kept beside its lifetime, which it does not extend. A response that is not used for
    /// this long and a quarter more is not served; one that was used within this time is. The storage drops it then as it
    /// drops expired responses, and chunks of a body an hour later.
    ///
    /// A use is any request that finds the response, whether it is served fresh or stale, validated, or answered by 304.
    /// Looking it up by a [handle](crate::CacheLayer::handle) is none, nor is a request of a cache that is
    /// [read-only](Self::read_only). The variants of a URL count one by one, except the one that was stored first, which
    /// stays as long as any of them is used.
    ///
    /// No storage is written at each use: the time is moved by a quarter of `idle` at a time, in the background, at most 256
    /// at once. That moves the time of each chunk of a long body too. If the storage does not take it, the next use tries
    /// again.
    ///
    /// - All caches that share a storage should have the same setting. A cache without it serves responses of the others until
    ///   they are idle, and does not keep them longer.
    /// - It applies to responses that are stored, confirmed by the origin or [given a lifetime](crate::CacheHandle::reset_expiry)
    ///   from then on.
    /// - After a URL was invalidated, its next response keeps its place for ten minutes. If `idle` is shorter, the uses within
    ///   these minutes do not count.
    ///
    /// Default: none. Responses are kept for their lifetime and [`stale_retention`](Self::stale_retention), used or not.
    pub fn default_tti(mut self, idle: Duration) -> Self {
        self.config.default_tti = Some(idle);
        self
    }

    /// Serves stale responses at once for this long, while they are refreshed in the background (RFC 5861 §3).
    ///
    /// It counts for responses without `stale-while-revalidate`. `must-revalidate`, `no-cache` and the like still forbid
    /// it.
    ///
    /// Default: zero.
    pub fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.config.policy.stale_while_revalidate = window;
        self
    }

    /// Refreshes responses in the background before they expire, so that popular responses are never stale.
    ///
    /// Each hit near the end of a lifetime may begin the refresh, at random; on average it begins `mean` before the end,
    /// and earlier the more hits there are. It never begins in the first half of a lifetime.
    ///
    /// Default: zero. Nothing is refreshed before it expires.
    pub fn refresh_early(mut self, mean: Duration) -> Self {
        self.config.refresh_early = mean;
        self
    }

    /// Bypasses the cache for requests for which the filter returns `false`.
    ///
    /// Such requests go to the inner service, and their responses are not stored. A successful unsafe request among them
    /// still invalidates what is stored for its URI. Filters add up: a request must pass all of them.
    ///
    /// Default: no filter.
    pub fn filter_request(
        mut self,
        filter: impl Fn(&request::Parts) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.config.filters.push(Arc::new(filter));
        self
    }

    /// Bypasses the cache for requests for which the future of the filter returns `false`.
    ///
    /// It is [`filter_request`](Self::filter_request) for a filter that has to wait. The future must own what it needs of
    /// the request. Every hit waits for it.
    ///
    /// Default: no filter.
    pub fn filter_request_async<F>(
        mut self,
        filter: impl Fn(&request::Parts) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = bool> + Send + 'static,
    {
        self.config.async_filters.push(Arc::new(move |request| Box::pin(filter(request))));
        self
    }

    /// Ignores Cache-Control and Pragma of requests.
    ///
    /// It is for a server whose clients should not be able to force a fetch by `no-cache` and the like. The fields are
    /// still forwarded, and [`CacheOptions`](crate::CacheOptions) still count.
    ///
    /// Default: `false`. They are obeyed (RFC 9111 §5.2.1).
    pub fn ignore_request_directives(mut self, ignore: bool) -> Self {
        self.config.ignore_request_directives = ignore;
        self
    }
}
