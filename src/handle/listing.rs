//! Methods of the handle that list stored responses.
//!
//! # Invariants
//! - A response that the cache could not serve is not listed.
//! - While the storage does not change, each response is listed once.
//! - At most [`AT_ONCE`] records are in memory at a time.

use std::collections::HashSet;

use futures_core::Stream;
use futures_util::future::Either;
use futures_util::{TryStreamExt, future, stream};
use http::HeaderName;

use super::entry::StoredEntry;
use super::filter::EntryFilter;
use super::{AT_ONCE, CacheHandle};
use crate::entry::{DecodedRecord, Head, Variant, decode, earlier};
use crate::error::Result;
use crate::key::{EffectiveUri, Keyer};
use crate::service::GroupState;
use crate::storage::{Key, Kind, Record, Storage};
use crate::time::Timestamp;

/// The number and length of the stored responses, from [`CacheHandle::size`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StorageSize {
    /// The number of entries: URLs with at least one response.
    pub entries: u64,
    /// The number of responses: several for a URL with variants.
    pub responses: u64,
    /// About how many bytes the responses take in the storage, heads and bodies.
    pub bytes: u64,
}

impl<S: Storage> CacheHandle<S> {
    /// Lists the stored responses that a filter chooses, in no particular order.
    ///
    /// Responses that are stored or deleted during the listing may be listed or not. The storage is read once as a whole, a
    /// few records at a time. No step takes longer than [`body_timeout`](crate::CacheLayerBuilder::body_timeout).
    ///
    /// # Errors
    /// Yields [`Config`](crate::ErrorKind::Config) if the filter has a malformed pattern, or the storage's error. The stream
    /// ends after an error of the listing itself.
    pub fn entries(
        &self,
        filter: &EntryFilter,
    ) -> impl Stream<Item = Result<StoredEntry>> + Send + use<'_, S> {
        if let Err(mistake) = filter.check() {
            return Either::Left(stream::iter([Err(mistake)]));
        }
        let filter = filter.clone();
        let records =
            self.shared.records.storage.with_deadlines(self.shared.records.storage.inner().values());
        let shown = records.map_ok(|(key, record)| self.shown(key, record)).try_buffered(AT_ONCE);
        let chosen = move |entry: Option<StoredEntry>| entry.filter(|entry| filter.matches(entry));
        Either::Right(shown.try_filter_map(move |entry| future::ready(Ok(chosen(entry)))))
    }

    /// Lists the [URLs](StoredEntry::url) of the stored responses that a filter chooses, each once.
    ///
    /// The order is not specified. It keeps about forty bytes for each URL with variants in memory. A URL under which one
    /// response is stored for itself and another for several queries
    /// ([`no_vary_search`](crate::CacheLayerBuilder::no_vary_search)) may be listed twice.
    ///
    /// # Errors
    /// Yields the errors of [`entries`](Self::entries).
    pub fn urls(&self, filter: &EntryFilter) -> impl Stream<Item = Result<String>> + Send + use<'_, S> {
        let mut seen = HashSet::new();
        self.entries(filter).try_filter_map(move |entry| {
            let is_first = entry.vary().is_empty() || seen.insert(entry.key.entry);
            future::ready(Ok(is_first.then(|| entry.url().to_owned())))
        })
    }

    /// Counts the stored responses.
    ///
    /// It reads the whole storage. [`usage`](Self::usage) is cheap, and counts bytes only.
    ///
    /// # Errors
    /// Returns the errors of [`entries`](Self::entries).
    pub async fn size(&self) -> Result<StorageSize> {
        let everything = EntryFilter::new();
        let all = self.entries(&everything);
        all.try_fold(StorageSize::default(), |mut size, entry| {
            size.entries += u64::from(entry.key.kind == Kind::Head);
            size.responses += 1;
            size.bytes += entry.stored_len();
            future::ready(Ok(size))
        })
        .await
    }

    /// Describes a head or variant record; returns `None` if the cache could not serve it.
    pub(super) async fn shown(&self, key: Key, record: Record) -> Result<Option<StoredEntry>> {
        match decode(&record) {
            Some(DecodedRecord::Head(head)) if self.is_own(key, &head.key_text) => {
                if !self.shared.records.is_listed(&head.key_text).await? {
                    return Ok(None);
                }
                let by_entry = expired_by(head, &head.inline);
                self.entry((key, record.clone()), &head.key_text, &head.names, &head.inline, by_entry).await
            }
            Some(DecodedRecord::Variant { key_text, generation, variant })
                if variant.until > self.shared.config.clock.now() && self.is_own(key, key_text) =>
            {
                if !self.shared.records.is_listed(key_text).await? {
                    return Ok(None);
                }
                let head = self.shared.records.storage.read(Key::head(key.entry)).await?;
                match head.as_ref().and_then(decode) {
                    Some(DecodedRecord::Head(head))
                        if head.generation == *generation && head.key_text == *key_text =>
                    {
                        let by_entry = expired_by(head, variant);
                        self.entry((key, record.clone()), key_text, &head.names, variant, by_entry).await
                    }
                    _ => Ok(None),
                }
            }
            _ => Ok(None),
        }
    }

    /// Returns the response in a record, if the cache could serve it now.
    ///
    /// `by_entry` is since when its entry has expired it.
    pub(super) async fn entry(
        &self,
        (key, record): (Key, Record),
        text: &str,
        names: &[HeaderName],
        variant: &Variant,
        by_entry: Option<Timestamp>,
    ) -> Result<Option<StoredEntry>> {
        let now = self.shared.config.clock.now();
        let (records, response) = (&self.shared.records, &variant.response);
        if variant.until.min(record.retain_until()) <= now || !records.is_not_invalidated(key, text, variant)
        {
            return Ok(None);
        }
        let by_groups = match records.group_state(&response.groups, response.response_time).await? {
            GroupState::Current => None,
            GroupState::Expired(since) => Some(since),
            GroupState::Ended => return Ok(None),
        };
        let Some(expired_at) = earlier(by_entry, by_groups) else {
            return Ok(Some(self.entry_of((key, record), text, names, variant)));
        };
        let response = response.clone().expired(Some(expired_at));
        let variant = Variant { response, ..variant.clone() };
        Ok(Some(self.entry_of((key, record), text, names, &variant)))
    }

    /// Returns the response in a record.
    pub(super) fn entry_of(
        &self,
        (key, record): (Key, Record),
        text: &str,
        names: &[HeaderName],
        variant: &Variant,
    ) -> StoredEntry {
        let now = self.shared.config.clock.now();
        let freshness =
            variant.response.freshness(self.shared.records.number, &self.shared.config.policy).into_owned();
        StoredEntry::new((key, record), text, names, variant, (freshness, now))
    }

    /// Returns whether the key belongs to this handle's entries.
    pub(super) fn is_own(&self, key: Key, text: &str) -> bool {
        is_own(&self.shared.records.keyer, self.across_partitions, key, text)
    }
}

/// Returns since when a head has expired one of its responses.
fn expired_by(head: &Head, variant: &Variant) -> Option<Timestamp> {
    head.expiries.since(variant.expiry, variant.response.response_time)
}

/// Returns whether the key is that of the text's URI by this keyer, or `all` is set.
pub(super) fn is_own(keyer: &Keyer, all: bool, key: Key, text: &str) -> bool {
    all || EffectiveUri::of_text(text).is_some_and(|uri| keyer.head(&uri).entry == key.entry)
}
