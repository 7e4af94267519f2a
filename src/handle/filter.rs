//! A filter that chooses stored responses: [`EntryFilter`].

use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::time::Duration;

use super::entry::StoredEntry;
use crate::error::{Error, Result};
use crate::rules::{IntoUrlPattern, UrlPattern};

/// Chooses stored responses.
///
/// All its conditions must hold. A filter without conditions chooses every response.
///
/// ```
/// use std::time::Duration;
/// use tower_response_cache::EntryFilter;
///
/// let old_errors = EntryFilter::new()
///     .url("*.example.com/api/**")
///     .status(500..=599)
///     .older_than(Duration::from_secs(60));
/// let images = EntryFilter::new()
///     .matching(|entry| entry.content_type().is_some_and(|name| name.starts_with("image/")));
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct EntryFilter {
    conditions: Vec<Condition>,
    /// Called last, since they may be slow: once for each response for which all conditions hold.
    tests: Vec<Test>,
    /// A mistake in a condition, reported when the filter is used.
    mistake: Option<Error>,
}

type Test = Arc<dyn Fn(&StoredEntry) -> bool + Send + Sync>;

#[derive(Clone, Debug)]
enum Condition {
    Url(UrlPattern),
    Status(Bound<u16>, Bound<u16>),
    OlderThan(Duration),
    YoungerThan(Duration),
    Fresh(bool),
    LargerThan(u64),
    Tag(String),
}

impl Condition {
    fn holds(&self, entry: &StoredEntry) -> bool {
        match self {
            Self::Url(pattern) => pattern.matches(entry.url()),
            Self::Status(first, last) => (*first, *last).contains(&entry.status().as_u16()),
            Self::OlderThan(age) => entry.stored_for() > *age,
            Self::YoungerThan(age) => entry.stored_for() < *age,
            Self::Fresh(wanted) => entry.is_fresh() == *wanted,
            Self::LargerThan(bytes) => entry.body_len() > *bytes,
            Self::Tag(name) => entry.tags().any(|tag| tag == name),
        }
    }
}

impl EntryFilter {
    /// Returns a filter that chooses every response.
    pub fn new() -> Self {
        Self::default()
    }

    fn and(mut self, condition: Condition) -> Self {
        self.conditions.push(condition);
        self
    }

    /// Chooses responses whose [URL](StoredEntry::url) matches this pattern.
    ///
    /// The pattern is a glob as text, or a [`UrlPattern`]. A malformed glob is reported when the filter is used. A glob does
    /// not match entries that the user named ([`key_fn`](crate::CacheLayerBuilder::key_fn)).
    pub fn url(mut self, pattern: impl IntoUrlPattern) -> Self {
        match pattern.into_url_pattern() {
            Ok(pattern) => self.and(Condition::Url(pattern)),
            Err(mistake) => {
                self.mistake = Some(mistake);
                self
            }
        }
    }

    /// Chooses responses with these statuses, such as `404..=404` or `500..`.
    pub fn status(self, range: impl RangeBounds<u16>) -> Self {
        self.and(Condition::Status(range.start_bound().cloned(), range.end_bound().cloned()))
    }

    /// Chooses responses that were [stored](StoredEntry::stored_at) longer ago than this.
    pub fn older_than(self, age: Duration) -> Self {
        self.and(Condition::OlderThan(age))
    }

    /// Chooses responses that were [stored](StoredEntry::stored_at) more recently than this.
    pub fn younger_than(self, age: Duration) -> Self {
        self.and(Condition::YoungerThan(age))
    }

    /// Chooses responses that are [fresh](StoredEntry::is_fresh).
    pub fn fresh(self) -> Self {
        self.and(Condition::Fresh(true))
    }

    /// Chooses responses that are not [fresh](StoredEntry::is_fresh).
    pub fn stale(self) -> Self {
        self.and(Condition::Fresh(false))
    }

    /// Chooses responses whose [body](StoredEntry::body_len) is longer than this, in bytes.
    pub fn larger_than(self, bytes: u64) -> Self {
        self.and(Condition::LargerThan(bytes))
    }

    /// Chooses responses with this [tag](crate::CacheOptions::tags).
    ///
    /// To invalidate all of them, [`invalidate_tag`](crate::CacheHandle::invalidate_tag) is cheaper: it reads nothing, and
    /// writes once.
    pub fn tag(self, name: impl Into<String>) -> Self {
        self.and(Condition::Tag(name.into()))
    }

    /// Chooses responses for which the test returns `true`.
    ///
    /// It is called once for each response for which all other conditions hold.
    pub fn matching(mut self, test: impl Fn(&StoredEntry) -> bool + Send + Sync + 'static) -> Self {
        self.tests.push(Arc::new(test));
        self
    }

    /// Returns the mistake in a condition, if there is one.
    pub(super) fn check(&self) -> Result<()> {
        self.mistake.clone().map_or(Ok(()), Err)
    }

    pub(super) fn matches(&self, entry: &StoredEntry) -> bool {
        self.conditions.iter().all(|condition| condition.holds(entry))
            && self.tests.iter().all(|test| test(entry))
    }
}

impl fmt::Debug for EntryFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntryFilter")
            .field("conditions", &self.conditions)
            .field("tests", &self.tests.len())
            .finish_non_exhaustive()
    }
}
