//! The [`Storage`] trait and its contract.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use futures_util::{StreamExt, TryStreamExt};

use super::key_lock::lock_key;
use super::{Hold, Key, Record, Stamp};
use crate::error::Result;
use crate::time::Timestamp;

/// How [`Storage::retain`] changes the time until which records are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retain {
    /// Keeps the record at least until this time, and never shortens its retention.
    AtLeast(Timestamp),
    /// Keeps the record at most until this time, and never lengthens its retention.
    AtMost(Timestamp),
}

impl Retain {
    /// Returns the retention time of a record that was kept until `time` before.
    #[must_use]
    pub fn apply(self, time: Timestamp) -> Timestamp {
        match self {
            Self::AtLeast(least) => time.max(least),
            Self::AtMost(most) => time.min(most),
        }
    }
}

/// How many bytes a storage holds, and how many it may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// The bytes that the records take, as the storage counts them for its bound.
    ///
    /// `None` if the storage does not count them.
    pub bytes: Option<u64>,
    /// The bound on these bytes.
    ///
    /// `None` if there is no bound, or if the server sets it.
    pub max_bytes: Option<u64>,
}

impl Usage {
    /// Creates the usage of a storage that counts its bytes.
    #[must_use]
    pub fn new(bytes: u64, max_bytes: Option<u64>) -> Self {
        Self { bytes: Some(bytes), max_bytes }
    }
}

/// A map from [`Key`] to [`Record`], in which the cache keeps responses.
///
/// A storage knows nothing about HTTP. The cache builds variants, large bodies, freshness and invalidation from plain
/// records, so every storage supports them.
///
/// # Implementing a storage
///
/// Five methods are required: [`read`](Storage::read), [`write`](Storage::write), [`delete`](Storage::delete),
/// [`clear`](Storage::clear) and [`keys`](Storage::keys). The other methods have a provided implementation on top of these
/// five. Override the ones that your engine does better; the built-in storages override nearly all of them.
///
/// Methods may be written as `async fn`. Their futures must be `Send`. The file `examples/custom_storage.rs` holds a
/// complete storage in less than forty lines.
///
/// The macro `testing::storage_contract!` (feature `testing`) tests a storage against the contract below. The built-in
/// storages pass the same tests.
///
/// # Contract
///
/// The cache relies on each of these clauses. The suite in `testing` has at least one test for each of them, which names the
/// clause by its number when it fails.
///
/// 1. **Exact.** `read` returns the record that was written: the same payload, stamp and retention time, byte for byte, for
///    every length up to [`max_record_len`](Storage::max_record_len). It returns `None` if there is no record at the key.
/// 2. **Read your writes.** A `read` that begins after a `write` or `delete` has returned sees its effect: through every
///    clone and, if processes share the storage, in every process. A storage that keeps copies may see what other processes
///    do later, and says after how long at most.
/// 3. **Atomic.** `write` replaces the whole record. A concurrent reader sees either the old record or the new one.
/// 4. **Compare and write.** `write_if` writes and returns `true` if the current record has the stamp `seen`, or if `seen`
///    is `None` and there is no record. It also returns `true` if the current record already has the stamp of the new one.
///    In every other case it changes nothing and returns `false`. Of several concurrent calls with the same `seen`, exactly
///    one returns `true`, also if they come from several processes. A record that `read` does not return counts as absent.
/// 5. **Delete.** `delete` is idempotent, and returns whether there was a record. `delete_many` returns how many records
///    there were.
/// 6. **Clear.** `clear` removes the records of this cache and of no other, whatever the names of the caches are.
/// 7. **Listings.** `keys` yields every key that exists from the beginning to the end of the listing. It yields no key
///    twice, and does not fail because of concurrent changes. `values` yields the records of the kinds that are
///    [listed](super::Kind::is_listed) (heads and variants), and `size` is the number of these. Chunks of bodies appear in
///    `keys` only.
/// 8. **Retention.** A record is kept at least until its retention time; with [`Timestamp::NEVER`] it does not expire. An
///    expired record may be returned or hidden, but `read`, `read_now` and `write_if` agree on it. A storage with a bound
///    may evict records earlier. Records of every kind count towards the bound and can be evicted, because a remote party
///    can cause any number of records of each kind. [`usage`](Storage::usage) follows the records, and names the bound.
/// 9. **Changing the retention.** `retain` changes the retention time, and neither the payload nor the stamp. `AtLeast` never
///    shortens the retention and `AtMost` never lengthens it. Absent records are skipped. `retain` returns how many records
///    there were, and `read` returns them with the new time. A change by another task or process at the same time is kept.
/// 10. **Expiry.** `delete_expired(now)` removes the records of every kind whose retention time is at or before `now`. It
///     removes no other record, also if one is written at the same time, and returns how many it removed.
/// 11. **Clones.** Clones are handles to the same storage.
/// 12. **Cancellation.** A future may be dropped at every await point. The operation then takes effect completely or not at
///     all, and the storage remains usable.
/// 13. **Limits.** A record longer than `max_record_len` is refused with [`TooLarge`](crate::ErrorKind::TooLarge), and the
///     record that was at the key remains.
/// 14. **Damage.** Bytes that are not a record, or that another version wrote, count as an absent record. They are not an
///     error.
/// 15. **Names.** A storage that is shared by name accepts names with special characters (glob characters, quotes, Unicode)
///     literally, or refuses them when it is built.
/// 16. **`read_now`.** `read_now` returns `None`, or what `read` would return. `read_chunks_now` returns `false`, or the
///     payloads of the records that `read` would return.
/// 17. **Parts.** If the storage can lose some records of an entry and keep others, `contains_all` returns `false` when one
///     of the keys has no record. It returns `true` if all of them have one.
/// 18. **Held entries.** While a [`Hold`] from [`hold`](Storage::hold) exists, a storage with a bound evicts that entry after
///     all others. It may limit how much is held, and for how long.
/// 19. **Close.** When `close` has returned, every accepted change is written, and a handle that is opened afterwards reads
///     it. `close` is idempotent. A call on a closed storage returns an answer or an error; it does not hang.
/// 20. **Stamps.** `stamps` returns, in the order of its keys, the stamp and the retention time of the record that `read` would
///     return for each key, or `None` if there is none. For a damaged record it may return either.
/// 21. **Change count.** `change_count` returns `None`, or a number that differs from all that it has returned for the key
///     before another handle or process changed its record. Such a change shows in the number after at most `max_silence`.
/// 22. **Failures.** If the storage cannot read or write, its methods return an error. They do not answer as though there
///     were no record, and a listing does not end as though it were complete. After a failed change, the key has the old
///     record or the new one. The storage works again when the cause is gone. [`check`](Storage::check) changes no record,
///     and returns an error if the storage cannot be read.
///
/// # Wrapping a storage
///
/// A wrapper must forward every method, including `read_now` and the provided ones. A method that it does not forward falls
/// back to the provided implementation, which is slower and keeps clause 4 only among the tasks of one process. Put
/// `#[deny(clippy::missing_trait_methods)]` on the `impl` to have this checked.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not implement `Storage`",
    label = "give the cache a storage, such as `MemoryStorage::new()`",
    note = "`build()` of most storages' builders returns a `Result`, and `connect` a future: use `?` or `.await?` first"
)]
pub trait Storage: Clone + Send + Sync + 'static {
    /// Returns the record at this key.
    ///
    /// Returns `Ok(None)` if there is no record, or if its bytes are damaged.
    ///
    /// # Errors
    /// Returns an error if the storage cannot be read.
    fn read(&self, key: Key) -> impl Future<Output = Result<Option<Record>>> + Send;

    /// Writes a record, and replaces the one at the key.
    ///
    /// # Errors
    /// Returns an error if the storage did not accept the record, and [`TooLarge`](crate::ErrorKind::TooLarge) if the record
    /// is longer than [`max_record_len`](Storage::max_record_len).
    fn write(&self, key: Key, record: Record) -> impl Future<Output = Result<()>> + Send;

    /// Removes the record at this key.
    ///
    /// Returns whether there was one.
    ///
    /// # Errors
    /// Returns an error if the storage cannot be changed.
    fn delete(&self, key: Key) -> impl Future<Output = Result<bool>> + Send;

    /// Removes all records of this cache.
    ///
    /// # Errors
    /// Returns an error if the storage cannot be changed. Some records may have been removed by then.
    fn clear(&self) -> impl Future<Output = Result<()>> + Send;

    /// Lists the keys of all records, in any order.
    ///
    /// # Errors
    /// Yields an error if the storage cannot be read.
    fn keys(&self) -> impl Stream<Item = Result<Key>> + Send;

    /// Returns what [`read`](Storage::read) would return, if that needs no waiting.
    ///
    /// `None` means that the caller has to use `read`. The cache calls this first, to answer a small hit without
    /// suspending the task, so it must not block.
    ///
    /// Default: `None`.
    fn read_now(&self, key: Key) -> Option<Result<Option<Record>>> {
        let _ = key;
        None
    }

    /// Reads consecutive chunks of a body, if that needs neither waiting nor a copy of their bytes.
    ///
    /// `first` is the key of the first chunk, and `last` the part of the last one. The payloads from `first` on are put into
    /// `chunks`, until that is full or the last chunk is in it. Returns `true` if there is a record at each of the keys from
    /// `first` to `last`, also at those for which `chunks` has no room. `false` means that the caller has to use `read` and
    /// `contains_all`; `chunks` then contains nothing that may be used.
    ///
    /// The cache calls this to answer a hit with a long body without suspending the task, so it must not block.
    ///
    /// Default: `false`.
    fn read_chunks_now(&self, first: Key, last: u32, chunks: &mut [Option<Bytes>]) -> bool {
        let _ = (first, last, chunks);
        false
    }

    /// Returns whether there is a record at this key.
    ///
    /// Default: reads the record.
    ///
    /// # Errors
    /// Returns an error in the same cases as [`read`](Storage::read).
    fn contains(&self, key: Key) -> impl Future<Output = Result<bool>> + Send {
        async move { Ok(self.read(key).await?.is_some()) }
    }

    /// Returns whether there is a record at every one of these keys.
    ///
    /// The cache calls this before it serves a body of several chunks, because a response cannot be taken back once its
    /// head is sent. A storage that never loses some records of an entry and keeps others may return `true` without looking.
    ///
    /// Default: calls [`contains`](Storage::contains) for each key.
    ///
    /// # Errors
    /// Returns an error in the same cases as [`read`](Storage::read).
    fn contains_all(&self, keys: &[Key]) -> impl Future<Output = Result<bool>> + Send {
        async move {
            for &key in keys {
                if !self.contains(key).await? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
    }

    /// Returns the stamps and the retention times of the records at these keys, in the same order.
    ///
    /// `None` stands for an absent record. A [`TieredStorage`](super::TieredStorage) asks for them, to check its copies of
    /// records without transferring their payloads.
    ///
    /// Default: reads each record.
    ///
    /// # Errors
    /// Returns an error in the same cases as [`read`](Storage::read).
    fn stamps(&self, keys: &[Key]) -> impl Future<Output = Result<Vec<Option<(Stamp, Timestamp)>>>> + Send {
        async move {
            let mut stamps = Vec::with_capacity(keys.len());
            for &key in keys {
                let record = self.read(key).await?;
                stamps.push(record.map(|record| (record.stamp(), record.retain_until())));
            }
            Ok(stamps)
        }
    }

    /// Returns a number that changes when another handle or process changes the record at this key.
    ///
    /// It never returns to a value that it had before. It may also change without need, for example for all keys when any
    /// record is changed. The number may be as old as `max_silence`: a change of a record shows in it after at most that time.
    /// Changes that are made through the same handle, or its clones, need not show in it, unless the call failed or was dropped
    /// and the change takes effect later.
    ///
    /// `None` means that the storage does not know of changes: it has no signal for them, or has lost it. A
    /// [`TieredStorage`](super::TieredStorage) calls this for every copy that it serves, so it must not block, and should be
    /// as cheap as reading a few atomics.
    ///
    /// Default: `None`.
    fn change_count(&self, key: Key, max_silence: Duration) -> Option<u64> {
        let _ = (key, max_silence);
        None
    }

    /// Returns the number of the server that has this key.
    ///
    /// Storages whose servers fail one by one tell them apart by any numbers, which may change. A
    /// [`TieredStorage`](super::TieredStorage) then stops asking the server that does not answer, and goes on asking the others.
    /// It calls this for each read, so it must not block.
    ///
    /// Default: zero, for a storage that works or fails as a whole.
    fn server_of(&self, key: Key) -> u16 {
        let _ = key;
        0
    }

    /// Returns the number of heads and variants.
    ///
    /// Chunks of bodies do not count.
    ///
    /// Default: counts the [`keys`](Storage::keys).
    ///
    /// # Errors
    /// Returns an error in the same cases as [`keys`](Storage::keys).
    fn size(&self) -> impl Future<Output = Result<u64>> + Send {
        async move {
            let keys = self.keys();
            keys.try_fold(0, |count, key| async move { Ok(count + u64::from(key.kind.is_listed())) }).await
        }
    }

    /// Lists the heads and variants with their keys, in any order.
    ///
    /// Default: reads each of the [`keys`](Storage::keys) that is listed, one after the other.
    ///
    /// # Errors
    /// Yields an error in the same cases as [`keys`](Storage::keys) and [`read`](Storage::read).
    fn values(&self) -> impl Stream<Item = Result<(Key, Record)>> + Send {
        self.keys().try_filter(|key| std::future::ready(key.kind.is_listed())).filter_map(
            move |key| async move {
                match key {
                    // A record that was deleted since its key was listed is skipped.
                    Ok(key) => self.read(key).await.map(|record| Some((key, record?))).transpose(),
                    Err(error) => Some(Err(error)),
                }
            },
        )
    }

    /// Writes a record if the current one has the stamp `seen`.
    ///
    /// With `seen` of `None` it writes if there is no record. Returns whether the new record is written; see clause 4 of the
    /// [contract](Storage#contract).
    ///
    /// Default: reads, compares and writes under a lock of this process. The comparison is then atomic among the tasks of
    /// this process, but not among processes.
    ///
    /// # Errors
    /// Returns an error in the same cases as [`read`](Storage::read) and [`write`](Storage::write). After an error the
    /// record may have been written, or may still be written later.
    fn write_if(
        &self,
        key: Key,
        seen: Option<Stamp>,
        record: Record,
    ) -> impl Future<Output = Result<bool>> + Send {
        async move {
            // Held from the read to the write: no other task may write between the two.
            let guard = lock_key(key).await;
            let current = self.read(key).await?.map(|current| current.stamp());
            // A driver or a caller may repeat a write whose answer it did not get.
            if current == Some(record.stamp()) {
                return Ok(true);
            }
            if current != seen {
                return Ok(false);
            }
            guard.compared().await;
            self.write(key, record).await.map(|()| true)
        }
    }

    /// Changes the time until which records are kept.
    ///
    /// Returns how many of the records there were.
    ///
    /// Default: reads and writes each record under a lock of this process.
    ///
    /// # Errors
    /// Returns an error in the same cases as [`read`](Storage::read) and [`write`](Storage::write). Some records may have
    /// been changed by then.
    fn retain(&self, keys: &[Key], retain: Retain) -> impl Future<Output = Result<u64>> + Send {
        async move {
            let mut found = 0;
            for &key in keys {
                // Without it, a record that another task writes after the read would be replaced by the older one.
                let guard = lock_key(key).await;
                if let Some(record) = self.read(key).await? {
                    found += 1;
                    let time = retain.apply(record.retain_until());
                    if time != record.retain_until() {
                        guard.compared().await;
                        self.write(key, record.with_retain_until(time)).await?;
                    }
                }
            }
            Ok(found)
        }
    }

    /// Removes the records at these keys.
    ///
    /// Returns how many of them there were.
    ///
    /// Default: calls [`delete`](Storage::delete) for each key.
    ///
    /// # Errors
    /// Returns an error in the same cases as [`delete`](Storage::delete). Some records may have been removed by then.
    fn delete_many(&self, keys: &[Key]) -> impl Future<Output = Result<u64>> + Send {
        async move {
            let mut deleted = 0;
            for &key in keys {
                deleted += u64::from(self.delete(key).await?);
            }
            Ok(deleted)
        }
    }

    /// Removes the records whose retention time is at or before `now`.
    ///
    /// Returns how many it removed.
    ///
    /// Default: reads every record.
    ///
    /// # Errors
    /// Returns an error in the same cases as [`keys`](Storage::keys), [`read`](Storage::read) and
    /// [`delete`](Storage::delete). Some records may have been removed by then.
    fn delete_expired(&self, now: Timestamp) -> impl Future<Output = Result<u64>> + Send {
        async move {
            // All at once, since not every storage allows deletions while its keys are listed.
            let keys: Vec<Key> = self.keys().try_collect().await?;
            let mut deleted = 0;
            for key in keys {
                // Another task may replace the expired record with a fresh one, which must stay.
                let guard = lock_key(key).await;
                if self.read(key).await?.is_some_and(|record| record.retain_until() <= now) {
                    guard.compared().await;
                    deleted += u64::from(self.delete(key).await?);
                }
            }
            Ok(deleted)
        }
    }

    /// Returns the length in bytes of the longest record that the storage accepts.
    ///
    /// The length of a record is that of its [bytes](Record::to_bytes).
    ///
    /// Default: no limit.
    fn max_record_len(&self) -> usize {
        usize::MAX
    }

    /// Returns up to which length in bytes a body is stored within its response's record.
    ///
    /// A longer body is stored in chunk records of its own. A body within the record is read together with it, in one
    /// operation. It is also written again whenever the origin confirms the response with a 304. A small value suits a
    /// storage whose cost grows with the bytes written; a large one suits a storage that shares the bytes.
    ///
    /// Default: 16 KiB.
    fn inline_len(&self) -> usize {
        DEFAULT_INLINE_LEN
    }

    /// Returns whether the storage keeps the records that it is given, instead of copies of their bytes.
    ///
    /// The payload of a record that is kept owns its memory, so that it costs no more than its length. If the storage keeps
    /// none, the payload of a chunk may be a part of a buffer of the client, which saves a copy of the body.
    ///
    /// Default: `true`, which is always right.
    fn keeps_records(&self) -> bool {
        true
    }

    /// Returns whether the storage compresses the payloads that it is given.
    ///
    /// A wrapper that encrypts payloads, or compresses them itself, refuses a storage that does, since that would only cost time.
    /// A wrapper forwards this method.
    ///
    /// Default: `false`.
    fn compresses(&self) -> bool {
        false
    }

    /// Announces that a body is being read, until the [`Hold`] is dropped.
    ///
    /// A storage that evicts by itself then evicts the body's entry after all others, so that a hit under way does not end
    /// with an error. `chunk` is the key of any chunk of the body, and `bytes` its length.
    ///
    /// Default: holds nothing.
    fn hold(&self, chunk: Key, bytes: u64) -> Hold {
        let _ = (chunk, bytes);
        Hold::default()
    }

    /// Returns how many bytes are stored, and the bound on them.
    ///
    /// Default: neither is known.
    ///
    /// # Errors
    /// Returns an error if the storage cannot be read.
    fn usage(&self) -> impl Future<Output = Result<Usage>> + Send {
        async { Ok(Usage::default()) }
    }

    /// Checks that the storage works.
    ///
    /// Call it at the start of a program, or for a health check.
    ///
    /// Default: reads a record that does not exist.
    ///
    /// # Errors
    /// Returns the reason why the storage cannot be used.
    fn check(&self) -> impl Future<Output = Result<()>> + Send {
        // Entries are hashes, so the one of zeros exists only by chance, and no record has to be transferred.
        async { self.read(Key::head([0; 16])).await.map(|_| ()) }
    }

    /// Waits until every accepted change is written, and ends the use of the storage.
    ///
    /// Call it at the end of a program, which could otherwise end before a thread of the storage has written its changes.
    ///
    /// Default: does nothing, for storages whose changes are written when their methods return.
    ///
    /// # Errors
    /// Returns an error if something could not be written.
    fn close(&self) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }
}

/// About the page size of most engines. So few bytes take less time to read than the round trip of a second read.
const DEFAULT_INLINE_LEN: usize = 16 * 1024;
