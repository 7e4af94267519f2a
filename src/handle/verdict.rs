//! Explains whether a stored response is served, and why not.
//!
//! The checks are those of a lookup, in the same order. A lookup stops at the first that fails and keeps no reason; here the
//! reason is what is asked for.
//!
//! # Invariants
//! - A response that a request could get now is `Fresh`, or stale in one of the ways that the cache permits.
//! - Nothing is written.

use super::CacheHandle;
use super::entry::StoredEntry;
use super::find::parts_of_url;
use crate::entry::{DecodedRecord, Variant, decode, earlier};
use crate::error::Result;
use crate::policy::{
    Freshness, RequestDirectives, StaleReason, ValidateReason, Verdict, decide, stale_on_error,
};
use crate::service::GroupState;
use crate::storage::{Key, Kind, Storage};
use crate::time::Timestamp;

/// The way in which a stored response is used, for a GET request without directives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It is served.
    Fresh,
    /// It is served stale, and refreshed in the background.
    StaleWhileRevalidate,
    /// It is validated first, and served stale if the origin fails.
    StaleIfError(ValidateReason),
    /// It is validated before each use, also when the origin fails.
    MustValidate(ValidateReason),
    /// Nothing is stored.
    Absent,
    /// Its time in the storage is over.
    Expired,
    /// It was deleted, or a request to the origin has invalidated it.
    Invalidated,
    /// A tag or a group of it was invalidated.
    GroupInvalidated { is_tag: bool, name: Box<str> },
    /// A response is being written in its place.
    BeingWritten,
    /// The first response of its URL was replaced, and no longer leads to it.
    Unreachable,
    /// It was stored under other settings of keys or tags.
    OtherSettings,
    /// The record cannot be read.
    Damaged,
}

/// A record and what the cache does with it.
pub(crate) struct Judged {
    pub(crate) key: Key,
    pub(crate) judgement: Judgement,
    /// The response, if the record holds one that can be read.
    pub(crate) response: Option<(StoredEntry, Freshness)>,
}

impl<S: Storage> CacheHandle<S> {
    /// Judges the first response of a URL.
    ///
    /// # Errors
    /// Returns [`Config`](crate::ErrorKind::Config) if the text is not an absolute URL, or the storage's error.
    pub(crate) async fn judge_url(&self, url: &str) -> Result<Judged> {
        let parts = parts_of_url(url)?;
        let uri = self.uri_of(url, &parts)?;
        let judged = self.judge_key(self.shared.records.keyer.head(&uri)).await?;
        // The response may be stored for several queries (No-Vary-Search).
        match judged.judgement {
            Judgement::Absent => match self.get_url(url).await? {
                Some(entry) => self.judge_key(entry.key()).await,
                None => Ok(judged),
            },
            _ => Ok(judged),
        }
    }

    /// Judges the response at a key, which is that of a head or a variant.
    ///
    /// # Errors
    /// Returns the storage's error.
    pub(crate) async fn judge_key(&self, key: Key) -> Result<Judged> {
        let bare = |judgement| Ok(Judged { key, judgement, response: None });
        let records = &self.shared.records;
        if !key.kind.is_listed() {
            return bare(Judgement::Absent);
        }
        // Before the record: a pending invalidation has not reached it yet.
        let is_pending = records.pending.get(Key::head(key.entry)).is_some();
        let Some(record) = records.read_slot(key, None).await? else { return bare(Judgement::Absent) };
        let now = self.shared.config.clock.now();
        let Some(decoded) = decode(&record) else {
            return bare(if record.retain_until() <= now { Judgement::Absent } else { Judgement::Damaged });
        };
        let (text, variant): (&str, &Variant) = match decoded {
            DecodedRecord::Fence { .. } if record.retain_until() <= now => return bare(Judgement::Absent),
            DecodedRecord::Fence { placeholder: true, .. } => return bare(Judgement::BeingWritten),
            DecodedRecord::Fence { placeholder: false, .. } => return bare(Judgement::Invalidated),
            DecodedRecord::Head(head) => (&head.key_text, &head.inline),
            DecodedRecord::Variant { key_text, variant, .. } => (key_text, variant),
            DecodedRecord::Index(_) | DecodedRecord::Group(_) | DecodedRecord::Searches(_) => {
                return bare(Judgement::Damaged);
            }
        };
        if !self.is_own(key, text) {
            return bare(Judgement::Absent);
        }
        let head_record = match key.kind {
            Kind::Head => Some(record.clone()),
            _ => records.read_slot(Key::head(key.entry), None).await?,
        };
        let head = match head_record.as_ref().and_then(decode) {
            Some(DecodedRecord::Head(head)) if *head.key_text == *text => Some(head),
            _ => None,
        };
        let names = head.map_or(&[][..], |head| &head.names);
        let (by_groups, ended) = self.groups_of(variant).await?;
        let by_entry =
            head.and_then(|head| head.expiries.since(variant.expiry, variant.response.response_time));
        let response = variant.response.clone().expired(earlier(by_entry, by_groups));
        let shown = Variant { response, ..variant.clone() };
        let freshness = shown.response.freshness(records.number, &self.shared.config.policy).into_owned();
        let entry = self.entry_of((key, record.clone()), text, names, &shown);
        let leads_here = match (decoded, head) {
            (DecodedRecord::Variant { generation, .. }, Some(head)) => head.generation == *generation,
            (_, head) => head.is_some(),
        };
        let judgement = match ended {
            // The record expires earlier if no request used the response.
            _ if variant.until <= now || record.retain_until() <= now => Judgement::Expired,
            _ if is_pending || !records.is_not_invalidated(key, text, variant) => Judgement::Invalidated,
            _ if !leads_here => Judgement::Unreachable,
            _ if !head.is_some_and(|head| self.shared.config.covers_key_fields(head))
                || !records.has_its_tags(&variant.response) =>
            {
                Judgement::OtherSettings
            }
            Some((is_tag, name)) => Judgement::GroupInvalidated { is_tag, name },
            None => self.judge_freshness(&freshness, now),
        };
        Ok(Judged { key, judgement, response: Some((entry, freshness)) })
    }

    /// Returns since when the groups of a response have expired it, and the first group that was invalidated.
    async fn groups_of(&self, variant: &Variant) -> Result<(Option<Timestamp>, Option<(bool, Box<str>)>)> {
        let response = &variant.response;
        let mut expired = None;
        // One after another, since the name of the one that ended is wanted, and few responses have many.
        for group in response.groups.iter() {
            let state =
                self.shared.records.group_state(std::slice::from_ref(group), response.response_time).await?;
            match state {
                GroupState::Current => {}
                GroupState::Expired(since) => expired = earlier(expired, Some(since)),
                GroupState::Ended => return Ok((expired, Some((group.is_tag, group.name.clone())))),
            }
        }
        Ok((expired, None))
    }

    fn judge_freshness(&self, freshness: &Freshness, now: Timestamp) -> Judgement {
        let plain = RequestDirectives::default();
        match decide(&plain, freshness, now) {
            Verdict::Serve => Judgement::Fresh,
            Verdict::ServeStale(StaleReason::WhileRevalidate) => Judgement::StaleWhileRevalidate,
            Verdict::Validate(reason)
                if stale_on_error(&plain, freshness, now, true, &self.shared.config.policy) =>
            {
                Judgement::StaleIfError(reason)
            }
            Verdict::Validate(reason) => Judgement::MustValidate(reason),
            // A request without directives neither accepts a stale response by itself nor forbids the origin.
            Verdict::ServeStale(_) | Verdict::Refuse => Judgement::MustValidate(ValidateReason::Request),
        }
    }
}
