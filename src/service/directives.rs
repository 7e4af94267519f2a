//! The directives of a request.
//!
//! They come from its header fields, its options, the scope in which it was sent, and the settings of the layer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{header, request};

use super::config::{Config, Recording};
use crate::control::{CacheOptions, Scope};
use crate::policy::{self, HeaderHints, RequestDirectives, Ttl};

/// Marks the request of a background refresh, among its extensions.
///
/// It contains the number of the cache that makes the refresh.
#[derive(Clone, Copy, Debug)]
pub(super) struct Background(pub(super) u64);

/// Marks a request whose caller may get another response than that of its fetch, among its extensions.
#[derive(Clone, Debug)]
pub(super) struct Deserted {
    /// The number of the cache.
    by: u64,
    /// Whether the caller has got it.
    is_deserted: Arc<AtomicBool>,
}

impl Deserted {
    pub(super) fn new(by: u64) -> Self {
        Self { by, is_deserted: Arc::default() }
    }

    /// Says that the caller has got another response.
    pub(super) fn set(&self) {
        // Relaxed, since only counters depend on it.
        self.is_deserted.store(true, Ordering::Relaxed);
    }
}

/// Returns whether a fetch of the cache with a number is in the background: no caller waits for its response.
pub(super) fn is_background(request: &request::Parts, number: u64) -> bool {
    let extensions = &request.extensions;
    extensions.get::<Background>().is_some_and(|Background(by)| *by == number)
        || extensions
            .get::<Deserted>()
            .is_some_and(|own| own.by == number && own.is_deserted.load(Ordering::Relaxed))
}

/// Returns the options that the user set on a request.
pub(super) fn options(parts: &request::Parts) -> Option<&CacheOptions> {
    parts.extensions.get()
}

impl Config {
    /// Applies the scope of the current task and the options to a request.
    ///
    /// The scope is copied into the request, since other tasks may drive its fetch. Returns whether the request has to
    /// bypass the cache.
    pub(crate) fn enter(&self, parts: &mut request::Parts) -> bool {
        let scope = Scope::current();
        if !scope.is_none() {
            let within = options(parts).cloned().unwrap_or_default().within(scope);
            parts.extensions.insert(within);
        }
        // A recording needs the whole response, not a 304 or a part.
        if self.recording() == Some(Recording::Record) {
            policy::strip_conditions(&mut parts.headers);
            parts.headers.remove(header::RANGE);
        }
        let Some(options) = options(parts).cloned() else { return false };
        options.tell(&mut parts.headers);
        options.bypasses()
    }

    /// Returns whether the request permits its response to be stored and to answer other requests.
    ///
    /// Whether the response permits it is known only later.
    pub(super) fn may_fetch_for_others(
        &self,
        parts: &request::Parts,
        directives: &RequestDirectives,
    ) -> bool {
        let is_for_others = match options(parts).and_then(CacheOptions::given_ttl) {
            None | Some(Ttl::Forever) => true,
            Some(Ttl::For(lifetime)) => !lifetime.is_zero(),
            Some(Ttl::Until(end)) => end > self.clock.now(),
            Some(Ttl::DoNotStore | Ttl::Revalidate) => false,
        };
        is_for_others && !directives.no_store && !directives.read_only
    }

    /// Returns the directives of a request, from its fields and its options.
    pub(crate) fn directives(&self, parts: &request::Parts) -> RequestDirectives {
        self.directives_of(parts, HeaderHints { control: true, credentials: true, host: true })
    }

    /// Returns the directives of a request whose kinds of fields are known.
    pub(crate) fn directives_of(&self, parts: &request::Parts, interest: HeaderHints) -> RequestDirectives {
        let mut directives = match interest.control && !self.ignore_request_directives {
            true => RequestDirectives::of(&parts.headers),
            false => RequestDirectives::default(),
        };
        match self.recording() {
            Some(Recording::Record) => (directives.reload, directives.no_cache) = (true, true),
            Some(Recording::Replay) => (directives.force, directives.only_if_cached) = (true, true),
            None => {}
        }
        directives.only_if_cached |= self.only_if_cached;
        directives.read_only |= self.read_only;
        if let Some(options) = options(parts) {
            options.apply(&mut directives);
        }
        directives
    }
}
