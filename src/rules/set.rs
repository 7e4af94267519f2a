//! The rules of a layer.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{request, response};

use super::condition::RuledResponse;
use super::rule::{Rule, check_statuses, config};
use crate::error::Result;
use crate::policy::{RuleDecision, StoreDespite, Ttl};

type Filter = Arc<dyn Fn(&request::Parts, &response::Parts) -> bool + Send + Sync>;
/// Boxed, since the future of each filter has a type of its own.
type FilterFuture = Pin<Box<dyn Future<Output = bool> + Send>>;
type AsyncFilter = Arc<dyn Fn(&request::Parts, &response::Parts) -> FilterFuture + Send + Sync>;

/// The rules on which responses are stored, and for how long.
///
/// They are for users who know better than the origin. Set them when a cache is
/// [built](crate::CacheLayerBuilder::rules), or [while it runs](crate::CacheLayer::set_rules).
///
/// # Precedence
/// The lifetime of a response is the first of these that is given:
///
/// | | source | setting |
/// |---|---|---|
/// | 1 | the request | [`CacheOptions::ttl`](crate::CacheOptions::ttl) |
/// | 2 | override of a rule | [`Rule::override_ttl`] |
/// | 3 | override of the layer | [`override_ttl`](Self::override_ttl) |
/// | 4 | the response | within [`min_ttl`](Self::min_ttl) and [`max_ttl`](Self::max_ttl) |
/// | 5 | default of a rule | [`Rule::default_ttl`] |
/// | 6 | default of the layer | [`default_ttl`](Self::default_ttl) |
/// | 7 | the heuristic | within [`min_ttl`](Self::min_ttl) and [`max_ttl`](Self::max_ttl) |
///
/// - In lines 2 and 5 the rule is the first one that matches the response and gives a lifetime of either kind.
/// - In line 4 the response states its lifetime by `s-maxage` in a shared cache, by `max-age`, or by Expires.
/// - In line 7 the heuristic estimates it from Last-Modified (RFC 9111 §4.2.2).
///
/// `min_ttl` and `max_ttl` do not limit the lifetimes that rules, the layer or a request give. An override or default of
/// the layer that is a duration outside them, or [`Ttl::Forever`] beside `max_ttl`, is an error when the cache is built,
/// since the limits would seem to apply to it. A rule may be outside them, since it is an exception.
///
/// A lifetime that you give counts from when the response was received, whatever its Age. It is determined when the
/// response is stored or validated, and stored with it. Rules that change later apply to responses that are fetched or
/// validated afterwards.
///
/// # Prohibitions
/// An override sets the freshness, so that `no-cache` in the response does not count either. It does not store a
/// response that `no-store`, `private` (in a shared cache), Authorization or `Vary: *` forbids to store.
/// [`store_despite`](Self::store_despite) does.
///
/// Some statuses are stored only if the response permits it by a lifetime, `public` or `private`: errors, and redirects
/// that are not permanent (RFC 9110 §15.1). To store others of them by a lifetime of yours, name their statuses in
/// [`statuses`](Self::statuses) or in a rule.
///
/// # Example
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
    despite: StoreDespite,
    filters: Vec<Filter>,
    async_filters: Vec<AsyncFilter>,
}

/// A prohibition to store a response, which [`Rules::store_despite`] lifts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Forbidden {
    /// `Cache-Control: no-store` in the response (RFC 9111 §5.2.2.5).
    ///
    /// `no-store` in a request still counts.
    NoStore,
    /// `Cache-Control: private` in the response, in a shared cache (RFC 9111 §5.2.2.7).
    ///
    /// The risk: a response that was made for one user is served to others, unless the fields that identify a user are
    /// in the [key](crate::CacheLayerBuilder::key_headers).
    Private,
    /// Authorization in the request, in a shared cache (RFC 9111 §3.5).
    ///
    /// It forbids storing unless the response permits it by `public`, `must-revalidate` or `s-maxage`. The response is
    /// stored for requests with the same Authorization.
    Authorization,
    /// `Vary: *` in the response, or a Vary field that cannot be read (RFC 9111 §4.1).
    ///
    /// The risk: the response is served to requests that the origin would answer differently.
    VaryAny,
}

impl Rules {
    /// Creates rules without any effect.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a rule after those that were added before.
    ///
    /// Of the rules with a lifetime, the first one that matches a response decides.
    ///
    /// Default: no rules.
    pub fn rule(mut self, rule: Rule) -> Self {
        self.list.push(rule);
        self
    }

    /// Sets how long a response without a lifetime of its own is fresh.
    ///
    /// Default: the heuristic, by [`heuristic_percent`](crate::CacheLayerBuilder::heuristic_percent).
    pub fn default_ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.default_ttl = Some(ttl.into());
        self
    }

    /// Sets how long a response is fresh, whatever lifetime it states.
    ///
    /// Default: the response decides.
    pub fn override_ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.override_ttl = Some(ttl.into());
        self
    }

    /// Sets the shortest lifetime that a response or the heuristic gives.
    ///
    /// A response without any lifetime does not get one by this.
    ///
    /// Default: none.
    pub fn min_ttl(mut self, least: Duration) -> Self {
        self.min_ttl = Some(least);
        self
    }

    /// Sets the longest lifetime that a response or the heuristic gives.
    ///
    /// Default: none.
    pub fn max_ttl(mut self, longest: Duration) -> Self {
        self.max_ttl = Some(longest);
        self
    }

    /// Sets the statuses that are stored.
    ///
    /// No other status is stored, unless a matching rule names it. Responses with these statuses are stored even where
    /// RFC 9111 §3 would not permit it, if they have a lifetime. 206 and 304 are never stored.
    ///
    /// Some statuses are about one request: 401, 406 to 408, 411 to 413, 415 to 417, 421, 425, 426, 428, 429, 431, 505
    /// and 511. They are stored only if they are named here or by a rule. The risk: a request that is made to fail
    /// hides the page from every other request.
    ///
    /// Default: the statuses that RFC 9111 §3 permits.
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = u16>) -> Self {
        self.statuses = Some(statuses.into_iter().collect());
        self
    }

    /// Stores responses that this prohibition would keep out.
    ///
    /// Such a response still needs a lifetime or a validator. Several calls add up.
    ///
    /// Default: none. Such a response is not stored.
    pub fn store_despite(mut self, forbidden: Forbidden) -> Self {
        match forbidden {
            Forbidden::NoStore => self.despite.no_store = true,
            Forbidden::Private => self.despite.private = true,
            Forbidden::Authorization => self.despite.authorization = true,
            Forbidden::VaryAny => self.despite.vary_any = true,
        }
        self
    }

    /// Stores only responses for which the filter returns `true`.
    ///
    /// The filter is also called for a stored response that the origin confirms, with the fields that the response then
    /// has. Several filters add up: a response has to pass all of them.
    ///
    /// Default: every response that may be stored.
    pub fn filter_response(
        mut self,
        filter: impl Fn(&request::Parts, &response::Parts) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.filters.push(Arc::new(filter));
        self
    }

    /// Stores only responses for which an asynchronous filter returns `true`.
    ///
    /// It is like [`filter_response`](Self::filter_response), for a filter that has to wait. The filter copies what it
    /// needs from the request and the response. The caller gets the head of the response only after the filter has
    /// answered.
    ///
    /// Default: none.
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

    /// Changes the rules for a recording, which stores every response forever.
    ///
    /// Filters stay as they are.
    pub(crate) fn for_a_recording(mut self) -> Self {
        self.list.clear();
        self.despite = StoreDespite { no_store: true, private: true, authorization: true, vary_any: true };
        self.override_ttl(Ttl::Forever).statuses(200..=599)
    }

    /// Checks that the rules are well formed and do not contradict each other.
    ///
    /// # Errors
    /// Returns an error of the kind [`Config`](crate::ErrorKind::Config) if not.
    pub(crate) fn check(&self) -> Result<()> {
        self.list.iter().try_for_each(Rule::check)?;
        if let (Some(least), Some(most)) = (self.min_ttl, self.max_ttl)
            && least > most
        {
            return Err(config("min_ttl is longer than max_ttl: swap them, or remove one"));
        }
        // Single rules are not checked against the limits, since they are exceptions.
        for ttl in [self.override_ttl, self.default_ttl].into_iter().flatten() {
            let (lifetime, is_too_long) = match ttl {
                // Zero means the same as `Revalidate`, which is not a lifetime that a limit could be about.
                Ttl::For(time) if !time.is_zero() => (time, self.max_ttl.is_some_and(|most| time > most)),
                Ttl::Forever => (Duration::MAX, self.max_ttl.is_some()),
                _ => continue,
            };
            if is_too_long {
                return Err(config(
                    "an override_ttl or default_ttl is longer than max_ttl, which does not limit it: shorten it, or \
                     raise max_ttl",
                ));
            }
            if self.min_ttl.is_some_and(|least| lifetime < least) {
                return Err(config(
                    "an override_ttl or default_ttl is shorter than min_ttl, which does not extend it: lengthen it, or \
                     lower min_ttl",
                ));
            }
        }
        self.statuses.as_deref().map_or(Ok(()), check_statuses)
    }

    /// Returns the decision of the rules on a response.
    ///
    /// `own` is the time to live that the request's options give.
    pub(crate) fn decision(
        &self,
        own: Option<Ttl>,
        url: impl FnOnce() -> String,
        response: &RuledResponse<'_>,
    ) -> RuleDecision {
        // Most layers have no condition on the URL, and then need no text of it.
        let url = if self.list.iter().any(Rule::has_url_condition) { url() } else { String::new() };
        let rule = self.list.iter().find(|rule| rule.gives_ttl() && rule.matches(&url, response));
        // Every rule that matches counts here, and not only the one that gives the lifetime.
        let names_status = |rule: &Rule| rule.has_status_condition() && rule.matches(&url, response);
        let listed = || self.statuses.as_ref().map(|statuses| statuses.contains(&response.status.as_u16()));
        RuleDecision {
            override_ttl: own.or(rule.and_then(|rule| rule.override_ttl)).or(self.override_ttl),
            default_ttl: rule.and_then(|rule| rule.default_ttl).or(self.default_ttl),
            min_ttl: self.min_ttl,
            max_ttl: self.max_ttl,
            stores_status: if self.list.iter().any(names_status) { Some(true) } else { listed() },
            despite: self.despite,
        }
    }

    /// Calls `give` with each tag that the rules give to a response.
    pub(crate) fn tags(
        &self,
        url: impl FnOnce() -> String,
        response: &RuledResponse<'_>,
        mut give: impl FnMut(&str),
    ) {
        if !self.has_tags() {
            return;
        }
        let url = url();
        let matching = self.list.iter().filter(|rule| rule.matches(&url, response));
        matching.flat_map(|rule| &rule.tags).for_each(|name| give(name));
    }

    /// Returns whether any rule gives a tag.
    pub(crate) fn has_tags(&self) -> bool {
        self.list.iter().any(|rule| !rule.tags.is_empty())
    }

    /// Returns whether there are filters, so that [`admit`](Self::admit) has to be asked.
    pub(crate) fn has_filters(&self) -> bool {
        !self.filters.is_empty() || !self.async_filters.is_empty()
    }

    /// Returns whether every filter lets a response be stored.
    ///
    /// All filters are called at once, and only their futures are awaited, so that neither the request nor the response
    /// is borrowed meanwhile.
    pub(crate) fn admit(
        &self,
        request: &request::Parts,
        response: &response::Parts,
    ) -> impl Future<Output = bool> + Send + use<> {
        let passed = self.filters.iter().all(|filter| filter(request, response));
        let futures: Vec<FilterFuture> = match passed {
            true => self.async_filters.iter().map(|filter| filter(request, response)).collect(),
            false => Vec::new(),
        };
        async move {
            for future in futures {
                if !future.await {
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
