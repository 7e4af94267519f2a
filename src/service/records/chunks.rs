//! The chunks of stored bodies: reading one, asking whether all are there, and moving the time until which they are kept.
//!
//! A chunk is named by its body's random id and its number, is written once, and is never replaced. So it needs no
//! comparison, and a reader can take it from the writes in flight as well as from the storage.

use super::Records;
use crate::entry::{ChunkKeys, GRACE, StoredBody, with_slack};
use crate::error::Result;
use crate::storage::{Key, Record, Retain, Storage};
use crate::time::Timestamp;

/// How long a read of a chunk may take.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    /// As long as a lookup: the response's head has not gone out, and a miss is still possible.
    Lookup,
    /// Longer: the body has begun, and there is no way back.
    Body,
}

impl<S: Storage> Records<S> {
    /// Reads a chunk, from the storage if it is no longer in flight.
    pub(crate) async fn read_chunk(&self, key: Key, patience: Patience) -> Result<Option<Record>> {
        match (self.in_flight.chunk(key), patience) {
            (Some(record), _) => Ok(Some(record)),
            (None, Patience::Lookup) => self.store.read(key).await,
            (None, Patience::Body) => self.store.read_chunk(key).await,
        }
    }

    /// Whether the storage has these chunks, or is about to.
    pub(crate) async fn has_chunks(&self, mut chunks: impl Iterator<Item = Key> + Send) -> Result<bool> {
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

    /// Moves the times of a body's chunks. Returns whether all of them are there.
    pub(crate) async fn retain_chunks(&self, mut chunks: ChunkKeys, retain: Retain) -> Result<bool> {
        let mut are_all_there = true;
        while let Some(batch) = chunks.next_batch() {
            let there = self.store.retain(&batch, retain).await?;
            are_all_there &= there == batch.len() as u64;
            if there == 0 {
                break; // a record can claim more chunks than there ever were, and must not keep the storage busy
            }
        }
        Ok(are_all_there)
    }

    /// Lets a body's chunks expire after the grace that readers of it may need.
    pub(super) async fn release_chunks(&self, chunks: ChunkKeys) {
        let most = Retain::AtMost(self.config.clock.now() + GRACE);
        let _ = self.retain_chunks(chunks, most).await; // they expire at their own time otherwise
    }

    /// Keeps a body for a record that may be used until a time. Returns `None` if a part of it is gone.
    ///
    /// Where the chunks are kept for long enough already, the storage is only asked whether they are there: moving a time
    /// costs some storages as much as writing the chunk.
    pub(crate) async fn keep_body(
        &self,
        head: Key,
        body: &StoredBody,
        until: Timestamp,
    ) -> Result<Option<StoredBody>> {
        let &StoredBody::Chunked { kept, .. } = body else { return Ok(Some(body.clone())) };
        let (chunks, needed) = (body.chunks(head), until + GRACE);
        if needed <= kept {
            return Ok(self.has_chunks(chunks).await?.then(|| body.clone()));
        }
        let kept = with_slack(needed, self.config.clock.now());
        let are_all_there = self.retain_chunks(chunks, Retain::AtLeast(kept)).await?;
        Ok(are_all_there.then(|| body.clone().kept_until(kept)))
    }

    /// Copies a body for a second record, which must not name another's chunks. Returns `None` if it is too long, or gone.
    pub(crate) async fn copy_body(&self, head: Key, body: &StoredBody) -> Option<StoredBody> {
        let StoredBody::Chunked { len, .. } = body else { return Some(body.clone()) };
        let mut chunks = body.chunks(head);
        let (key, None) = (chunks.next()?, chunks.next()) else { return None };
        let data = self.read_chunk(key, Patience::Body).await.ok().flatten()?.payload();
        (data.len() as u64 == *len).then_some(StoredBody::Inline(data))
    }
}
