//! The settings that say what is stored, and for how long.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::request;

use super::CacheLayerBuilder;
use crate::policy::Ttl;
use crate::rules::{Forbidden, Rule, Rules};
use crate::storage::Storage;

/// What is stored, and for how long. [`Rules`] says which lifetime counts.
impl<S: Storage> CacheLayerBuilder<S> {
    /// All rules at once, in place of those that were set before. Default: none.
    pub fn rules(mut self, rules: Rules) -> Self {
        self.config.rules = rules;
        self
    }

    fn change(mut self, change: impl FnOnce(Rules) -> Rules) -> Self {
        self.config.rules = change(self.config.rules);
        self
    }

    /// Adds a rule for some responses: [`Rules::rule`]. Default: none.
    pub fn rule(self, rule: Rule) -> Self {
        self.change(|rules| rules.rule(rule))
    }

    /// How long responses are fresh that give no lifetime: [`Rules::default_ttl`]. Default: a share of the time since
    /// the last modification.
    pub fn default_ttl(self, ttl: impl Into<Ttl>) -> Self {
        self.change(|rules| rules.default_ttl(ttl))
    }

    /// How long responses are fresh, whatever lifetime they give: [`Rules::override_ttl`]. Default: they say it.
    pub fn override_ttl(self, ttl: impl Into<Ttl>) -> Self {
        self.change(|rules| rules.override_ttl(ttl))
    }

    /// The least lifetime of responses whose lifetime is their own or guessed: [`Rules::min_ttl`]. Default: none.
    pub fn min_ttl(self, least: Duration) -> Self {
        self.change(|rules| rules.min_ttl(least))
    }

    /// The longest lifetime of responses whose lifetime is their own or guessed: [`Rules::max_ttl`]. Default: none.
    pub fn max_ttl(self, longest: Duration) -> Self {
        self.change(|rules| rules.max_ttl(longest))
    }

    /// The statuses that are stored: [`Rules::statuses`]. Default: as RFC 9111 §3 says.
    pub fn statuses(self, statuses: impl IntoIterator<Item = u16>) -> Self {
        self.change(|rules| rules.statuses(statuses))
    }

    /// Stores what a response forbids to store: [`Rules::store_despite`]. Default: it is not stored.
    pub fn store_despite(self, forbidden: Forbidden) -> Self {
        self.change(|rules| rules.store_despite(forbidden))
    }

    /// Asks the cache only about requests of which this says true; others go to the inner service and are not stored.
    /// What an unsafe request makes doubtful is invalidated all the same. Filters add up. Default: all.
    pub fn filter_request(
        mut self,
        filter: impl Fn(&request::Parts) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.config.filters.push(Arc::new(filter));
        self
    }

    /// The same for a filter that has to wait; it takes from the request what it needs. Every hit waits for it too.
    /// Default: none.
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

    /// Stores only responses of which this says true: [`Rules::filter_response`]. Default: all that may be stored.
    pub fn filter_response(
        self,
        filter: impl Fn(&request::Parts, &http::response::Parts) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.change(|rules| rules.filter_response(filter))
    }

    /// The same for a filter that has to wait: [`Rules::filter_response_async`]. Default: none.
    pub fn filter_response_async<F>(
        self,
        filter: impl Fn(&request::Parts, &http::response::Parts) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = bool> + Send + 'static,
    {
        self.change(|rules| rules.filter_response_async(filter))
    }

    /// The shortest body that is stored, in bytes; shorter ones pass through. Default: 0.
    pub fn min_entry_bytes(mut self, least: u64) -> Self {
        self.config.min_entry_bytes = least;
        self
    }
}
