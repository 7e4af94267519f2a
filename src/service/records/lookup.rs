//! Finds what is stored for a request, and notes what stood there, which later writes compare with.
//!
//! Promises: what the lookup saw is never refreshed afterwards; a candidate was selected by this request's own values,
//! belongs to this URI and has not expired; a failing store finds nothing and says so.

use http::{HeaderName, request};

use super::Records;
use super::groups::Mark;
use super::in_flight::Seen;
use super::invalidation::Settling;
use crate::control::MissReason;
use crate::entry::{Head, Slot, TOMBSTONE, Variant, decode};
use crate::error::Result;
use crate::key::EffectiveUri;
use crate::storage::{Key, Record, Stamp, Storage};
use crate::time::Timestamp;

/// So often is the storage read where writes of this process begin and end between the reads.
const MOST_READS: usize = 4;

/// What the caller of a lookup has read already: where, and what the storage answered.
pub(crate) type First = Option<(Key, Result<Option<Record>>)>;

/// What stood where a response to this request would be stored.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) head: Key,
    pub(crate) key_text: Box<str>,
    /// The URI, where the key is another text.
    pub(crate) uri: Option<Box<str>>,
    /// When the lookup was made.
    pub(crate) at: Timestamp,
    /// Which groups had changed by then.
    pub(crate) changes: Mark,
    /// The stamp of whatever was in the head's place.
    pub(crate) seen: Option<Stamp>,
    /// Until when the head's place must not become empty.
    pub(crate) fence: Timestamp,
    /// The head, if there was one that can be used.
    pub(crate) usable: Option<Record>,
    /// Where the request's variant is, if it is not the head's inline one.
    pub(crate) variant: Option<(Key, Option<Record>)>,
}

impl Snapshot {
    /// The effective URI of the request.
    pub(crate) fn uri_text(&self) -> &str {
        self.uri.as_deref().unwrap_or(&self.key_text)
    }

    /// The fields that tell the entry's variants apart, as far as the lookup saw.
    pub(crate) fn names(&self) -> &[HeaderName] {
        match self.usable.as_ref().and_then(decode) {
            Some(Slot::Head(head)) => &head.names,
            _ => &[],
        }
    }

    /// Where this cache has just put a tombstone. `plain`: the URI, where the key is another text.
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

/// What a lookup found.
#[derive(Debug)]
pub(crate) enum Found {
    /// A stored response for this request: the record that holds it, and where that is.
    Candidate(Key, Record),
    Nothing(MissReason),
    /// The store could not be asked. Nothing may be stored either: nobody knows what stands there.
    Failed,
}

/// The stored response in a record that a lookup found.
pub(crate) fn variant_in(record: &Record) -> Option<&Variant> {
    decode(record)?.variant()
}

/// The head in a record, if it can be used for this URI now.
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
    /// Reads a head or variant as it is about to be: through the writes of this process that are under way. `first` is what
    /// the storage has said already, when nothing was being written.
    pub(crate) async fn read_slot(
        &self,
        key: Key,
        first: Option<Result<Option<Record>>>,
    ) -> Result<Option<Record>> {
        let mut first = first;
        let mut there = None;
        for _ in 0..MOST_READS {
            // Asked before the storage: what is written in between is then found there.
            let before = self.in_flight.chain(key);
            there = match first.take() {
                Some(first) => first?,
                None => self.store.read(key).await?,
            };
            let chain = match before {
                Some(chain) => chain,
                None => match self.in_flight.chain(key) {
                    // It began meanwhile: unless it began with what was read, that is read again.
                    Some(chain) if chain.begins_with(there.as_ref().map(Record::stamp)) => chain,
                    Some(_) => continue,
                    None => return Ok(there),
                },
            };
            match self.in_flight.resolve(key, &chain, there.as_ref().map(Record::stamp)) {
                Seen::Last(record) => return Ok(Some(record)),
                Seen::Foreign => return Ok(there),
                Seen::Outdated => {}
            }
        }
        Ok(there)
    }

    /// Finds the response for a request. `first` is the head, if it has been read already and nothing is in flight.
    pub(crate) async fn lookup(
        &self,
        head: Key,
        uri: &EffectiveUri<'_>,
        request: &request::Parts,
        first: Option<Result<Option<Record>>>,
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
        // Boxed, so that the usual lookup needs no room for it.
        if self.pending.get(head).is_some() && Box::pin(self.settle(head)).await == Settling::Unsettled {
            return (snapshot, Found::Failed);
        }
        let Ok(there) = self.read_slot(head, first).await else { return (snapshot, Found::Failed) };
        let Some(record) = there else { return (snapshot, Found::Nothing(MissReason::Absent)) };
        snapshot.seen = Some(record.stamp());
        snapshot.fence = match decode(&record) {
            Some(Slot::Head(head)) => head.fence,
            Some(Slot::Fence { until, .. }) => *until,
            _ => record.retain_until().min(now + TOMBSTONE),
        };
        let Some(stored) = usable_head(&record, uri, now).filter(|head| self.config.tells_apart(head)) else {
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
        let Ok(there) = self.read_slot(key, None).await else { return Found::Failed };
        snapshot.variant = Some((key, there.clone()));
        let is_it = |record: &Record| match decode(record) {
            Some(Slot::Variant { key_text, variant, .. }) => {
                uri.is_text(key_text) && variant.selection == selection
            }
            _ => false,
        };
        match there.filter(is_it) {
            Some(record) => {
                let now = self.config.clock.now();
                self.candidate(key, &snapshot.key_text, record, now).await
            }
            None => Found::Nothing(MissReason::Vary),
        }
    }

    /// Whether nothing is owed, or known here alone, that ends a response.
    pub(crate) fn is_believed(&self, key: Key, key_text: &str, variant: &Variant) -> bool {
        let stored = variant.response.response_time;
        let is_outdated = |key| self.outdated.since(key).is_some_and(|(since, _)| stored <= since);
        if is_outdated(key) || is_outdated(Key::head(key.entry)) {
            return false;
        }
        self.pending.believes(variant.response.response_time, key_text)
            && self.pending.get(key).is_none()
            && self.pending.get(Key::head(key.entry)).is_none()
    }

    async fn candidate(&self, key: Key, key_text: &str, record: Record, now: Timestamp) -> Found {
        let belongs = match variant_in(&record) {
            Some(variant) if variant.until > now && self.is_believed(key, key_text, variant) => {
                // Boxed, so that the usual lookup needs no room for it.
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
