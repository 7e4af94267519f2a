//! The settings of a cache, as the builder leaves them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Scheme;
use http::{Uri, response};

use crate::policy;
use crate::time::Clock;

/// Tells the URI that a response finally came from, where a layer below followed redirects.
pub(crate) type FinalUri = Arc<dyn Fn(&response::Parts) -> Option<Uri> + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) clock: Clock,
    pub(crate) policy: policy::Options,
    pub(crate) secret: Vec<u8>,
    pub(crate) partition: String,
    pub(crate) default_scheme: Scheme,
    /// For one operation of the store.
    pub(crate) deadline: Duration,
    /// For one chunk of a body that has begun: there is no way back.
    pub(crate) body_deadline: Duration,
    pub(crate) max_entry_bytes: u64,
    pub(crate) chunk_len: usize,
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
}

impl Default for Config {
    fn default() -> Self {
        Self {
            clock: Clock::system(),
            policy: policy::Options::default(),
            // Any constant would do: it only has to be the same in every process.
            secret: b"tower-response-cache".to_vec(),
            partition: String::new(),
            default_scheme: Scheme::HTTP,
            deadline: Duration::from_millis(500),
            body_deadline: Duration::from_secs(10),
            max_entry_bytes: 512 * 1024 * 1024,
            chunk_len: 128 * 1024,
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
