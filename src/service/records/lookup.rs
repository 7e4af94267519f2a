//! The lookup: it finds the stored response for a request, and notes the stamps that later writes are compared with.
//!
//! # Invariants
//!
//! - A snapshot is never refreshed. A second look makes a new one.
//! - A candidate was selected by this request's own values, belongs to its URI, has not expired and is not invalidated.
//! - If the storage fails, the lookup says so. Nothing is stored by such a snapshot.

use http::{HeaderName, request};

use super::Records;
use super::changes::Mark;
use super::in_flight::Resolved;
use super::invalidation::InvalidationOutcome;
use crate::control::MissReason;
use crate::entry::{Head, Slot, TOMBSTONE, Variant, decode};
use crate::error::Result;
use crate::key::EffectiveUri;
use crate::storage::{Key, Record, Stamp, Storage};
use crate::time::Timestamp;

/// How often a slot is read at most. Each further read means that a write of this process began or ended during the one
/// before, so that a second read is rare. A request for a key that is always being written must end all the same.
const MAX_READS: usize = 4;

/// Holds a read that the caller of a lookup has made already: the key, and the answer of the storage.
pub(crate) type PriorRead = Option<(Key, Result<Option<Record>>)>;

/// Notes what was stored where the response to a request would be stored.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) head: Key,
    pub(crate) key_text: Box<str>,
    /// The URI, if the key is another text.
    pub(crate) uri: Option<Box<str>>,
    /// The time of the lookup, which precedes the request to the origin.
    pub(crate) at: Timestamp,
    /// The count of invalidated groups and of deletions by then.
    pub(crate) changes: Mark,
    /// The stamp of the record at the head's key, of whatever kind.
    pub(crate) seen: Option<Stamp>,
    /// Until when some record must stand at the head's key. A late write that saw nothing there would succeed otherwise,
    /// though the entry was invalidated since.
    pub(crate) fence: Timestamp,
    /// The head, if this request can use it.
    pub(crate) usable: Option<Record>,
    /// The key of the request's variant and the record that was there, if the variant is not the head's inline one.
    pub(crate) variant: Option<(Key, Option<Record>)>,
}

impl Snapshot {
    /// Returns the effective URI of the request.
    pub(crate) fn uri_text(&self) -> &str {
        self.uri.as_deref().unwrap_or(&self.key_text)
    }

    /// Returns the names of the fields that select a variant of the entry, as far as the lookup saw.
    pub(crate) fn names(&self) -> &[HeaderName] {
        match self.usable.as_ref().and_then(decode) {
            Some(Slot::Head(head)) => &head.names,
            _ => &[],
        }
    }

    /// Returns the snapshot of a key where this cache has just written a tombstone.
    ///
    /// `plain` is the URI, if the key is another text.
    pub(crate) fn behind(
        head: Key,
        (uri, plain): (&EffectiveUri<'_>, Option<Box<str>>),
        seen: Stamp,
        at: Timestamp,
        changes: Mark,
    ) -> Self {
        let (key_text, fence) = (uri.to_text().into(), at + TOMBSTONE);
        Self { head, key_text, uri: plain, at, changes, seen: Some(seen), fence, usable: None, variant: None }
    }
}

/// Tells what a lookup found.
#[derive(Debug)]
pub(crate) enum Found {
    /// A stored response for this request: its key and its record.
    Candidate(Key, Record),
    /// No stored response, for a reason.
    Nothing(MissReason),
    /// The storage failed. Nothing may be stored either, since it is not known what a write has to be compared with.
    Failed,
}

/// Returns the stored response in a record.
pub(crate) fn variant_in(record: &Record) -> Option<&Variant> {
    decode(record)?.variant()
}

/// Returns the head in a record, if it belongs to this URI and has not expired.
pub(crate) fn usable_head<'a>(
    record: &'a Record,
    uri: &EffectiveUri<'_>,
    now: Timestamp,
) -> Option<&'a Head> {
    match decode(record)? {
        Slot::Head(head) if record.retain_until() > now && uri.is_text(&head.key_text) => Some(head),
        _ => None,
    }
}

impl<S: Storage> Records<S> {
    /// Reads a head or variant through the in-flight writes of this process.
    ///
    /// `first` is the answer of the storage, if it was read already while nothing was in flight.
    pub(crate) async fn read_slot(
        &self,
        key: Key,
        prior_read: Option<Result<Option<Record>>>,
    ) -> Result<Option<Record>> {
        let mut prior_read = prior_read;
        let mut existing = None;
        for _ in 0..MAX_READS {
            // The chain comes before the storage: a write that ends between the two is then found in the storage.
            let before = self.in_flight.chain(key);
            existing = match prior_read.take() {
                Some(prior_read) => prior_read?,
                None => self.store.read(key).await?,
            };
            let chain = match before {
                Some(chain) => chain,
                None => match self.in_flight.chain(key) {
                    // A chain began during the read. Where it does not begin with what was read, the storage has changed since.
                    Some(chain) if chain.begins_with(existing.as_ref().map(Record::stamp)) => chain,
                    Some(_) => continue,
                    None => return Ok(existing),
                },
            };
            match self.in_flight.resolve(key, &chain, existing.as_ref().map(Record::stamp)) {
                Resolved::Last(record) => return Ok(Some(record)),
                Resolved::Foreign => return Ok(existing),
                Resolved::Outdated => {}
            }
        }
        // Possibly older than a write of this process that has just ended: at worst a fetch whose response loses.
        Ok(existing)
    }

    /// Finds the stored response for a request.
    ///
    /// `first` is the head, if it was read already while nothing was in flight.
    pub(crate) async fn lookup(
        &self,
        head: Key,
        uri: &EffectiveUri<'_>,
        request: &request::Parts,
        prior_read: Option<Result<Option<Record>>>,
    ) -> (Snapshot, Found) {
        let now = self.config.clock.now();
        let mut snapshot = Snapshot {
            head,
            key_text: uri.to_text().into(),
            uri: self.config.plain_text(uri, request),
            at: now,
            changes: self.changes.mark(),
            seen: None,
            fence: Timestamp::EPOCH,
            usable: None,
            variant: None,
        };
        // A pending invalidation is tried first: the lookup may answer only from what is stored after it. Boxed, since the
        // future of the usual lookup would be larger by this rare branch.
        if self.pending.get(head).is_some()
            && Box::pin(self.settle(head)).await == InvalidationOutcome::Pending
        {
            return (snapshot, Found::Failed);
        }
        let Ok(existing) = self.read_slot(head, prior_read).await else { return (snapshot, Found::Failed) };
        let Some(record) = existing else { return (snapshot, Found::Nothing(MissReason::Absent)) };
        snapshot.seen = Some(record.stamp());
        snapshot.fence = match decode(&record) {
            Some(Slot::Head(head)) => head.fence,
            Some(Slot::Fence { until, .. }) => *until,
            _ => record.retain_until().min(now + TOMBSTONE),
        };
        let Some(stored) = usable_head(&record, uri, now).filter(|head| self.config.covers_key_fields(head))
        else {
            let reason = match decode(&record) {
                Some(Slot::Fence { .. }) => MissReason::Invalidated,
                Some(Slot::Head(_)) => MissReason::Expired,
                _ => MissReason::Absent,
            };
            return (snapshot, Found::Nothing(reason));
        };
        let selection = self.selection(&stored.names, request);
        let (inline, generation) = (stored.inline.selection, stored.generation);
        snapshot.usable = Some(record.clone());
        if selection == inline {
            let found = self.candidate(head, &snapshot.key_text, record, now).await;
            return (snapshot, found);
        }
        let key = self.keyer.variant(head, generation, selection);
        let found = self.lookup_variant(&mut snapshot, key, uri, selection).await;
        (snapshot, found)
    }

    /// Finds the response for a request at the key of its own variant, which is not the head's inline one.
    pub(crate) async fn lookup_variant(
        &self,
        snapshot: &mut Snapshot,
        key: Key,
        uri: &EffectiveUri<'_>,
        selection: [u8; 16],
    ) -> Found {
        let Ok(existing) = self.read_slot(key, None).await else { return Found::Failed };
        snapshot.variant = Some((key, existing.clone()));
        let is_it = |record: &Record| match decode(record) {
            Some(Slot::Variant { key_text, variant, .. }) => {
                uri.is_text(key_text) && variant.selection == selection
            }
            _ => false,
        };
        match existing.filter(is_it) {
            Some(record) => {
                let now = self.config.clock.now();
                self.candidate(key, &snapshot.key_text, record, now).await
            }
            None => Found::Nothing(MissReason::Vary),
        }
    }

    /// Returns whether this process knows of no invalidation of a response that the storage does not know of.
    pub(crate) fn is_not_invalidated(&self, key: Key, key_text: &str, variant: &Variant) -> bool {
        let stored = variant.response.response_time;
        let is_outdated = |key| self.outdated.since(key).is_some_and(|(since, _)| stored <= since);
        if is_outdated(key) || is_outdated(Key::head(key.entry)) {
            return false;
        }
        // The dropped invalidations come last: one that is dropped between two of these checks is gone from the pending ones
        // only when `believes` covers it. They end every response whose fetch began before.
        self.pending.get(key).is_none()
            && self.pending.get(Key::head(key.entry)).is_none()
            && self.pending.permits(variant.response.request_time, key_text)
    }

    /// Returns a record as the candidate, if its response has not expired and is not invalidated.
    async fn candidate(&self, key: Key, key_text: &str, record: Record, now: Timestamp) -> Found {
        let belongs = match variant_in(&record) {
            Some(variant) if variant.until > now && self.is_not_invalidated(key, key_text, variant) => {
                // Boxed, since few responses have groups, and every lookup's future would be larger by their reads.
                match &*variant.response.groups {
                    [] => Ok(true),
                    groups => Box::pin(self.belongs(groups)).await,
                }
            }
            _ => return Found::Nothing(MissReason::Expired),
        };
        match belongs {
            Ok(true) => Found::Candidate(key, record),
            Ok(false) => Found::Nothing(MissReason::Invalidated),
            Err(_) => Found::Failed,
        }
    }
}
