//! Which stored responses are meant.

use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::time::Duration;

use super::entry::StoredEntry;
use crate::error::{Error, Result};
use crate::rules::{IntoUrlPattern, UrlPattern};

/// Chooses stored responses: all conditions must hold. Without any it chooses everything.
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
    /// Asked last, and once for each that all conditions hold for.
    tests: Vec<Test>,
    /// A mistake in a condition, told when the filter is used.
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
    /// Everything.
    pub fn new() -> Self {
        Self::default()
    }

    fn and(mut self, condition: Condition) -> Self {
        self.conditions.push(condition);
        self
    }

    /// Only those whose [URL](StoredEntry::url) is of this pattern: a glob as text, or a [`UrlPattern`]. A malformed glob
    /// is an error where the filter is used. No glob matches what has a name of the user's instead of a URL.
    pub fn url(mut self, pattern: impl IntoUrlPattern) -> Self {
        match pattern.into_url_pattern() {
            Ok(pattern) => self.and(Condition::Url(pattern)),
            Err(mistake) => {
                self.mistake = Some(mistake);
                self
            }
        }
    }

    /// Only those of these statuses, such as `404..=404` or `500..`.
    pub fn status(self, range: impl RangeBounds<u16>) -> Self {
        self.and(Condition::Status(range.start_bound().cloned(), range.end_bound().cloned()))
    }

    /// Only those that were [stored](StoredEntry::stored_at) longer ago than this.
    pub fn older_than(self, age: Duration) -> Self {
        self.and(Condition::OlderThan(age))
    }

    /// Only those that were [stored](StoredEntry::stored_at) less long ago than this.
    pub fn younger_than(self, age: Duration) -> Self {
        self.and(Condition::YoungerThan(age))
    }

    /// Only those that are [fresh](StoredEntry::is_fresh).
    pub fn fresh(self) -> Self {
        self.and(Condition::Fresh(true))
    }

    /// Only those that are not [fresh](StoredEntry::is_fresh).
    pub fn stale(self) -> Self {
        self.and(Condition::Fresh(false))
    }

    /// Only those whose [body](StoredEntry::body_len) has more bytes than this.
    pub fn larger_than(self, bytes: u64) -> Self {
        self.and(Condition::LargerThan(bytes))
    }

    /// Only those that were stored with this [tag](crate::CacheOptions::tags). To invalidate all that have it,
    /// [`invalidate_tag`](crate::CacheHandle::invalidate_tag) needs one write and reads nothing.
    pub fn tag(self, name: impl Into<String>) -> Self {
        self.and(Condition::Tag(name.into()))
    }

    /// Only those that this says true of. It is asked last: once for each that all other conditions hold for.
    pub fn matching(mut self, test: impl Fn(&StoredEntry) -> bool + Send + Sync + 'static) -> Self {
        self.tests.push(Arc::new(test));
        self
    }

    /// What is wrong with it.
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
