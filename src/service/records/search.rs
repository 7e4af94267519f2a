//! Responses that answer several queries of a path (No-Vary-Search).
//!
//! The first response with a value of the field is stored for its own query, as every other response is, and the value is
//! listed with a random id in a record of the path. From then on, a request for which nothing is stored looks at a second
//! key. This key consists of the path, the id, and the query in the normal form of the value, so that all equivalent queries
//! share it, with everything that belongs to an entry. Its snapshot was taken before the fetch, so that the protocol between
//! processes holds there as it does everywhere. A response with another value is stored for its own query.
//!
//! For a few minutes after a value was listed, its first response answers equivalent queries too. Where several were fetched
//! before the list was known, the others are dropped, as are the first responses of values that leave the list: an invalidation
//! reaches only what is listed.
//!
//! # Invariants
//!
//! - A response is found for another query only if its own value says so.
//! - An invalidation reaches every key at which a lookup may find a response for its URI: both read the same list. If the
//!   list cannot be read, it is invalidated itself, and with it all that is found by it.
//! - A value that has left the list gets a new id when it comes back. So a response that an invalidation could not reach any
//!   more is never found again.
//! - A response is stored for several queries only if the storage had listed its id before the fetch.
//! - The first response answers other queries only as long as an invalidation that came before the list would have left a
//!   tombstone at the key of the other query, and only if there is none.
//! - A list that is lost, late or unreadable costs hits.
//! - A hit at the key of its own query costs nothing more.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use http::{HeaderMap, request};

use super::Records;
use super::invalidation::InvalidationOutcome;
use super::lookup::{Found, Snapshot, variant_in};
use crate::control::MissReason;
use crate::entry::{self, DecodedRecord, FirstOfSearch, GRACE, LOOKUP_LIMIT, Search, decode, with_slack};
use crate::error::Result;
use crate::key::{self, EffectiveUri};
use crate::policy::{self, NoVarySearch, RequestDirectives, Verdict};
use crate::service::tasks::Driven;
use crate::storage::{Key, Kind, Record, Retain, Storage, random_id};
use crate::time::Timestamp;

/// How many values are listed for a path. An origin that sends more in turn loses hits.
const MAX_VALUES: usize = 4;
/// For how long a path without a list is not read again. Another process may have written a list meanwhile, which this one
/// then finds later.
const PAUSE: Duration = Duration::from_secs(10);
/// For how long after its lookup the first response of a value answers other queries.
///
/// A minute less than [`LOOKUP_LIMIT`], since the clocks of three processes are involved: that of the fetch, that of the
/// invalidation, and that of the lookup.
const FIRST_LIMIT: Duration = LOOKUP_LIMIT.saturating_sub(Duration::from_secs(60));

/// Where a response is stored that answers several queries, and where any other is.
#[derive(Clone, Debug)]
pub(crate) struct Shareable {
    /// The value of the field by which the query of the key was normalized.
    value: NoVarySearch,
    /// The key of the list, and how long it is retained.
    list: (Key, Timestamp),
    /// The snapshot at the key of the request's own query.
    pub(super) own: Snapshot,
}

impl Snapshot {
    /// Returns the snapshot at the key where a response with these fields is stored.
    pub(crate) fn for_response(mut self, response: &HeaderMap) -> Self {
        match self.shareable.take() {
            Some(shareable) if NoVarySearch::of(response).as_ref() != Some(&shareable.value) => shareable.own,
            shareable => Self { shareable, ..self },
        }
    }

    /// Returns whether the response at this key still belongs there with these fields.
    pub(crate) fn keeps(&self, response: &HeaderMap) -> bool {
        let value = self.shareable.as_ref().map(|shareable| &shareable.value);
        value.is_none_or(|value| NoVarySearch::of(response).as_ref() == Some(value))
    }

    /// Returns the snapshot at the key of the request's own query.
    pub(crate) fn own(&self) -> &Self {
        self.shareable.as_ref().map_or(self, |shareable| &shareable.own)
    }

    /// Returns the snapshot at the key of the request's own query, if this is another one.
    pub(crate) fn own_mut(&mut self) -> Option<&mut Self> {
        self.shareable.as_mut().map(|shareable| &mut shareable.own)
    }

    /// Returns whether the key is that of several queries.
    pub(crate) fn is_for_queries(&self) -> bool {
        self.shareable.is_some()
    }

    /// Returns the snapshot at the key with this text.
    pub(crate) fn at(&self, key_text: &str) -> Option<&Self> {
        [self, self.own()].into_iter().find(|snapshot| *snapshot.key_text == *key_text)
    }
}

impl<S: Storage> Records<S> {
    /// Finds the stored response for a request, at the key of its own query or at that of all equivalent ones.
    ///
    /// `head` is the key of its own query.
    pub(crate) async fn find(
        &self,
        head: Key,
        uri: &EffectiveUri<'_>,
        request: &request::Parts,
    ) -> (Snapshot, Found) {
        let (own, found) = self.lookup(head, uri, request, None).await;
        match found {
            Found::Nothing(reason) => Box::pin(self.find_equivalent(own, reason, uri, request)).await,
            found => (own, found),
        }
    }

    /// Finds the stored response that answers a request by its No-Vary-Search.
    ///
    /// Nothing was found at the key of its own query, for this reason.
    pub(crate) async fn find_equivalent(
        &self,
        own: Snapshot,
        reason: MissReason,
        uri: &EffectiveUri<'_>,
        request: &request::Parts,
    ) -> (Snapshot, Found) {
        if !self.may_share(uri, request) {
            return (own, Found::Nothing(reason));
        }
        let at = self.list_key(uri);
        let Some(list) = self.list_for_lookup(at).await else { return (own, Found::Nothing(reason)) };
        // The older values count for invalidations only.
        let newest = searches_in(&list).first();
        let Some((search, query)) = newest.and_then(|of| Some((of, of.value.normalized(uri.query())?)))
        else {
            return (own, Found::Nothing(reason));
        };
        let shared_uri = uri.for_queries(&query, &search.id);
        let key = self.keyer.head(&shared_uri);
        let (mut snapshot, found) = self.lookup(key, &shared_uri, request, None).await;
        let first = search.first.as_ref().filter(|_| own.seen.is_none());
        let own_reason = Found::Nothing(reason);
        let found = match found {
            // The response is fetched, and stored for its own query.
            Found::Failed => return (own, own_reason),
            Found::Candidate(key, record) if has_value(&record, &search.value) => {
                Found::Candidate(key, record)
            }
            Found::Candidate(..) => own_reason,
            Found::Nothing(shared_reason) => {
                let first = match first {
                    Some(first) => self.first_response(search, first, &query, request).await,
                    None => None,
                };
                match first {
                    Some((key, record)) => Found::Candidate(key, record),
                    None if shared_reason == MissReason::Absent => own_reason,
                    None => Found::Nothing(shared_reason),
                }
            }
        };
        let list = (at, list.retain_until());
        snapshot.shareable = Some(Box::new(Shareable { value: search.value.clone(), list, own }));
        (snapshot, found)
    }

    /// Returns the first response of a value, if it answers a request with an equivalent query without validation.
    ///
    /// Nothing was found at the key of the request's own query, so that no invalidation of its URI is in force there.
    async fn first_response(
        &self,
        search: &Search,
        first: &FirstOfSearch,
        query: &str,
        request: &request::Parts,
    ) -> Option<(Key, Record)> {
        let now = self.config.clock.now();
        // Tombstones may be evicted early where keys are reserved.
        if now > first.at + FIRST_LIMIT || self.config.reserve_on_miss {
            return None;
        }
        let uri = EffectiveUri::of_text(&first.key_text)?;
        if search.value.normalized(uri.query()).as_deref() != Some(query) {
            return None;
        }
        let (_, found) = self.lookup(self.keyer.head(&uri), &uri, request, None).await;
        let Found::Candidate(key, record) = found else { return None };
        // It is validated by requests for its own query only, since another query's response is stored elsewhere.
        let freshness = variant_in(&record)?.response.freshness(self.number, &self.config.policy);
        let serves = |directives: &RequestDirectives| {
            !directives.reload && policy::decide(directives, &freshness, now) == Verdict::Serve
        };
        let is_fresh = serves(&RequestDirectives::default()) && serves(&self.config.directives(request));
        (is_fresh && has_value(&record, &search.value)).then(|| (key, record.clone()))
    }

    /// Returns whether the response to a request may be one for another query.
    fn may_share(&self, uri: &EffectiveUri<'_>, request: &request::Parts) -> bool {
        self.config.no_vary_search && !uri.is_named() && !key::has_other_query(request)
    }

    /// Returns the key of the list of a URI's path.
    fn list_key(&self, uri: &EffectiveUri<'_>) -> Key {
        self.keyer.head(&uri.without_query()).sibling(Kind::Index, [0; 16], 0)
    }

    /// Returns whether it is known without waiting that no list concerns a request for which nothing is stored.
    pub(super) fn has_no_list_now(&self, uri: &EffectiveUri<'_>, request: &request::Parts) -> bool {
        if !self.may_share(uri, request) {
            return true;
        }
        let at = self.list_key(uri);
        if self.is_known_unlisted(at) {
            return true;
        }
        let is_absent = matches!(self.storage.read_now(at), Some(Ok(None)));
        if is_absent {
            self.unlisted.add(at, self.config.clock.now(), None);
        }
        is_absent
    }

    fn is_known_unlisted(&self, at: Key) -> bool {
        let now = self.config.clock.now();
        self.unlisted.since(at).is_some_and(|(since, _)| since <= now && now < since + PAUSE)
    }

    /// Returns the list of a path, if it may be used to find a response.
    ///
    /// Read from the storage itself, not from writes in flight: an invalidation by another process has to find every id by
    /// which responses are stored.
    async fn list_for_lookup(&self, at: Key) -> Option<Record> {
        if self.is_known_unlisted(at) {
            return None;
        }
        if self.pending.get(at).is_some() {
            self.settle(at).await;
            return None;
        }
        let now = self.config.clock.now();
        let read = self.storage.read(at).await.ok()?;
        let list = read.filter(|list| list.retain_until() > now && !searches_in(list).is_empty());
        if list.is_none() {
            self.unlisted.add(at, now, None);
        }
        // An invalidation that could not read the list may have begun meanwhile.
        list.filter(|_| self.pending.get(at).is_none())
    }

    /// Lists the value of a response that is stored for its own query.
    ///
    /// The response is retained until `until`.
    pub(crate) fn list_value(
        self: &Arc<Self>,
        snapshot: (&str, Timestamp),
        response: &HeaderMap,
        until: Timestamp,
    ) {
        let Some(value) = NoVarySearch::of(response).filter(|_| self.config.no_vary_search) else { return };
        let first = FirstOfSearch { key_text: snapshot.0.into(), at: snapshot.1 };
        let records = Arc::clone(self);
        // The response does not wait for it. A list that is not written costs hits.
        self.tasks.drive(async move {
            let _ = records.write_list(value, first, until).await;
        });
    }

    async fn write_list(
        self: &Arc<Self>,
        value: NoVarySearch,
        first: FirstOfSearch,
        until: Timestamp,
    ) -> Result<()> {
        let Some(uri) = EffectiveUri::of_text(&first.key_text).filter(|uri| !uri.is_named()) else {
            return Ok(());
        };
        // A query that is equivalent to no other.
        if value.normalized(uri.query()).is_none() {
            return Ok(());
        }
        let at = self.list_key(&uri);
        // Twice, since another request may list a value at the same time. A third attempt is left to the next response.
        for _ in 0..2 {
            if self.pending.get(at).is_some() {
                return Ok(());
            }
            let existing = self.storage.read(at).await?;
            let now = self.config.clock.now();
            let listed = existing.as_ref().filter(|list| list.retain_until() > now);
            let retain_until = with_slack(until + GRACE, now);
            let mut searches = listed.map(|list| searches_in(list).to_vec()).unwrap_or_default();
            let known = searches.iter().position(|of| of.value == value);
            if let (Some(0), Some(list)) = (known, listed) {
                self.drop_duplicate(&searches[0], &first.key_text).await;
                if list.retain_until() < until {
                    self.storage.retain(&[at], Retain::AtLeast(retain_until)).await?;
                }
                return Ok(());
            }
            // It keeps its id while it is listed, so that its responses are found again.
            let earlier = known.map(|known| searches.remove(known));
            let id = earlier.as_ref().map_or_else(random_id, |earlier| earlier.id);
            searches.insert(0, Search { value: value.clone(), id, first: Some(first.clone()) });
            let left = searches.split_off(searches.len().min(MAX_VALUES));
            let retain_until = listed.map_or(retain_until, |list| list.retain_until().max(retain_until));
            let record = entry::record(DecodedRecord::Searches(searches), retain_until);
            if self.storage.write_if(at, existing.as_ref().map(Record::stamp), record).await? {
                self.unlisted.forget(at);
                for search in earlier.iter().chain(&left) {
                    self.drop_first(search, &first.key_text).await;
                }
                return Ok(());
            }
        }
        Ok(())
    }

    /// Drops a response that was stored for its own query, if another one is listed as the first with its value.
    ///
    /// The list may not have been known, or not have been there, when it was fetched.
    pub(crate) async fn drop_unlisted(self: &Arc<Self>, key_text: &str, response: &HeaderMap) {
        let Some(value) = NoVarySearch::of(response).filter(|_| self.config.no_vary_search) else { return };
        let Some(uri) = EffectiveUri::of_text(key_text).filter(|uri| !uri.is_named()) else { return };
        // If the list cannot be read, the response stays, and an invalidation of another query does not reach it.
        let Ok(Some(list)) = self.storage.read(self.list_key(&uri)).await else { return };
        if let Some(search) = searches_in(&list).iter().find(|search| search.value == value) {
            self.drop_duplicate(search, key_text).await;
        }
    }

    /// Drops the response with this text, if it is not the first of its value.
    async fn drop_duplicate(self: &Arc<Self>, search: &Search, key_text: &str) {
        let is_other = search.first.as_ref().is_some_and(|first| *first.key_text != *key_text);
        // A query that is equivalent to no other stays where it is.
        let is_shared = |uri: &EffectiveUri<'_>| search.value.normalized(uri.query()).is_some();
        if let Some(uri) = EffectiveUri::of_text(key_text).filter(|uri| is_other && is_shared(uri)) {
            self.unlisted.forget(self.list_key(&uri));
            self.invalidate(self.keyer.head(&uri), Some(key_text)).await;
        }
    }

    /// Drops the first response of a value that is not listed with it any more, unless it has this text.
    async fn drop_first(self: &Arc<Self>, search: &Search, key_text: &str) {
        let Some(first) = search.first.as_ref().filter(|first| *first.key_text != *key_text) else { return };
        if let Some(uri) = EffectiveUri::of_text(&first.key_text) {
            self.invalidate(self.keyer.head(&uri), Some(&first.key_text)).await;
        }
    }

    /// Retains the list by which a response is found, at least as long as the response.
    ///
    /// If this fails, the response is a miss once the list has expired.
    pub(super) async fn keep_list(&self, snapshot: &Snapshot, until: Timestamp) {
        let Some(Shareable { list: (at, retained), .. }) = snapshot.shareable.as_deref() else { return };
        if *retained < until {
            let least = Retain::AtLeast(with_slack(until, self.config.clock.now()));
            let _ = self.storage.retain(&[*at], least).await;
        }
    }

    /// Returns the keys at which a response for a URI may be found besides its own, with their texts.
    ///
    /// Not only the newest value counts: it may have been another one at the time of a lookup that is still going on.
    ///
    /// # Errors
    ///
    /// Returns the storage's error if the list cannot be read.
    pub(crate) async fn equivalents(&self, uri: &EffectiveUri<'_>) -> Result<Vec<(Key, String)>> {
        if !self.config.no_vary_search || uri.is_named() || uri.is_for_queries() {
            return Ok(Vec::new());
        }
        // An expired list counts too, since the clock of another process may be slow.
        let Some(list) = self.storage.read(self.list_key(uri)).await? else { return Ok(Vec::new()) };
        let mut keys = Vec::new();
        for Search { value, id, first } in searches_in(&list) {
            let Some(query) = value.normalized(uri.query()) else { continue };
            let shared = uri.for_queries(&query, id);
            keys.push((self.keyer.head(&shared), shared.to_text()));
            if let Some(first) = first
                && let Some(other) = EffectiveUri::of_text(&first.key_text)
                && !uri.is_text(&first.key_text)
                && value.normalized(other.query()).is_some_and(|other| other == query)
            {
                keys.push((self.keyer.head(&other), other.to_text()));
            }
        }
        Ok(keys)
    }

    /// Invalidates the entry of a URI, and every response that answers it by its No-Vary-Search.
    ///
    /// Returns the outcome for the URI's own entry, and whether the others are settled.
    pub(crate) async fn invalidate_uri(
        self: &Arc<Self>,
        uri: &EffectiveUri<'_>,
    ) -> (InvalidationOutcome, InvalidationOutcome) {
        let text = uri.to_text();
        join(self.invalidate(self.keyer.head(uri), Some(&text)), self.invalidate_equivalents(uri, &text))
            .await
    }

    async fn invalidate_equivalents(
        self: &Arc<Self>,
        uri: &EffectiveUri<'_>,
        text: &str,
    ) -> InvalidationOutcome {
        if !self.config.no_vary_search || uri.is_named() {
            return InvalidationOutcome::Settled;
        }
        let (records, own): (_, Box<str>) = (Arc::clone(self), text.into());
        // In a task if it has to wait, so that cancelling the caller does not cancel it.
        let invalidating = self.tasks.drive(async move {
            let Some(uri) = EffectiveUri::of_text(&own) else { return InvalidationOutcome::Settled };
            let Ok(keys) = records.equivalents(&uri).await else { return records.invalidate_list(&uri) };
            let outcomes = keys.iter().map(|(key, text)| records.invalidate(*key, Some(text)));
            let is_pending = |outcome: &InvalidationOutcome| *outcome == InvalidationOutcome::Pending;
            let pending = join_all(outcomes).await.into_iter().find(is_pending);
            pending.unwrap_or(InvalidationOutcome::Settled)
        });
        match invalidating {
            Driven::Done(outcome) => outcome,
            Driven::Spawned(task) => task.await.unwrap_or_else(|_| self.invalidate_list(uri)),
            Driven::NoRuntime => self.invalidate_list(uri),
        }
    }

    /// Invalidates the list of a path, if it is not known which keys have to be.
    ///
    /// Without the list, nothing is found at any of them. It is not tried at once, since the storage has just failed, and a
    /// request waits for this.
    fn invalidate_list(self: &Arc<Self>, uri: &EffectiveUri<'_>) -> InvalidationOutcome {
        self.pending.add(self.list_key(uri), Some(&uri.to_text()), self.config.clock.now());
        self.settle_later();
        InvalidationOutcome::Pending
    }

    /// Returns whether a response for several queries is found by the list of its path.
    pub(crate) async fn is_listed(&self, key_text: &str) -> Result<bool> {
        let (_, Some(id)) = key::split_id(key_text) else { return Ok(true) };
        let Some(uri) = EffectiveUri::of_text(key_text) else { return Ok(false) };
        let at = self.list_key(&uri);
        let list = self.storage.read(at).await?.filter(|_| self.pending.get(at).is_none());
        let has_id = |search: &Search| crate::hex::text(&search.id) == id;
        Ok(list.is_some_and(|list| searches_in(&list).iter().any(has_id)))
    }
}

/// Returns the values in the list of a path.
fn searches_in(list: &Record) -> &[Search] {
    match decode(list) {
        Some(DecodedRecord::Searches(searches)) => searches,
        _ => &[],
    }
}

/// Returns whether the response in a record has a value of No-Vary-Search.
fn has_value(record: &Record, value: &NoVarySearch) -> bool {
    variant_in(record).and_then(|variant| NoVarySearch::of(&variant.response.headers)).as_ref() == Some(value)
}
