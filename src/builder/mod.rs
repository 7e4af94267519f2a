//! The settings of a [`CacheLayer`].

mod rules;
mod sameness;

use std::sync::Arc;
use std::time::Duration;

use http::uri::Scheme;
use http::{Uri, response};

use crate::error::Result;
use crate::layer::CacheLayer;
use crate::service::{Config, Shared, Tape};
use crate::storage::Storage;
use crate::time::Clock;

/// Settings of a [`CacheLayer`], from [`CacheLayer::builder`].
///
/// ```
/// # #[cfg(feature = "memory")] {
/// use std::time::Duration;
/// use tower_response_cache::{CacheLayer, storage::MemoryStorage};
///
/// let layer = CacheLayer::builder(MemoryStorage::new())
///     .shared()
///     .status_field("my-proxy")
///     .operation_timeout(Duration::from_millis(200))
///     .build()?;
/// # }
/// # Ok::<_, tower_response_cache::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct CacheLayerBuilder<S> {
    storage: S,
    config: Config,
}

impl<S: Storage> CacheLayerBuilder<S> {
    pub(crate) fn new(storage: S) -> Self {
        Self { storage, config: Config::default() }
    }

    /// A shared cache, for many users: a proxy or a server (RFC 9111 §1). `s-maxage` counts, `private` and responses
    /// to Authorization are not stored unless the response allows it, nor is a response with Set-Cookie.
    /// Default: private, where requests with different Authorization never share a response, nor do those with different
    /// Cookie, unless the response is `public` and sets none. A private and a shared cache on one store do not find each other's entries.
    pub fn shared(mut self) -> Self {
        self.config.policy.shared = true;
        self
    }

    /// In a shared cache, stores responses with Set-Cookie too, where they are fresh by their own fields or by a rule: what
    /// says nothing of how long, or is to be validated at each use, is not stored. The risk: a user who is served such a
    /// response gets the cookie that was made for another. Default: they are not stored.
    pub fn store_set_cookie(mut self) -> Self {
        self.config.policy.store_set_cookie = true;
        self
    }

    /// In a private cache, does not tell requests apart by their Cookie. Authorization still counts.
    ///
    /// A response that was stored under this setting is not served once the setting is taken back.
    ///
    /// Default: Cookie counts.
    pub fn ignore_cookie(mut self) -> Self {
        self.config.policy.ignore_cookie = true;
        self
    }

    /// How long a response without a lifetime of its own is fresh: so many percent of the time since it was last
    /// modified (RFC 9111 §4.2.2); 0: not at all; at most 100. Default: 10.
    pub fn heuristic_percent(mut self, percent: u8) -> Self {
        self.config.policy.heuristic_percent = percent;
        self
    }

    /// The longest lifetime that is guessed. Default: 1 day.
    pub fn max_heuristic(mut self, longest: Duration) -> Self {
        self.config.policy.max_heuristic = longest;
        self
    }

    /// How long a stale response with a validator is kept, so that it can still be revalidated. Default: 7 days.
    pub fn revalidate_window(mut self, window: Duration) -> Self {
        self.config.policy.revalidate_window = window;
        self
    }

    /// Keeps this cache's entries apart from those of others in the same store. An empty name is none. Default: none.
    pub fn partition(mut self, name: impl Into<String>) -> Self {
        self.config.partition = name.into();
        self
    }

    /// What this cache's metrics have as their label `cache`, so that several can be told apart in one program. Needs the
    /// feature `metrics`. Default: `default`.
    #[cfg(feature = "metrics")]
    pub fn metrics_label(mut self, name: impl Into<String>) -> Self {
        self.config.metrics_label = name.into();
        self
    }

    /// What keys are hashed with. Processes that share a store need the same. Set your own where somebody who can
    /// list the store's keys must not find out by trying whether a URL is stored. Default: a constant of this crate.
    pub fn secret(mut self, secret: impl Into<Vec<u8>>) -> Self {
        self.config.secret = secret.into();
        self
    }

    /// Serves a stale response when the inner service fails with an error, if neither the response nor the request says
    /// anything about it: a cache that is disconnected may (RFC 9111 §4.2.4). Responses are then kept for the
    /// revalidation window even without a validator. `must-revalidate`, `no-cache` and their like still forbid it, and
    /// `stale-if-error` still says for how long. Default: the error reaches the caller.
    pub fn stale_on_failure(mut self) -> Self {
        self.config.policy.stale_on_failure = true;
        self
    }

    /// How long a stale response is served at once, while it is refreshed in the background (RFC 5861 §3), where the
    /// response says nothing about that. `must-revalidate`, `no-cache` and their like still forbid it. Default: not at
    /// all.
    pub fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.config.policy.stale_while_revalidate = window;
        self
    }

    /// How long a stale response stands in for an inner service that fails with an error or answers 500, 502, 503 or 504
    /// (RFC 5861 §4), where neither the response nor the request says anything about that. After a failure, requests are
    /// answered so at once, and one at a time asks the inner service, for up to 10 seconds after the last failure.
    /// `must-revalidate`, `no-cache` and their like still forbid it. Default: not at all.
    pub fn stale_if_error(mut self, window: Duration) -> Self {
        self.config.policy.stale_if_error = Some(window);
        self
    }

    /// Refreshes a response in the background before it expires, so that what is asked for often is never stale: each
    /// hit in its last stretch may begin the refresh, at random, on average so long before the end (and earlier the more
    /// hits there are); never in the first half of its lifetime. Default: not at all.
    pub fn refresh_early(mut self, mean: Duration) -> Self {
        self.config.refresh_early = mean;
        self
    }

    /// Whether requests for the same share one fetch (RFC 9111 §4, "collapsed requests"). Those that follow are
    /// answered while the response is still coming, each at its own pace; what is for one caller alone is fetched by each.
    /// It needs a tokio runtime. Default: true.
    pub fn coalesce(mut self, yes: bool) -> Self {
        self.config.coalesce = yes;
        self
    }

    /// How long requests wait for the head of a response that another one fetches. Then one of them fetches as well, and
    /// the others wait for that, once more so long; after that each fetches by itself. A body of which nothing came for
    /// so long is joined by nobody any more. Default: 10 s.
    pub fn flight_timeout(mut self, longest: Duration) -> Self {
        self.config.flight_timeout = longest;
        self
    }

    /// Fetches the whole where a request wants a range of what is not stored, stores it, and answers from it. A caller that
    /// goes away before it has its range ends the fetch, unless [`finish_on_drop`](Self::finish_on_drop) is set. Default:
    /// such a request goes out as it is, and the part that comes is not stored.
    pub fn fetch_whole(mut self) -> Self {
        self.config.fetch_whole = true;
        self
    }

    /// Lets one process fetch for all that share the store: who is about to fetch takes a lease, a record in the store, for
    /// at most so long. The others wait for what it stores, for as long as the lease lasts and
    /// [`flight_timeout`](Self::flight_timeout) allows, and refresh nothing meanwhile in the background, so that what may be
    /// served stale is. It should be longer than the origin takes for a whole response. The lease of a process that dies
    /// runs out; where the store does not answer, each fetches. It costs a read and two small writes for each fetch, and
    /// needs [`coalesce`](Self::coalesce). Default: each process fetches for itself.
    pub fn lease(mut self, longest: Duration) -> Self {
        self.config.lease = Some(longest);
        self
    }

    /// The scheme of requests whose URI has none, as on a server. Set it on a server of TLS: requests of HTTP/2 have
    /// scheme and authority, those of HTTP/1.1 neither, and only this makes one entry of both. Unset, an unsafe request
    /// invalidates its URI under `http` and under `https`. Default: `http`.
    pub fn default_scheme(mut self, scheme: Scheme) -> Self {
        self.config.defaults.scheme = scheme;
        self.config.assumes_scheme = false;
        self
    }

    /// Sets the authority of requests that name none.
    ///
    /// `authority` is a host, with a port or without: `example.com`, `localhost:8080`, `[::1]`. It is the host of a request
    /// whose URI has no authority and that has no Host field (RFC 9110 §7.1, §7.2), such as one that a test hands to a
    /// router: `Request::get("/x")`. A Host field that is malformed is not replaced. On a server the inner service should
    /// answer a request without Host as it answers one for this authority, since both have the same entry.
    /// [`build`](Self::build) refuses an authority that is malformed or has user information.
    ///
    /// Default: none. Such a request passes the cache by ([`BypassReason::NoHost`](crate::BypassReason::NoHost)).
    pub fn default_authority(mut self, authority: impl Into<String>) -> Self {
        self.config.defaults.authority = Some(authority.into());
        self
    }

    /// How long one operation of the storage may take; then the request goes on without it. Default: 500 ms.
    pub fn operation_timeout(mut self, longest: Duration) -> Self {
        self.config.deadline = longest;
        self
    }

    /// How long reading the next piece of a stored body may take, once the body has begun; then the body ends with an
    /// error. So does the body of a reader who holds up others, and takes so long for the 256 KiB that it is behind them, where
    /// a response that several read cannot be stored to its end. Default: 10 s.
    pub fn body_timeout(mut self, longest: Duration) -> Self {
        self.config.body_deadline = longest;
        self
    }

    /// The longest body that is stored, in bytes; longer ones pass through. A storage may have a lower bound of its
    /// own. Default: 512 MiB.
    pub fn max_entry_bytes(mut self, longest: u64) -> Self {
        self.config.max_entry_bytes = longest;
        self
    }

    /// Sets the length in bytes of the pieces that long bodies are stored in.
    ///
    /// A body of at most this length is one piece, or within the record of its response: see
    /// [`inline_bytes`](Self::inline_bytes).
    ///
    /// Default: 128 KiB.
    pub fn chunk_bytes(mut self, len: usize) -> Self {
        self.config.chunk_len = len;
        self
    }

    /// Sets the length in bytes up to which a body is stored within the record of its response.
    ///
    /// A body within the record is read with it, at once. It is also written again with it, whenever the origin confirms
    /// the response. A body longer than [`chunk_bytes`](Self::chunk_bytes) is never within it.
    ///
    /// Default: what suits the storage ([`Storage::inline_len`](crate::storage::Storage::inline_len)).
    pub fn inline_bytes(mut self, len: usize) -> Self {
        self.config.inline_len = Some(len);
        self
    }

    /// Takes the place of a new entry in the storage before its request goes out: one small write for each cold fetch,
    /// for stores that evict hard. Without it one hole is left: an entry that is evicted within ten minutes of its
    /// invalidation, while a fetch that found nothing has been under way since before that. Default: off.
    pub fn strict(mut self) -> Self {
        self.config.strict = true;
        self
    }

    /// Answers 503 when the storage cannot be asked. Default: the request goes to the inner service.
    pub fn fail_closed(mut self) -> Self {
        self.config.fail_closed = true;
        self
    }

    /// Reads a body to its end, and stores it, even if its caller drops it. A task drives each such body.
    ///
    /// Without it such a task is begun only for a caller that the origin sends more than it asked for, once it has its
    /// answer: its range to the end, or a 304, where a stored response is replaced or the [whole](Self::fetch_whole) is
    /// fetched. A caller that goes away before that leaves nothing behind.
    ///
    /// Default: a body that is dropped is not stored.
    pub fn finish_on_drop(mut self) -> Self {
        self.config.finish_on_drop = true;
        self
    }

    /// Whether [`CacheStatus`](crate::CacheStatus) is put into the response's extensions (three allocations); the body
    /// has it in any case. Default: true.
    pub fn status_in_extensions(mut self, yes: bool) -> Self {
        self.config.extensions = yes;
        self
    }

    /// Adds a Cache-Status field (RFC 9211) to each response, under this name of the cache.
    ///
    /// A name that is no token is written as a string. The parameter `stored` is there only where the storage has the
    /// response already: not while its body is still to come.
    ///
    /// Default: none is added.
    pub fn status_field(mut self, name: impl Into<String>) -> Self {
        self.config.status_field = Some(structured_name(name.into()));
        self
    }

    /// How to tell which URI a response finally came from, where a layer below the cache follows redirects. A response
    /// of another URI than the request's is not stored. Default: only what the feature `follow-redirect` reads.
    pub fn final_uri(
        mut self,
        final_uri: impl Fn(&response::Parts) -> Option<Uri> + Send + Sync + 'static,
    ) -> Self {
        self.config.final_uri = Some(Arc::new(final_uri));
        self
    }

    /// How many entries may be refreshed in the background at once; 0: none. Default: 64.
    pub fn max_refreshes(mut self, most: usize) -> Self {
        self.config.max_refreshes = most;
        self
    }

    /// How long one background refresh may take. Default: 30 s.
    pub fn refresh_timeout(mut self, longest: Duration) -> Self {
        self.config.refresh_timeout = longest;
        self
    }

    /// Where the time comes from. Default: [`Clock::system`].
    pub fn clock(mut self, clock: Clock) -> Self {
        self.config.clock = clock;
        self
    }

    /// Answers from what is stored, and stores or freshens nothing: for a store that another cache fills.
    ///
    /// One thing is written: what a successful unsafe request makes doubtful, and the groups that its response names, are
    /// still invalidated, for all caches of the store (RFC 9111 §4.4). What else this cache learns, such as by the response
    /// to a HEAD that another response is at the origin, it keeps to itself: it does not use what is stored until that
    /// is replaced. [`scope::read_only`](crate::scope::read_only) does it for a task.
    ///
    /// Default: off.
    pub fn read_only(mut self) -> Self {
        self.config.read_only = true;
        self
    }

    /// Answers from what is stored or by 504, as if each request said `only-if-cached` (RFC 9111 §5.2.1.7): for work
    /// offline. That holds for requests that pass the cache by too (a filter, a condition on the origin's state, content
    /// that is too long), and nothing is refreshed in the background. Requests of an unsafe method go to the inner service
    /// all the same, unless [`methods`](Self::methods) names it. [`scope::only_if_cached`](crate::scope::only_if_cached)
    /// does it for a task. Default: off.
    pub fn only_if_cached(mut self) -> Self {
        self.config.only_if_cached = true;
        self
    }

    /// Records: asks the origin for each request, and keeps its response, whatever that says, for ever: for
    /// [`replay`](Self::replay) in tests, or for work offline. A storage for that is a
    /// `DirectoryStorage` (feature `directory`, `unbounded`), whose files a person can look into, or a SQLite file.
    ///
    /// Requests are told apart by method, URI and content (all but GET need the feature `content-keys`), and by what
    /// [`key_headers`](Self::key_headers) names; [`ignore_query`](Self::ignore_query) and the like leave out what changes
    /// from run to run, and what is secret. Of several responses to the same request the last one is kept; no other request
    /// or response ends one, and the lifetimes and tags of [`CacheOptions`](crate::CacheOptions) and of rules do not count.
    /// Conditions
    /// and ranges of requests do not go out, so that each response is a whole one; those of HEAD are not kept, but
    /// answered from those of GET. What a response says is stored as it is, cookies and all: look for secrets before
    /// a recording is shared. Default: off.
    pub fn record(mut self) -> Self {
        self.config.is_tape_contradictory |= self.config.tape == Some(Tape::Replay);
        self.config.tape = Some(Tape::Record);
        self
    }

    /// Replays what was [recorded](Self::record), and never asks the origin. What is not recorded is answered by 504, with
    /// a text that names it. Conditions and ranges are answered from what is recorded; there is no Age. Default: off.
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// use tower_response_cache::{CacheLayer, storage::MemoryStorage};
    ///
    /// let storage = MemoryStorage::new(); // rather a directory, or a file
    /// let recording = CacheLayer::builder(storage.clone()).record().build()?;
    /// let replaying = CacheLayer::builder(storage).replay().build()?;
    /// # }
    /// # Ok::<_, tower_response_cache::Error>(())
    /// ```
    pub fn replay(mut self) -> Self {
        self.config.is_tape_contradictory |= self.config.tape == Some(Tape::Record);
        self.config.tape = Some(Tape::Replay);
        self
    }

    /// Builds the layer.
    ///
    /// # Errors
    /// Returns [`Config`](crate::ErrorKind::Config) if a setting is malformed (empty, zero where that means nothing), has no
    /// effect in this kind of cache, or contradicts another. The message names the setting and says what to do.
    pub fn build(mut self) -> Result<CacheLayer<S>> {
        self.config.check()?;
        self.config.settle();
        Ok(CacheLayer::from_shared(Shared::new(self.storage, self.config)))
    }
}

/// A name as a Structured Field has it (RFC 9651 §3.3.3, §3.3.4).
fn structured_name(name: String) -> String {
    if sfv::TokenRef::from_str(&name).is_ok() {
        return name;
    }
    let mut string = String::from("\"");
    for letter in name.chars() {
        match letter {
            '"' | '\\' => string.extend(['\\', letter]),
            ' '..='~' => string.push(letter),
            _ => string.push('?'),
        }
    }
    string.push('"');
    string
}
