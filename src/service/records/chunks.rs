//! The chunks of stored bodies: reading a chunk, finding out whether all of them are there, and moving their expiry.
//!
//! The key of a chunk is the random id of its body and its number, so that it is written once and never replaced. A write
//! of a chunk therefore compares nothing, and a reader can take it from the in-flight writes as well as from the storage.
//!
//! # Invariants
//!
//! - The chunks of a body are kept for the grace beyond the expiry of the record that names them, and beyond its replacement,
//!   so that a reader that has begun finishes the body.
//! - A body is kept for a record only if all of its chunks are there.

use super::Records;
use crate::entry::{ChunkKeys, GRACE, StoredBody, with_slack};
use crate::error::Result;
use crate::storage::{Key, Record, Retain, Storage};
use crate::time::Timestamp;

/// Selects the deadline for reading a chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    /// The deadline of a lookup: the head of the response has not gone out, and a miss is still possible.
    Lookup,
    /// The longer deadline of a body: its head has gone out, so that a chunk that is late ends it with an error.
    Body,
}

/// Says what became of a body that was to be kept.
pub(crate) enum KeptBody {
    /// All of it is kept for as long as is needed.
    Kept(StoredBody),
    /// A part of it is still in flight, and kept for as long as it was written for.
    InFlight,
    Gone,
}

impl<S: Storage> Records<S> {
    /// Reads a chunk from the in-flight writes, or else from the storage.
    pub(crate) async fn read_chunk(&self, key: Key, patience: Patience) -> Result<Option<Record>> {
        // The in-flight writes come first: a chunk leaves them only after the storage has taken it.
        match (self.in_flight.chunk(key), patience) {
            (Some(record), _) => Ok(Some(record)),
            (None, Patience::Lookup) => self.store.read(key).await,
            (None, Patience::Body) => self.store.read_chunk(key).await,
        }
    }

    /// Returns whether the storage has these chunks or is about to have them.
    pub(crate) async fn has_chunks(&self, mut chunks: impl Iterator<Item = Key> + Send) -> Result<bool> {
        // In batches, so that the keys of a very long body are not in memory at once. A record that claims more chunks than
        // there ever were ends the loop with its first batch.
        loop {
            let batch: Vec<Key> = chunks.by_ref().take(ChunkKeys::BATCH).collect();
            if batch.is_empty() {
                return Ok(true);
            }
            let batch: Vec<Key> =
                batch.into_iter().filter(|key| self.in_flight.chunk(*key).is_none()).collect();
            if !batch.is_empty() && !self.store.contains_all(&batch).await? {
                return Ok(false);
            }
        }
    }

    /// Moves the expiry of a body's chunks, and returns whether all of them are there.
    pub(crate) async fn retain_chunks(&self, mut chunks: ChunkKeys, retain: Retain) -> Result<bool> {
        let mut are_all_there = true;
        while let Some(batch) = chunks.next_batch() {
            let there = self.store.retain(&batch, retain).await?;
            are_all_there &= there == batch.len() as u64;
            if there == 0 {
                // The length of a body comes from a record that anyone who can write to the storage may have forged: a
                // claimed 2^64 bytes must not keep the storage busy with chunks that never were.
                break;
            }
        }
        Ok(are_all_there)
    }

    /// Shortens the life of a replaced body's chunks to the grace that its readers may need.
    pub(super) async fn release_chunks(&self, chunks: ChunkKeys) {
        let most = Retain::AtMost(self.config.clock.now() + GRACE);
        let _ = self.retain_chunks(chunks, most).await; // on an error they expire at their own time
    }

    /// Keeps a body for a record that is used until a time.
    ///
    /// The storage is only asked whether the chunks are there if they are kept for long enough already: moving an expiry costs
    /// some storages as much as writing the chunk.
    pub(crate) async fn keep_body(&self, head: Key, body: &StoredBody, until: Timestamp) -> Result<KeptBody> {
        let &StoredBody::Chunked { kept, .. } = body else { return Ok(KeptBody::Kept(body.clone())) };
        let (chunks, needed) = (body.chunks(head), until + GRACE);
        if needed <= kept {
            return Ok(match self.has_chunks(chunks).await? {
                true => KeptBody::Kept(body.clone()),
                false => KeptBody::Gone,
            });
        }
        // Further than needed, so that the next 304 finds the expiry far enough away and moves nothing.
        let kept = with_slack(needed, self.config.clock.now());
        let are_all_there = self.retain_chunks(chunks, Retain::AtLeast(kept)).await?;
        Ok(match are_all_there {
            true => KeptBody::Kept(body.clone().kept_until(kept)),
            // A chunk that is still in flight has no expiry to move, but is no sign that the body is gone.
            false if self.has_chunks(body.chunks(head)).await? => KeptBody::InFlight,
            false => KeptBody::Gone,
        })
    }

    /// Copies a body of one chunk for a second record. Returns `None` if it is longer or gone.
    ///
    /// Two records must not name the same chunks: when one of them is replaced, the chunks expire under the other.
    pub(crate) async fn copy_body(&self, head: Key, body: &StoredBody) -> Option<StoredBody> {
        let StoredBody::Chunked { len, .. } = body else { return Some(body.clone()) };
        let mut chunks = body.chunks(head);
        // One chunk at most: the copy is in memory as a whole, and goes into one record.
        let (key, None) = (chunks.next()?, chunks.next()) else { return None };
        let data = self.read_chunk(key, Patience::Body).await.ok().flatten()?.payload();
        (data.len() as u64 == *len).then_some(StoredBody::Inline(data))
    }
}
