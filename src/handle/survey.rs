//! Finds records that cannot be used: damaged ones, and orphans that no record names.
//!
//! All keys are listed first and the records are read afterwards, so that a chunk is known before the record that names it.
//!
//! # Invariants
//! - A response that is being written is not taken for damaged, nor its chunks for orphans.
//! - Only `prune` changes something, and only how long an orphan is kept.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::pin::pin;

use futures_util::{StreamExt, TryStreamExt};

use super::{AT_ONCE, CacheHandle};
use crate::entry::{DecodedRecord, Extent, GRACE, StoredBody, Variant, decode};
use crate::error::Result;
use crate::service::variant_in;
use crate::storage::{Key, Kind, Record, Retain, Storage};
use crate::time::Timestamp;

/// The number of records that [`CacheHandle::verify`] has found so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Stored responses that were read to their end.
    pub responses: u64,
    /// The length of their bodies, in bytes.
    pub bytes: u64,
    /// Records that are damaged, foreign, or of another version of this crate. The cache treats them as absent.
    pub undecodable: u64,
    /// Responses with a chunk that is missing or has a wrong length. The cache fetches them again.
    pub incomplete: u64,
    /// Records that no other record names and that do not expire soon. [`prune`](CacheHandle::prune) lets them expire.
    pub orphans: u64,
}

impl VerifyReport {
    /// Returns whether nothing is damaged. Orphans do not count as damage.
    pub fn is_sound(&self) -> bool {
        self.undecodable == 0 && self.incomplete == 0
    }
}

impl<S: Storage> CacheHandle<S> {
    /// Reads all records and bodies in the storage, and counts those that cannot be used.
    ///
    /// It reads the records of every cache on the storage, and changes nothing. `progress` is called after each response. It
    /// keeps about forty bytes for each response in memory.
    ///
    /// # Errors
    /// Returns the storage's error.
    pub async fn verify(&self, mut progress: impl FnMut(&VerifyReport) + Send) -> Result<VerifyReport> {
        let mut verified = VerifyReport::default();
        let mut survey = self.survey().await?;
        let records =
            self.shared.records.storage.with_deadlines(self.shared.records.storage.inner().values());
        let varied = std::mem::take(&mut survey.varied);
        let read =
            records.map_ok(|(key, record)| self.read_whole(&varied, key, record)).try_buffered(AT_ONCE);
        let mut read = pin!(read);
        while let Some((key, record, state)) = read.try_next().await? {
            survey.name(key, &record);
            match state {
                State::Whole(bytes) => {
                    verified.responses += 1;
                    verified.bytes += bytes;
                }
                State::Incomplete => {
                    verified.responses += 1;
                    verified.incomplete += 1;
                }
                State::Undecodable => verified.undecodable += 1,
                State::Orphan => verified.orphans += 1,
                State::NoResponse => continue,
            }
            progress(&verified);
        }
        let mut unused = pin!(self.unused(&survey));
        while let Some(record) = unused.try_next().await? {
            match record {
                Unused::Undecodable => verified.undecodable += 1,
                Unused::Orphan(_) => verified.orphans += 1,
            }
            progress(&verified);
        }
        Ok(verified)
    }

    /// Lets orphans expire in an hour, and returns how many there were.
    ///
    /// Orphans are records that no other record names: chunks of a body whose writing was interrupted, variants whose head
    /// was replaced, and heads that lead to no response. Those that expire soon are left alone. The orphans of every cache on
    /// the storage are found.
    ///
    /// It is useful from time to time where responses are kept for ever; other records expire anyway. The body of a response
    /// that is being fetched at the same time may have to be fetched once more.
    ///
    /// # Errors
    /// Returns the storage's error if it could not be read, or did not take a change.
    pub async fn prune(&self) -> Result<u64> {
        let mut survey = self.survey().await?;
        let records =
            self.shared.records.storage.with_deadlines(self.shared.records.storage.inner().values());
        let varied = &std::mem::take(&mut survey.varied);
        let read = records.map_ok(|(key, record)| async move {
            let is_orphan = self.is_orphan(varied, key, &record).await?;
            Ok((key, record, is_orphan))
        });
        let mut read = pin!(read.try_buffered(AT_ONCE));
        let mut pruned = 0;
        while let Some((key, record, is_orphan)) = read.try_next().await? {
            survey.name(key, &record);
            if is_orphan {
                pruned += self.let_expire(key).await?;
            }
        }
        let mut unused = pin!(self.unused(&survey));
        while let Some(record) = unused.try_next().await? {
            if let Unused::Orphan(key) = record {
                pruned += self.let_expire(key).await?;
            }
        }
        Ok(pruned)
    }

    /// Lets a record expire after the grace for its readers; returns how many records were changed.
    async fn let_expire(&self, key: Key) -> Result<u64> {
        let end = self.shared.config.clock.now() + GRACE;
        self.shared.records.storage.retain(&[key], Retain::AtMost(end)).await
    }

    /// Lists the keys in the storage.
    async fn survey(&self) -> Result<Survey> {
        let mut survey = Survey::default();
        let mut keys =
            pin!(self.shared.records.storage.with_deadlines(self.shared.records.storage.inner().keys()));
        while let Some(key) = keys.try_next().await? {
            if key.kind == Kind::Variant {
                survey.varied.insert(number(&key.entry));
            }
            match key.kind {
                Kind::Head | Kind::Variant => drop(survey.listed.insert(number(&key.to_bytes()))),
                Kind::Chunk => drop(survey.bodies.insert(number(&key.slot))),
                Kind::Lease | Kind::Group | Kind::Index => {}
            }
        }
        Ok(survey)
    }

    /// Returns the records that were not found in use, after all records were read.
    fn unused(&self, survey: &Survey) -> impl futures_core::Stream<Item = Result<Unused>> + Send {
        let keys = self
            .shared
            .records
            .storage
            .with_deadlines(self.shared.records.storage.inner().keys())
            .take_while({
                let is_needed = !survey.listed.is_empty() || !survey.bodies.is_empty();
                move |_| std::future::ready(is_needed)
            });
        let suspects = keys.try_filter(|key| std::future::ready(survey.suspects(key)));
        let looked = suspects.map_ok(move |key| async move {
            let there = self.shared.records.storage.read_chunk(key).await?;
            let until = there.as_ref().map(Record::retain_until);
            Ok(match (key.kind, until) {
                (Kind::Chunk, Some(until)) if self.is_far(until) => Some(Unused::Orphan(key)),
                // It was listed twice, and its record cannot be read.
                (Kind::Head | Kind::Variant, None) => Some(Unused::Undecodable),
                _ => None,
            })
        });
        looked.try_buffered(AT_ONCE).try_filter_map(|record| std::future::ready(Ok(record)))
    }

    /// Returns whether an orphan with this expiry needs an earlier one.
    fn is_far(&self, until: Timestamp) -> bool {
        until > self.shared.config.clock.now() + GRACE
    }

    /// Returns whether it is a variant that can never be found, or a head that leads to no response.
    async fn is_orphan(&self, varied: &HashSet<u64>, key: Key, record: &Record) -> Result<bool> {
        if !self.is_far(record.retain_until()) {
            return Ok(false);
        }
        let now = self.shared.config.clock.now();
        let (key_text, generation) = match decode(record) {
            Some(DecodedRecord::Variant { key_text, generation, .. }) => (key_text, generation),
            Some(DecodedRecord::Head(head)) => {
                let is_over = head.inline.until <= now && head.fence <= now;
                return Ok(is_over && !varied.contains(&number(&key.entry)));
            }
            _ => return Ok(false),
        };
        let head = self.shared.records.storage.read(Key::head(key.entry)).await?;
        Ok(match head.as_ref().and_then(decode) {
            Some(DecodedRecord::Head(head)) => head.generation != *generation || head.key_text != *key_text,
            _ => true,
        })
    }

    async fn read_whole(
        &self,
        varied: &HashSet<u64>,
        key: Key,
        record: Record,
    ) -> Result<(Key, Record, State)> {
        let state = match decode(&record) {
            None => State::Undecodable,
            Some(_) if self.is_orphan(varied, key, &record).await? => State::Orphan,
            Some(DecodedRecord::Head(head)) => self.body_state(key, &head.inline).await?,
            Some(DecodedRecord::Variant { variant, .. }) => self.body_state(key, variant).await?,
            Some(
                DecodedRecord::Fence { .. }
                | DecodedRecord::Index(_)
                | DecodedRecord::Group(_)
                | DecodedRecord::Searches(_),
            ) => State::NoResponse,
        };
        Ok((key, record, state))
    }

    async fn body_state(&self, key: Key, variant: &Variant) -> Result<State> {
        if variant.until <= self.shared.config.clock.now() {
            return Ok(State::NoResponse); // expired, so that its chunks may go in any order
        }
        let body = variant.response.body();
        let extents = match body {
            StoredBody::Inline(_) => Vec::new(),
            &StoredBody::Chunked { id, chunk_len, len, .. } => vec![Extent { id, chunk_len, len, start: 0 }],
            StoredBody::Parts(parts) => parts.extents(),
        };
        // In the order of the keys.
        let mut lens = extents.iter().flat_map(|extent| {
            let chunks = u64::from(extent.chunks().unwrap_or(u32::MAX));
            let chunk_len = u64::from(extent.chunk_len);
            (0..chunks).map(move |number| (extent.len - number * chunk_len).min(chunk_len))
        });
        for key in body.chunks(key) {
            let chunk = self.shared.records.storage.read_chunk(key).await?;
            if chunk.map(|chunk| chunk.payload().len() as u64) != lens.next() {
                return Ok(State::Incomplete);
            }
        }
        Ok(State::Whole(body.stored_len()))
    }
}

/// The state of a head or variant record.
enum State {
    Whole(u64),
    Incomplete,
    Undecodable,
    Orphan,
    NoResponse,
}

/// A record without a use.
enum Unused {
    Undecodable,
    Orphan(Key),
}

/// The keys that were listed and not yet found in use.
///
/// They are kept as 64-bit hashes, to save memory: a collision only hides an orphan.
#[derive(Default)]
struct Survey {
    listed: HashSet<u64>,
    bodies: HashSet<u64>,
    /// Entries with variants beside the head.
    varied: HashSet<u64>,
    /// Entries whose body is being written, which have a placeholder.
    held: HashSet<[u8; 16]>,
}

impl Survey {
    /// Notes that a record was read, and that the body it names is in use.
    fn name(&mut self, key: Key, record: &Record) {
        self.listed.remove(&number(&key.to_bytes()));
        match decode(record) {
            Some(DecodedRecord::Fence { placeholder: true, .. }) => drop(self.held.insert(key.entry)),
            _ => match variant_in(record).map(|of| of.response.body()) {
                Some(StoredBody::Chunked { id, .. }) => drop(self.bodies.remove(&number(id))),
                Some(StoredBody::Parts(parts)) => {
                    for extent in parts.extents() {
                        self.bodies.remove(&number(&extent.id));
                    }
                }
                Some(StoredBody::Inline(_)) | None => {}
            },
        }
    }

    fn suspects(&self, key: &Key) -> bool {
        match key.kind {
            Kind::Chunk => self.bodies.contains(&number(&key.slot)) && !self.held.contains(&key.entry),
            Kind::Head | Kind::Variant => self.listed.contains(&number(&key.to_bytes())),
            Kind::Lease | Kind::Group | Kind::Index => false,
        }
    }
}

fn number(bytes: &[u8]) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(bytes)
}
