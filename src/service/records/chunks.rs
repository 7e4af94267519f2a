//! The chunks of stored bodies.
//!
//! Chunks are read here, all chunks of a body are checked to exist, and their expiry is moved.
//!
//! The key of a chunk consists of the random id of its body and its number, so that it is written once and never replaced.
//! Therefore the write of a chunk compares nothing, and a reader can take the chunk from the in-flight writes as well as
//! from the storage.
//!
//! # Invariants
//!
//! - The chunks of a body outlive the record that names them by the grace, also when that record is replaced, so that a
//!   reader that has begun can finish the body.
//! - A record is written for an existing body only if all chunks of the body are stored.

use bytes::Bytes;

use super::Records;
use crate::entry::{ChunkKeys, GRACE, StoredBody, with_slack};
use crate::error::Result;
use crate::storage::{Key, Record, Retain, Storage};
use crate::time::Timestamp;

/// Selects the deadline for reading a chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ReadDeadline {
    /// The deadline of a lookup. The head was not sent yet, so that a miss is still possible.
    Lookup,
    /// The longer deadline of a body. The head was sent, so that a late chunk ends the response with an error.
    Body,
}

/// Tells whether a body is kept for as long as a record needs it.
pub(crate) enum RetainedBody {
    /// All of it is kept long enough.
    Retained(StoredBody),
    /// A part of it is still in flight, and its expiry cannot be moved yet.
    InFlight,
    /// A chunk is missing.
    Gone,
}

impl<S: Storage> Records<S> {
    /// Reads a chunk from the in-flight writes, or else from the storage.
    pub(crate) async fn read_chunk(&self, key: Key, deadline: ReadDeadline) -> Result<Option<Record>> {
        // The in-flight writes are read first: a chunk leaves them only after the storage has taken it.
        match (self.in_flight.chunk(key), deadline) {
            (Some(record), _) => Ok(Some(record)),
            (None, ReadDeadline::Lookup) => self.storage.read(key).await,
            (None, ReadDeadline::Body) => self.storage.read_chunk(key).await,
        }
    }

    /// Reads chunks of a body if the storage returns them at once, as many as `chunks` has room for.
    ///
    /// Returns whether all chunks from `first` to `last` are stored. Otherwise `chunks` contains nothing that may be used, and
    /// the caller has to use [`read_chunk`](Self::read_chunk), which also finds the in-flight ones.
    pub(crate) fn read_chunks_now(&self, first: Key, last: u32, chunks: &mut [Option<Bytes>]) -> bool {
        self.storage.read_chunks_now(first, last, chunks)
    }

    /// Returns whether all of these chunks are stored or in flight.
    pub(crate) async fn has_chunks(&self, mut chunks: impl Iterator<Item = Key> + Send) -> Result<bool> {
        // In batches, so that the keys of a very long body are not in memory at once. If a forged record claims more chunks
        // than exist, the loop ends with the first batch that is not complete.
        loop {
            let batch: Vec<Key> = chunks.by_ref().take(ChunkKeys::BATCH).collect();
            if batch.is_empty() {
                return Ok(true);
            }
            let batch: Vec<Key> =
                batch.into_iter().filter(|key| self.in_flight.chunk(*key).is_none()).collect();
            if !batch.is_empty() && !self.storage.contains_all(&batch).await? {
                return Ok(false);
            }
        }
    }

    /// Moves the expiry of a body's chunks, and returns whether all of them are stored.
    pub(crate) async fn retain_chunks(&self, mut chunks: ChunkKeys, retain: Retain) -> Result<bool> {
        let mut are_all_there = true;
        while let Some(batch) = chunks.next_batch() {
            let existing = self.storage.retain(&batch, retain).await?;
            are_all_there &= existing == batch.len() as u64;
            if existing == 0 {
                // The length of a body comes from a record that anyone who can write to the storage may have forged: a
                // claimed 2^64 bytes must not keep the storage busy with chunks that never were.
                break;
            }
        }
        Ok(are_all_there)
    }

    /// Lets the chunks of a replaced body expire after the grace.
    pub(super) async fn release_chunks(&self, chunks: ChunkKeys) {
        let most = Retain::AtMost(self.config.clock.now() + GRACE);
        let _ = self.retain_chunks(chunks, most).await; // on an error they expire at their own time
    }

    /// Keeps a body for a record that is retained until a time.
    ///
    /// If the chunks are kept long enough already, their expiry is not moved, and the storage is only asked whether they
    /// exist: moving an expiry costs some storages as much as writing the chunk.
    pub(crate) async fn retain_body(
        &self,
        head: Key,
        body: &StoredBody,
        until: Timestamp,
    ) -> Result<RetainedBody> {
        let Some(retain_until) = body.chunks_until() else {
            return Ok(RetainedBody::Retained(body.clone()));
        };
        let (chunks, needed) = (body.chunks(head), until + GRACE);
        if needed <= retain_until {
            return Ok(match self.has_chunks(chunks).await? {
                true => RetainedBody::Retained(body.clone()),
                false => RetainedBody::Gone,
            });
        }
        // Later than needed, so that the next 304 finds an expiry that is late enough and need not move it.
        let retain_until = with_slack(needed, self.config.clock.now());
        let are_all_there = self.retain_chunks(chunks, Retain::AtLeast(retain_until)).await?;
        Ok(match are_all_there {
            true => RetainedBody::Retained(body.clone().with_retain_until(retain_until)),
            // A chunk that is still in flight has no expiry that could be moved, but is not missing.
            false if self.has_chunks(body.chunks(head)).await? => RetainedBody::InFlight,
            false => RetainedBody::Gone,
        })
    }

    /// Copies a body of one chunk for a second record.
    ///
    /// Two records must not name the same chunks: when one of them is replaced, the chunks of the other would expire. Returns
    /// `None` if the body is longer, gone, or stored in parts.
    pub(crate) async fn copy_body(&self, head: Key, body: &StoredBody) -> Option<StoredBody> {
        let len = match body {
            StoredBody::Inline(_) => return Some(body.clone()),
            StoredBody::Chunked { len, .. } => len,
            StoredBody::Parts(_) => return None,
        };
        let mut chunks = body.chunks(head);
        // At most one chunk, since the copy is in memory as a whole and goes into one record.
        let (key, None) = (chunks.next()?, chunks.next()) else { return None };
        let data = self.read_chunk(key, ReadDeadline::Body).await.ok().flatten()?.payload();
        (data.len() as u64 == *len).then_some(StoredBody::Inline(data))
    }
}
