//! The trait that every storage implements, and its contract.

use std::future::Future;

use futures_core::Stream;
use futures_util::{StreamExt, TryStreamExt};

use super::exclusive::exclusive;
use super::{Hold, Key, Record, Stamp};
use crate::error::Result;
use crate::time::Timestamp;

/// How [`Storage::retain`] moves the time until which records are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retain {
    /// Keep at least until then: never shortens.
    AtLeast(Timestamp),
    /// Keep at most until then: never lengthens.
    AtMost(Timestamp),
}

impl Retain {
    /// The time that a record kept until `time` is kept until afterwards.
    #[must_use]
    pub fn apply(self, time: Timestamp) -> Timestamp {
        match self {
            Self::AtLeast(least) => time.max(least),
            Self::AtMost(most) => time.min(most),
        }
    }
}

/// How much a storage keeps, and how much it may keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// How many bytes its records take, as the storage counts them for its bound; `None`: it does not count.
    pub bytes: Option<u64>,
    /// The bound on these bytes; `None`: it has none, or its server sets it.
    pub max_bytes: Option<u64>,
}

impl Usage {
    /// Makes the usage of a storage that counts its bytes.
    #[must_use]
    pub fn new(bytes: u64, max_bytes: Option<u64>) -> Self {
        Self { bytes: Some(bytes), max_bytes }
    }
}

/// Where responses are kept: a map from [`Key`] to [`Record`] that knows nothing about HTTP.
///
/// Five operations are required; a backend of one's own writes just these. The others are provided, and every
/// built-in storage overrides them with what its engine does better.
///
/// # Contract
/// The cache relies on these clauses; the suite in `testing` has at least one test for each.
///
/// 1. **Exact.** `read` gives the record that was written: payload, stamp and time, byte for byte, at any length up to
///    [`max_record_len`](Storage::max_record_len). Where nothing is, it gives `None`.
/// 2. **Fresh.** A `read` that begins after a `write` or `delete` has returned sees it, from every clone and, where
///    processes share the store, from every process.
/// 3. **Atomic.** `write` replaces the whole record: a reader sees the old one or the new one.
/// 4. **Compare and write.** `write_if` writes when the record there has the stamp `seen` (`None`: when nothing is
///    there) and says true; else it changes nothing and says false. It also says true when the record there already
///    has the new record's stamp. Of many that raced with the same `seen`, one is told true. What `read` hides,
///    `write_if` counts as absent.
/// 5. **Delete** is idempotent and says whether a record was there. `delete_many` counts those that were.
/// 6. **Clear** removes this cache's records and touches no neighbour's, whatever either is called.
/// 7. **Listings.** `keys` gives every key that is there from its beginning to its end, none twice, and does not fail
///    for changes made meanwhile. `values` gives the records that are [listed](super::Kind::is_listed) (heads and
///    variants), `size` is their number. Chunks of bodies are in `keys` only.
/// 8. **Retention.** A record stays at least until its time; [`Timestamp::NEVER`] has no end. An expired record may
///    be given or hidden, alike by `read`, `read_now` and `write_if`. A bounded store may evict before the time; records
///    of every kind count in its bound and are evicted, for a remote party can have any number of each made.
/// 9. **Moving retention.** `retain` moves the time and leaves payload and stamp; `AtLeast` never shortens,
///    `AtMost` never lengthens; absent records are skipped; it says how many were there. `read` shows the new time.
/// 10. **Expiry.** `delete_expired(now)` removes the records whose time is before or at `now`, of every kind, nothing
///     else, and says how many.
/// 11. **Clones** are handles of one store.
/// 12. **Cancellation.** A future may be dropped at every await: the operation has happened or has not, nothing in
///     between, and the storage goes on.
/// 13. **Limits.** A record longer than `max_record_len` is refused as [`TooLarge`](crate::ErrorKind::TooLarge), and
///     what was there stays.
/// 14. **Damage.** Bytes that are not a record, or of another version, count as absent; they are no error.
/// 15. **Names.** A store that is shared by name takes hostile names (glob signs, quotes, Unicode) as they are, or
///     refuses them when it is built.
/// 16. **`read_now`** gives `None`, or what `read` would give.
/// 17. **Parts.** Where the store may drop some records of an entry and leave others, `contains_all` says false when one
///     of those it is asked for is missing. It says true when all are there.
/// 18. **Held entries.** While a [`Hold`] of [`hold`](Storage::hold) lives, a store with a bound evicts that entry after all
///     others. It may limit how much is held, and for how long.
/// 19. **Close.** When `close` has returned, everything that was taken is written: a handle opened anew reads it. It is idempotent;
///     what is asked of a closed storage is answered, or fails with an error.
///
/// # Writing one
/// See `examples/custom_storage.rs`. Methods may be written as `async fn`. Futures must be `Send`.
///
/// # Wrappers
/// A wrapper must forward every method, `read_now` and the provided ones included: what it leaves out falls back to the
/// provided version, which is slower and keeps clause 4 among the tasks of one process only.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no storage of a cache",
    label = "give the cache a storage, such as `MemoryStorage::new()`",
    note = "`build()` of most storages' builders returns a `Result`, and `connect` a future: use `?` or `.await?` first"
)]
pub trait Storage: Clone + Send + Sync + 'static {
    /// The record at this key.
    ///
    /// # Errors
    /// When the store cannot be asked. An absent or damaged record is `Ok(None)`.
    fn read(&self, key: Key) -> impl Future<Output = Result<Option<Record>>> + Send;

    /// Writes a record, in place of one that is there.
    ///
    /// # Errors
    /// When the store did not take it, or takes none of that length.
    fn write(&self, key: Key, record: Record) -> impl Future<Output = Result<()>> + Send;

    /// Removes a record; says whether one was there.
    ///
    /// # Errors
    /// When the store cannot be asked.
    fn delete(&self, key: Key) -> impl Future<Output = Result<bool>> + Send;

    /// Removes all records of this cache.
    ///
    /// # Errors
    /// When the store cannot be asked; some may be removed by then.
    fn clear(&self) -> impl Future<Output = Result<()>> + Send;

    /// The keys of all records.
    fn keys(&self) -> impl Stream<Item = Result<Key>> + Send;

    /// What [`read`](Storage::read) would give, if that needs no waiting; `None`: ask `read`.
    ///
    /// Provided: `None`.
    fn read_now(&self, key: Key) -> Option<Result<Option<Record>>> {
        let _ = key;
        None
    }

    /// Whether a record is there.
    ///
    /// # Errors
    /// As [`read`](Storage::read).
    fn contains(&self, key: Key) -> impl Future<Output = Result<bool>> + Send {
        async move { Ok(self.read(key).await?.is_some()) }
    }

    /// Whether none of these records is missing: asked before a body of several is served. A storage that never drops a
    /// part of an entry by itself may say true without looking.
    ///
    /// Provided: asks [`contains`](Storage::contains) for each.
    ///
    /// # Errors
    /// As [`read`](Storage::read).
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

    /// How many heads and variants are there. Chunks do not count.
    ///
    /// # Errors
    /// As [`keys`](Storage::keys).
    fn size(&self) -> impl Future<Output = Result<u64>> + Send {
        async move {
            let keys = self.keys();
            keys.try_fold(0, |count, key| async move { Ok(count + u64::from(key.kind.is_listed())) }).await
        }
    }

    /// The heads and variants with their keys.
    fn values(&self) -> impl Stream<Item = Result<(Key, Record)>> + Send {
        self.keys().try_filter(|key| std::future::ready(key.kind.is_listed())).filter_map(
            move |key| async move {
                match key {
                    Ok(key) => self.read(key).await.map(|record| Some((key, record?))).transpose(),
                    Err(error) => Some(Err(error)),
                }
            },
        )
    }

    /// Writes a record if the one that is there has the stamp `seen` (`None`: if none is there); says whether it is
    /// written.
    ///
    /// Provided: read, compare and write under a lock of this process.
    ///
    /// # Errors
    /// As [`read`](Storage::read) and [`write`](Storage::write). After an error the record may still be written.
    fn write_if(
        &self,
        key: Key,
        seen: Option<Stamp>,
        record: Record,
    ) -> impl Future<Output = Result<bool>> + Send {
        async move {
            let _guard = exclusive(key).await;
            let there = self.read(key).await?.map(|there| there.stamp());
            if there == Some(record.stamp()) {
                return Ok(true);
            }
            if there != seen {
                return Ok(false);
            }
            self.write(key, record).await.map(|()| true)
        }
    }

    /// Moves the time until which records are kept; says how many of them were there.
    ///
    /// Provided: read and write under a lock of this process.
    ///
    /// # Errors
    /// As [`read`](Storage::read) and [`write`](Storage::write); some may be moved by then.
    fn retain(&self, keys: &[Key], retain: Retain) -> impl Future<Output = Result<u64>> + Send {
        async move {
            let mut there = 0;
            for &key in keys {
                let _guard = exclusive(key).await;
                if let Some(record) = self.read(key).await? {
                    there += 1;
                    let time = retain.apply(record.retain_until());
                    if time != record.retain_until() {
                        self.write(key, record.with_retain_until(time)).await?;
                    }
                }
            }
            Ok(there)
        }
    }

    /// Removes records; says how many of them were there.
    ///
    /// # Errors
    /// As [`delete`](Storage::delete); some may be removed by then.
    fn delete_many(&self, keys: &[Key]) -> impl Future<Output = Result<u64>> + Send {
        async move {
            let mut deleted = 0;
            for &key in keys {
                deleted += u64::from(self.delete(key).await?);
            }
            Ok(deleted)
        }
    }

    /// Removes the records whose time is before or at `now`; says how many.
    ///
    /// Provided: reads every record.
    ///
    /// # Errors
    /// As [`keys`](Storage::keys) and [`delete`](Storage::delete); some may be removed by then.
    fn delete_expired(&self, now: Timestamp) -> impl Future<Output = Result<u64>> + Send {
        async move {
            let keys: Vec<Key> = self.keys().try_collect().await?;
            let mut deleted = 0;
            for key in keys {
                let _guard = exclusive(key).await;
                if self.read(key).await?.is_some_and(|record| record.retain_until() <= now) {
                    deleted += u64::from(self.delete(key).await?);
                }
            }
            Ok(deleted)
        }
    }

    /// The greatest [length](Record::to_bytes) of a record that the store takes. Provided: no limit.
    fn max_record_len(&self) -> usize {
        usize::MAX
    }
    /// The length in bytes up to which a body is kept within the record of its response. A longer one has records of its own.
    ///
    /// A body within the record is read with it, at once. It is also written again with it, whenever the origin confirms the
    /// response: a store that pays by the byte wants this small, and one that shares the bytes wants it large.
    ///
    /// Provided: 16 KiB.
    fn inline_len(&self) -> usize {
        DEFAULT_INLINE_LEN
    }

    /// Says that a body of so many bytes is being read, until the [`Hold`] is dropped: a store that evicts by itself evicts the
    /// body's entry last, so that a hit under way does not end with an error. `chunk` is the key of any of its chunks.
    ///
    /// Provided: holds nothing.
    fn hold(&self, chunk: Key, bytes: u64) -> Hold {
        let _ = (chunk, bytes);
        Hold::default()
    }

    /// How many bytes are kept, and the bound on them.
    ///
    /// Provided: neither is known.
    ///
    /// # Errors
    /// When the store cannot be asked.
    fn usage(&self) -> impl Future<Output = Result<Usage>> + Send {
        async { Ok(Usage::default()) }
    }

    /// Asks the store whether it works: for a program that wants to know when it starts, or for a health check.
    ///
    /// Provided: reads a record that is not there.
    ///
    /// # Errors
    /// Why the store cannot be used.
    fn check(&self) -> impl Future<Output = Result<()>> + Send {
        async { self.read(Key::head([0; 16])).await.map(|_| ()) }
    }

    /// Ends the use of the storage in good order: when it returns, everything that was taken is written. For the end of
    /// a program, which else may end before a thread of the storage has.
    ///
    /// Provided: nothing, for storages whose writes are done when they return.
    ///
    /// # Errors
    /// When something could not be written.
    fn close(&self) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }
}

/// Below the size of a page of most stores, and of a round trip that costs more than its bytes.
const DEFAULT_INLINE_LEN: usize = 16 * 1024;
