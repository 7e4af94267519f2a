//! The settings of a cache, as the builder leaves them.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Scheme;
use http::{HeaderName, Method, Uri, header, request, response};

use crate::error::{Error, ErrorKind, Result};
use crate::key::{Defaults, Identity};
use crate::policy;
use crate::rules::Rules;
use crate::time::Clock;

/// Tells the URI that a response finally came from, where a layer below followed redirects.
pub(crate) type FinalUri = Arc<dyn Fn(&response::Parts) -> Option<Uri> + Send + Sync>;

/// Says whether the cache is asked about a request.
pub(crate) type RequestFilter = Arc<dyn Fn(&request::Parts) -> bool + Send + Sync>;
pub(crate) type AsyncRequestFilter =
    Arc<dyn Fn(&request::Parts) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) clock: Clock,
    pub(crate) policy: policy::Options,
    pub(crate) secret: Vec<u8>,
    pub(crate) partition: String,
    #[cfg(feature = "metrics")]
    pub(crate) metrics_label: String,
    pub(crate) defaults: Defaults,
    /// The user has not said which scheme a request without one has.
    pub(crate) assumes_scheme: bool,
    /// For one operation of the store.
    pub(crate) deadline: Duration,
    /// For one chunk of a body that has begun: there is no way back.
    pub(crate) body_deadline: Duration,
    pub(crate) max_entry_bytes: u64,
    pub(crate) min_entry_bytes: u64,
    pub(crate) chunk_len: usize,
    /// `None`: the storage's own.
    pub(crate) inline_len: Option<usize>,
    pub(crate) strict: bool,
    pub(crate) fail_closed: bool,
    pub(crate) finish_on_drop: bool,
    pub(crate) extensions: bool,
    pub(crate) status_field: Option<String>,
    pub(crate) final_uri: Option<FinalUri>,
    pub(crate) max_refreshes: usize,
    pub(crate) refresh_timeout: Duration,
    /// Requests for the same share one fetch; how long one waits for another's.
    pub(crate) coalesce: bool,
    pub(crate) flight_timeout: Duration,
    /// A range that is not stored is answered from the whole, which is fetched.
    pub(crate) fetch_whole: bool,
    pub(crate) refresh_early: Duration,
    /// Processes that share the store take turns; how long one may have it.
    pub(crate) lease: Option<Duration>,
    /// What counts as the same request.
    pub(crate) identity: Identity,
    /// To begin with.
    pub(crate) rules: Rules,
    /// What the cache answers; all but GET and HEAD by their content.
    pub(crate) methods: Vec<Method>,
    #[cfg(feature = "content-keys")]
    pub(crate) contents: super::contents::Contents,
    pub(crate) filters: Vec<RequestFilter>,
    pub(crate) async_filters: Vec<AsyncRequestFilter>,
    pub(crate) ignore_request_directives: bool,
    pub(crate) read_only: bool,
    pub(crate) only_if_cached: bool,
    pub(crate) tape: Option<Tape>,
    /// Both recording and replaying were set.
    pub(crate) is_tape_contradictory: bool,
}

/// Any constant would do: it only has to be the same in every process.
const USUAL_SECRET: &[u8] = b"tower-response-cache";

impl Default for Config {
    fn default() -> Self {
        Self {
            clock: Clock::system(),
            policy: policy::Options::default(),
            secret: USUAL_SECRET.to_vec(),
            partition: String::new(),
            #[cfg(feature = "metrics")]
            metrics_label: "default".to_owned(),
            defaults: Defaults { scheme: Scheme::HTTP, authority: None },
            assumes_scheme: true,
            deadline: Duration::from_millis(500),
            body_deadline: Duration::from_secs(10),
            max_entry_bytes: 512 * 1024 * 1024,
            min_entry_bytes: 0,
            chunk_len: 128 * 1024,
            inline_len: None,
            strict: false,
            fail_closed: false,
            finish_on_drop: false,
            extensions: true,
            status_field: None,
            final_uri: None,
            max_refreshes: 64,
            refresh_timeout: Duration::from_secs(30),
            coalesce: true,
            flight_timeout: Duration::from_secs(10),
            fetch_whole: false,
            refresh_early: Duration::ZERO,
            lease: None,
            identity: Identity::default(),
            rules: Rules::default(),
            methods: vec![Method::GET, Method::HEAD],
            #[cfg(feature = "content-keys")]
            contents: Default::default(),
            filters: Vec::new(),
            async_filters: Vec::new(),
            ignore_request_directives: false,
            read_only: false,
            only_if_cached: false,
            tape: None,
            is_tape_contradictory: false,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("clock", &self.clock)
            .field("policy", &self.policy)
            .field("deadline", &self.deadline)
            .field("strict", &self.strict)
            .finish_non_exhaustive()
    }
}

/// Whether responses are recorded, or replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tape {
    Record,
    Replay,
}

impl Config {
    /// Tells this cache's metrics from another's.
    pub(crate) fn label(&self) -> &str {
        #[cfg(feature = "metrics")]
        return &self.metrics_label;
        #[cfg(not(feature = "metrics"))]
        ""
    }

    /// Whether its keys are those of any other cache without a partition and a secret.
    pub(crate) fn has_usual_keys(&self) -> bool {
        self.partition.is_empty() && self.secret == USUAL_SECRET
    }

    /// What follows from other settings, whichever came first.
    pub(crate) fn settle(&mut self) {
        if self.tape.is_some() {
            self.rules = std::mem::take(&mut self.rules).for_a_tape();
            self.policy.shared = false;
            self.policy.vary_on_credentials = false;
            self.policy.ignore_vary = true;
            self.ignore_request_directives = true;
            self.coalesce = false;
            if cfg!(feature = "content-keys") {
                self.methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "QUERY"]
                    .iter()
                    .filter_map(|name| name.parse().ok())
                    .collect();
            }
        }
        let of_itself = |method: &Method| matches!(*method, Method::GET | Method::HEAD);
        if !self.methods.iter().all(of_itself) {
            self.policy.key_fields.push(policy::CONTENT);
        }
    }

    /// What contradicts itself.
    pub(crate) fn check(&self) -> Result<()> {
        self.rules.check()?;
        let policy = &self.policy;
        let is_keyed = |name: &HeaderName| policy.key_fields.contains(name);
        self.check_values()?;
        let contradictions = [
            (
                self.is_tape_contradictory,
                "record and replay contradict each other: build one layer to record, and another to replay",
            ),
            (
                policy.store_set_cookie && !policy.shared,
                "store_set_cookie has no effect in a private cache, which stores Set-Cookie anyway: remove it, or add \
                 shared()",
            ),
            (
                policy.ignore_cookie && policy.shared,
                "ignore_cookie has no effect in a shared cache, where Cookie tells requests apart only if Vary names it: \
                 use ignore_headers([COOKIE]) against that",
            ),
            (
                self.tape.is_some() && policy.shared,
                "record and replay are of a private cache: remove shared()",
            ),
            (
                self.tape.is_some() && self.lease.is_some(),
                "lease has no effect on record and replay, which share no fetches: remove it",
            ),
            (self.min_entry_bytes > self.max_entry_bytes, "min_entry_bytes is more than max_entry_bytes"),
            (self.lease.is_some() && !self.coalesce, "lease needs coalesce, which is switched off"),
            (
                self.lease.is_some() && self.read_only,
                "lease is for processes that store what they fetch, and read_only stores nothing",
            ),
            (
                !self.refresh_early.is_zero() && self.max_refreshes == 0,
                "refresh_early needs background refreshes, and max_refreshes is 0",
            ),
            (
                policy.ignored_fields.iter().any(is_keyed),
                "a field is named both by key_headers and by ignore_headers",
            ),
            (self.methods.is_empty(), "methods names none"),
            (
                self.tape == Some(Tape::Record) && (self.read_only || self.only_if_cached),
                "record asks the origin and stores, which read_only and only_if_cached forbid",
            ),
            (
                self.methods
                    .iter()
                    .any(|method| [Method::CONNECT, Method::TRACE, Method::OPTIONS].contains(method)),
                "methods names one whose responses are never stored: CONNECT, TRACE or OPTIONS",
            ),
            (
                cfg!(not(feature = "content-keys"))
                    && self.methods.iter().any(|method| ![Method::GET, Method::HEAD].contains(method)),
                "methods other than GET and HEAD need the feature content-keys",
            ),
            (
                policy.ignore_cookie && is_keyed(&header::COOKIE),
                "ignore_cookie and key_headers contradict each other about Cookie",
            ),
        ];
        first_mistake(contradictions)
    }

    /// What no setting can mean.
    fn check_values(&self) -> Result<()> {
        first_mistake([
            (
                !self.defaults.is_valid(),
                "default_authority is no authority: give a host, with a port or without, such as example.com or \
                 localhost:8080",
            ),
            (
                self.policy.heuristic_percent > 100,
                "heuristic_percent is more than 100: give 0 to 100, or a default_ttl for a longer lifetime",
            ),
            (
                self.secret.is_empty(),
                "secret is empty: give random bytes, the same to all processes that share the storage, or leave it out",
            ),
            #[cfg(feature = "metrics")]
            (self.metrics_label.is_empty(), "metrics_label is empty: give a name, or leave it out"),
            (
                self.status_field.as_deref() == Some("\"\""),
                "status_field is empty: give the name of this cache, such as its host",
            ),
            (
                self.identity.ignored_query.iter().any(String::is_empty),
                "ignore_query names an empty parameter: remove the empty name",
            ),
            (
                self.deadline.is_zero(),
                "operation_timeout is zero, so that no operation of the storage could succeed: give a longer one",
            ),
            (
                self.body_deadline.is_zero(),
                "body_timeout is zero, so that no stored body could be read: give a longer one",
            ),
            (
                self.flight_timeout.is_zero(),
                "flight_timeout is zero: use coalesce(false) so that no request waits for another's fetch",
            ),
            (
                self.refresh_timeout.is_zero(),
                "refresh_timeout is zero: use max_refreshes(0) so that nothing is refreshed in the background",
            ),
            (
                self.lease.is_some_and(|lease| lease.is_zero()),
                "lease is zero: give more time than the origin takes, or leave it out",
            ),
            (
                self.max_entry_bytes == 0,
                "max_entry_bytes is 0: use read_only, a filter or methods to store less, or leave the layer out",
            ),
            (self.chunk_len == 0, "chunk_bytes is 0: give the length of a chunk, or leave it out"),
            #[cfg(feature = "content-keys")]
            (
                self.contents.most == 0,
                "max_content_bytes is 0: use methods to say which requests are told apart by their content",
            ),
        ])
    }
}

fn first_mistake(mistakes: impl IntoIterator<Item = (bool, &'static str)>) -> Result<()> {
    match mistakes.into_iter().find(|(holds, _)| *holds) {
        Some((_, message)) => Err(Error::new(ErrorKind::Config, message)),
        None => Ok(()),
    }
}
