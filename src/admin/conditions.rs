//! The conditions of a filter, in a query or in JSON.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::problem::Problem;
use crate::handle::EntryFilter;
use crate::hex;

/// Conditions that all must hold, with the names of [`EntryFilter`].
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Conditions {
    /// A glob that the URL matches.
    url: Option<String>,
    /// A text in the URL.
    contains: Option<String>,
    /// `404`, `500-599` or `5xx`.
    status: Option<String>,
    tag: Option<String>,
    state: Option<State>,
    /// Bytes.
    larger_than: Option<u64>,
    /// Seconds since it was stored.
    older_than: Option<u64>,
    younger_than: Option<u64>,
    /// The entry, in hexadecimal digits: all variants of one URL.
    entry: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum State {
    Fresh,
    Stale,
}

impl Conditions {
    /// Reads the parameters of a query that are left when all others have been taken.
    pub(super) fn of_query(mut parameters: Map<String, Value>) -> Result<Self, Problem> {
        parameters.retain(|_, value| value.as_str() != Some("")); // an empty field of a form
        for name in ["larger_than", "older_than", "younger_than"] {
            if let Some(value) = parameters.get_mut(name) {
                *value = number(name, value)?.into();
            }
        }
        serde_json::from_value(Value::Object(parameters))
            .map_err(|error| Problem::bad(format!("the query is not what is needed here: {error}")))
    }

    /// Returns whether there is no condition.
    pub(super) fn is_empty(&self) -> bool {
        let Self { url, contains, status, tag, state, larger_than, older_than, younger_than, entry } = self;
        [url, contains, status, tag, entry].iter().all(|text| text.is_none())
            && [larger_than, older_than, younger_than].iter().all(|number| number.is_none())
            && state.is_none()
    }

    pub(super) fn filter(&self) -> Result<EntryFilter, Problem> {
        let mut filter = EntryFilter::new();
        if let Some(url) = &self.url {
            filter = filter.url(url.as_str());
        }
        if let Some(range) = &self.status {
            filter = filter.status(statuses(range)?);
        }
        if let Some(tag) = &self.tag {
            filter = filter.tag(tag.as_str());
        }
        filter = match self.state {
            Some(State::Fresh) => filter.fresh(),
            Some(State::Stale) => filter.stale(),
            None => filter,
        };
        if let Some(bytes) = self.larger_than {
            filter = filter.larger_than(bytes);
        }
        if let Some(seconds) = self.older_than {
            filter = filter.older_than(Duration::from_secs(seconds));
        }
        if let Some(seconds) = self.younger_than {
            filter = filter.younger_than(Duration::from_secs(seconds));
        }
        if let Some(text) = self.contains.clone() {
            filter = filter.matching(move |entry| entry.url().contains(&*text));
        }
        if let Some(text) = &self.entry {
            let entry = hex::read::<16>(text);
            let entry = entry.ok_or_else(|| Problem::bad("entry has to be 32 hexadecimal digits"))?;
            filter = filter.matching(move |of| of.key().entry == entry);
        }
        Ok(filter)
    }
}

/// Reads a number that came as text.
pub(super) fn number(name: &str, value: &Value) -> Result<u64, Problem> {
    let number = value.as_str().and_then(|text| text.parse().ok());
    number.ok_or_else(|| Problem::bad(format!("{name} has to be a whole number that is not negative")))
}

fn statuses(text: &str) -> Result<RangeInclusive<u16>, Problem> {
    let (first, last) = match text.as_bytes() {
        [hundred @ b'1'..=b'9', b'x' | b'X', b'x' | b'X'] => {
            let hundred = u16::from(hundred - b'0') * 100;
            return Ok(hundred..=hundred + 99);
        }
        _ => text.split_once('-').unwrap_or((text, text)),
    };
    match (first.trim().parse(), last.trim().parse()) {
        (Ok(first), Ok(last)) => Ok(first..=last),
        _ => Err(Problem::bad("status has to be a status such as 404, a range such as 500-599, or 5xx")),
    }
}
