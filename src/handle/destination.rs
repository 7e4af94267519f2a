//! The storage that responses are copied to.
//!
//! # Invariants
//! - A body is written before the record that names it.
//! - A newer response and a tombstone are never overwritten.
//! - A body that a record names stays, also if several copies run at the same time.
//! - A response keeps its age. It is not written if one of its groups was invalidated there since it was fetched.

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::CacheHandle;
use super::entry::StoredEntry;
use crate::entry::{
    self, ChunkKeys, DecodedRecord, GRACE, GroupValue, LOOKUP_LIMIT, Membership, StoredResponse, Variant,
    decode,
};
use crate::error::{ErrorKind, Result};
use crate::service::{CLOCK_SKEW, variant_in, within};
use crate::storage::{Key, Kind, Record, Retain, Storage, random_id};
use crate::time::Timestamp;

/// The result for one response.
pub(super) enum Outcome {
    Written,
    There,
    Skipped,
    Failed,
}

/// The other storage, with the handle of the one that is copied.
pub(super) struct Destination<'a, S: Storage, T: Storage> {
    handle: &'a CacheHandle<S>,
    to: &'a T,
    /// Heads that were copied along with a variant, before their own turn.
    ahead: Mutex<HashSet<Key>>,
}

impl<'a, S: Storage, T: Storage> Destination<'a, S, T> {
    pub(super) fn new(handle: &'a CacheHandle<S>, to: &'a T) -> Self {
        Self { handle, to, ahead: Mutex::default() }
    }

    /// Runs one operation of the other storage, in bounded time.
    async fn ask<R>(&self, operation: impl Future<Output = Result<R>> + Send) -> Result<R> {
        within(self.handle.shared.config.body_timeout, operation).await
    }

    /// Copies a response and the head that it is found through; returns the length of its body too.
    pub(super) async fn take_with_head(&self, entry: StoredEntry) -> Result<(Outcome, u64)> {
        let bytes = entry.body_len();
        // The list by which it is found says which invalidations have reached it, in the storage where they were made.
        if entry.is_for_queries() {
            return Ok((Outcome::Skipped, 0));
        }
        if entry.key.kind == Kind::Head {
            let key = entry.key;
            return Ok(match self.take(entry).await? {
                Outcome::There if self.ahead().remove(&key) => (Outcome::Written, bytes),
                outcome => (outcome, bytes),
            });
        }
        let head = Key::head(entry.key.entry);
        let Some(generation) = generation_of(&entry.record) else { return Ok((Outcome::Failed, 0)) };
        if !self.has_head(head, generation, &entry.key_text).await? {
            match self.handle.head_at(head, generation).await? {
                Some(first) => {
                    if matches!(self.take(first).await?, Outcome::Written) {
                        self.ahead().insert(head);
                    }
                }
                None => return Ok((Outcome::Failed, 0)),
            }
            if !self.has_head(head, generation, &entry.key_text).await? {
                return Ok((Outcome::Skipped, 0)); // through another head it would not be found
            }
        }
        let (key, until) = (entry.key, entry.record.retain_until());
        let outcome = self.take(entry).await?;
        if matches!(outcome, Outcome::Written) {
            self.ask(self.to.retain(&[head], Retain::AtLeast(until))).await?;
            self.take_index(key.sibling(Kind::Index, generation, 0)).await?;
        }
        Ok((outcome, bytes))
    }

    fn ahead(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn has_head(&self, head: Key, generation: [u8; 16], text: &str) -> Result<bool> {
        let there = self.ask(self.to.read(head)).await?;
        Ok(match there.as_ref().and_then(decode) {
            Some(DecodedRecord::Head(of)) => of.generation == generation && *of.key_text == *text,
            _ => false,
        })
    }

    /// Copies the list of the variants' entity tags.
    ///
    /// If the other storage has one already, it stays: without a tag, an answer of the origin is longer, but not wrong.
    async fn take_index(&self, key: Key) -> Result<()> {
        if let Some(index) = self.handle.shared.records.storage.read(key).await? {
            self.ask(self.to.write_if(key, None, index)).await?;
        }
        Ok(())
    }

    /// Copies a response.
    async fn take(&self, entry: StoredEntry) -> Result<Outcome> {
        let begun = self.now();
        let there = self.ask(self.to.read(entry.key)).await?;
        if let Some(outcome) = there.as_ref().and_then(|there| standing(there, &entry, begun)) {
            return Ok(outcome);
        }
        let Some(record) = self.join_groups(&entry).await? else { return Ok(Outcome::Skipped) };
        let chunks = entry.variant.response.body().chunks(entry.key);
        let written = match self.take_chunks(chunks.clone()).await? {
            // A tombstone may have come and expired meanwhile.
            true if there.is_none() && self.now() > begun + LOOKUP_LIMIT => None,
            true => {
                let seen = there.as_ref().map(Record::stamp);
                fits(self.ask(self.to.write_if(entry.key, seen, record)).await)?
            }
            false => None,
        };
        if written == Some(true) {
            self.let_go(chunks_in(there.as_ref(), entry.key), Some(chunks)).await?;
            return Ok(Outcome::Written);
        }
        // Another copy may have written it meanwhile.
        let there = self.ask(self.to.read(entry.key)).await?;
        self.let_go(Some(chunks), chunks_in(there.as_ref(), entry.key)).await?;
        Ok(match there.and_then(|there| standing(&there, &entry, begun)) {
            Some(outcome) => outcome,
            None if written.is_none() => Outcome::Failed,
            None => Outcome::Skipped,
        })
    }

    /// Copies the chunks of a body; returns `false` if one is gone, or is too large.
    async fn take_chunks(&self, chunks: ChunkKeys) -> Result<bool> {
        for key in chunks {
            let Some(chunk) = self.handle.shared.records.storage.read_chunk(key).await? else {
                return Ok(false);
            };
            if fits(self.ask(self.to.write(key, chunk)).await)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn now(&self) -> Timestamp {
        self.handle.shared.config.clock.now()
    }

    /// Lets the chunks of a body expire, unless they are still in use.
    ///
    /// A response that was revalidated has the same body as before.
    async fn let_go(&self, chunks: Option<ChunkKeys>, used: Option<ChunkKeys>) -> Result<()> {
        let Some(mut chunks) = chunks else { return Ok(()) };
        if used.is_some_and(|used| used.is_body_of(&chunks)) {
            return Ok(());
        }
        let most = Retain::AtMost(self.now() + GRACE);
        while let Some(batch) = chunks.next_batch() {
            if self.ask(self.to.retain(&batch, most)).await? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Returns the record with the values that its groups have there.
    ///
    /// Returns `None` if one of them was invalidated since the response was fetched.
    async fn join_groups(&self, entry: &StoredEntry) -> Result<Option<Record>> {
        let response = &entry.variant.response;
        // When it was expired is written too, since the lists of its groups may be other ones there.
        let own = decode(&entry.record).and_then(DecodedRecord::variant).map(|own| own.response.expired_at);
        let is_unchanged = own == Some(response.expired_at);
        if response.groups.is_empty() && is_unchanged {
            return Ok(Some(entry.record.clone()));
        }
        let mut groups: Vec<Membership> = response.groups.to_vec();
        for group in &mut groups {
            let Some(there) = self.group_at(group.key).await? else { return Ok(None) };
            if there.value != group.value && there.since + CLOCK_SKEW >= response.request_time {
                return Ok(None);
            }
            // An expiry there that may have come after the fetch makes it stale, and an older one does not concern it.
            let is_late = there
                .expiries
                .any(|expiry| expiry.id != group.expiry && expiry.at + CLOCK_SKEW >= response.request_time);
            if there.value != group.value || !is_late {
                group.expiry = if is_late { random_id() } else { there.expiries.last() };
            }
            group.value = there.value;
        }
        let keys: Vec<Key> = groups.iter().map(|group| group.key).collect();
        self.ask(self.to.retain(&keys, Retain::AtLeast(entry.variant.until))).await?;
        if groups == *response.groups && is_unchanged {
            return Ok(Some(entry.record.clone()));
        }
        let response = StoredResponse { groups: groups.into(), ..response.clone() };
        let variant = Variant { response, ..entry.variant.clone() };
        let slot = decode(&entry.record).and_then(|slot| slot.with(variant));
        Ok(slot.map(|slot| entry::record(slot, entry.record.retain_until())))
    }

    /// Returns the value of a group there, after copying it if there was none.
    async fn group_at(&self, key: Key) -> Result<Option<GroupValue>> {
        for _ in 0..2 {
            let there = self.ask(self.to.read(key)).await?;
            if let Some(record) = &there
                && let Some(DecodedRecord::Group(value)) = decode(record)
                && record.retain_until() > self.now()
            {
                return Ok(Some(value.clone()));
            }
            let Some(here) = self.handle.shared.records.storage.read(key).await? else { return Ok(None) };
            self.ask(self.to.write_if(key, there.as_ref().map(Record::stamp), here)).await?;
        }
        Ok(None)
    }
}

impl<S: Storage> CacheHandle<S> {
    /// Returns the first response of an entry, if its head is of this generation.
    async fn head_at(&self, key: Key, generation: [u8; 16]) -> Result<Option<StoredEntry>> {
        let Some(record) = self.shared.records.storage.read(key).await? else { return Ok(None) };
        match decode(&record) {
            // Even if its own response cannot be served any more, since variants are found through it.
            Some(DecodedRecord::Head(head)) if head.generation == generation => {
                Ok(Some(self.entry_of((key, record.clone()), &head.key_text, &head.names, &head.inline)))
            }
            _ => Ok(None),
        }
    }
}

/// Returns the result for a response where this record is there already.
///
/// Returns `None` if the response replaces the record.
fn standing(there: &Record, entry: &StoredEntry, begun: Timestamp) -> Option<Outcome> {
    if there.stamp() == entry.record.stamp() {
        return Some(Outcome::There);
    }
    if there.retain_until() <= begun {
        return None;
    }
    let slot = decode(there)?;
    if matches!(slot, DecodedRecord::Fence { .. }) {
        return Some(Outcome::Skipped);
    }
    let there = &slot.variant()?.response;
    // The records may still differ in the value of a group or in the lifetime.
    if there.is_of_the_fetch_of(&entry.variant.response) {
        return Some(Outcome::There);
    }
    (there.response_time >= entry.stored_at()).then_some(Outcome::Skipped)
}

/// Returns the chunks of the body that a record names.
fn chunks_in(record: Option<&Record>, key: Key) -> Option<ChunkKeys> {
    record.and_then(variant_in).map(|variant| variant.response.body().chunks(key))
}

fn generation_of(record: &Record) -> Option<[u8; 16]> {
    match decode(record)? {
        DecodedRecord::Variant { generation, .. } => Some(*generation),
        _ => None,
    }
}

/// Returns `None` if the record is too large for the other storage.
fn fits<R>(written: Result<R>) -> Result<Option<R>> {
    match written {
        Ok(written) => Ok(Some(written)),
        Err(error) if error.kind() == ErrorKind::TooLarge => Ok(None),
        Err(error) => Err(error),
    }
}
