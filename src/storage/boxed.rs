//! A storage whose type is chosen at run time.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, future::BoxFuture};

use super::{Hold, Key, Record, Retain, Stamp, Storage, Usage};
use crate::error::Result;
use crate::time::Timestamp;

/// A [`Storage`] of any type, for programs that choose theirs at run time.
///
/// Each asynchronous operation allocates one box. [`read_now`](Storage::read_now) and
/// [`read_chunks_now`](Storage::read_chunks_now) allocate none.
///
/// ```
/// # #[cfg(feature = "memory")] {
/// use tower_response_cache::storage::{BoxStorage, MemoryStorage};
///
/// let storage = BoxStorage::new(MemoryStorage::new());
/// let layer = tower_response_cache::CacheLayer::new(storage);
/// # }
/// ```
#[derive(Clone)]
pub struct BoxStorage(Arc<dyn DynStorage>);

impl BoxStorage {
    /// Creates a boxed storage.
    pub fn new(storage: impl Storage) -> Self {
        Self(Arc::new(storage))
    }
}

impl fmt::Debug for BoxStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxStorage")
    }
}

/// The answer of [`Storage::stamps`].
type Stamps = Vec<Option<(Stamp, Timestamp)>>;

/// [`Storage`] with boxed futures and streams, which makes it usable as a trait object.
trait DynStorage: Send + Sync {
    fn read(&self, key: Key) -> BoxFuture<'_, Result<Option<Record>>>;
    fn write(&self, key: Key, record: Record) -> BoxFuture<'_, Result<()>>;
    fn delete(&self, key: Key) -> BoxFuture<'_, Result<bool>>;
    fn clear(&self) -> BoxFuture<'_, Result<()>>;
    fn keys(&self) -> BoxStream<'_, Result<Key>>;
    fn read_now(&self, key: Key) -> Option<Result<Option<Record>>>;
    fn read_chunks_now(&self, first: Key, last: u32, chunks: &mut [Option<Bytes>]) -> bool;
    fn contains(&self, key: Key) -> BoxFuture<'_, Result<bool>>;
    fn contains_all<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<bool>>;
    fn stamps<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<Stamps>>;
    fn change_count(&self, key: Key, max_silence: Duration) -> Option<u64>;
    fn server_of(&self, key: Key) -> u16;
    fn size(&self) -> BoxFuture<'_, Result<u64>>;
    fn values(&self) -> BoxStream<'_, Result<(Key, Record)>>;
    fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> BoxFuture<'_, Result<bool>>;
    fn retain<'a>(&'a self, keys: &'a [Key], retain: Retain) -> BoxFuture<'a, Result<u64>>;
    fn delete_many<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<u64>>;
    fn delete_expired(&self, now: Timestamp) -> BoxFuture<'_, Result<u64>>;
    fn max_record_len(&self) -> usize;
    fn inline_len(&self) -> usize;
    fn keeps_records(&self) -> bool;
    fn compresses(&self) -> bool;
    fn hold(&self, chunk: Key, bytes: u64) -> Hold;
    fn usage(&self) -> BoxFuture<'_, Result<Usage>>;
    fn check(&self) -> BoxFuture<'_, Result<()>>;
    fn close(&self) -> BoxFuture<'_, Result<()>>;
}

impl<S: Storage> DynStorage for S {
    fn read(&self, key: Key) -> BoxFuture<'_, Result<Option<Record>>> {
        Storage::read(self, key).boxed()
    }
    fn write(&self, key: Key, record: Record) -> BoxFuture<'_, Result<()>> {
        Storage::write(self, key, record).boxed()
    }
    fn delete(&self, key: Key) -> BoxFuture<'_, Result<bool>> {
        Storage::delete(self, key).boxed()
    }
    fn clear(&self) -> BoxFuture<'_, Result<()>> {
        Storage::clear(self).boxed()
    }
    fn keys(&self) -> BoxStream<'_, Result<Key>> {
        Storage::keys(self).boxed()
    }
    fn read_now(&self, key: Key) -> Option<Result<Option<Record>>> {
        Storage::read_now(self, key)
    }
    fn read_chunks_now(&self, first: Key, last: u32, chunks: &mut [Option<Bytes>]) -> bool {
        Storage::read_chunks_now(self, first, last, chunks)
    }
    fn contains(&self, key: Key) -> BoxFuture<'_, Result<bool>> {
        Storage::contains(self, key).boxed()
    }
    fn contains_all<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<bool>> {
        Storage::contains_all(self, keys).boxed()
    }
    fn stamps<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<Stamps>> {
        Storage::stamps(self, keys).boxed()
    }
    fn change_count(&self, key: Key, max_silence: Duration) -> Option<u64> {
        Storage::change_count(self, key, max_silence)
    }

    fn server_of(&self, key: Key) -> u16 {
        Storage::server_of(self, key)
    }
    fn size(&self) -> BoxFuture<'_, Result<u64>> {
        Storage::size(self).boxed()
    }
    fn values(&self) -> BoxStream<'_, Result<(Key, Record)>> {
        Storage::values(self).boxed()
    }
    fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> BoxFuture<'_, Result<bool>> {
        Storage::write_if(self, key, seen, record).boxed()
    }
    fn retain<'a>(&'a self, keys: &'a [Key], retain: Retain) -> BoxFuture<'a, Result<u64>> {
        Storage::retain(self, keys, retain).boxed()
    }
    fn delete_many<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<u64>> {
        Storage::delete_many(self, keys).boxed()
    }
    fn delete_expired(&self, now: Timestamp) -> BoxFuture<'_, Result<u64>> {
        Storage::delete_expired(self, now).boxed()
    }
    fn max_record_len(&self) -> usize {
        Storage::max_record_len(self)
    }
    fn inline_len(&self) -> usize {
        Storage::inline_len(self)
    }

    fn keeps_records(&self) -> bool {
        Storage::keeps_records(self)
    }
    fn compresses(&self) -> bool {
        Storage::compresses(self)
    }
    fn hold(&self, chunk: Key, bytes: u64) -> Hold {
        Storage::hold(self, chunk, bytes)
    }
    fn usage(&self) -> BoxFuture<'_, Result<Usage>> {
        Storage::usage(self).boxed()
    }
    fn check(&self) -> BoxFuture<'_, Result<()>> {
        Storage::check(self).boxed()
    }
    fn close(&self) -> BoxFuture<'_, Result<()>> {
        Storage::close(self).boxed()
    }
}

// A method that is not forwarded would silently fall back to the provided one.
#[deny(clippy::missing_trait_methods)]
impl Storage for BoxStorage {
    fn read(&self, key: Key) -> impl Future<Output = Result<Option<Record>>> + Send {
        self.0.read(key)
    }
    fn write(&self, key: Key, record: Record) -> impl Future<Output = Result<()>> + Send {
        self.0.write(key, record)
    }
    fn delete(&self, key: Key) -> impl Future<Output = Result<bool>> + Send {
        self.0.delete(key)
    }
    fn clear(&self) -> impl Future<Output = Result<()>> + Send {
        self.0.clear()
    }
    fn keys(&self) -> impl Stream<Item = Result<Key>> + Send {
        self.0.keys()
    }
    fn read_now(&self, key: Key) -> Option<Result<Option<Record>>> {
        self.0.read_now(key)
    }
    fn read_chunks_now(&self, first: Key, last: u32, chunks: &mut [Option<Bytes>]) -> bool {
        self.0.read_chunks_now(first, last, chunks)
    }
    fn contains(&self, key: Key) -> impl Future<Output = Result<bool>> + Send {
        self.0.contains(key)
    }
    async fn contains_all(&self, keys: &[Key]) -> Result<bool> {
        self.0.contains_all(keys).await
    }
    async fn stamps(&self, keys: &[Key]) -> Result<Stamps> {
        self.0.stamps(keys).await
    }
    fn change_count(&self, key: Key, max_silence: Duration) -> Option<u64> {
        self.0.change_count(key, max_silence)
    }

    fn server_of(&self, key: Key) -> u16 {
        self.0.server_of(key)
    }
    fn size(&self) -> impl Future<Output = Result<u64>> + Send {
        self.0.size()
    }
    fn values(&self) -> impl Stream<Item = Result<(Key, Record)>> + Send {
        self.0.values()
    }
    fn write_if(
        &self,
        key: Key,
        seen: Option<Stamp>,
        record: Record,
    ) -> impl Future<Output = Result<bool>> + Send {
        self.0.write_if(key, seen, record)
    }
    async fn retain(&self, keys: &[Key], retain: Retain) -> Result<u64> {
        self.0.retain(keys, retain).await
    }
    async fn delete_many(&self, keys: &[Key]) -> Result<u64> {
        self.0.delete_many(keys).await
    }
    fn delete_expired(&self, now: Timestamp) -> impl Future<Output = Result<u64>> + Send {
        self.0.delete_expired(now)
    }
    fn max_record_len(&self) -> usize {
        self.0.max_record_len()
    }
    fn inline_len(&self) -> usize {
        self.0.inline_len()
    }

    fn keeps_records(&self) -> bool {
        self.0.keeps_records()
    }
    fn compresses(&self) -> bool {
        self.0.compresses()
    }
    fn hold(&self, chunk: Key, bytes: u64) -> Hold {
        self.0.hold(chunk, bytes)
    }
    fn usage(&self) -> impl Future<Output = Result<Usage>> + Send {
        self.0.usage()
    }
    fn check(&self) -> impl Future<Output = Result<()>> + Send {
        self.0.check()
    }
    fn close(&self) -> impl Future<Output = Result<()>> + Send {
        self.0.close()
    }
}
