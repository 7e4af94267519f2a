//! Stores a response where a lookup looked: the writing half of the protocol between processes.
//!
//! Promises: a head or variant is written only by comparing with what the lookup saw, once, with no second look;
//! chunks come before the record that names them, behind a placeholder where nothing usable stood; who loses the
//! comparison removes its own chunks, unless somebody reads them already, and who does not know leaves them to their
//! time.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, request};

use super::super::telemetry;
use super::Records;
use super::chunks::Patience;
use super::in_flight::{ChunkWrite, Write};
use super::lease::Lease;
use super::lookup::{Snapshot, variant_in};
use crate::control::Stored;
use crate::entry::{
    self, GRACE, Head, LOOKUP_LIMIT, Slot, StoredBody, StoredResponse, TOMBSTONE, Variant, decode, with_slack,
};
use crate::error::{Error, ErrorKind, Result};
use crate::observe::{Count, Observer};
use crate::policy::{self, Selecting, Withheld};
use crate::storage::{self, Key, Kind, Record, Retain, Stamp, Storage, random_id};
use crate::time::Timestamp;

/// Among the extensions of a request that fetches ahead: what became of its response in the store of the cache of this
/// number, once that is known.
#[derive(Clone, Debug)]
pub(crate) struct Warming {
    number: u64,
    kept: Arc<AtomicU8>,
}

impl Warming {
    const BEGUN: u8 = 1;
    const KEPT: u8 = 2;

    pub(crate) fn new(number: u64) -> Self {
        Self { number, kept: Arc::default() }
    }

    /// For a response that is about to be stored.
    pub(super) fn begin(request: &request::Parts, number: u64) -> Option<Self> {
        let warming = request.extensions.get::<Self>().filter(|warming| warming.number == number)?.clone();
        // One value that is read after all has ended: no order with others matters.
        warming.kept.store(Self::BEGUN, Ordering::Relaxed);
        Some(warming)
    }

    /// The store has it.
    pub(super) fn kept(&self) {
        self.kept.store(Self::KEPT, Ordering::Relaxed);
    }

    /// Whether storing it was begun, and came to nothing.
    pub(crate) fn has_failed(&self) -> bool {
        self.kept.load(Ordering::Relaxed) == Self::BEGUN
    }
}

/// Where and how one response is to be stored. Settled when its head has come; the body follows.
pub(crate) struct Writer<S: Storage> {
    pub(crate) records: Arc<Records<S>>,
    snapshot: Snapshot,
    target: Target,
    selection: [u8; 16],
    personal: bool,
    apart: bool,
    until: Timestamp,
    /// Until when chunks of the body are kept.
    kept: Timestamp,
    response: StoredResponse,
    withheld: Withheld,
    /// It is fetched ahead, and its caller wants to know what became of it.
    warming: Option<Warming>,
    /// The name of the body, if it is stored in chunks.
    body_id: [u8; 16],
    /// Stands in the head's place while chunks are written, where no usable head stood.
    placeholder: Option<Record>,
    /// Others read the body than the one it was fetched for.
    followed: AtomicBool,
    /// No other process fetches the same, until this is stored or will not be.
    lease: Mutex<Option<Lease<S>>>,
}

enum Target {
    Head { names: Selecting, generation: [u8; 16], same_generation: bool },
    Variant { key: Key, generation: [u8; 16], seen: Option<Record> },
}

/// A response that a 304 freshened, announced.
pub(crate) struct Freshened {
    write: Option<Write>,
    chunk: Option<ChunkWrite>,
}

impl Freshened {
    /// Whether the body is written again.
    pub(crate) fn has_chunk(&self) -> bool {
        self.chunk.is_some()
    }
}

impl<S: Storage> Writer<S> {
    /// `response` is complete but for its body and trailers; what it withholds is left out of these.
    pub(crate) fn new(
        records: Arc<Records<S>>,
        snapshot: Snapshot,
        names: Selecting,
        request: &request::Parts,
        (response, withheld): (StoredResponse, Withheld),
        until: Timestamp,
        lease: Option<Lease<S>>,
    ) -> Self {
        let selection = records.selection(&names, request);
        let personal = policy::is_personal(&names, &request.headers);
        let warming = Warming::begin(request, records.number);
        let apart = records.config.stands_apart(&names, request);
        records.note_scheme(request);
        let head = snapshot.usable.as_ref().and_then(|record| match decode(record)? {
            Slot::Head(head) if (&head.names, &head.left_out) == (&names.names, &names.left_out) => {
                Some(head)
            }
            _ => None,
        });
        let target = match (head, &snapshot.variant) {
            (Some(head), Some((key, seen))) if head.inline.selection != selection => {
                Target::Variant { key: *key, generation: head.generation, seen: seen.clone() }
            }
            (Some(head), _) if head.inline.selection == selection => {
                Target::Head { names, generation: head.generation, same_generation: true }
            }
            _ => Target::Head { names, generation: random_id(), same_generation: false },
        };
        let needed = until + GRACE;
        // What cannot be confirmed is never needed for longer.
        let kept = match response.freshness(records.number, &records.config.policy).has_validator {
            true => with_slack(needed, records.config.clock.now()),
            false => needed,
        };
        let placeholder = snapshot.usable.is_none().then(|| {
            let slot = Slot::Fence { until: snapshot.fence, placeholder: true };
            entry::record(slot, kept.max(snapshot.fence))
        });
        Self {
            records,
            snapshot,
            target,
            selection,
            personal,
            apart,
            until,
            kept,
            response,
            withheld,
            warming,
            body_id: random_id(),
            placeholder,
            followed: AtomicBool::new(false),
            lease: Mutex::new(lease),
        }
    }

    /// The response without its body.
    pub(crate) fn response(&self) -> &StoredResponse {
        &self.response
    }

    /// The fields that tell variants apart.
    pub(crate) fn names(&self) -> &[HeaderName] {
        match &self.target {
            Target::Head { names, .. } => names,
            Target::Variant { .. } => self.snapshot.names(),
        }
    }

    /// The hash of the request's values of those fields.
    pub(crate) fn selection(&self) -> [u8; 16] {
        self.selection
    }

    /// Where another variant of the entry goes.
    pub(crate) fn sibling(&self, selection: [u8; 16]) -> Key {
        let generation = match &self.target {
            Target::Head { generation, .. } | Target::Variant { generation, .. } => *generation,
        };
        self.records.keyer.variant(self.snapshot.head, generation, selection)
    }

    pub(crate) fn head(&self) -> Key {
        self.snapshot.head
    }

    /// The place of another variant of the entry, as it will be once this is stored. Nothing is found there before that,
    /// or if it is not stored.
    pub(crate) fn beside(&self, mut snapshot: Snapshot, key: Key) -> Snapshot {
        snapshot.usable = match &self.target {
            Target::Head { names, generation, .. } => {
                let inline = self.variant(self.response.clone());
                let (key_text, fence) = (self.snapshot.key_text.clone(), self.snapshot.fence);
                let Selecting { names, left_out } = names.clone();
                let head = Head { key_text, names, left_out, generation: *generation, fence, inline };
                Some(entry::record(Slot::Head(head), self.until.max(fence)))
            }
            Target::Variant { .. } => self.snapshot.usable.clone(),
        };
        snapshot.variant = Some((key, None));
        snapshot
    }

    /// What this writes into its place while the body comes.
    pub(crate) fn puts(&self) -> Option<Stamp> {
        self.placeholder.as_ref().map(Record::stamp)
    }

    /// Somebody reads the body who may need its chunks, whatever becomes of the record that names them.
    pub(crate) fn note_followed(&self) {
        self.followed.store(true, Ordering::SeqCst);
    }

    fn place_key(&self) -> Key {
        match &self.target {
            Target::Head { .. } => self.snapshot.head,
            Target::Variant { key, .. } => *key,
        }
    }

    fn chunk_key(&self, part: u32) -> Key {
        self.snapshot.head.sibling(Kind::Chunk, self.body_id, part)
    }

    /// What the record is compared with.
    fn seen(&self, chunked: bool) -> Option<Stamp> {
        match &self.target {
            Target::Variant { seen, .. } => seen.as_ref().map(Record::stamp),
            Target::Head { .. } if chunked && self.placeholder.is_some() => {
                self.placeholder.as_ref().map(Record::stamp)
            }
            Target::Head { .. } => self.snapshot.seen,
        }
    }

    /// The trailers that are stored, and given to others than the first.
    pub(crate) fn trailers(&self, trailers: &HeaderMap) -> Option<HeaderMap> {
        self.withheld.trailers(trailers)
    }

    /// The record of the whole response.
    fn record(&self, body: StoredBody, trailers: Option<HeaderMap>) -> Record {
        let trailers = trailers.and_then(|trailers| self.trailers(&trailers));
        let response = StoredResponse { body, trailers, freshness: OnceLock::new(), ..self.response.clone() };
        let variant = self.variant(response);
        let key_text = self.snapshot.key_text.clone();
        match &self.target {
            Target::Variant { generation, .. } => {
                let generation = *generation;
                entry::record(Slot::Variant { key_text, generation, variant }, self.until)
            }
            Target::Head { names, generation, same_generation } => {
                let fence = self.snapshot.fence;
                let replaced = self.snapshot.usable.as_ref().filter(|_| *same_generation);
                let retain = replaced.map_or(Timestamp::EPOCH, Record::retain_until);
                let (Selecting { names, left_out }, generation) = (names.clone(), *generation);
                let head = Head { key_text, names, left_out, generation, fence, inline: variant };
                entry::record(Slot::Head(head), self.until.max(fence).max(retain))
            }
        }
    }

    fn variant(&self, response: StoredResponse) -> Variant {
        let Self { until, selection, personal, apart, .. } = *self;
        Variant { until, selection, personal, apart, response }
    }

    /// The body in this fetch's chunks.
    fn chunked(&self, len: u64) -> StoredBody {
        let chunk_len = self.chunk_len() as u32;
        StoredBody::Chunked { id: self.body_id, chunk_len, len, kept: self.kept }
    }

    /// Announces the record of a whole small body, before its caller has the last byte; `None`: it has lost already.
    pub(crate) fn announce_inline(&self, body: Bytes, trailers: Option<HeaderMap>) -> Option<Write> {
        let record = self.record(StoredBody::Inline(body), trailers);
        self.records.in_flight.write(self.place_key(), self.seen(false), record)
    }

    /// Announces the record of a body in chunks, likewise.
    pub(crate) fn announce_chunked(&self, len: u64, trailers: Option<HeaderMap>) -> Option<Write> {
        let record = self.record(self.chunked(len), trailers);
        self.records.in_flight.write(self.place_key(), self.seen(true), record)
    }

    pub(crate) fn chunk_len(&self) -> usize {
        self.records.config.chunk_len.min(self.records.store.store().max_record_len() / 2).clamp(1, 1 << 30)
    }

    /// The greatest length of a body that is kept in its response's record.
    pub(crate) fn inline_len(&self) -> usize {
        let wanted =
            self.records.config.inline_len.unwrap_or_else(|| self.records.store.store().inline_len());
        wanted.min(self.chunk_len())
    }

    /// Writes the record that was announced, once the storage has all that was announced before it.
    pub(crate) async fn commit(&self, write: Option<Write>, chunks: u32) -> bool {
        let may_store = write.as_ref().is_some_and(|write| self.may_store(write.record()));
        let written = match &write {
            Some(write) if may_store => self.write_announced(write).await,
            _ => Ok(false),
        };
        if let (Ok(true), Some(write)) = (&written, &write) {
            self.keep_reachable(write.record()).await;
        }
        self.give_back_lease();
        match written {
            Ok(true) => {
                write.into_iter().for_each(Write::written);
                self.records.observer.count(Count::Stored);
                self.records.show_usage();
                if let Some(warming) = &self.warming {
                    warming.kept();
                }
                self.release_replaced().await;
                true
            }
            Ok(false) => {
                let was_announced = write.is_some();
                telemetry::unstored(
                    &self.records.observer,
                    match may_store || !was_announced {
                        true => "superseded",
                        false => "invalidated",
                    },
                );
                // A caller that was given the record while it was under way reads the body to its end.
                match write.is_some_and(Write::failed) {
                    true => self.release(&self.chunk_keys(chunks)).await,
                    false => self.discard(chunks).await,
                }
                false
            }
            Err(error) => {
                telemetry::write_failed(&self.records.observer, "write_if", &error);
                if error.kind() == ErrorKind::Busy {
                    drop(write);
                    self.release(&self.chunk_keys(chunks)).await;
                }
                false // the write may still land, so its chunks stay until their time
            }
        }
    }

    /// Writes the record of a response in its turn, if the storage has not too much to write already.
    async fn write_announced(&self, write: &Write) -> Result<bool> {
        let _waiting = self.records.store.enter(write.record())?;
        if !write.turn().await {
            return Ok(false);
        }
        self.keep_groups().await;
        self.records.store.write_if(self.place_key(), write.seen(), write.record().clone()).await
    }

    /// Announces a response that a 304 freshened: the same body under new fields. With it the body's chunk, where that is
    /// to be written too: one that was stored within its record by another storage, or belongs to another variant.
    pub(crate) fn announce_freshened(
        &self,
        body: StoredBody,
        trailers: Option<HeaderMap>,
    ) -> (Key, Record, Freshened) {
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
        let record = self.record(body, trailers);
        let write = self.records.in_flight.write(self.place_key(), self.seen(false), record.clone());
        (self.place_key(), record, Freshened { write, chunk })
    }

    /// The response with its body as it was given, for its caller alone: of no generation.
    pub(crate) fn whole(&self) -> Record {
        let variant = self.variant(self.response.clone());
        let slot = Slot::Variant { key_text: self.snapshot.key_text.clone(), generation: [0; 16], variant };
        entry::record(slot, self.until)
    }

    /// Writes a freshened response, if nothing came in between; else nothing more. What became of it.
    pub(crate) async fn commit_freshened(&self, Freshened { write, chunk }: Freshened) -> Stored {
        let may_store = write.as_ref().is_none_or(|write| self.may_store(write.record()));
        let chunks = u32::from(chunk.is_some());
        let written = match &write {
            Some(write) if may_store && write.turn().await => {
                if let Some(chunk) = chunk
                    && let Err(why) = self.write_chunk(chunk).await
                {
                    self.give_back_lease();
                    why.tell(&self.records.observer);
                    return Stored::Storage;
                }
                self.keep_groups().await;
                self.records.store.write_if(self.place_key(), write.seen(), write.record().clone()).await
            }
            _ => Ok(false),
        };
        self.give_back_lease();
        match (written, write) {
            (Ok(true), Some(write)) => {
                self.records.observer.count(Count::Freshened);
                self.keep_reachable(write.record()).await;
                write.written();
                Stored::Freshened
            }
            (Err(error), _) => {
                telemetry::write_failed(&self.records.observer, "write_if", &error);
                Stored::Storage
            }
            _ => {
                telemetry::unstored(
                    &self.records.observer,
                    if may_store { "superseded" } else { "invalidated" },
                );
                if chunks > 0 {
                    self.release(&self.chunk_keys(chunks)).await; // others may have begun to read it
                }
                Stored::Unchanged
            }
        }
    }

    /// Where nothing was seen, a tombstone may have come and expired unseen after a while; and what is owed an
    /// invalidation, or was deleted by a filter since its fetch began, is not stored.
    fn may_store(&self, record: &Record) -> bool {
        let late = self.records.config.clock.now() > self.snapshot.at + LOOKUP_LIMIT;
        !(late && self.snapshot.seen.is_none())
            && self.records.pending.get(self.snapshot.head).is_none()
            && !self.records.changes.has_deleted(
                self.snapshot.changes,
                self.place_key(),
                record,
                self.names(),
            )
    }

    /// Whether something was deleted by a filter since its fetch began.
    pub(crate) fn deletes_since(&self) -> bool {
        self.records.changes.deletes_since(self.snapshot.changes)
    }

    /// A response is in its groups only for as long as their values are there.
    async fn keep_groups(&self) {
        let groups = self.response.groups.iter().filter(|group| group.kept < self.until);
        let groups: Vec<Key> = groups.map(|group| group.key).collect();
        if !groups.is_empty() {
            let least = Retain::AtLeast(with_slack(self.until, self.records.config.clock.now()));
            let _ = self.records.store.retain(&groups, least).await; // else it goes sooner
        }
    }

    /// A variant can be reached only through its head: the head stays at least as long, and its tag is noted.
    async fn keep_reachable(&self, record: &Record) {
        let Target::Variant { .. } = self.target else { return };
        let Some(head) = &self.snapshot.usable else { return };
        let until = record.retain_until();
        if head.retain_until() < until {
            let least = Retain::AtLeast(with_slack(until, self.records.config.clock.now()));
            let _ = self.records.store.retain(&[self.snapshot.head], least).await;
        }
        self.records.list_tag(head, self.snapshot.head, record, until).await;
    }

    /// The body that this one took the place of may go, once its readers have had time.
    async fn release_replaced(&self) {
        let replaced = match &self.target {
            Target::Head { .. } => self.snapshot.usable.as_ref(),
            Target::Variant { seen, .. } => seen.as_ref(),
        };
        if let Some(variant) = replaced.and_then(variant_in) {
            self.records.release_chunks(variant.response.body.chunks(self.snapshot.head)).await;
        }
    }

    async fn release(&self, chunks: &[Key]) {
        let most = Retain::AtMost(self.records.config.clock.now() + GRACE);
        let _ = self.records.store.retain(chunks, most).await; // else they go at their own time
    }

    fn chunk_keys(&self, chunks: u32) -> Vec<Key> {
        (0..chunks).map(|part| self.chunk_key(part)).collect()
    }

    /// Announces the placeholder, where one is needed.
    pub(crate) fn announce_placeholder(&self) -> Claim {
        match &self.placeholder {
            Some(placeholder) if matches!(self.target, Target::Head { .. }) => {
                let write =
                    self.records.in_flight.write(self.snapshot.head, self.snapshot.seen, placeholder.clone());
                write.map_or(Claim::Lost, Claim::Announced)
            }
            _ => Claim::Needless,
        }
    }

    /// Puts the placeholder where nothing usable stood.
    pub(crate) async fn write_placeholder(&self, claim: Claim) -> std::result::Result<(), Lost> {
        match claim {
            Claim::Needless => Ok(()),
            Claim::Lost => Err(Lost::Superseded),
            Claim::Announced(write) => match self.records.carry_out(write).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(Lost::Superseded),
                Err(error) => Err(Lost::Failed("write_if", error)),
            },
        }
    }

    /// The chunk of a body, announced for those who read the body before the storage has it.
    pub(crate) fn announce_chunk(&self, part: u32, data: Bytes) -> ChunkWrite {
        let record = Record::new(data, self.kept);
        self.records.in_flight.write_chunk(self.chunk_key(part), record)
    }

    /// Holds the body in the storage. Where its length is not known, it counts as one chunk.
    pub(crate) fn hold(&self, len: Option<u64>) -> storage::Hold {
        let bytes = len.unwrap_or(self.chunk_len() as u64);
        self.records.store.store().hold(self.chunk_key(0), bytes)
    }

    /// Reads a chunk of the body.
    pub(crate) async fn read_chunk(&self, part: u32) -> Result<Option<Record>> {
        self.records.read_chunk(self.chunk_key(part), Patience::Body).await
    }

    pub(crate) async fn write_chunk(&self, chunk: ChunkWrite) -> std::result::Result<(), Lost> {
        let written = async {
            let _waiting = self.records.store.enter(chunk.record())?;
            self.records.store.write(chunk.key(), chunk.record().clone()).await
        };
        written.await.map_err(|error| Lost::Failed("write", error))
    }

    /// Removes the chunks that nobody will name; those that somebody may be reading in a while.
    pub(crate) async fn discard(&self, chunks: u32) {
        if chunks > 0 && self.followed.load(Ordering::SeqCst) {
            self.release(&self.chunk_keys(chunks)).await;
        } else if chunks > 0 {
            let _ = self.records.store.delete_many(&self.chunk_keys(chunks)).await; // else they go at their own time
        }
    }

    /// It is stored, or will not be: others may fetch.
    pub(crate) fn give_back_lease(&self) {
        drop(self.lease.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Why a part of a response is not stored.
pub(crate) enum Lost {
    /// Something else has been written to its place meanwhile.
    Superseded,
    /// This operation of the storage failed.
    Failed(&'static str, Error),
    /// Nothing can wait for the storage.
    NoRuntime,
}

impl Lost {
    pub(crate) fn tell(&self, observer: &Observer) {
        match self {
            Self::Superseded => telemetry::unstored(observer, "superseded"),
            Self::Failed(operation, error) => telemetry::write_failed(observer, operation, error),
            Self::NoRuntime => telemetry::unstored(observer, "no-runtime"),
        }
    }
}

/// The placeholder that keeps a place while the chunks of a body are written.
pub(crate) enum Claim {
    /// What stands there does as well.
    Needless,
    Announced(Write),
    /// Something else has been written meanwhile.
    Lost,
}

impl<S: Storage> Records<S> {
    /// Writes a record behind all that this process is writing to its key.
    pub(crate) async fn write_in_order(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        match self.in_flight.write(key, seen, record) {
            Some(write) => self.carry_out(write).await,
            None => Ok(false),
        }
    }

    /// Writes a record that is announced.
    async fn carry_out(&self, write: Write) -> Result<bool> {
        let written = write.turn().await
            && self.store.write_if(write.key(), write.seen(), write.record().clone()).await?;
        if written {
            write.written();
        }
        Ok(written)
    }

    /// Reserves the place of an entry before its request goes out, in strict mode, where nothing was seen there. Returns
    /// `None` if the place was taken meanwhile, so that nothing may be stored there. `announce` is given the stamp of the
    /// reservation before a lookup can see it.
    pub(crate) async fn reserve(
        &self,
        mut snapshot: Snapshot,
        announce: impl FnOnce(Stamp),
    ) -> Option<Snapshot> {
        if self.config.strict && snapshot.seen.is_none() {
            let now = self.config.clock.now();
            let slot = Slot::Fence { until: now, placeholder: true };
            let placeholder = entry::record(slot, now + TOMBSTONE);
            let stamp = placeholder.stamp();
            announce(stamp);
            match self.write_in_order(snapshot.head, None, placeholder).await {
                Ok(true) => snapshot.seen = Some(stamp),
                _ => return None,
            }
        }
        Some(snapshot)
    }

    /// Puts a placeholder in a record's place, unless another write has replaced the record. A cache that may not write
    /// only remembers that it must not use the record.
    pub(crate) fn put_out_of_use(self: &Arc<Self>, key: Key, stamp: Stamp, reads_only: bool) {
        if reads_only || self.config.read_only {
            return self.outdated.add(key, self.config.clock.now(), None);
        }
        let records = Arc::clone(self);
        self.tasks.drive(async move {
            let now = records.config.clock.now();
            let slot = Slot::Fence { until: now + TOMBSTONE, placeholder: true };
            let _ = records.write_in_order(key, Some(stamp), entry::record(slot, now + GRACE)).await;
        });
    }
}
