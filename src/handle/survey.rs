//! Finds what cannot be used: damage, and what nothing names.
//!
//! Promises: what somebody is just storing is not taken for damage nor for a rest; nothing is changed but by `prune`, and by
//! that only how long a rest is kept.
//!
//! All keys are listed first and the records read after, so that a body is known before the record that names it.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::pin::pin;

use futures_util::{StreamExt, TryStreamExt};

use super::{AT_ONCE, CacheHandle};
use crate::entry::{GRACE, Slot, StoredBody, Variant, decode};
use crate::error::Result;
use crate::service::variant_in;
use crate::storage::{Key, Kind, Record, Retain, Storage};
use crate::time::Timestamp;

/// What [`CacheHandle::verify`] has found so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Stored responses that were read to their end.
    pub responses: u64,
    /// The bytes of their bodies.
    pub bytes: u64,
    /// Records that are damaged, foreign, or of another version of this crate. The cache takes them for absent.
    pub undecodable: u64,
    /// Responses with a body of which a piece is missing or of a wrong length. The cache fetches them again.
    pub incomplete: u64,
    /// Records that nothing names and that have no end near: [`prune`](CacheHandle::prune) gives them one.
    pub orphans: u64,
}

impl Verified {
    /// Whether nothing is damaged. Orphans are no damage.
    pub fn is_sound(&self) -> bool {
        self.undecodable == 0 && self.incomplete == 0
    }
}

impl<S: Storage> CacheHandle<S> {
    /// Reads all that is in the store, bodies too, of every cache that shares it, and reports what cannot be used. Changes
    /// nothing. `progress` is called after each response.
    ///
    /// Memory: some forty bytes for each stored response.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn verify(&self, mut progress: impl FnMut(&Verified) + Send) -> Result<Verified> {
        let mut verified = Verified::default();
        let mut survey = self.survey().await?;
        let records = self.shared.records.store.steps(self.shared.records.store.store().values());
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
        let mut rests = pin!(self.rests(&survey));
        while let Some(rest) = rests.try_next().await? {
            match rest {
                Rest::Undecodable => verified.undecodable += 1,
                Rest::Orphan(_) => verified.orphans += 1,
            }
            progress(&verified);
        }
        Ok(verified)
    }

    /// Gives an end, in an hour, to records that nothing names and that would otherwise stay for long or for ever: pieces of
    /// bodies whose writing was cut short, responses whose head was replaced, and heads through which nothing is found any
    /// more. Says how many. All caches that share the store are looked at.
    ///
    /// Needed now and then where responses are kept for ever; others have an end anyway. The body of a response that is
    /// being fetched again meanwhile may have to be fetched once more.
    ///
    /// # Errors
    /// The store could not be read, or did not take a change.
    pub async fn prune(&self) -> Result<u64> {
        let mut survey = self.survey().await?;
        let records = self.shared.records.store.steps(self.shared.records.store.store().values());
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
                pruned += self.give_end(key).await?;
            }
        }
        let mut rests = pin!(self.rests(&survey));
        while let Some(rest) = rests.try_next().await? {
            if let Rest::Orphan(key) = rest {
                pruned += self.give_end(key).await?;
            }
        }
        Ok(pruned)
    }

    async fn give_end(&self, key: Key) -> Result<u64> {
        let end = self.shared.config.clock.now() + GRACE;
        self.shared.records.store.retain(&[key], Retain::AtMost(end)).await
    }

    /// What is there by name.
    async fn survey(&self) -> Result<Survey> {
        let mut survey = Survey::default();
        let mut keys = pin!(self.shared.records.store.steps(self.shared.records.store.store().keys()));
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

    /// What is there and has no use, once all records have been read.
    fn rests(&self, survey: &Survey) -> impl futures_core::Stream<Item = Result<Rest>> + Send {
        let keys = self.shared.records.store.steps(self.shared.records.store.store().keys()).take_while({
            let is_needed = !survey.listed.is_empty() || !survey.bodies.is_empty();
            move |_| std::future::ready(is_needed)
        });
        let suspects = keys.try_filter(|key| std::future::ready(survey.suspects(key)));
        let looked = suspects.map_ok(move |key| async move {
            let there = self.shared.records.store.read_chunk(key).await?;
            let until = there.as_ref().map(Record::retain_until);
            Ok(match (key.kind, until) {
                (Kind::Chunk, Some(until)) if self.is_far(until) => Some(Rest::Orphan(key)),
                // It was listed twice, and there is no record to be read.
                (Kind::Head | Kind::Variant, None) => Some(Rest::Undecodable),
                _ => None,
            })
        });
        looked.try_buffered(AT_ONCE).try_filter_map(|rest| std::future::ready(Ok(rest)))
    }

    /// Further away than a rest has to go.
    fn is_far(&self, until: Timestamp) -> bool {
        until > self.shared.config.clock.now() + GRACE
    }

    /// Whether it is a response that can never be found, or a head that leads to none.
    async fn is_orphan(&self, varied: &HashSet<u64>, key: Key, record: &Record) -> Result<bool> {
        if !self.is_far(record.retain_until()) {
            return Ok(false);
        }
        let now = self.shared.config.clock.now();
        let (key_text, generation) = match decode(record) {
            Some(Slot::Variant { key_text, generation, .. }) => (key_text, generation),
            Some(Slot::Head(head)) => {
                let is_over = head.inline.until <= now && head.fence <= now;
                return Ok(is_over && !varied.contains(&number(&key.entry)));
            }
            _ => return Ok(false),
        };
        let head = self.shared.records.store.read(Key::head(key.entry)).await?;
        Ok(match head.as_ref().and_then(decode) {
            Some(Slot::Head(head)) => head.generation != *generation || head.key_text != *key_text,
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
            Some(Slot::Head(head)) => self.body_state(key, &head.inline).await?,
            Some(Slot::Variant { variant, .. }) => self.body_state(key, variant).await?,
            Some(Slot::Fence { .. } | Slot::Index(_) | Slot::Group(_)) => State::NoResponse,
        };
        Ok((key, record, state))
    }

    async fn body_state(&self, key: Key, variant: &Variant) -> Result<State> {
        if variant.until <= self.shared.config.clock.now() {
            return Ok(State::NoResponse); // it is on its way out, in whatever order
        }
        let body = &variant.response.body;
        let StoredBody::Chunked { chunk_len, len, .. } = *body else { return Ok(State::Whole(body.len())) };
        let mut left = len;
        for key in body.chunks(key) {
            let expected = left.min(u64::from(chunk_len));
            let chunk = self.shared.records.store.read_chunk(key).await?;
            if chunk.is_none_or(|chunk| chunk.payload().len() as u64 != expected) {
                return Ok(State::Incomplete);
            }
            left -= expected;
        }
        Ok(State::Whole(len))
    }
}

/// What a record of a head or variant is.
enum State {
    Whole(u64),
    Incomplete,
    Undecodable,
    Orphan,
    NoResponse,
}

/// What has no use.
enum Rest {
    Undecodable,
    Orphan(Key),
}

/// What was listed and not yet found in use, by [`number`]s: enough to tell apart what is in one store.
#[derive(Default)]
struct Survey {
    listed: HashSet<u64>,
    bodies: HashSet<u64>,
    /// Entries with more than a head.
    varied: HashSet<u64>,
    /// Entries whose body somebody is writing.
    held: HashSet<[u8; 16]>,
}

impl Survey {
    /// A record is there, and names its body.
    fn name(&mut self, key: Key, record: &Record) {
        self.listed.remove(&number(&key.to_bytes()));
        match decode(record) {
            Some(Slot::Fence { placeholder: true, .. }) => drop(self.held.insert(key.entry)),
            _ => {
                if let Some(StoredBody::Chunked { id, .. }) = variant_in(record).map(|of| &of.response.body) {
                    self.bodies.remove(&number(id));
                }
            }
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
