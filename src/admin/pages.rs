//! Pages of lists: stored responses, and tags.
//!
//! A storage lists its records in any order, and from the beginning only. A page is therefore found by reading the whole list,
//! of which the wanted elements after the cursor are kept. The cursor is the place of the last element in the order, not a
//! number, so that changes between two pages neither repeat nor hide an element that stays.
//!
//! # Invariants
//! - At most [`MAX_LIMIT`] elements are kept at a time.

use std::collections::BTreeMap;
use std::pin::pin;

use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Shared;
use super::conditions::{Conditions, number};
use super::entry::Row;
use super::problem::Problem;
use crate::error::Result as CacheResult;
use crate::handle::{EntryFilter, StoredEntry};
use crate::hex;
use crate::service::origin;
use crate::storage::Storage;

/// The most elements of a page.
const MAX_LIMIT: u64 = 1000;
/// The elements of a page if the request does not say.
const DEFAULT_LIMIT: u64 = 100;
/// After so many responses other tasks have their turn: a storage in memory never makes this one wait.
const TURN: u64 = 256;

/// The place of an element in an order. Keys tell elements with the same value apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Place(SortValue, String);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
enum SortValue {
    Number(u64),
    Text(Box<str>),
}

/// A page that is being filled.
struct Window<T> {
    kept: BTreeMap<Place, T>,
    after: Option<Place>,
    limit: usize,
    is_descending: bool,
    /// There are more elements after those that are kept.
    has_more: bool,
}

impl<T> Window<T> {
    /// Reads the parameters `limit`, `cursor` and `order`, and takes them from the query.
    fn of_query(query: &mut Map<String, Value>) -> Result<Self, Problem> {
        let limit = match query.remove("limit") {
            None => DEFAULT_LIMIT,
            Some(value) => number("limit", &value)?,
        };
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(Problem::bad(format!("limit has to be from 1 to {MAX_LIMIT}")));
        }
        let after = match query.remove("cursor") {
            None => None,
            Some(cursor) => Some(place(&cursor).ok_or_else(|| {
                Problem::bad("cursor has to be the next of an earlier page with the same sort")
            })?),
        };
        let is_descending = match query.remove("order").as_ref().map(Value::as_str) {
            None | Some(Some("ascending")) => false,
            Some(Some("descending")) => true,
            Some(_) => return Err(Problem::bad("order has to be ascending or descending")),
        };
        Ok(Self { kept: BTreeMap::new(), after, limit: limit as usize, is_descending, has_more: false })
    }

    /// Returns whether the first place comes before the second.
    fn precedes(&self, one: &Place, other: &Place) -> bool {
        if self.is_descending { one > other } else { one < other }
    }

    /// Returns the place of an element on this page as far as is known, or `None` if it is on another one.
    fn wants(&mut self, place: &Place) -> bool {
        if self.after.as_ref().is_some_and(|after| !self.precedes(after, place)) {
            return false;
        }
        let last = if self.is_descending { self.kept.first_key_value() } else { self.kept.last_key_value() };
        let is_on = self.kept.len() < self.limit || last.is_some_and(|(last, _)| self.precedes(place, last));
        self.has_more |= !is_on;
        is_on
    }

    fn keep(&mut self, place: Place, element: T) {
        self.kept.insert(place, element);
        if self.kept.len() > self.limit {
            if self.is_descending {
                self.kept.pop_first()
            } else {
                self.kept.pop_last()
            };
            self.has_more = true;
        }
    }

    /// Returns the elements in order, and the cursor of the next page if there is one.
    fn finish(self) -> (Vec<T>, Option<String>) {
        let last = if self.is_descending { self.kept.first_key_value() } else { self.kept.last_key_value() };
        let next = last.filter(|_| self.has_more).and_then(|(place, _)| serde_json::to_vec(place).ok());
        let next = next.map(|text| hex::text(&text));
        let mut elements: Vec<T> = self.kept.into_values().collect();
        if self.is_descending {
            elements.reverse();
        }
        (elements, next)
    }
}

/// Reads a cursor.
fn place(cursor: &Value) -> Option<Place> {
    let digits = cursor.as_str()?.as_bytes();
    let pairs = digits.chunks_exact(2);
    let bytes = pairs.map(|pair| hex::read::<1>(str::from_utf8(pair).ok()?)).collect::<Option<Vec<_>>>()?;
    serde_json::from_slice(bytes.as_flattened()).ok()
}

/// Reads all responses that a filter chooses, one after another.
async fn read<S: Storage>(
    shared: &Shared<S>,
    filter: &EntryFilter,
    mut each: impl FnMut(&StoredEntry) + Send,
) -> Result<(), Problem> {
    let _turn = shared.scans.acquire().await; // never closed
    let mut entries = pin!(shared.handle.entries(filter));
    let mut count = 0;
    while let Some(entry) = next(entries.try_next().await)? {
        each(&entry);
        count += 1;
        if count % TURN == 0 {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

fn next<T>(result: CacheResult<Option<T>>) -> Result<Option<T>, Problem> {
    result.map_err(Problem::from)
}

/// A page of stored responses.
#[derive(Debug, Serialize)]
pub(super) struct Entries {
    entries: Vec<Row>,
    /// The cursor of the next page, if there is one.
    next: Option<String>,
    /// How many responses the filter chooses, on all pages.
    matching: u64,
    /// About how many bytes they take in the storage.
    stored_bytes: u64,
}

#[derive(Clone, Copy)]
enum Sort {
    Key,
    Url,
    Status,
    Size,
    Stored,
    Expires,
}

impl Sort {
    fn value(self, entry: &StoredEntry) -> SortValue {
        SortValue::Number(match self {
            Self::Key => 0,
            Self::Url => return SortValue::Text(entry.url().into()),
            Self::Status => entry.status().as_u16().into(),
            Self::Size => entry.body_len(),
            Self::Stored => entry.stored_at().as_millis(),
            Self::Expires => entry.expires_at().as_millis(),
        })
    }
}

pub(super) async fn entries<S: Storage>(
    shared: &Shared<S>,
    mut query: Map<String, Value>,
) -> Result<Entries, Problem> {
    let mut window = Window::of_query(&mut query)?;
    let sort = match query.remove("sort").as_ref().map(Value::as_str) {
        None | Some(Some("key")) => Sort::Key,
        Some(Some("url")) => Sort::Url,
        Some(Some("status")) => Sort::Status,
        Some(Some("size")) => Sort::Size,
        Some(Some("stored")) => Sort::Stored,
        Some(Some("expires")) => Sort::Expires,
        Some(_) => return Err(Problem::bad("sort has to be key, url, status, size, stored or expires")),
    };
    let filter = Conditions::of_query(query)?.filter()?;
    let (mut matching, mut stored_bytes) = (0, 0);
    read(shared, &filter, |entry| {
        matching += 1;
        stored_bytes += entry.stored_len();
        let place = Place(sort.value(entry), entry.key().to_string());
        if window.wants(&place) {
            window.keep(place, Row::of(entry));
        }
    })
    .await?;
    let (entries, next) = window.finish();
    Ok(Entries { entries, next, matching, stored_bytes })
}

/// A page of tags and groups.
#[derive(Debug, Serialize)]
pub(super) struct Tags {
    tags: Vec<Tag>,
    next: Option<String>,
}

/// A tag, or a group of an origin.
#[derive(Debug, Serialize)]
struct Tag {
    /// `None` for a tag.
    origin: Option<Box<str>>,
    name: Box<str>,
    responses: u64,
    stored_bytes: u64,
}

pub(super) async fn tags<S: Storage>(
    shared: &Shared<S>,
    mut query: Map<String, Value>,
) -> Result<Tags, Problem> {
    let mut window: Window<Tag> = Window::of_query(&mut query)?;
    let filter = Conditions::of_query(query)?.filter()?;
    read(shared, &filter, |entry| {
        let tags = entry.tags().map(|name| ("", name));
        let groups = entry.groups().map(|name| (origin(entry.url()), name));
        for (origin, name) in tags.chain(groups) {
            let place = Place(SortValue::Text(origin.into()), name.to_owned());
            if let Some(tag) = window.kept.get_mut(&place) {
                tag.responses += 1;
                tag.stored_bytes += entry.stored_len();
            } else if window.wants(&place) {
                // A name that has once been displaced comes after all that are kept, and is never counted from the middle.
                let origin = (!origin.is_empty()).then(|| origin.into());
                let tag = Tag { origin, name: name.into(), responses: 1, stored_bytes: entry.stored_len() };
                window.keep(place, tag);
            }
        }
    })
    .await?;
    let (tags, next) = window.finish();
    Ok(Tags { tags, next })
}
