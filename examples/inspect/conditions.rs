//! Builds the library's filter from the conditions on the command line.

use std::collections::HashSet;

use tower_response_cache::EntryFilter;

use crate::arguments::Conditions;
use crate::text::normal_url;

impl Conditions {
    pub fn filter(&self) -> EntryFilter {
        let mut filter = EntryFilter::new();
        if let Some(pattern) = &self.url {
            filter = filter.url(pattern.clone());
        }
        if let Some((first, last)) = self.status {
            filter = filter.status(first..=last);
        }
        if let Some(age) = self.older_than {
            filter = filter.older_than(age);
        }
        if let Some(age) = self.younger_than {
            filter = filter.younger_than(age);
        }
        if self.fresh {
            filter = filter.fresh();
        }
        if self.stale {
            filter = filter.stale();
        }
        if let Some(bytes) = self.larger_than {
            filter = filter.larger_than(bytes);
        }
        if let Some(name) = &self.tag {
            filter = filter.tag(name);
        }
        filter
    }

    pub fn are_empty(&self) -> bool {
        // Destructured, so that a new condition cannot be forgotten here: without it, `delete` would delete everything.
        let Self { url, status, older_than, younger_than, fresh, stale, larger_than, tag } = self;
        let times = older_than.or(*younger_than);
        let others = larger_than.is_none() && tag.is_none();
        url.is_none() && status.is_none() && times.is_none() && !fresh && !stale && others
    }
}

/// Restricts a filter to these URLs, normalised or not.
pub fn with_urls(filter: EntryFilter, urls: &[String]) -> EntryFilter {
    let wanted: HashSet<String> = urls.iter().flat_map(|url| [url.clone(), normal_url(url)]).collect();
    filter.matching(move |entry| wanted.contains(entry.url()))
}
