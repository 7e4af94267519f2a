//! The settings of a cache, and their validation.
//!
//! The builder sets the fields, and then calls [`Config::check`] and [`Config::apply_implied_settings`]. After that they do not change. A
//! partition has a copy of its own.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderName, Method, Response, Uri, header, request, response};

use crate::error::{Error, ErrorKind, Result};
use crate::key::{self, Defaults, Identity};
use crate::policy;
use crate::rules::Rules;
use crate::time::Clock;

/// Returns the URI from which a response came after redirects.
pub(crate) type FinalUri = Arc<dyn Fn(&response::Parts) -> Option<Uri> + Send + Sync>;

/// Returns the tags of a response.
pub(crate) type TagFn = Arc<dyn Fn(&request::Parts, &response::Parts) -> Vec<String> + Send + Sync>;

/// Returns whether the cache handles a request.
pub(crate) type RequestFilter = Arc<dyn Fn(&request::Parts) -> bool + Send + Sync>;
/// Makes the response to a request for which the origin is too slow.
pub(crate) type Fallback = Arc<dyn Fn(&request::Parts) -> Response<Bytes> + Send + Sync>;
/// Returns a future that tells whether the cache handles a request. Boxed, since one list holds filters of any type.
pub(crate) type AsyncRequestFilter =
    Arc<dyn Fn(&request::Parts) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// The settings of one cache.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) clock: Clock,
    /// The settings of the decisions of RFC 9111.
    pub(crate) policy: policy::Options,
    /// The names of the targeted fields, as the user gave them. `None` for the default.
    pub(crate) targeted_fields: Option<Vec<String>>,
    /// The names of the fields that contain tags, as the user gave them.
    pub(crate) tag_fields: Vec<String>,
    /// Gives tags to a response.
    pub(crate) tag_fn: Option<TagFn>,
    /// Removes the fields that contain tags before a response is returned.
    pub(crate) removes_tag_fields: bool,
    /// The names of the cookies that tell requests apart, as the user gave them. `None` for all cookies.
    pub(crate) key_cookies: Option<Vec<String>>,
    /// The secret that keys are hashed with.
    pub(crate) key_secret: Vec<u8>,
    /// Separates the keys from those of other caches in the same storage. Empty for no partition.
    pub(crate) partition: String,
    /// The label `cache` of the metrics.
    #[cfg(feature = "metrics")]
    pub(crate) metrics_label: String,
    /// The scheme and authority of requests that name none.
    pub(crate) defaults: Defaults,
    /// The user has not set the scheme of requests that name none.
    ///
    /// It is then assumed, and may be either scheme.
    pub(crate) assumes_scheme: bool,
    /// How long one storage operation may take.
    pub(crate) operation_timeout: Duration,
    /// How long reading a chunk of a body may take after the body has begun.
    ///
    /// It is longer than `operation_timeout`, since the request can no longer be answered as a miss. A reader may hold up
    /// the other readers of its download for the same time.
    pub(crate) body_timeout: Duration,
    /// The maximum length of a body that is stored.
    pub(crate) max_body_bytes: u64,
    /// The minimum length of a body that is stored.
    pub(crate) min_body_bytes: u64,
    /// The length of a chunk. The storage may have a lower limit.
    pub(crate) chunk_len: usize,
    /// The maximum length of a body that is stored in the record of its response. `None` for the storage's own.
    pub(crate) inline_len: Option<usize>,
    /// Reserves the key in the storage before fetching on a miss.
    pub(crate) reserve_on_miss: bool,
    /// How long a request waits for the origin before it gets a stale response that may be served.
    pub(crate) stale_after: Option<Duration>,
    /// How long a request waits for the origin, and what answers it then.
    pub(crate) fallback_after: Option<(Duration, Fallback)>,
    /// Answers with 503 if the storage fails.
    pub(crate) fail_closed: bool,
    /// Reads a body to its end even if its caller drops it.
    pub(crate) finish_on_drop: bool,
    /// How often the rest of a body that broke off is asked for. Zero if it is not.
    pub(crate) resume: u32,
    /// Adds the status to the extensions of the response.
    pub(crate) extensions: bool,
    /// The name of this cache in the Cache-Status field. `None` if the field is not added.
    pub(crate) status_field: Option<String>,
    /// Tells where a response came from after redirects.
    pub(crate) final_uri: Option<FinalUri>,
    /// How many records may be refreshed in the background at once.
    pub(crate) max_background_refreshes: usize,
    /// How long one background refresh may take.
    pub(crate) refresh_timeout: Duration,
    /// Lets requests for the same entry share one fetch.
    pub(crate) coalesce: bool,
    /// How long a request waits for the fetch of another request.
    pub(crate) coalesce_timeout: Duration,
    /// Fetches the whole response if a request wants a range of it.
    pub(crate) fetch_whole_for_range: bool,
    pub(crate) store_parts: bool,
    /// In bytes.
    pub(crate) slices: Option<u64>,
    /// How many slices are fetched before they are wanted.
    pub(crate) prefetch: u64,
    /// How long before it becomes stale a response is refreshed, on average. Zero if it is not refreshed before.
    pub(crate) refresh_early: Duration,
    /// How long one process may hold the lease of an entry. `None` if each process fetches for itself.
    pub(crate) lease: Option<Duration>,
    /// Tells which requests are for the same entry.
    pub(crate) identity: Identity,
    /// Lets a response answer other queries, as its No-Vary-Search says.
    pub(crate) no_vary_search: bool,
    /// The initial rules. They may be replaced while the cache runs.
    pub(crate) rules: Rules,
    /// The methods that the cache answers.
    ///
    /// They are GET, HEAD, and methods that are cached by their content.
    pub(crate) methods: Vec<Method>,
    /// How the content of requests is read and compared.
    #[cfg(feature = "content-keys")]
    pub(crate) contents: super::contents::Contents,
    /// The cache handles a request only if all of these return `true`.
    pub(crate) filters: Vec<RequestFilter>,
    /// Further filters, which are called after `filters`.
    pub(crate) async_filters: Vec<AsyncRequestFilter>,
    /// Ignores the Cache-Control and Pragma fields of requests.
    pub(crate) ignore_request_directives: bool,
    /// Makes entity tags for responses of origins that send none.
    pub(crate) make_etags: bool,
    /// How long a stored response may remain unused. `None` if it does not matter.
    pub(crate) default_tti: Option<Duration>,
    /// Neither stores nor freshens responses.
    pub(crate) read_only: bool,
    /// Treats each request as if it had the directive `only-if-cached`.
    pub(crate) only_if_cached: bool,
    /// Records each response.
    pub(crate) record: bool,
    /// Replays recorded responses.
    pub(crate) replay: bool,
}

/// The secret of caches that set none. The value does not matter, but must be the same in every process and version, or the
/// stored entries could not be found again.
const DEFAULT_SECRET: &[u8] = b"tower-response-cache";

impl Default for Config {
    fn default() -> Self {
        Self {
            clock: Clock::system(),
            policy: policy::Options::default(),
            targeted_fields: None,
            tag_fields: Vec::new(),
            tag_fn: None,
            removes_tag_fields: false,
            key_cookies: None,
            key_secret: DEFAULT_SECRET.to_vec(),
            partition: String::new(),
            #[cfg(feature = "metrics")]
            metrics_label: "default".to_owned(),
            defaults: Defaults { scheme: Scheme::HTTP, authority: None },
            assumes_scheme: true,
            // Much longer than a healthy storage takes, and short enough that a caller hardly notices a storage that hangs.
            operation_timeout: Duration::from_millis(500),
            // The head was sent already, so that giving up would break the response: patience costs less than an error.
            body_timeout: Duration::from_secs(10),
            // Bounds how many stored responses one response can evict.
            max_body_bytes: 512 * 1024 * 1024,
            min_body_bytes: 0,
            // The fastest length in the benchmarks of the built-in storages.
            chunk_len: 128 * 1024,
            inline_len: None,
            reserve_on_miss: false,
            stale_after: None,
            fallback_after: None,
            fail_closed: false,
            finish_on_drop: false,
            resume: 0,
            extensions: true,
            status_field: None,
            final_uri: None,
            // Bounds the requests that the cache sends to origins by itself.
            max_background_refreshes: 64,
            refresh_timeout: Duration::from_secs(30),
            coalesce: true,
            coalesce_timeout: Duration::from_secs(10),
            fetch_whole_for_range: false,
            store_parts: false,
            slices: None,
            prefetch: 0,
            refresh_early: Duration::ZERO,
            lease: None,
            identity: Identity::default(),
            no_vary_search: true,
            rules: Rules::default(),
            methods: vec![Method::GET, Method::HEAD],
            #[cfg(feature = "content-keys")]
            contents: Default::default(),
            filters: Vec::new(),
            async_filters: Vec::new(),
            ignore_request_directives: false,
            make_etags: false,
            default_tti: None,
            read_only: false,
            only_if_cached: false,
            record: false,
            replay: false,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("clock", &self.clock)
            .field("policy", &self.policy)
            .field("operation_timeout", &self.operation_timeout)
            .field("reserve_on_miss", &self.reserve_on_miss)
            .finish_non_exhaustive()
    }
}

/// Tells whether the cache records responses or replays them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recording {
    Record,
    Replay,
}

impl Config {
    /// Returns whether the cache records responses or replays them.
    ///
    /// Both at once are refused by [`check`](Self::check).
    pub(crate) fn recording(&self) -> Option<Recording> {
        match (self.record, self.replay) {
            (true, _) => Some(Recording::Record),
            (false, true) => Some(Recording::Replay),
            (false, false) => None,
        }
    }

    /// Returns the label of this cache's metrics, which is empty without the feature `metrics`.
    pub(crate) fn label(&self) -> &str {
        #[cfg(feature = "metrics")]
        return &self.metrics_label;
        #[cfg(not(feature = "metrics"))]
        ""
    }

    /// Returns whether the cache has neither a partition nor a secret of its own.
    ///
    /// All such caches have the same keys.
    pub(crate) fn has_default_keys(&self) -> bool {
        self.partition.is_empty() && self.key_secret == DEFAULT_SECRET
    }

    /// Sets the settings that follow from others.
    ///
    /// It is called once, after all settings have been made, so that their order does not matter.
    pub(crate) fn apply_implied_settings(&mut self) {
        if self.recording().is_some() {
            // A recording keeps every response and answers every request, whatever their directives say. Each request is
            // recorded by itself, so that none waits for another.
            self.rules = std::mem::take(&mut self.rules).for_a_recording();
            self.policy.shared = false;
            self.policy.vary_on_credentials = false;
            self.policy.ignore_vary = true;
            self.ignore_request_directives = true;
            self.coalesce = false;
            self.no_vary_search = false;
            if cfg!(feature = "content-keys") {
                self.methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "QUERY"]
                    .iter()
                    .filter_map(|name| name.parse().ok())
                    .collect();
            }
        }
        if let Some(names) = &self.targeted_fields {
            // `check` has refused names that are malformed.
            self.policy.targeted_fields = Some(names.iter().filter_map(|name| name.parse().ok()).collect());
        }
        self.policy.tag_fields = self.tag_fields.iter().filter_map(|name| name.parse().ok()).collect();
        if let Some(names) = &self.key_cookies {
            let mut names: Vec<_> = names.iter().map(|name| policy::loose_name(name.as_bytes())).collect();
            names.sort();
            names.dedup();
            let number = |name: &Option<String>| key::number_of("cookie", name.as_deref().unwrap_or("*"));
            let fingerprint = names.iter().fold(0_u64, |sum, name| sum.wrapping_add(number(name))).max(1);
            self.policy.key_cookies = Some(policy::KeyCookies { names, fingerprint });
        }
        // GET and HEAD have no content, so that their keys need no digest of it.
        let has_no_content = |method: &Method| matches!(*method, Method::GET | Method::HEAD);
        if !self.methods.iter().all(has_no_content) {
            self.policy.key_fields.push(policy::CONTENT);
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Config`] if a setting is malformed, has no effect in this kind of cache, or contradicts
    /// another. The message names the setting and says what to do. Only the first mistake is reported.
    pub(crate) fn check(&self) -> Result<()> {
        self.rules.check()?;
        self.identity.query.check()?;
        let policy = &self.policy;
        let is_keyed = |name: &HeaderName| policy.key_fields.contains(name);
        self.check_values()?;
        let contradictions = [
            (
                self.record && self.replay,
                "record and replay contradict each other: build one layer to record, and another to replay",
            ),
            (
                policy.store_set_cookie && !policy.shared,
                "store_set_cookie has no effect in a private cache, which stores Set-Cookie anyway: remove it, or add \
                 shared(true)",
            ),
            (
                policy.ignore_cookie && policy.shared,
                "ignore_cookie has no effect in a shared cache, where Cookie selects a response only if Vary names it: \
                 use ignore_headers([COOKIE]) against that",
            ),
            (
                self.recording().is_some() && policy.shared,
                "record and replay work in a private cache only: remove shared(true)",
            ),
            (
                self.recording().is_some() && self.lease.is_some(),
                "lease has no effect on record and replay, which share no fetches: remove it",
            ),
            (
                self.recording().is_some() && self.default_tti.is_some(),
                "default_tti would drop responses of a recording, which is kept forever: remove it",
            ),
            (
                self.min_body_bytes > self.max_body_bytes,
                "min_body_bytes is more than max_body_bytes, so that nothing could be stored: lower it",
            ),
            (
                self.lease.is_some() && !self.coalesce,
                "lease needs coalesce, which is switched off: remove coalesce(false) or lease",
            ),
            (
                self.lease.is_some() && self.read_only,
                "lease is for processes that store the responses they fetch, and read_only stores none: remove one of them",
            ),
            (
                !self.refresh_early.is_zero() && self.max_background_refreshes == 0,
                "refresh_early needs background refreshes, and max_background_refreshes is 0: raise it, or remove refresh_early",
            ),
            (
                self.stale_after.is_some() && self.max_background_refreshes == 0,
                "stale_after lets fetches go on in the background, and max_background_refreshes is 0: raise it, or remove \
                 stale_after",
            ),
            (
                policy.ignored_fields.iter().any(is_keyed),
                "a field is named both by key_headers and by ignore_headers: remove it from one of them",
            ),
            (
                self.key_cookies
                    .as_ref()
                    .is_some_and(|names| names.iter().any(String::is_empty) || names.is_empty()),
                "key_cookies is empty or has an empty name: name a cookie, or use ignore_cookie so that none counts",
            ),
            (
                self.key_cookies.is_some()
                    && (policy.ignore_cookie || policy.ignored_fields.contains(&header::COOKIE)),
                "key_cookies names cookies that count, and ignore_cookie or ignore_headers says that none does: remove one \
                 of them",
            ),
            (self.methods.is_empty(), "methods is empty: name at least one method, or leave it out"),
            (
                self.recording() == Some(Recording::Record) && (self.read_only || self.only_if_cached),
                "record asks the origin and stores its responses, which read_only and only_if_cached forbid: remove them",
            ),
            (
                self.methods
                    .iter()
                    .any(|method| [Method::CONNECT, Method::TRACE, Method::OPTIONS].contains(method)),
                "methods names CONNECT, TRACE or OPTIONS, whose responses are never stored: remove it",
            ),
            (
                cfg!(not(feature = "content-keys"))
                    && self.methods.iter().any(|method| ![Method::GET, Method::HEAD].contains(method)),
                "methods other than GET and HEAD need the feature content-keys",
            ),
            (
                policy.ignore_cookie && is_keyed(&header::COOKIE),
                "ignore_cookie and key_headers contradict each other about Cookie: remove one of them",
            ),
        ];
        first_mistake(contradictions)
    }

    /// Checks each setting by itself.
    fn check_values(&self) -> Result<()> {
        first_mistake([
            (
                !self.defaults.is_valid(),
                "default_authority is not an authority: give a host, with a port or without, such as example.com or \
                 localhost:8080",
            ),
            (
                self.policy.heuristic_percent > 100,
                "heuristic_percent is more than 100: give 0 to 100, or a default_ttl for a longer lifetime",
            ),
            (
                self.targeted_fields.iter().flatten().any(|name| name.parse::<HeaderName>().is_err()),
                "targeted_fields has a name that is not one of a header field: give names such as cdn-cache-control",
            ),
            (
                self.targeted_fields.iter().flatten().any(|name| {
                    [header::CACHE_CONTROL, header::EXPIRES, header::PRAGMA]
                        .iter()
                        .any(|field| name.eq_ignore_ascii_case(field.as_str()))
                }),
                "targeted_fields names Cache-Control, Expires or Pragma, which are no targeted fields and count after them \
                 anyway: remove it",
            ),
            (
                self.tag_fields.iter().any(|name| name.parse::<HeaderName>().is_err()),
                "tag_fields has a name that is not one of a header field: give names such as surrogate-key",
            ),
            (
                self.removes_tag_fields && self.tag_fields.is_empty(),
                "remove_tag_fields has no effect without tag_fields: name the fields, or remove it",
            ),
            (
                self.key_secret.is_empty(),
                "key_secret is empty: give random bytes, the same to all processes that share the storage, or leave it out",
            ),
            #[cfg(feature = "metrics")]
            (self.metrics_label.is_empty(), "metrics_label is empty: give a name, or leave it out"),
            (
                self.status_field.as_deref() == Some("\"\""),
                "status_field is empty: give the name of this cache, such as its host",
            ),
            (
                self.operation_timeout.is_zero(),
                "operation_timeout is zero, so that no operation of the storage could succeed: give a longer one",
            ),
            (
                self.body_timeout.is_zero(),
                "body_timeout is zero, so that no stored body could be read: give a longer one",
            ),
            (
                self.coalesce_timeout.is_zero(),
                "coalesce_timeout is zero: use coalesce(false) so that no request waits for another's fetch",
            ),
            (
                self.stale_after.is_some_and(|time| time.is_zero()),
                "stale_after is zero: use stale_while_revalidate to serve stale responses without waiting",
            ),
            (
                self.fallback_after.as_ref().is_some_and(|(time, _)| time.is_zero()),
                "fallback_after is zero, so that no response of the inner service would be awaited: give a longer time",
            ),
            (
                self.refresh_timeout.is_zero(),
                "refresh_timeout is zero: use max_background_refreshes(0) so that nothing is refreshed in the background",
            ),
            (
                self.default_tti.is_some_and(|idle| idle.is_zero()),
                "default_tti is zero, so that no stored response could be used: give a longer time, or leave it out",
            ),
            (
                self.lease.is_some_and(|lease| lease.is_zero()),
                "lease is zero: give more time than the origin takes, or leave it out",
            ),
            (
                self.max_body_bytes == 0,
                "max_body_bytes is 0: use read_only, a filter or methods to store less, or leave the layer out",
            ),
            (self.chunk_len == 0, "chunk_bytes is 0: give the length of a chunk, or leave it out"),
            #[cfg(feature = "content-keys")]
            (
                self.contents.max_len == 0,
                "max_content_bytes is 0: use methods to say which requests are cached by their content",
            ),
        ])
    }
}

/// Returns the first mistake that applies as an error.
fn first_mistake(mistakes: impl IntoIterator<Item = (bool, &'static str)>) -> Result<()> {
    match mistakes.into_iter().find(|(holds, _)| *holds) {
        Some((_, message)) => Err(Error::new(ErrorKind::Config, message)),
        None => Ok(()),
    }
}
