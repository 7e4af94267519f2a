//! The lookup, which finds the stored response for a request.
//!
//! It also records the stamps that later writes are compared with.
//!
//! # Invariants
//!
//! - A snapshot is never refreshed. A second lookup makes a new snapshot.
//! - A candidate was selected by the values of this request, belongs to its URI, has not expired, and is not invalidated.
//! - If the storage fails, the lookup returns that, and no response is stored by its snapshot.

use std::sync::Arc;

use http::{HeaderName, request};

use super::Records;
use super::changes::Mark;
use super::groups::GroupState;
use super::in_flight::Resolved;
use super::invalidation::InvalidationOutcome;
use super::search::Shareable;
use crate::control::MissReason;
use crate::entry::{DecodedRecord, Head, StoredResponse, TOMBSTONE, Variant, decode, earlier};
use crate::error::Result;
use crate::key::EffectiveUri;
use crate::policy;
use crate::storage::{Key, Record, Stamp, Storage};
use crate::time::Timestamp;

/// How often a slot is read at most. Each further read means that a write of this process began or ended during the read
/// before, so that a second read is rare. The bound is for a key that is written all the time.
const MAX_READS: usize = 4;

/// The key of an entry's head, before the head is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadKey {
    pub(crate) key: Key,
    /// The key was computed from the URI, and is no guess.
    pub(crate) is_certain: bool,
}

/// A read of an entry's head before the lookup.
///
/// No write to the key was in flight when it began.
pub(crate) struct PriorRead {
    pub(crate) head: HeadKey,
    /// When the read began.
    pub(crate) at: Timestamp,
    /// The number of group invalidations and deletions before the fetch that may follow.
    pub(crate) changes: Mark,
    pub(crate) result: Result<Option<Record>>,
}

/// The stamps that a lookup saw at the keys where the response would be stored.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// The key of the entry's head.
    pub(crate) head: Key,
    /// The text of the key, which is the effective URI or a name that the user gave.
    pub(crate) key_text: Box<str>,
    /// The effective URI, if the key has another text.
    pub(crate) uri: Option<Box<str>>,
    /// The time of the lookup, which is before the request to the origin.
    pub(crate) at: Timestamp,
    /// The number of group invalidations and deletions before the lookup.
    pub(crate) changes: Mark,
    /// The stamp of the record at the head's key, of any kind.
    pub(crate) seen: Option<Stamp>,
    /// The head's key must not become empty before this time.
    ///
    /// Otherwise a late write whose lookup saw nothing there would succeed, although the entry was invalidated since.
    pub(crate) fence: Timestamp,
    /// The head, if this request can use it.
    pub(crate) usable: Option<Record>,
    /// The key of the request's variant, and the record there.
    ///
    /// `None` if that is the inline variant of the head.
    pub(crate) variant: Option<(Key, Option<Record>)>,
    /// Present if the key is that of several queries, at which only a response is stored that answers all of them.
    ///
    /// Boxed, since few paths have such responses.
    pub(super) shareable: Option<Box<Shareable>>,
}

impl Snapshot {
    /// Returns the effective URI of the request.
    pub(crate) fn uri_text(&self) -> &str {
        self.uri.as_deref().unwrap_or(&self.key_text)
    }

    /// Moves the snapshot out of a place that it is never read from again.
    pub(crate) fn take(&mut self) -> Self {
        let Self { head, at, changes, seen, fence, .. } = *self;
        let left = Self {
            head,
            key_text: Box::default(),
            uri: None,
            at,
            changes,
            seen,
            fence,
            usable: None,
            variant: None,
            shareable: None,
        };
        std::mem::replace(self, left)
    }

    /// Returns the names of the selecting fields in the head that the lookup saw.
    pub(crate) fn names(&self) -> &[HeaderName] {
        match self.usable.as_ref().and_then(decode) {
            Some(DecodedRecord::Head(head)) => &head.names,
            _ => &[],
        }
    }

    /// Returns since when the entry has expired a response, or `None` if it has not.
    pub(crate) fn expired_by_entry(&self, variant: &Variant) -> Option<Timestamp> {
        let expiries = self.usable.as_ref().and_then(decode)?.expiries()?;
        expiries.since(variant.expiry, variant.response.response_time)
    }

    /// Returns whether the entry was expired since the fetch of a response of its generation began.
    pub(crate) fn has_expired(&self, fetched: &DecodedRecord) -> bool {
        let (Some(DecodedRecord::Head(head)), Some((_, generation)), Some(variant)) =
            (self.usable.as_ref().and_then(decode), fetched.uri_and_generation(), fetched.variant())
        else {
            return false;
        };
        head.generation == generation && head.expiries.last() != variant.expiry
    }

    /// Returns the snapshot of a key where this cache has just written a tombstone.
    ///
    /// `plain` is the effective URI, if the key has another text.
    pub(crate) fn behind(
        head: Key,
        (uri, plain): (&EffectiveUri<'_>, Option<Box<str>>),
        seen: Stamp,
        at: Timestamp,
        changes: Mark,
    ) -> Self {
        let (key_text, fence) = (uri.to_text().into(), at + TOMBSTONE);
        Self {
            head,
            key_text,
            uri: plain,
            at,
            changes,
            seen: Some(seen),
            fence,
            usable: None,
            variant: None,
            shareable: None,
        }
    }
}

/// The result of a lookup.
#[derive(Debug)]
pub(crate) enum Found {
    /// A stored response for this request, with its key and its record.
    Candidate(Key, Record),
    /// No stored response, for this reason.
    Nothing(MissReason),
    /// The storage failed. The response must not be stored either, since it is not known what its write has to be compared
    /// with.
    Failed,
}

/// Returns the stored response in a record.
pub(crate) fn variant_in(record: &Record) -> Option<&Variant> {
    decode(record)?.variant()
}

/// Returns the head in a record, if it belongs to a URI and has not expired.
pub(crate) fn usable_head<'a>(
    record: &'a Record,
    uri: &EffectiveUri<'_>,
    now: Timestamp,
) -> Option<&'a Head> {
    match decode(record)? {
        DecodedRecord::Head(head) if record.retain_until() > now && uri.is_text(&head.key_text) => Some(head),
        _ => None,
    }
}

impl<S: Storage> Records<S> {
    /// Reads a head or variant, and takes the in-flight writes of this process into account.
    ///
    /// `prior_read` is the result of a read that began while no write to the key was in flight.
    pub(crate) async fn read_slot(
        &self,
        key: Key,
        prior_read: Option<Result<Option<Record>>>,
    ) -> Result<Option<Record>> {
        let mut prior_read = prior_read;
        let mut existing = None;
        for _ in 0..MAX_READS {
            // The chain is read before the storage, so that a write that ends between the two is found in the storage.
            let before;
            (before, existing) = match prior_read.take() {
                Some(prior_read) => (None, prior_read?),
                None => (self.in_flight.chain(key), self.storage.read(key).await?),
            };
            let chain = match before {
                Some(chain) => chain,
                None => match self.in_flight.chain(key) {
                    // A chain began during the read. If it does not begin with what was read, the storage has changed since.
                    Some(chain) if chain.begins_with(existing.as_ref().map(Record::stamp)) => chain,
                    Some(_) => continue,
                    None => return Ok(existing),
                },
            };
            match self.in_flight.resolve(key, &chain, existing.as_ref().map(Record::stamp)) {
                Resolved::Last(record) => return Ok(Some(record)),
                Resolved::Current | Resolved::Foreign => return Ok(existing),
                Resolved::Outdated => {}
            }
        }
        // It may be older than a write of this process that has just ended. At worst, it causes a fetch whose response is not
        // stored.
        Ok(existing)
    }

    /// Returns the snapshot of a lookup that finds nothing at the head's key.
    ///
    /// The lookup began at the time, and after the changes.
    fn empty_snapshot(
        &self,
        head: Key,
        uri: &EffectiveUri<'_>,
        request: &request::Parts,
        (at, changes): (Timestamp, Mark),
    ) -> Snapshot {
        Snapshot {
            head,
            key_text: uri.to_text().into(),
            uri: self.config.plain_text(uri, request),
            at,
            changes,
            seen: None,
            fence: Timestamp::EPOCH,
            usable: None,
            variant: None,
            shareable: None,
        }
    }

    /// Returns what [`find`](Self::find) returns after a read that has found nothing, if that needs no waiting.
    pub(crate) fn lookup_absent(
        &self,
        uri: &EffectiveUri<'_>,
        request: &request::Parts,
        prior_read: &PriorRead,
    ) -> Option<Snapshot> {
        let PriorRead { head: HeadKey { key, is_certain }, at, changes, result: Ok(None) } = *prior_read
        else {
            return None;
        };
        if !self.pending.is_empty() || (!is_certain && self.keyer.head(uri) != key) {
            return None;
        }
        let snapshot = self.empty_snapshot(key, uri, request, (at, changes));
        // As in `read_slot`: a chain that began since the read says that the storage may have changed.
        (self.in_flight.chain(key).is_none() && self.has_no_list_now(uri, request)).then_some(snapshot)
    }

    /// Finds the stored response for a request at a key.
    ///
    /// `prior_read` is the read of the head, if it was made already.
    pub(crate) async fn lookup(
        &self,
        head: Key,
        uri: &EffectiveUri<'_>,
        request: &request::Parts,
        prior_read: Option<PriorRead>,
    ) -> (Snapshot, Found) {
        let (began, mut prior_read) = match prior_read {
            Some(PriorRead { at, changes, result, .. }) => ((at, changes), Some(result)),
            None => ((self.config.clock.now(), self.changes.mark()), None),
        };
        let now = began.0;
        let mut snapshot = self.empty_snapshot(head, uri, request, began);
        // A pending invalidation is tried first, since the lookup may only return what is stored after it.
        if self.pending.get(head).is_some() {
            prior_read = None;
            // Boxed, since this rare branch would enlarge the future of every lookup.
            if Box::pin(self.settle(head)).await == InvalidationOutcome::Pending {
                return (snapshot, Found::Failed);
            }
        }
        let Ok(existing) = self.read_slot(head, prior_read).await else { return (snapshot, Found::Failed) };
        let Some(record) = existing else { return (snapshot, Found::Nothing(MissReason::Absent)) };
        snapshot.seen = Some(record.stamp());
        snapshot.fence = match decode(&record) {
            Some(DecodedRecord::Head(head)) => head.fence,
            Some(DecodedRecord::Fence { until, .. }) => *until,
            _ => record.retain_until().min(now + TOMBSTONE),
        };
        let is_usable = |head: &&Head| {
            self.config.covers_key_fields(head) && !self.is_idle_behind_fence(&record, head, now)
        };
        let Some(stored) = usable_head(&record, uri, now).filter(is_usable) else {
            let reason = match decode(&record) {
                Some(DecodedRecord::Fence { .. }) => MissReason::Invalidated,
                Some(DecodedRecord::Head(_)) => MissReason::Expired,
                _ => MissReason::Absent,
            };
            return (snapshot, Found::Nothing(reason));
        };
        let selection = self.selection(&stored.names, request);
        let (inline, generation) = (stored.inline.selection, stored.generation);
        snapshot.usable = Some(record.clone());
        if selection == inline {
            let found = self.candidate(head, &snapshot, record, now).await;
            return (snapshot, found);
        }
        let key = self.keyer.variant(head, generation, selection);
        let found = self.lookup_variant(&mut snapshot, key, selection).await;
        (snapshot, found)
    }

    /// Finds the stored response at the key of the request's variant.
    ///
    /// It is not the inline variant of the head.
    pub(crate) async fn lookup_variant(
        &self,
        snapshot: &mut Snapshot,
        key: Key,
        selection: [u8; 16],
    ) -> Found {
        let Ok(existing) = self.read_slot(key, None).await else { return Found::Failed };
        snapshot.variant = Some((key, existing.clone()));
        let is_it = |record: &Record| match decode(record) {
            Some(DecodedRecord::Variant { key_text, variant, .. }) => {
                *key_text == snapshot.key_text && variant.selection == selection
            }
            _ => false,
        };
        match existing.filter(is_it) {
            Some(record) => {
                let now = self.config.clock.now();
                self.candidate(key, snapshot, record, now).await
            }
            None => Found::Nothing(MissReason::Vary),
        }
    }

    /// Returns whether no invalidation that only this process knows concerns a response.
    ///
    /// Such an invalidation is pending or dropped, or was made in a storage to which this cache may not write.
    pub(crate) fn is_not_invalidated(&self, key: Key, key_text: &str, variant: &Variant) -> bool {
        let stored = variant.response.response_time;
        let is_outdated = |key| self.outdated.since(key).is_some_and(|(since, _)| stored <= since);
        if is_outdated(key) || is_outdated(Key::head(key.entry)) {
            return false;
        }
        // The dropped invalidations are checked last: an invalidation that is dropped between two of these checks is removed
        // from the pending ones only after `permits` covers it.
        self.pending.get(key).is_none()
            && self.pending.get(Key::head(key.entry)).is_none()
            && self.pending.permits(variant.response.request_time, key_text)
    }

    /// Returns whether a response was stored with every tag in its fields.
    ///
    /// It was not if the process that stored it reads other fields: the invalidation of a tag would not reach it.
    pub(crate) fn has_its_tags(&self, response: &StoredResponse) -> bool {
        let fields = &self.config.policy.tag_fields;
        if !policy::has_tag_field(&response.headers, fields) || self.config.recording().is_some() {
            return true;
        }
        let is_member = |tag: &str| response.groups.iter().any(|group| group.is_tag && *group.name == *tag);
        policy::field_tags(&response.headers, fields).is_ok_and(|tags| tags.into_iter().all(is_member))
    }

    /// Returns a record as the candidate, unless it has expired or is invalidated.
    ///
    /// If it was made stale by hand, its response says since when.
    async fn candidate(&self, key: Key, snapshot: &Snapshot, record: Record, now: Timestamp) -> Found {
        let is_usable = |of: &&Variant| {
            of.until > now
                && record.retain_until() > now
                && self.is_not_invalidated(key, &snapshot.key_text, of)
                && self.has_its_tags(&of.response)
        };
        let Some(variant) = variant_in(&record).filter(is_usable) else {
            return Found::Nothing(MissReason::Expired);
        };
        let response = &variant.response;
        // Boxed, since few responses have groups, and their reads would enlarge the future of every lookup.
        let state = match &*response.groups {
            [] => Ok(GroupState::Current),
            groups => Box::pin(self.group_state(groups, response.response_time)).await,
        };
        let by_groups = match state {
            Ok(GroupState::Current) => None,
            Ok(GroupState::Expired(since)) => Some(since),
            Ok(GroupState::Ended) => return Found::Nothing(MissReason::Invalidated),
            Err(_) => return Found::Failed,
        };
        let expired_at = earlier(snapshot.expired_by_entry(variant), by_groups);
        Found::Candidate(key, expired(record, expired_at))
    }
}

/// Returns a record whose response is expired since a time, if there is one.
///
/// It has the same stamp, and is not to be written.
fn expired(record: Record, at: Option<Timestamp>) -> Record {
    if at.is_none() {
        return record;
    }
    let slot = decode(&record).and_then(|slot| {
        let variant = slot.variant()?.clone();
        let response = variant.response.expired(at);
        slot.with(Variant { response, ..variant })
    });
    slot.map_or_else(|| record.clone(), |slot| record.with_decoded(Arc::new(slot)))
}
