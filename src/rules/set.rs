//! All that the user says about what is stored and for how long.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode, request, response};

use super::rule::{Rule, check_statuses, config};
use crate::error::Result;
use crate::policy::{Despite, Terms, Ttl};

type Filter = Arc<dyn Fn(&request::Parts, &response::Parts) -> bool + Send + Sync>;
type Answer = Pin<Box<dyn Future<Output = bool> + Send>>;
type AsyncFilter = Arc<dyn Fn(&request::Parts, &response::Parts) -> Answer + Send + Sync>;

/// What is stored, and for how long, where the user knows better than the origin. Set when a cache is
/// [built](crate::CacheLayerBuilder::rules), or [while it runs](crate::CacheLayer::set_rules).
///
/// # Which lifetime counts
/// The first of these that says something:
///
/// | | said by | set by |
/// |---|---|---|
/// | 1 | the request | [`CacheOptions::ttl`](crate::CacheOptions::ttl) |
/// | 2 | the first rule that matches, as override | [`Rule::override_ttl`] |
/// | 3 | the layer, as override | [`override_ttl`](Self::override_ttl) |
/// | 4 | the response: `s-maxage` (shared), `max-age`, Expires | within [`min_ttl`](Self::min_ttl) and [`max_ttl`](Self::max_ttl) |
/// | 5 | the first rule that matches, as default | [`Rule::default_ttl`] |
/// | 6 | the layer, as default | [`default_ttl`](Self::default_ttl) |
/// | 7 | a guess from Last-Modified (RFC 9111 §4.2.2) | within [`min_ttl`](Self::min_ttl) and [`max_ttl`](Self::max_ttl) |
///
/// `min_ttl` and `max_ttl` do not limit what rules, the layer or a request say. An override or default of the layer beyond them is
/// refused when the cache is built, since it would look as if they did; a rule is an exception, from them too.
///
/// What the user says counts from when the response was received, whatever its Age. It is settled when a response is
/// stored or validated, and kept with it: a rule that changes holds for what is fetched from then on.
///
/// An override sets the freshness, so that the response's `no-cache` does not count either; what no-store, private (in a
/// shared cache), Authorization or `Vary: *` forbid is kept only by [`store_despite`](Self::store_despite). A status that
/// a cache stores only with a lifetime of the response's own (RFC 9110 §15.1: errors, redirects that are not permanent)
/// needs to be named, by [`statuses`](Self::statuses) or by a rule.
///
/// ```
/// use std::time::Duration;
/// use tower_response_cache::{Rule, Rules, Ttl};
///
/// let rules = Rules::new()
///     .rule(Rule::new().url("api.example.com/prices/**").override_ttl(Duration::from_secs(30)))
///     .rule(Rule::new().statuses([404, 410]).override_ttl(Duration::from_secs(5)))
///     .default_ttl(Duration::from_secs(3600))
///     .max_ttl(Duration::from_secs(86_400));
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct Rules {
    list: Vec<Rule>,
    override_ttl: Option<Ttl>,
    default_ttl: Option<Ttl>,
    min_ttl: Option<Duration>,
    max_ttl: Option<Duration>,
    statuses: Option<Vec<u16>>,
    despite: Despite,
    filters: Vec<Filter>,
    async_filters: Vec<AsyncFilter>,
}

/// What a response forbids, and [`Rules::store_despite`] allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Forbidden {
    /// `Cache-Control: no-store` in the response. A request's own is the caller's, and stands.
    NoStore,
    /// `Cache-Control: private`, in a shared cache. The risk: what was made for one user is served to others, unless
    /// the fields that tell users apart are in the key.
    Private,
    /// A response to Authorization that does not allow to be stored for others, in a shared cache (RFC 9111 §3.5). It
    /// is stored for requests with the same Authorization.
    Authorization,
    /// `Vary: *`: what it depends on is not known. The risk: it is served to requests that the origin would answer
    /// otherwise.
    VaryAny,
}

impl Rules {
    /// Rules that say nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a rule behind those that are there. The first that matches wins.
    pub fn rule(mut self, rule: Rule) -> Self {
        self.list.push(rule);
        self
    }

    /// How long responses are fresh that give no lifetime. Default: a share of the time since the last modification.
    pub fn default_ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.default_ttl = Some(ttl.into());
        self
    }

    /// How long responses are fresh, whatever lifetime they give. Default: they say it.
    pub fn override_ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.override_ttl = Some(ttl.into());
        self
    }

    /// The least time for which a response is fresh whose lifetime is its own or guessed. Default: none.
    pub fn min_ttl(mut self, least: Duration) -> Self {
        self.min_ttl = Some(least);
        self
    }

    /// The longest time for which a response is fresh whose lifetime is its own or guessed. Default: none.
    pub fn max_ttl(mut self, longest: Duration) -> Self {
        self.max_ttl = Some(longest);
        self
    }

    /// The statuses that are stored, and no others but those that a matching rule names. They are stored also where a
    /// cache would not store them by itself, if they have a lifetime: 206 and 304 never, and of those that say something
    /// of one request (401, 406 to 408, 411 to 413, 415 to 417, 421, 425, 426, 428, 429, 431, 505, 511) only what is
    /// named here or by a rule. The risk of naming one of these: one request, made to fail, takes the page away from all
    /// others. Default: as RFC 9111 §3 says.
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = u16>) -> Self {
        self.statuses = Some(statuses.into_iter().collect());
        self
    }

    /// Stores what a response forbids to store. It still needs a lifetime or a validator. Default: it is not stored.
    pub fn store_despite(mut self, forbidden: Forbidden) -> Self {
        match forbidden {
            Forbidden::NoStore => self.despite.no_store = true,
            Forbidden::Private => self.despite.private = true,
            Forbidden::Authorization => self.despite.authorization = true,
            Forbidden::VaryAny => self.despite.vary_any = true,
        }
        self
    }

    /// Stores only responses of which this says true. It is asked too about a stored response that the origin confirms, with
    /// the fields that this has then. Filters add up. Default: all that may be stored.
    pub fn filter_response(
        mut self,
        filter: impl Fn(&request::Parts, &response::Parts) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.filters.push(Arc::new(filter));
        self
    }

    /// The same for a filter that has to wait: it takes from the request and the response what it needs, and the head
    /// of the response waits for its answer. Default: none.
    pub fn filter_response_async<F>(
        mut self,
        filter: impl Fn(&request::Parts, &response::Parts) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = bool> + Send + 'static,
    {
        self.async_filters.push(Arc::new(move |request, response| Box::pin(filter(request, response))));
        self
    }

    /// Everything is kept, for ever.
    pub(crate) fn for_a_recording(mut self) -> Self {
        self.list.clear();
        self.despite = Despite { no_store: true, private: true, authorization: true, vary_any: true };
        self.override_ttl(Ttl::Forever).statuses(200..=599)
    }

    /// What contradicts itself.
    pub(crate) fn check(&self) -> Result<()> {
        self.list.iter().try_for_each(Rule::check)?;
        if let (Some(least), Some(most)) = (self.min_ttl, self.max_ttl)
            && least > most
        {
            return Err(config("min_ttl is longer than max_ttl: swap them, or remove one"));
        }
        // Not of single rules: these are exceptions, from the limits too.
        for ttl in [self.override_ttl, self.default_ttl].into_iter().flatten() {
            let (lasts, is_longer) = match ttl {
                // Zero is what `Revalidate` says, which is about no time.
                Ttl::For(time) if !time.is_zero() => (time, self.max_ttl.is_some_and(|most| time > most)),
                Ttl::Forever => (Duration::MAX, self.max_ttl.is_some()),
                _ => continue,
            };
            if is_longer {
                return Err(config(
                    "an override_ttl or default_ttl is longer than max_ttl, which would not limit it: shorten it, or \
                     raise max_ttl",
                ));
            }
            if self.min_ttl.is_some_and(|least| lasts < least) {
                return Err(config(
                    "an override_ttl or default_ttl is shorter than min_ttl, which would not lengthen it: lengthen it, \
                     or lower min_ttl",
                ));
            }
        }
        self.statuses.as_deref().map_or(Ok(()), check_statuses)
    }

    /// What they say about a response; `own`: what its request says.
    pub(crate) fn terms(
        &self,
        own: Option<Ttl>,
        url: impl FnOnce() -> String,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Terms {
        let url = if self.list.iter().any(Rule::looks_at_url) { url() } else { String::new() };
        let rule = self.list.iter().find(|rule| rule.gives_ttl() && rule.matches(&url, status, headers));
        // Each rule that matches counts, not only the one that says how long.
        let names = |rule: &Rule| rule.names_status() && rule.matches(&url, status, headers);
        let listed = || self.statuses.as_ref().map(|statuses| statuses.contains(&status.as_u16()));
        Terms {
            over: own.or(rule.and_then(|rule| rule.override_ttl)).or(self.override_ttl),
            default: rule.and_then(|rule| rule.default_ttl).or(self.default_ttl),
            min: self.min_ttl,
            max: self.max_ttl,
            status: if self.list.iter().any(names) { Some(true) } else { listed() },
            despite: self.despite,
        }
    }

    /// The tags that they give a response.
    pub(crate) fn tags(
        &self,
        url: impl FnOnce() -> String,
        status: StatusCode,
        headers: &HeaderMap,
        mut give: impl FnMut(&str),
    ) {
        if self.list.iter().all(|rule| rule.tags.is_empty()) {
            return;
        }
        let url = url();
        let matching = self.list.iter().filter(|rule| rule.matches(&url, status, headers));
        matching.flat_map(|rule| &rule.tags).for_each(|name| give(name));
    }

    pub(crate) fn has_filters(&self) -> bool {
        !self.filters.is_empty() || !self.async_filters.is_empty()
    }

    /// Whether the filters let a response through. They are begun here, so that nothing of the request is held while
    /// they take their time.
    pub(crate) fn admit(
        &self,
        request: &request::Parts,
        response: &response::Parts,
    ) -> impl Future<Output = bool> + Send + use<> {
        let passed = self.filters.iter().all(|filter| filter(request, response));
        let waiting: Vec<Answer> = match passed {
            true => self.async_filters.iter().map(|filter| filter(request, response)).collect(),
            false => Vec::new(),
        };
        async move {
            for answer in waiting {
                if !answer.await {
                    return false;
                }
            }
            passed
        }
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("list", &self.list)
            .field("override_ttl", &self.override_ttl)
            .field("default_ttl", &self.default_ttl)
            .field("min_ttl", &self.min_ttl)
            .field("max_ttl", &self.max_ttl)
            .field("statuses", &self.statuses)
            .finish_non_exhaustive()
    }
}
