//! The writing half of the protocol between processes.
//!
//! A writer stores a response where its lookup looked.
//!
//! A record is *announced* when it is added to the in-flight writes, where the lookups of this process find it. It is
//! *committed* when the storage has acknowledged it.
//!
//! # Invariants
//!
//! - A head or variant is written once, and only by comparing with what the lookup saw. The write is never retried with
//!   another stamp.
//! - A record is announced before its caller has the last byte of the response, and written after its chunks.
//! - A placeholder is written before the first chunk if there was no usable head. The write of the head is compared with
//!   it, so that it fails after an invalidation or an eviction while the chunks were written.
//! - If the comparison fails, the chunks are deleted, or expire after the grace if another request may be reading them.
//! - If the result of a write is not known, the chunks stay until their own expiry, since the write may still succeed.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode, header, request};

use super::Records;
use super::chunks::ReadDeadline;
use super::in_flight::{AwaitedPart, ChunkWrite, Write};
use super::lease::Lease;
use super::lookup::{Snapshot, variant_in};
use crate::control::Stored;
use crate::entry::{
    self, DecodedRecord, Expiries, Extent, GRACE, Head, LOOKUP_LIMIT, Parts, StoredBody, StoredContent,
    StoredResponse, TOMBSTONE, Variant, decode, with_slack,
};
use crate::error::{Error, ErrorKind, Result};
use crate::key;
use crate::observe::{Count, Observer};
use crate::policy::{self, MadeTag, NotStored, SelectingFields, TagHasher, UnstoredFields};
use crate::service::telemetry;
use crate::storage::{self, Key, Kind, Record, Retain, Stamp, Storage, random_ids};
use crate::time::Timestamp;

/// How often a part is added to parts that other requests change at the same time. It is lost after that, which costs a fetch.
const MAX_ATTEMPTS: usize = 64;

/// Tells whether the response to a prefetch was stored.
///
/// It is among the extensions of the request, with the number of the cache that it is for: a request may pass through several
/// caches.
#[derive(Clone, Debug)]
pub(crate) struct Warming {
    number: u64,
    state: Arc<AtomicU8>,
}

impl Warming {
    const BEGUN: u8 = 1;
    const STORED: u8 = 2;

    /// Returns a mark for a prefetch into the cache with a number.
    pub(crate) fn new(number: u64) -> Self {
        Self { number, state: Arc::default() }
    }

    /// Marks the response of a request as about to be stored.
    ///
    /// Returns `None` if the request is no prefetch into the cache with this number.
    pub(super) fn begin(request: &request::Parts, number: u64) -> Option<Self> {
        let warming = request.extensions.get::<Self>().filter(|warming| warming.number == number)?.clone();
        // Relaxed, here and below: it is read after `Tasks::idle`, which synchronizes with the tasks that write it.
        warming.state.store(Self::BEGUN, Ordering::Relaxed);
        Some(warming)
    }

    /// Marks the response as stored.
    pub(super) fn complete(&self) {
        self.state.store(Self::STORED, Ordering::Relaxed);
    }

    /// Returns whether storing has begun and has not succeeded.
    pub(crate) fn has_failed(&self) -> bool {
        self.state.load(Ordering::Relaxed) == Self::BEGUN
    }

    /// Returns whether no writer is left that could change the state.
    pub(crate) fn is_settled(&self) -> bool {
        Arc::strong_count(&self.state) == 1
    }
}

/// The part of a representation that a response contains.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// The offset of its first byte.
    pub(crate) start: u64,
    /// The length of the complete representation.
    pub(crate) complete: u64,
    /// The stored parts of the same representation, which the lookup has seen.
    pub(crate) stored: Option<Arc<Parts>>,
}

/// The part that a writer stores.
struct PartWrite {
    part: Part,
    /// Its length, once it has arrived.
    len: OnceLock<u64>,
    /// Keeps what other parts write meanwhile, which this one is announced after.
    _awaited: AwaitedPart,
}

/// Stores one response. It is created when the head of the response has arrived, before its body.
pub(crate) struct Writer<S: Storage> {
    pub(crate) records: Arc<Records<S>>,
    snapshot: Snapshot,
    target: WriteTarget,
    /// The head or variant that is written, complete except for the body and the trailers.
    ///
    /// The stored record shares it, so that no field is copied when the body has arrived.
    prepared: Arc<DecodedRecord>,
    /// Until when the chunks of the body are retained.
    chunks_until: Timestamp,
    unstored: UnstoredFields,
    /// The cache makes an entity tag for the response.
    makes_tag: bool,
    /// The request may share its response with those for other queries (No-Vary-Search).
    may_share: bool,
    /// Present if the request is a prefetch.
    warming: Option<Warming>,
    /// Present if the response is a part of a representation, or a whole one of which only a part has arrived.
    ///
    /// Boxed, since few responses are.
    part: OnceLock<Box<PartWrite>>,
    /// The random id of the body, which is part of the keys of its chunks.
    body_id: [u8; 16],
    /// The stamp of the record of the complete response, of which there is one.
    stamp: Stamp,
    /// The stamp of the record that reserves the head's key while chunks are written. Present if the lookup saw no usable
    /// head.
    ///
    /// The record itself is made when it is announced, since a body in the head's own record needs none.
    placeholder: Option<Stamp>,
    /// A follower may be reading the body, and needs its chunks.
    ///
    /// It is only ever set. SeqCst, since the tasks that set and read it share no lock at that point.
    followed: AtomicBool,
    /// Keeps other processes from fetching for the key.
    ///
    /// It is released when this response is stored, or is certain not to be stored.
    ///
    /// A std `Mutex`, held to take the lease out, which any of the tasks that share the writer may do.
    lease: Mutex<Option<Box<Lease<S>>>>,
}

/// Tells which record a response is written to.
enum WriteTarget {
    /// The head, whose inline variant the response becomes.
    Head { same_generation: bool },
    /// A further variant of the head that the lookup saw.
    Variant { key: Key, seen: Option<Record> },
}

/// The announced writes of a response that a 304 freshened.
pub(crate) struct FreshenedWrite {
    write: Option<Write>,
    chunk: Option<ChunkWrite>,
}

impl FreshenedWrite {
    /// Returns whether the body is written again, into a chunk.
    pub(crate) fn has_chunk(&self) -> bool {
        self.chunk.is_some()
    }
}

impl<S: Storage> Writer<S> {
    /// Returns a writer for a response, and decides which record it is written to.
    ///
    /// `response` is complete except for its body and trailers, and its fields are [packed](StoredResponse::pack). `unstored`
    /// are the fields that are left out of the trailers.
    pub(crate) fn new(
        records: Arc<Records<S>>,
        mut snapshot: Snapshot,
        mut names: SelectingFields,
        request: &request::Parts,
        (response, unstored): (StoredResponse, UnstoredFields),
        until: Timestamp,
        lease: Option<Box<Lease<S>>>,
    ) -> Self {
        let selection = records.selection(&names.names, request);
        let config = &records.config;
        let query = config.identity.query_fingerprint(&snapshot.key_text);
        if query != 0 {
            names.ignored_selectors.get_or_insert_default().query = query;
        }
        let is_personal = policy::is_personal(&names.names, &request.headers, &config.policy);
        let warming = Warming::begin(request, records.number);
        let has_hidden_selector = records.config.has_hidden_selector(&names.names, request);
        records.record_scheme(request);
        let head = snapshot.usable.as_ref().and_then(|record| match decode(record)? {
            DecodedRecord::Head(head)
                if (&head.names, &head.ignored_selectors) == (&names.names, &names.ignored_selectors) =>
            {
                Some(head)
            }
            _ => None,
        });
        // Drawn together, since that costs a system call.
        let [new_generation, body_id, placeholder, stamp] = random_ids();
        // The inline variant of a generation never changes its selection, since other requests find their variants by the
        // head. So a response with other names, or without a usable head, begins a new generation. A generation is random: if
        // it were derived from anything, old variants could become reachable again.
        let (target, generation, expiries) = match (head, &snapshot.variant) {
            (Some(head), Some((key, seen))) if head.inline.selection != selection => (
                WriteTarget::Variant { key: *key, seen: seen.clone() },
                head.generation,
                head.expiries.clone(),
            ),
            (Some(head), _) if head.inline.selection == selection => {
                (WriteTarget::Head { same_generation: true }, head.generation, head.expiries.clone())
            }
            _ => (WriteTarget::Head { same_generation: false }, new_generation, Expiries::default()),
        };
        let needed = records.limited_by_idleness(until) + GRACE;
        // The slack saves moving the expiry at the next 304. A response without a validator is never confirmed by a 304.
        let chunks_until = match response.freshness(records.number, &records.config.policy).has_validator {
            true if config.default_tti.is_none() => with_slack(needed, records.config.clock.now()),
            _ => needed,
        };
        // Only a 200 is answered by its validator, and only where that says nothing about a change.
        let makes_tag = config.make_etags
            && response.status == StatusCode::OK
            && !response.headers.contains_key(header::ETAG)
            && policy::is_reading(&request.method);
        let placeholder = snapshot.usable.is_none().then_some(Stamp::from_bytes(placeholder));
        let key_text = std::mem::take(&mut snapshot.key_text);
        // The last one that the lookup saw, which was before the fetch. An entry that was expired since makes it stale.
        let expiry = expiries.last();
        let variant = Variant { until, selection, is_personal, has_hidden_selector, expiry, response };
        let prepared = match target {
            WriteTarget::Variant { .. } => DecodedRecord::Variant { key_text, generation, variant },
            WriteTarget::Head { .. } => {
                let (SelectingFields { names, ignored_selectors }, fence) = (names, snapshot.fence);
                DecodedRecord::Head(Head {
                    key_text,
                    names,
                    ignored_selectors,
                    generation,
                    fence,
                    expiries,
                    inline: variant,
                })
            }
        };
        Self {
            records,
            snapshot,
            target,
            prepared: Arc::new(prepared),
            chunks_until,
            unstored,
            makes_tag,
            may_share: !key::has_other_query(request),
            warming,
            part: OnceLock::new(),
            body_id,
            stamp: Stamp::from_bytes(stamp),
            placeholder,
            followed: AtomicBool::new(false),
            lease: Mutex::new(lease),
        }
    }

    /// Returns the writer of a response that is a part of a representation.
    pub(crate) fn with_part(self, part: Part) -> Self {
        // It needs no placeholder, since it can be added to what another request stores meanwhile. A tag is of a whole body.
        Self { part: OnceLock::from(self.part_write(part)), placeholder: None, makes_tag: false, ..self }
    }

    fn part_write(&self, part: Part) -> Box<PartWrite> {
        let awaited = self.records.in_flight.await_part(self.target_key());
        Box::new(PartWrite { part, len: OnceLock::new(), _awaited: awaited })
    }

    /// Returns the variant that is written.
    fn variant(&self) -> &Variant {
        self.prepared.variant().expect("a writer prepares a head or a variant")
    }

    /// Returns the text of the effective URI, and the generation of the entry.
    fn uri_and_generation(&self) -> (&str, [u8; 16]) {
        self.prepared.uri_and_generation().expect("a writer prepares a head or a variant")
    }

    /// Returns the response, which gets its body when all of it has arrived.
    pub(crate) fn response(&self) -> &StoredResponse {
        &self.variant().response
    }

    /// Returns the names of the fields that select a variant of the entry.
    pub(crate) fn names(&self) -> &[HeaderName] {
        match &*self.prepared {
            DecodedRecord::Head(head) => &head.names,
            _ => self.snapshot.names(),
        }
    }

    /// Returns the text of the key of the entry.
    pub(crate) fn key_text(&self) -> &str {
        self.uri_and_generation().0
    }

    /// Returns the hash of the request's values of the selecting fields.
    pub(crate) fn selection(&self) -> [u8; 16] {
        self.variant().selection
    }

    /// Returns whether the entry was expired since the fetch began, as another lookup has seen.
    pub(crate) fn is_expired_by(&self, snapshot: &Snapshot) -> bool {
        snapshot.has_expired(&self.prepared)
    }

    /// Returns the key of the entry's variant with another selection.
    pub(crate) fn sibling(&self, selection: [u8; 16]) -> Key {
        let (_, generation) = self.uri_and_generation();
        self.records.keyer.variant(self.snapshot.head, generation, selection)
    }

    /// Returns the key of the entry's head.
    pub(crate) fn head(&self) -> Key {
        self.snapshot.head
    }

    /// Returns the snapshot for storing another variant of the entry at the same time.
    ///
    /// It contains the head as it will be when this response is stored. A variant that is stored under it becomes reachable
    /// with this response, and never if this response is not stored.
    pub(crate) fn sibling_snapshot(&self, mut snapshot: Snapshot, key: Key) -> Snapshot {
        snapshot.usable = match &self.target {
            WriteTarget::Head { .. } => {
                let variant = self.variant().clone();
                let until = self.records.limited_by_idleness(variant.until).max(self.snapshot.fence);
                // Without the body, whose chunks the other variant must not release.
                let response = StoredResponse { content: OnceLock::new(), ..variant.response };
                let head = self.prepared.with(Variant { response, ..variant });
                head.map(|head| entry::packed_record(head, Stamp::random(), until))
            }
            WriteTarget::Variant { .. } => self.snapshot.usable.clone(),
        };
        snapshot.variant = Some((key, None));
        snapshot
    }

    /// Returns the stamp of the placeholder that is written while the body comes.
    pub(crate) fn placeholder_stamp(&self) -> Option<Stamp> {
        self.placeholder
    }

    /// Returns whether a stamp is that of this writer's lookup or placeholder.
    ///
    /// The stamp was seen at the head's key.
    pub(crate) fn matches_seen(&self, seen: Option<Stamp>) -> bool {
        seen == self.snapshot.seen || (seen.is_some() && seen == self.placeholder_stamp())
    }

    /// Marks that a follower reads the body.
    ///
    /// It may need the chunks even if the record that names them is not written.
    pub(crate) fn mark_followed(&self) {
        self.followed.store(true, Ordering::SeqCst);
    }

    /// Returns the key that the response is written to.
    pub(crate) fn target_key(&self) -> Key {
        match &self.target {
            WriteTarget::Head { .. } => self.snapshot.head,
            WriteTarget::Variant { key, .. } => *key,
        }
    }

    /// Returns the key of a chunk of the body.
    fn chunk_key(&self, part: u32) -> Key {
        self.snapshot.head.sibling(Kind::Chunk, self.body_id, part)
    }

    /// Returns the stamp that the record is compared with.
    ///
    /// For a chunked body this is the placeholder's, if this writer writes one.
    fn seen(&self, chunked: bool) -> Option<Stamp> {
        match &self.target {
            WriteTarget::Variant { seen, .. } => seen.as_ref().map(Record::stamp),
            WriteTarget::Head { .. } if chunked && self.placeholder.is_some() => self.placeholder,
            WriteTarget::Head { .. } => self.snapshot.seen,
        }
    }

    /// Returns the part of the trailers that is stored, and that followers get.
    pub(crate) fn trailers(&self, trailers: &HeaderMap) -> Option<HeaderMap> {
        self.unstored.trailers(trailers)
    }

    /// Returns the hash of the response's entity tag, if the cache makes one.
    ///
    /// Boxed, since few caches make entity tags.
    pub(crate) fn tag_hasher(&self) -> Option<Box<TagHasher>> {
        let hasher = || Box::new(TagHasher::new(&self.response().headers, self.selection()));
        self.makes_tag.then(hasher)
    }

    /// Returns the record of the complete response. It is called once for a writer.
    fn record(&self, body: StoredBody, trailers: Option<&HeaderMap>, made_tag: Option<MadeTag>) -> Record {
        let trailers = trailers.and_then(|trailers| self.trailers(trailers));
        let mut content = StoredContent::new(body, trailers).with_made_tag(made_tag);
        content.pack();
        let Variant { until, response, .. } = self.variant();
        // A long download or a late 304 may leave chunks for a shorter time. No record outlives them.
        let chunks_until = content.body.chunks_until().unwrap_or(Timestamp::NEVER);
        let limit = |until| self.records.limited_by_idleness(until).min(chunks_until);
        let is_first = response.content.set(content).is_ok();
        debug_assert!(is_first, "a writer makes one record");
        let retain = match self.target {
            WriteTarget::Variant { .. } => limit(*until),
            WriteTarget::Head { same_generation } => {
                // In the same generation, further variants stay reachable, so that the head is retained as long as the former
                // one.
                let replaced = self.snapshot.usable.as_ref().filter(|_| same_generation);
                let retain = replaced.map_or(Timestamp::EPOCH, Record::retain_until);
                match self.records.config.default_tti {
                    None => (*until).max(retain),
                    // The other variants are not idle if one of them was used, which has moved the time of the head.
                    Some(_) => limit((*until).max(retain)),
                }
                .max(self.snapshot.fence)
            }
        };
        entry::packed_record(Arc::clone(&self.prepared), self.stamp, retain)
    }

    /// Returns a body with a length that is stored in this writer's chunks.
    fn chunked(&self, len: u64) -> StoredBody {
        let chunk_len = self.chunk_len() as u32;
        match self.parts(len) {
            None => StoredBody::Chunked { id: self.body_id, chunk_len, len, retain_until: self.chunks_until },
            Some(new) => {
                let stored = self.part().and_then(|part| part.stored.as_ref());
                let parts = stored.and_then(|stored| stored.with(&new)).unwrap_or(new);
                StoredBody::Parts(Arc::new(parts))
            }
        }
    }

    /// Returns the part that is stored in this writer's chunks, or `None` if it stores a whole body.
    fn parts(&self, len: u64) -> Option<Parts> {
        let &Part { start, complete, .. } = self.part()?;
        let extent = Extent { id: self.body_id, chunk_len: self.chunk_len() as u32, len, start };
        Some(Parts::new(self.body_id, complete, extent, self.chunks_until))
    }

    /// Returns the part of a representation that is stored, or `None` if it is a whole body.
    pub(crate) fn part(&self) -> Option<&Part> {
        self.part.get().map(|write| &write.part)
    }

    /// Makes the first bytes of a whole body a part of it, since the others do not arrive.
    ///
    /// Returns whether they may be stored as one: only a strong validator lets another request ask for the rest.
    pub(crate) fn becomes_part(&self, complete: u64) -> bool {
        if self.part.get().is_some() {
            return true;
        }
        let StoredResponse { status, headers, .. } = self.response();
        // A stored response stays, since a part of another one would answer less.
        let replaces = match &self.target {
            WriteTarget::Head { .. } => self.snapshot.usable.is_some(),
            WriteTarget::Variant { seen, .. } => seen.is_some(),
        };
        let may_be = self.records.config.store_parts
            && !replaces
            && *status == StatusCode::OK
            && policy::strong_validator(headers).is_some();
        may_be && self.part.set(self.part_write(Part { start: 0, complete, stored: None })).is_ok()
    }

    /// Announces the record of a complete small body, before its caller has the last byte.
    ///
    /// Returns `None` if another write is compared with the same stamp.
    pub(crate) fn announce_inline(
        &self,
        body: Bytes,
        trailers: Option<&HeaderMap>,
        made_tag: Option<MadeTag>,
    ) -> Option<Write> {
        self.announce(self.record(StoredBody::Inline(body), trailers, made_tag), self.seen(false))
    }

    /// Announces the record of a complete chunked body, as [`announce_inline`](Self::announce_inline) does.
    pub(crate) fn announce_chunked(
        &self,
        len: u64,
        trailers: Option<&HeaderMap>,
        made_tag: Option<MadeTag>,
    ) -> Option<Write> {
        if let Some(write) = self.part.get() {
            // Set once, since a writer makes one record.
            let _ = write.len.set(len);
        }
        self.announce(self.record(self.chunked(len), trailers, made_tag), self.seen(true))
            .or_else(|| self.announce_part(len))
    }

    /// Announces a part after the parts that other requests are writing to the same key.
    ///
    /// Otherwise the next lookup would not find it before their writes have ended.
    fn announce_part(&self, len: u64) -> Option<Write> {
        let (key, new) = (self.target_key(), self.parts(len)?);
        let last = self.records.in_flight.last(key)?;
        let record = entry::record(self.merged(&last, &new)?, last.retain_until());
        self.announce(record, Some(last.stamp()))
    }

    /// Announces a record, unless an invalidation forbids it.
    fn announce(&self, record: Record, seen: Option<Stamp>) -> Option<Write> {
        let write = self.records.in_flight.write(self.target_key(), seen, record)?;
        // Checked after the announcement: a deletion that was added before is seen here, and a later one finds the announced
        // record.
        self.may_store(&write).then_some(write)
    }

    /// Returns the length of a chunk.
    pub(crate) fn chunk_len(&self) -> usize {
        // Half of what the storage accepts leaves room for the record around the chunk. At most a gibibyte, since the length is
        // stored in 32 bits, and at least a byte, so that every chunk advances the body.
        self.records.config.chunk_len.min(self.records.storage.inner().max_record_len() / 2).clamp(1, 1 << 30)
    }

    /// Returns the maximum length of a body that is stored in its response's record.
    pub(crate) fn inline_len(&self) -> usize {
        if self.part.get().is_some() {
            return 0;
        }
        let wanted =
            self.records.config.inline_len.unwrap_or_else(|| self.records.storage.inner().inline_len());
        wanted.min(self.chunk_len())
    }

    /// Writes the announced record after its chunks, and returns whether it is stored.
    ///
    /// `write` is `None` if the record could not be announced, since another write is compared with the same stamp.
    #[allow(clippy::manual_async_fn)] // an async function has room for its arguments twice
    pub(crate) fn commit(
        self: Arc<Self>,
        write: Option<Write>,
        chunks: u32,
    ) -> impl Future<Output = bool> + Send {
        async move {
            let may_store = write.as_ref().is_some_and(|write| self.may_store(write));
            let written = match &write {
                Some(write) if may_store => self.write_announced(write).await,
                _ => Ok(false),
            };
            // Before the lease is released and the write is marked as written: a request that waits for either has to find the
            // variant by its head.
            // Boxed, as the rare branches below are, so that the future of the usual commit has no room for them.
            if let (Ok(true), Some(write), WriteTarget::Variant { .. }) = (&written, &write, &self.target) {
                Box::pin(self.keep_reachable(write.record())).await;
            }
            // Only now, when the storage has answered: the processes that wait for the lease read what it holds.
            self.release_lease();
            match written {
                Ok(true) => {
                    write.into_iter().for_each(Write::written);
                    // The storage has nothing older any more.
                    let (outdated, key) = (&self.records.outdated, self.target_key());
                    if outdated.since(key).is_some_and(|(since, _)| self.response().response_time > since) {
                        outdated.forget(key);
                    }
                    self.records.observer.count(Count::Stored);
                    self.records.report_usage();
                    if let Some(warming) = &self.warming {
                        warming.complete();
                    }
                    let stored = self.part().and_then(|part| part.stored.as_ref());
                    if let (Some(stored), StoredBody::Parts(parts)) = (stored, self.response().body()) {
                        Box::pin(self.release_extents(stored, parts)).await;
                    }
                    let keeps_replaced = stored.is_some();
                    if self.snapshot.usable.is_some() && !keeps_replaced {
                        Box::pin(self.release_replaced()).await;
                    }
                    if !self.snapshot.is_for_queries() {
                        self.drop_unlisted();
                    }
                    true
                }
                Ok(false) if self.part.get().is_some() && Box::pin(self.add_part()).await => {
                    // The record that was announced is not written, but all of its bytes are stored.
                    drop(write);
                    true
                }
                Ok(false) => {
                    let is_invalidated = match &write {
                        Some(_) => !may_store,
                        None => {
                            self.records.pending.get(self.snapshot.head).is_some() || self.deletes_since()
                        }
                    };
                    let reason = if is_invalidated { "invalidated" } else { "superseded" };
                    telemetry::unstored(&self.records.observer, reason);
                    Box::pin(self.withdraw(write, std::iter::empty(), chunks)).await;
                    false
                }
                Err(error) => {
                    telemetry::write_failed(&self.records.observer, "write_if", &error);
                    // After `Busy`, from the backlog or from the storage, the record is certainly not written. After any other error
                    // it may still be written, and name the chunks, which therefore stay until their own expiry.
                    if error.kind() == ErrorKind::Busy {
                        drop(write);
                        let chunks = self.chunk_keys(chunks);
                        Box::pin(self.release(&chunks)).await;
                    }
                    false
                }
            }
        }
    }

    /// Adds the part to the stored parts of the same representation, which other requests have stored meanwhile.
    ///
    /// Returns whether it is stored. It is not if there was an invalidation since the lookup: the parts are then those of a
    /// later generation, or their head has another fence.
    async fn add_part(&self) -> bool {
        let Some(len) = self.part.get().and_then(|write| write.len.get()) else { return false };
        let Some(new) = self.parts(*len) else { return false };
        // Each attempt fails only if another request has added a part.
        for _ in 0..MAX_ATTEMPTS {
            let Ok(Some(current)) = self.records.read_slot(self.target_key(), None).await else {
                return false;
            };
            let Some(merged) = self.merged(&current, &new) else { return false };
            let record = entry::record(merged, current.retain_until());
            let Some(write) = self.records.in_flight.write(self.target_key(), Some(current.stamp()), record)
            else {
                continue;
            };
            if !self.may_store(&write) {
                return false;
            }
            match self.records.carry_out(write).await {
                Ok(true) => {
                    self.records.observer.count(Count::Stored);
                    self.records.report_usage();
                    return true;
                }
                Ok(false) => {}
                Err(error) => {
                    telemetry::write_failed(&self.records.observer, "write_if", &error);
                    return false;
                }
            }
        }
        false
    }

    /// Lets the chunks of parts expire after the grace that were replaced as a whole.
    async fn release_extents(&self, old: &Parts, new: &Parts) {
        let named = new.extents();
        for extent in old.extents() {
            if !named.iter().any(|of| of.id == extent.id) {
                let part = Parts::new(old.id, old.len, extent, old.retain_until);
                let chunks = StoredBody::Parts(Arc::new(part)).chunks(self.snapshot.head);
                self.records.release_chunks(chunks).await;
            }
        }
    }

    /// Returns the record that contains the stored parts in a record and another one.
    ///
    /// Returns `None` if that one must not be added to them.
    fn merged(&self, current: &Record, new: &Parts) -> Option<DecodedRecord> {
        let (slot, own) = (decode(current)?, self.variant());
        let variant = slot.variant().filter(|variant| variant.selection == own.selection)?;
        let parts = variant.response.body().parts()?;
        let is_same = match (slot, &*self.prepared) {
            (DecodedRecord::Head(head), DecodedRecord::Head(prepared)) => {
                (&head.key_text, &head.names, head.fence)
                    == (&prepared.key_text, &prepared.names, self.snapshot.fence)
            }
            // A variant of another generation has another key.
            (DecodedRecord::Variant { key_text, .. }, _) => **key_text == *self.key_text(),
            _ => false,
        };
        if !is_same
            || parts.len != new.len
            || !policy::is_same_representation(&variant.response.headers, &own.response.headers)
            || parts.stored_len() + new.stored_len() > self.records.config.max_body_bytes
        {
            return None;
        }
        let merged = parts.with(new)?;
        let until = variant.until.min(merged.retain_until);
        let content = StoredContent::new(StoredBody::Parts(Arc::new(merged)), None);
        let response = variant.response.clone().with_content(content);
        slot.with(Variant { until, response, ..variant.clone() })
    }

    /// Writes the announced record in its turn, if the backlog has a permit for it.
    async fn write_announced(&self, write: &Write) -> Result<bool> {
        // Held until the storage has answered. Acquired before the wait, so that the records that wait for their turn are
        // bounded too.
        let _permit = self.records.storage.acquire_backlog(write.record())?;
        if !write.turn().await {
            return Ok(false);
        }
        self.keep_groups().await;
        self.keep_list().await;
        self.records.storage.write_if(self.target_key(), write.seen(), write.record().clone()).await
    }

    /// Announces a response that a 304 freshened, which has the same body under new fields.
    ///
    /// If the body was stored within its record and is too long for that by the settings, it is announced as a chunk. This
    /// happens if it was stored under other settings, or is copied from another variant.
    pub(crate) fn announce_freshened(
        &self,
        StoredContent { body, trailers, made_tag }: StoredContent,
    ) -> (Key, Record, FreshenedWrite) {
        let chunk = match &body {
            StoredBody::Inline(data) if (self.inline_len() + 1..=self.chunk_len()).contains(&data.len()) => {
                Some(self.announce_chunk(0, data.clone()))
            }
            _ => None,
        };
        let body = match &chunk {
            Some(_) => self.chunked(body.len()),
            None => body,
        };
        let record = self.record(body, trailers.as_deref(), made_tag);
        let write = self.records.in_flight.write(self.target_key(), self.seen(false), record.clone());
        (self.target_key(), record, FreshenedWrite { write, chunk })
    }

    /// Returns a record of the response that is only for the caller. It is not stored, and belongs to no generation.
    pub(crate) fn unstored_record(&self, content: StoredContent) -> Record {
        let variant = self.variant().clone();
        let variant = Variant { response: variant.response.with_content(content), ..variant };
        let (key_text, _) = self.uri_and_generation();
        let slot = DecodedRecord::Variant { key_text: key_text.into(), generation: [0; 16], variant };
        entry::record(slot, self.variant().until)
    }

    /// Writes a freshened response, and returns whether it is stored.
    ///
    /// If another record was written since the lookup, that one is newer and stays.
    pub(crate) async fn commit_freshened(&self, FreshenedWrite { write, chunk }: FreshenedWrite) -> Stored {
        let may_store = write.as_ref().is_none_or(|write| self.may_store(write));
        let chunks = u32::from(chunk.is_some());
        let written = match &write {
            Some(write) if may_store && write.turn().await => {
                if let Some(chunk) = chunk
                    && let Err(error) = self.write_chunk(chunk).await
                {
                    self.release_lease();
                    error.report(&self.records.observer);
                    return Stored::No(NotStored::StorageFailed);
                }
                self.keep_groups().await;
                self.keep_list().await;
                self.records.storage.write_if(self.target_key(), write.seen(), write.record().clone()).await
            }
            _ => Ok(false),
        };
        self.release_lease();
        match (written, write) {
            (Ok(true), Some(write)) => {
                self.records.observer.count(Count::Freshened);
                self.keep_reachable(write.record()).await;
                write.written();
                Stored::Freshened
            }
            (Err(error), _) => {
                telemetry::write_failed(&self.records.observer, "write_if", &error);
                Stored::No(NotStored::StorageFailed)
            }
            _ => {
                telemetry::unstored(
                    &self.records.observer,
                    if may_store { "superseded" } else { "invalidated" },
                );
                if chunks > 0 {
                    // They expire after the grace and are not deleted, since a lookup may have returned the record.
                    self.release(&self.chunk_keys(chunks)).await;
                }
                Stored::Unchanged
            }
        }
    }

    /// Returns whether it is too late to write after a lookup that saw no record.
    ///
    /// A write that is compared with a stamp fails if the entry was invalidated since the lookup. If the lookup saw no record,
    /// this holds only as long as the tombstone cannot have expired. The limit also applies to the head of a chunked body,
    /// which is compared with its placeholder: the storage may write the placeholder late and for a second time, after the
    /// tombstone has expired.
    fn is_too_late(&self) -> bool {
        self.snapshot.seen.is_none() && self.records.config.clock.now() > self.snapshot.at + LOOKUP_LIMIT
    }

    /// Returns whether no invalidation forbids writing a record of this response.
    ///
    /// It checks the invalidations that the storage does not know yet, and the deletions by filter.
    fn may_store(&self, write: &Write) -> bool {
        !self.is_too_late()
            && self.records.pending.get(self.snapshot.head).is_none()
            // A pending invalidation may have been dropped since. A response whose fetch began before then counts as
            // invalidated.
            && self.records.pending.permits(self.snapshot.at, self.uri_and_generation().0)
            && !self.records.changes.has_deleted(
                self.snapshot.changes,
                self.target_key(),
                write.record(),
                self.names(),
            )
    }

    /// Returns whether there was a deletion by filter since the fetch began.
    pub(crate) fn deletes_since(&self) -> bool {
        self.records.changes.deletes_since(self.snapshot.changes)
    }

    /// Retains the values of the response's groups at least as long as the response.
    ///
    /// If this fails, the response stops being a member when a value expires, and is then a miss.
    async fn keep_groups(&self) {
        let Variant { until, response, .. } = self.variant();
        let groups = response.groups.iter().filter(|group| group.retain_until < *until);
        let groups: Vec<Key> = groups.map(|group| group.key).collect();
        if !groups.is_empty() {
            let least = Retain::AtLeast(with_slack(*until, self.records.config.clock.now()));
            // Boxed, since few responses have groups.
            let _ = Box::pin(self.records.storage.retain(&groups, least)).await;
        }
    }

    /// Retains the list by which a response for several queries is found.
    async fn keep_list(&self) {
        if self.snapshot.is_for_queries() {
            // Boxed, since few responses are for several queries.
            Box::pin(self.records.keep_list(&self.snapshot, self.variant().until)).await;
        }
    }

    /// Drops the response again if an invalidation of an equivalent query would not reach it.
    fn drop_unlisted(self: &Arc<Self>) {
        if self.may_share && self.response().headers.contains_key(policy::NO_VARY_SEARCH) {
            let writer = Arc::clone(self);
            self.records.tasks.drive(async move {
                writer.records.drop_unlisted(writer.key_text(), &writer.response().headers).await;
            });
        }
    }

    /// Retains the head as long as a variant, and lists the variant's entity tag.
    ///
    /// A variant is reachable only through its head. If this fails, the variant is a miss once the head has expired.
    async fn keep_reachable(&self, record: &Record) {
        let WriteTarget::Variant { .. } = self.target else { return };
        let Some(head) = &self.snapshot.usable else { return };
        let until = record.retain_until();
        if head.retain_until() < until {
            let slack = || with_slack(until, self.records.config.clock.now());
            let least = if self.records.config.default_tti.is_some() { until } else { slack() };
            let _ = self.records.retain_head(self.snapshot.head, head, least).await;
        }
        self.records.list_tag(head, self.snapshot.head, record, self.variant().until).await;
    }

    /// Lets the chunks of the replaced body expire after the grace.
    async fn release_replaced(&self) {
        let replaced = match &self.target {
            WriteTarget::Head { .. } => self.snapshot.usable.as_ref(),
            WriteTarget::Variant { seen, .. } => seen.as_ref(),
        };
        if let Some(variant) = replaced.and_then(variant_in) {
            self.records.release_chunks(variant.response.body().chunks(self.snapshot.head)).await;
        }
    }

    /// Lets chunks expire after the grace.
    async fn release(&self, chunks: &[Key]) {
        let most = Retain::AtMost(self.records.config.clock.now() + GRACE);
        let _ = self.records.storage.retain(chunks, most).await; // on an error they expire at their own time
    }

    /// Returns the keys of the first chunks of the body.
    fn chunk_keys(&self, chunks: u32) -> Vec<Key> {
        (0..chunks).map(|part| self.chunk_key(part)).collect()
    }

    /// Announces the placeholder, if one is needed.
    pub(crate) fn announce_placeholder(&self) -> PlaceholderWrite {
        match self.placeholder {
            Some(stamp) if matches!(self.target, WriteTarget::Head { .. }) => {
                let Snapshot { head, seen, fence, .. } = self.snapshot;
                let placeholder = entry::placeholder(stamp, fence, self.chunks_until.max(fence));
                let write = self.records.in_flight.write(head, seen, placeholder);
                write.map_or(PlaceholderWrite::Lost, PlaceholderWrite::Announced)
            }
            _ => PlaceholderWrite::NotNeeded,
        }
    }

    /// Writes the placeholder that was announced.
    ///
    /// # Errors
    ///
    /// Returns the reason why the response cannot be stored: another record was written at the key, or the storage failed.
    pub(crate) async fn write_placeholder(
        &self,
        placeholder: PlaceholderWrite,
    ) -> std::result::Result<(), WriteError> {
        match placeholder {
            PlaceholderWrite::NotNeeded => Ok(()),
            PlaceholderWrite::Lost => Err(WriteError::Superseded),
            PlaceholderWrite::Announced(_) if self.is_too_late() => Err(WriteError::Superseded),
            PlaceholderWrite::Announced(write) => match self.records.carry_out(write).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(WriteError::Superseded),
                Err(error) => Err(WriteError::Failed("write_if", error)),
            },
        }
    }

    /// Announces a chunk, for requests that read the body before the storage has it.
    pub(crate) fn announce_chunk(&self, part: u32, data: Bytes) -> ChunkWrite {
        let record = Record::new(data, self.chunks_until);
        self.records.in_flight.write_chunk(self.chunk_key(part), record)
    }

    /// Keeps the storage from evicting the body.
    ///
    /// A body of unknown length counts as one chunk.
    pub(crate) fn hold(&self, len: Option<u64>) -> storage::Hold {
        let bytes = len.unwrap_or(self.chunk_len() as u64);
        self.records.storage.inner().hold(self.chunk_key(0), bytes)
    }

    /// Reads a chunk of the body.
    pub(crate) async fn read_chunk(&self, part: u32) -> Result<Option<Record>> {
        self.records.read_chunk(self.chunk_key(part), ReadDeadline::Body).await
    }

    /// Writes a chunk that was announced, if the backlog has a permit for it.
    ///
    /// # Errors
    ///
    /// Returns the error of the storage, or `Busy` if the backlog has no permit left.
    pub(crate) async fn write_chunk(&self, chunk: ChunkWrite) -> std::result::Result<(), WriteError> {
        let written = async {
            let _permit = self.records.storage.acquire_backlog(chunk.record())?;
            self.records.storage.write(chunk.key(), chunk.record().clone()).await
        };
        written.await.map_err(|error| WriteError::Failed("write", error))
    }

    /// Withdraws an announced record that another write has superseded.
    ///
    /// A lookup may have returned the record while it was in flight, and its request must be able to read the body to its end.
    /// So the chunks that are not written yet are written nevertheless, and all of them are kept for the grace.
    pub(crate) async fn withdraw(
        &self,
        write: Option<Write>,
        unwritten: impl Iterator<Item = ChunkWrite> + Send,
        chunks: u32,
    ) {
        // First, so that no further lookup finds the record.
        if !write.is_some_and(Write::failed) {
            return self.discard(chunks).await;
        }
        for chunk in unwritten {
            if self.write_chunk(chunk).await.is_err() {
                break; // the storage fails, so that readers of the rest fail too
            }
        }
        self.release(&self.chunk_keys(chunks)).await;
    }

    /// Deletes chunks that no record names.
    ///
    /// If another request may be reading them, they expire after the grace instead.
    pub(crate) async fn discard(&self, chunks: u32) {
        if chunks > 0 && self.followed.load(Ordering::SeqCst) {
            self.release(&self.chunk_keys(chunks)).await;
        } else if chunks > 0 {
            // On an error they expire at their own time.
            let _ = self.records.storage.delete_many(&self.chunk_keys(chunks)).await;
        }
    }

    /// Releases the lease, so that other processes may fetch.
    pub(crate) fn release_lease(&self) {
        let lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(lease); // outside the lock: its `drop` spawns a task
    }
}

/// The reason why storing a response has ended early.
pub(crate) enum WriteError {
    /// Another record was written at its key since the lookup.
    Superseded,
    /// An operation of the storage failed.
    Failed(&'static str, Error),
    /// There is no runtime to wait for the storage in.
    NoRuntime,
}

impl WriteError {
    /// Counts the response as not stored, and sends the event about it.
    pub(crate) fn report(&self, observer: &Observer) {
        match self {
            Self::Superseded => telemetry::unstored(observer, "superseded"),
            Self::Failed(operation, error) => telemetry::write_failed(observer, operation, error),
            Self::NoRuntime => telemetry::unstored(observer, "no-runtime"),
        }
    }
}

/// Tells whether the placeholder has to be written before the first chunk.
pub(crate) enum PlaceholderWrite {
    /// No placeholder is needed.
    ///
    /// There is a usable head, or the first chunk has been written already.
    NotNeeded,
    /// It was announced, and has to be written.
    Announced(Write),
    /// Another write is compared with the same stamp, so that the placeholder would lose.
    Lost,
}

impl<S: Storage> Records<S> {
    /// Writes a record after all others that this process is writing to its key.
    ///
    /// Returns whether it is written.
    pub(crate) async fn write_in_order(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        match self.in_flight.write(key, seen, record) {
            Some(write) => self.carry_out(write).await,
            None => Ok(false),
        }
    }

    /// Writes an announced record in its turn, and returns whether it is written.
    ///
    /// If it is not, or if this future is dropped, the write is dropped too, which cuts its chain.
    async fn carry_out(&self, write: Write) -> Result<bool> {
        let written = write.turn().await
            && self.storage.write_if(write.key(), write.seen(), write.record().clone()).await?;
        if written {
            write.written();
        }
        Ok(written)
    }

    /// Reserves the key before fetching on a miss, if [`reserve_on_miss`](crate::CacheLayerBuilder::reserve_on_miss) is set.
    ///
    /// The write of the response is then always compared with a stamp, so that neither clocks nor evictions matter. Returns
    /// `false` if another record was written since the lookup or the storage failed. The response must not be stored then.
    ///
    /// `announce` is called with the stamp of the placeholder before any lookup can see it.
    pub(crate) async fn reserve(&self, snapshot: &mut Snapshot, announce: impl FnOnce(Stamp) + Send) -> bool {
        if !self.config.reserve_on_miss || snapshot.seen.is_some() {
            return true;
        }
        let now = self.config.clock.now();
        let slot = DecodedRecord::Fence { until: now, placeholder: true };
        let placeholder = entry::record(slot, now + TOMBSTONE);
        let stamp = placeholder.stamp();
        announce(stamp);
        snapshot.seen = Some(stamp);
        // Boxed, since it would enlarge the future of every fetch, and few caches reserve.
        let written = Box::pin(self.write_in_order(snapshot.head, None, placeholder)).await;
        written.unwrap_or(false)
    }

    /// Replaces a record that must not be served by a placeholder.
    ///
    /// A record that has replaced it since stays. A cache that may not write only remembers that the record is outdated.
    pub(crate) fn put_out_of_use(self: &Arc<Self>, key: Key, stamp: Stamp, reads_only: bool) {
        if reads_only || self.config.read_only {
            return self.outdated.add(key, self.config.clock.now(), None);
        }
        let records = Arc::clone(self);
        // Not awaited, since the request goes on without it. If the write fails, the next request finds the record unusable
        // again.
        self.tasks.drive(async move {
            let now = records.config.clock.now();
            let slot = DecodedRecord::Fence { until: now + TOMBSTONE, placeholder: true };
            let _ = records.write_in_order(key, Some(stamp), entry::record(slot, now + GRACE)).await;
        });
    }
}
