//! The common part of the wrappers that change payloads.
//!
//! # Invariants
//! - The storage inside gets the stamp and the retention time of every record unchanged, so that its comparisons and its
//!   retention are those of the wrapper.
//! - A record inside that has no readable payload is absent: `read` does not return it, and `write_if` replaces it.
//! - A payload is encoded into memory of its own, of exactly its length.

use std::sync::Arc;

use bytes::Bytes;
use futures_core::Stream;
use futures_util::{StreamExt, future};

use super::unreadable::UnreadableRecords;
use super::{Key, Record, Stamp, Storage};
use crate::error::{Error, ErrorKind, Result};

/// The form in which a wrapper stores payloads.
pub(super) trait PayloadForm: Send + Sync + 'static {
    /// The name of the wrapper, for events.
    const STORAGE: &'static str;

    /// Returns the payload to store for that of a record.
    ///
    /// # Errors
    /// Returns an error if it cannot be made.
    fn encode(&self, key: Key, stamp: Stamp, payload: &Bytes) -> Result<Bytes>;

    /// Returns the payload for which [`encode`](Self::encode) made this one.
    ///
    /// # Errors
    /// Returns the reason why there is none. This may happen for any bytes, and never panics.
    fn decode(&self, key: Key, stamp: Stamp, stored: &Bytes) -> std::result::Result<Bytes, &'static str>;

    /// Returns whether decoding this takes so little time that a caller may wait for it without suspending its task.
    fn is_quick(&self, stored: &Bytes) -> bool;

    /// Returns the length of the longest payload that takes at most `len` bytes when it is stored.
    fn max_payload_len(&self, len: usize) -> usize;
}

/// A storage, and the form of the payloads in it.
#[derive(Debug)]
pub(super) struct Wrapper<S, F> {
    pub(super) inner: S,
    shared: Arc<Shared<F>>,
}

#[derive(Debug)]
struct Shared<F> {
    form: F,
    unreadable: UnreadableRecords,
}

impl<S: Clone, F> Clone for Wrapper<S, F> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<S, F> Wrapper<S, F> {
    pub(super) fn form(&self) -> &F {
        &self.shared.form
    }
}

impl<S: Storage, F: PayloadForm> Wrapper<S, F> {
    pub(super) fn new(inner: S, form: F) -> Self {
        Self { inner, shared: Arc::new(Shared { form, unreadable: UnreadableRecords::default() }) }
    }

    fn encode(&self, key: Key, record: &Record) -> Result<Record> {
        let payload = record.payload();
        // The length is that before it is encoded, so that what is accepted does not depend on the bytes.
        if payload.len() > self.max_payload_len() {
            return Err(Error::new(ErrorKind::TooLarge, "the record is longer than the storage accepts"));
        }
        self.form().encode(key, record.stamp(), &payload).map(|stored| record.with_payload(stored))
    }

    fn decode(&self, key: Key, stored: &Record) -> Option<Record> {
        match self.form().decode(key, stored.stamp(), &stored.payload()) {
            Ok(payload) => Some(stored.with_payload(payload)),
            Err(reason) => {
                self.shared.unreadable.found(F::STORAGE, key.kind, reason);
                None
            }
        }
    }

    fn max_payload_len(&self) -> usize {
        self.form().max_payload_len(self.inner.max_record_len().saturating_sub(Record::OVERHEAD))
    }

    pub(super) fn max_record_len(&self) -> usize {
        self.max_payload_len().saturating_add(Record::OVERHEAD)
    }

    pub(super) async fn read(&self, key: Key) -> Result<Option<Record>> {
        Ok(self.inner.read(key).await?.and_then(|stored| self.decode(key, &stored)))
    }

    pub(super) fn read_now(&self, key: Key) -> Option<Result<Option<Record>>> {
        match self.inner.read_now(key)? {
            Ok(Some(stored)) => {
                self.form().is_quick(&stored.payload()).then(|| Ok(self.decode(key, &stored)))
            }
            other => Some(other),
        }
    }

    pub(super) async fn write(&self, key: Key, record: Record) -> Result<()> {
        self.inner.write(key, self.encode(key, &record)?).await
    }

    pub(super) async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        let encoded = self.encode(key, &record)?;
        if self.inner.write_if(key, seen, encoded.clone()).await? {
            return Ok(true);
        }
        if seen.is_some() {
            return Ok(false);
        }
        // A record that cannot be read counts as absent, but the storage inside has it. It is replaced by comparing with its
        // stamp, so that a record which another task has written meanwhile stays. Without this, the key could not be used until
        // the record expires.
        match self.inner.read(key).await? {
            Some(stored) if self.decode(key, &stored).is_none() => {
                self.inner.write_if(key, Some(stored.stamp()), encoded).await
            }
            _ => Ok(false),
        }
    }

    pub(super) fn values(&self) -> impl Stream<Item = Result<(Key, Record)>> + Send {
        self.inner.values().filter_map(|value| {
            future::ready(match value {
                Ok((key, stored)) => self.decode(key, &stored).map(|record| Ok((key, record))),
                Err(error) => Some(Err(error)),
            })
        })
    }
}

/// Implements [`Storage`] for a wrapper whose field is a [`Wrapper`].
///
/// `compresses` is what [`Storage::compresses`] returns.
macro_rules! impl_storage {
    ($name:ident, compresses = $compresses:expr) => {
        // A method that is not forwarded would silently fall back to the provided one.
        #[deny(clippy::missing_trait_methods)]
        impl<S: Storage> Storage for $name<S> {
            async fn read(&self, key: Key) -> Result<Option<Record>> {
                self.0.read(key).await
            }
            async fn write(&self, key: Key, record: Record) -> Result<()> {
                self.0.write(key, record).await
            }
            async fn delete(&self, key: Key) -> Result<bool> {
                self.0.inner.delete(key).await
            }
            async fn clear(&self) -> Result<()> {
                self.0.inner.clear().await
            }
            fn keys(&self) -> impl Stream<Item = Result<Key>> + Send {
                self.0.inner.keys()
            }
            fn read_now(&self, key: Key) -> Option<Result<Option<Record>>> {
                self.0.read_now(key)
            }
            // A chunk is decoded into memory of its own, which is more than this method may do.
            fn read_chunks_now(&self, _: Key, _: u32, _: &mut [Option<Bytes>]) -> bool {
                false
            }
            async fn contains(&self, key: Key) -> Result<bool> {
                Ok(self.0.read(key).await?.is_some())
            }
            // Chunks are not decoded for this: it would read a whole body before the first byte is served.
            async fn contains_all(&self, keys: &[Key]) -> Result<bool> {
                self.0.inner.contains_all(keys).await
            }
            async fn size(&self) -> Result<u64> {
                self.0.inner.size().await
            }
            async fn stamps(&self, keys: &[Key]) -> Result<Vec<Option<(Stamp, Timestamp)>>> {
                self.0.inner.stamps(keys).await
            }
            fn change_count(&self, key: Key, max_silence: Duration) -> Option<u64> {
                self.0.inner.change_count(key, max_silence)
            }
            fn server_of(&self, key: Key) -> u16 {
                self.0.inner.server_of(key)
            }
            fn values(&self) -> impl Stream<Item = Result<(Key, Record)>> + Send {
                self.0.values()
            }
            async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
                self.0.write_if(key, seen, record).await
            }
            async fn retain(&self, keys: &[Key], retain: Retain) -> Result<u64> {
                self.0.inner.retain(keys, retain).await
            }
            async fn delete_many(&self, keys: &[Key]) -> Result<u64> {
                self.0.inner.delete_many(keys).await
            }
            async fn delete_expired(&self, now: Timestamp) -> Result<u64> {
                self.0.inner.delete_expired(now).await
            }
            fn max_record_len(&self) -> usize {
                self.0.max_record_len()
            }
            fn inline_len(&self) -> usize {
                self.0.inner.inline_len()
            }
            // The storage inside keeps the encoded payload at most, which has memory of its own.
            fn keeps_records(&self) -> bool {
                false
            }
            fn compresses(&self) -> bool {
                $compresses
            }
            fn hold(&self, chunk: Key, bytes: u64) -> Hold {
                self.0.inner.hold(chunk, bytes)
            }
            async fn usage(&self) -> Result<Usage> {
                self.0.inner.usage().await
            }
            async fn check(&self) -> Result<()> {
                self.0.inner.check().await
            }
            async fn close(&self) -> Result<()> {
                self.0.inner.close().await
            }
        }
    };
}

pub(super) use impl_storage;
