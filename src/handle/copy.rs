//! Copies what is stored to another storage.
//!
//! Promises: a body is there before the record that names it; nothing that is newer there, or was invalidated there, is
//! overwritten; a response keeps its age, and what invalidated its group there does not let it in; a few responses, and one
//! chunk of each, are in memory at a time.

use std::collections::HashSet;
use std::future::Future;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::TryStreamExt;

use super::entry::StoredEntry;
use super::filter::EntryFilter;
use super::{AT_ONCE, CacheHandle};
use crate::entry::{
    self, GRACE, GroupValue, LOOKUP_LIMIT, Membership, Slot, StoredResponse, Variant, decode,
};
use crate::error::{Error, ErrorKind, Result};
use crate::service::{SKEW, variant_in, within};
use crate::storage::{Key, Kind, Record, Retain, Storage};

/// What [`CacheHandle::copy_to`] has done so far, in responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// Those that were written.
    pub responses: u64,
    /// The bytes of their bodies.
    pub bytes: u64,
    /// Those that were there already, from the same fetch.
    pub unchanged: u64,
    /// Those left out, since what is there is newer or was invalidated.
    pub skipped: u64,
    /// Those that cannot be copied: a part of the body is gone here, or they are too large for the other storage.
    pub failed: u64,
}

enum Outcome {
    Written,
    There,
    Skipped,
    Failed,
}

impl<S: Storage> CacheHandle<S> {
    /// Copies the stored responses that a filter chooses to another storage, where a cache with the same partition and secret
    /// finds them. Both may be in use meanwhile. `progress` is called after each response.
    ///
    /// A response that is the second or a later one of its URL takes the first one with it, through which it is found. A copy
    /// that was cut short can be begun again: what is there already is not written again.
    ///
    /// # Errors
    /// As with [`entries`](Self::entries), or the other storage failed; some are copied by then.
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// use tower_response_cache::{CacheLayer, EntryFilter, storage::MemoryStorage};
    ///
    /// let layer = CacheLayer::new(MemoryStorage::new());
    /// let other = MemoryStorage::new(); // or SQLite, Redis …
    /// let copied = layer.handle().copy_to(&other, &EntryFilter::new(), |_| {}).await?;
    /// assert_eq!((copied.responses, copied.skipped, copied.failed), (0, 0, 0));
    /// # Ok::<_, tower_response_cache::Error>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub async fn copy_to<T: Storage>(
        &self,
        to: &T,
        filter: &EntryFilter,
        mut progress: impl FnMut(&Copied) + Send,
    ) -> Result<Copied> {
        let mut copied = Copied::default();
        let to = Destination { handle: self, to, ahead: Mutex::default() };
        let all = self.entries(filter).map_ok(|entry| to.take_with_head(entry));
        let mut all = pin!(all.try_buffer_unordered(AT_ONCE));
        while let Some((outcome, bytes)) = all.try_next().await? {
            match outcome {
                Outcome::Written => {
                    copied.responses += 1;
                    copied.bytes += bytes;
                }
                Outcome::There => copied.unchanged += 1,
                Outcome::Skipped => copied.skipped += 1,
                Outcome::Failed => copied.failed += 1,
            }
            progress(&copied);
        }
        Ok(copied)
    }
}

struct Destination<'a, S: Storage, T: Storage> {
    handle: &'a CacheHandle<S>,
    to: &'a T,
    /// Heads that others took along, before it was their turn.
    ahead: Mutex<HashSet<Key>>,
}

impl<S: Storage, T: Storage> Destination<'_, S, T> {
    /// One operation of the other storage.
    async fn ask<R>(&self, operation: impl Future<Output = Result<R>> + Send) -> Result<R> {
        within(self.handle.core.config.body_deadline, operation).await
    }

    /// Copies a response, and what it is found through.
    async fn take_with_head(&self, entry: StoredEntry) -> Result<(Outcome, u64)> {
        let bytes = entry.body_len();
        if entry.key.kind == Kind::Head {
            let key = entry.key;
            return Ok(match self.take(entry).await? {
                Outcome::There if self.ahead().remove(&key) => (Outcome::Written, bytes),
                outcome => (outcome, bytes),
            });
        }
        let head = Key::head(entry.key.entry);
        let Some(generation) = generation_of(&entry.record) else { return Ok((Outcome::Failed, 0)) };
        if !self.has_head(head, generation, &entry.url).await? {
            match self.handle.head_at(head, generation).await? {
                Some(first) => {
                    if matches!(self.take(first).await?, Outcome::Written) {
                        self.ahead().insert(head);
                    }
                }
                None => return Ok((Outcome::Failed, 0)),
            }
            if !self.has_head(head, generation, &entry.url).await? {
                return Ok((Outcome::Skipped, 0)); // another one is there, through which it cannot be found
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
            Some(Slot::Head(of)) => of.generation == generation && *of.key_text == *text,
            _ => false,
        })
    }

    /// The list of entity tags of further variants: where there is none, the origin's answers are longer, and no more.
    async fn take_index(&self, key: Key) -> Result<()> {
        if let Some(index) = self.handle.core.store.read(key).await? {
            self.ask(self.to.write_if(key, None, index)).await?;
        }
        Ok(())
    }

    /// Copies a response.
    async fn take(&self, entry: StoredEntry) -> Result<Outcome> {
        let begun = self.handle.core.config.clock.now();
        let there = self.ask(self.to.read(entry.key)).await?;
        if let Some(there) = &there {
            if there.stamp() == entry.record.stamp() {
                return Ok(Outcome::There);
            }
            let is_kept = there.retain_until() > begun;
            let stands = match decode(there) {
                Some(Slot::Fence { .. }) => is_kept,
                slot => match slot.and_then(Slot::variant).filter(|_| is_kept) {
                    // Another value of a group, or another lifetime.
                    Some(there) if there.response.is_of_the_fetch_of(&entry.variant.response) => {
                        return Ok(Outcome::There);
                    }
                    there => there.is_some_and(|there| there.response.response_time >= entry.stored_at()),
                },
            };
            if stands {
                return Ok(Outcome::Skipped);
            }
        }
        let Some(record) = self.join_groups(&entry).await? else { return Ok(Outcome::Skipped) };
        let chunks = entry.variant.response.body.chunks(entry.key);
        for &key in &chunks {
            let Some(chunk) = self.handle.core.store.read_chunk(key).await? else {
                return Ok(Outcome::Failed);
            };
            if !fits(self.ask(self.to.write(key, chunk)).await)? {
                return Ok(Outcome::Failed);
            }
        }
        let now = self.handle.core.config.clock.now();
        if there.is_none() && now > begun + LOOKUP_LIMIT {
            return Ok(Outcome::Failed); // a tombstone may have come and expired meanwhile
        }
        let seen = there.as_ref().map(Record::stamp);
        match self.ask(self.to.write_if(entry.key, seen, record)).await {
            Ok(true) => {
                let replaced = there.as_ref().and_then(variant_in);
                let old = replaced.map(|variant| variant.response.body.chunks(entry.key)).unwrap_or_default();
                // A response that was confirmed since has the same body.
                let old: Vec<Key> = old.into_iter().filter(|key| !chunks.contains(key)).collect();
                self.ask(self.to.retain(&old, Retain::AtMost(now + GRACE))).await?;
                Ok(Outcome::Written)
            }
            Ok(false) => {
                self.ask(self.to.retain(&chunks, Retain::AtMost(now + GRACE))).await?;
                Ok(Outcome::Skipped)
            }
            Err(error) => fits::<bool>(Err(error)).map(|_| Outcome::Failed),
        }
    }

    /// The record as it belongs to its groups there; `None`: one of these was invalidated since it was fetched.
    async fn join_groups(&self, entry: &StoredEntry) -> Result<Option<Record>> {
        let response = &entry.variant.response;
        if response.groups.is_empty() {
            return Ok(Some(entry.record.clone()));
        }
        let mut groups: Vec<Membership> = response.groups.to_vec();
        for group in &mut groups {
            let Some(there) = self.group_at(group.key).await? else { return Ok(None) };
            if there.value != group.value && there.since + SKEW >= response.request_time {
                return Ok(None);
            }
            group.value = there.value;
        }
        let keys: Vec<Key> = groups.iter().map(|group| group.key).collect();
        self.ask(self.to.retain(&keys, Retain::AtLeast(entry.variant.until))).await?;
        if groups == *response.groups {
            return Ok(Some(entry.record.clone()));
        }
        let response = StoredResponse { groups: groups.into(), ..response.clone() };
        let variant = Variant { response, ..entry.variant.clone() };
        let slot = decode(&entry.record).and_then(|slot| slot.with(variant));
        Ok(slot.map(|slot| entry::record(slot, entry.record.retain_until())))
    }

    /// The value of a group there; where it has none, it gets the one that it has here.
    async fn group_at(&self, key: Key) -> Result<Option<GroupValue>> {
        for _ in 0..2 {
            let now = self.handle.core.config.clock.now();
            let there = self.ask(self.to.read(key)).await?;
            if let Some(record) = &there
                && let Some(Slot::Group(value)) = decode(record)
                && record.retain_until() > now
            {
                return Ok(Some(*value));
            }
            let Some(here) = self.handle.core.store.read(key).await? else { return Ok(None) };
            self.ask(self.to.write_if(key, there.as_ref().map(Record::stamp), here)).await?;
        }
        Ok(None)
    }
}

impl<S: Storage> CacheHandle<S> {
    /// The first response of an entry, if its head is of this generation.
    async fn head_at(&self, key: Key, generation: [u8; 16]) -> Result<Option<StoredEntry>> {
        let Some(record) = self.core.store.read(key).await? else { return Ok(None) };
        match decode(&record) {
            // Whether the response in it can still be used or not: others are found through it.
            Some(Slot::Head(head)) if head.generation == generation => {
                Ok(Some(self.entry_of((key, record.clone()), &head.key_text, &head.names, &head.inline)))
            }
            _ => Ok(None),
        }
    }
}

fn generation_of(record: &Record) -> Option<[u8; 16]> {
    match decode(record)? {
        Slot::Variant { generation, .. } => Some(*generation),
        _ => None,
    }
}

/// False: the other storage takes none of that length.
fn fits<R>(written: Result<R, Error>) -> Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::TooLarge => Ok(false),
        Err(error) => Err(error),
    }
}
