//! The storage with deadlines and two circuit breakers.
//!
//! # Invariants
//!
//! - Inside a tokio runtime, every operation ends within its deadline. Outside a runtime there are no timers, and an
//!   operation takes as long as the storage takes.
//! - Reads that fail do not open the breaker of writes, and writes that fail do not open that of reads.
//! - A storage that refuses writes is still read.
//! - A panic in the storage while it reads or writes a record is returned as an error.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::runtime::Handle;
use tokio::task::unconstrained;
use tokio::time::sleep;

use super::backlog::{Backlog, BacklogPermit};
use super::breaker::{Breaker, PAUSE};
use crate::error::{Error, ErrorKind, Result};
use crate::observe::{Gauge, GaugeGuard, Observer};
use crate::service::config::Config;
use crate::storage::{Key, Record, Retain, Stamp, Storage, lock_key};
use crate::time::Clock;

/// Runs the operations of a storage within their deadlines.
pub(crate) struct Guarded<S> {
    storage: S,
    clock: Clock,
    deadline: Duration,
    body_deadline: Duration,
    reads: Breaker,
    writes: Breaker,
    backlog: Arc<Backlog>,
    /// The storage refuses writes, since it is full or read-only.
    ///
    /// Relaxed, as is `refused_at`: both only decide which events are sent.
    refuses_writes: AtomicBool,
    /// When the last write was refused, in milliseconds since the epoch.
    refused_at: AtomicU64,
    observer: Arc<Observer>,
    /// Raises the gauge while a breaker is open. A std `Mutex`, which also orders the tasks that report the breakers: each
    /// reads the breakers under it, so that the last task reports their current state.
    open_gauge: Mutex<Option<GaugeGuard>>,
}

impl<S: Storage> Guarded<S> {
    /// Wraps a storage with the deadlines of the settings.
    pub(crate) fn new(storage: S, config: &Config, observer: Arc<Observer>) -> Self {
        Self {
            storage,
            clock: config.clock.clone(),
            deadline: config.operation_timeout,
            body_deadline: config.body_timeout,
            reads: Breaker::new("reads", config.clock.clone()),
            writes: Breaker::new("writes", config.clock.clone()),
            backlog: Arc::new(Backlog::new(config.clock.clone())),
            refuses_writes: AtomicBool::new(false),
            refused_at: AtomicU64::new(0),
            observer,
            open_gauge: Mutex::default(),
        }
    }

    /// Returns the storage itself, without deadlines and breakers.
    pub(crate) fn inner(&self) -> &S {
        &self.storage
    }

    /// Reads a record if the storage answers at once and its last read succeeded.
    pub(crate) fn read_now(&self, key: Key) -> Option<Result<Option<Record>>> {
        if !self.reads.is_healthy() {
            return None;
        }
        // After a panic, the caller calls `read` instead, where the breaker counts the failure.
        catch_unwind(AssertUnwindSafe(|| self.storage.read_now(key))).unwrap_or(None)
    }

    /// Reads consecutive chunks if the storage returns them at once and its last read succeeded.
    ///
    /// Returns whether there are all chunks up to `last`.
    pub(super) fn read_chunks_now(&self, first: Key, last: u32, chunks: &mut [Option<Bytes>]) -> bool {
        // After a panic, as in `read_now`.
        let read = AssertUnwindSafe(|| self.storage.read_chunks_now(first, last, chunks));
        self.reads.is_healthy() && catch_unwind(read).unwrap_or(false)
    }

    /// Reads a record within the deadline of a lookup.
    pub(crate) async fn read(&self, key: Key) -> Result<Option<Record>> {
        let read = pin!(async { self.storage.read(key).await });
        self.run("read", &self.reads, self.deadline, read).await
    }

    /// Reads a chunk of a body within the longer deadline of a body.
    pub(crate) async fn read_chunk(&self, key: Key) -> Result<Option<Record>> {
        let read = pin!(async { self.storage.read(key).await });
        self.run("read_chunk", &self.reads, self.body_deadline, read).await
    }

    /// Returns whether all of these records are stored.
    pub(crate) async fn contains_all(&self, keys: &[Key]) -> Result<bool> {
        if keys.is_empty() {
            return Ok(true);
        }
        let contains = pin!(async { self.storage.contains_all(keys).await });
        self.run("contains_all", &self.reads, self.deadline, contains).await
    }

    /// Writes a record to a key that no other task compares.
    pub(crate) async fn write(&self, key: Key, record: Record) -> Result<()> {
        self.fits(&record)?;
        let write = pin!(async { self.storage.write(key, record).await });
        self.run_write("write", write, |()| true).await
    }

    /// Overwrites a record without comparing, if that is still due, and returns whether it was.
    ///
    /// Other tasks may compare the key. `is_due` and `done` are called under the key's lock. So of two tasks that write the
    /// tombstone of one invalidation, the second writes nothing: its tombstone would invalidate a response that was stored
    /// after the first one.
    pub(crate) async fn overwrite(
        &self,
        key: Key,
        record: Record,
        is_due: impl Fn() -> bool + Send + Sync,
        done: impl Fn() + Send + Sync,
    ) -> Result<bool> {
        let write = async {
            // A storage of the user may have the provided `write_if`, which reads and then writes under this lock. A write
            // without the lock could happen between the two, and be overwritten. It is a tokio mutex, since it is held while
            // the storage is awaited. The deadline bounds that time.
            let _guard = lock_key(key).await;
            if !is_due() {
                return Ok(false);
            }
            self.storage.write(key, record).await?;
            done();
            Ok(true)
        };
        self.run_write("overwrite", pin!(write), |written| *written).await
    }

    /// Writes a record if the key still has the stamp that was seen.
    #[allow(clippy::manual_async_fn)] // an async function has room for its arguments twice
    pub(crate) fn write_if(
        &self,
        key: Key,
        seen: Option<Stamp>,
        record: Record,
    ) -> impl Future<Output = Result<bool>> + Send {
        async move {
            self.fits(&record)?;
            let write = pin!(async { self.storage.write_if(key, seen, record).await });
            self.run_write("write_if", write, |written| *written).await
        }
    }

    /// Moves the expiry of records, and returns how many of them exist.
    pub(crate) async fn retain(&self, keys: &[Key], retain: Retain) -> Result<u64> {
        if keys.is_empty() {
            return Ok(0);
        }
        let retain = pin!(async { self.storage.retain(keys, retain).await });
        self.run("retain", &self.writes, self.deadline, retain).await
    }

    /// Deletes records, and returns how many of them existed.
    pub(crate) async fn delete_many(&self, keys: &[Key]) -> Result<u64> {
        let delete = pin!(async { self.storage.delete_many(keys).await });
        self.run("delete_many", &self.writes, self.deadline, delete).await
    }

    /// Returns whether the backlog of the storage is full.
    pub(crate) fn is_busy(&self) -> bool {
        self.backlog.is_full()
    }

    /// Returns whether a response should wait for [room](Self::room) before it is stored.
    pub(crate) fn makes_wait(&self) -> bool {
        self.backlog.makes_wait()
    }

    /// Waits for a short time until the backlog has room for a response, and returns whether it has.
    pub(crate) async fn room(&self) -> bool {
        self.backlog.room().await
    }

    /// Acquires a permit of the backlog for a record of a response.
    ///
    /// # Errors
    ///
    /// Returns `Busy` if no permit is left. The response is then counted as not stored.
    pub(super) fn acquire_backlog(&self, record: &Record) -> Result<BacklogPermit> {
        self.backlog.acquire(record.weight()).inspect_err(|_| self.count_shed())
    }

    /// Counts a response that is not stored because the backlog is full.
    pub(crate) fn count_shed(&self) {
        self.backlog.count_shed();
    }

    /// Checks that a record is not longer than the storage accepts, before it is sent.
    fn fits(&self, record: &Record) -> Result<()> {
        if record.weight() <= self.storage.max_record_len() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::TooLarge, "the record is longer than the storage accepts"))
    }

    /// Returns a listing each step of which has the deadline of a body.
    pub(crate) fn with_deadlines<T: Send, L: Stream<Item = Result<T>> + Send>(
        &self,
        listing: L,
    ) -> impl Stream<Item = Result<T>> + Send + use<T, L, S> {
        let deadline = self.body_deadline;
        // Boxed, since the listing has to be pinned, and moves from step to step. It ends with its first late step.
        stream::unfold(Some(Box::pin(listing)), move |listing| async move {
            let mut listing = listing?;
            match within(deadline, async { Ok(listing.next().await) }).await {
                Ok(Some(item)) => Some((item, Some(listing))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// Runs a write, and updates the backlog by its result.
    ///
    /// It also sends the events about refused writes.
    async fn run_write<T>(
        &self,
        name: &'static str,
        operation: impl Future<Output = Result<T>>,
        is_written: impl FnOnce(&T) -> bool,
    ) -> Result<T> {
        let result = self.run(name, &self.writes, self.deadline, operation).await;
        match &result {
            Ok(_) => self.backlog.write_in_time(),
            Err(error) if matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Busy) => {
                self.backlog.write_late()
            }
            Err(_) => {}
        }
        match &result {
            Err(error) if matches!(error.kind(), ErrorKind::ReadOnly | ErrorKind::Full) => {
                self.refused_at.store(self.clock.now().as_millis(), Ordering::Relaxed);
                if !self.refuses_writes.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "the storage takes no writes: it is read, and nothing new is stored");
                }
            }
            Ok(done) if self.refuses_writes.load(Ordering::Relaxed) && is_written(done) => {
                // A storage that is nearly full accepts one record and refuses the next. So the event that it accepts writes
                // again is sent only after it has refused none for a while.
                let since = self.clock.now().as_millis().abs_diff(self.refused_at.load(Ordering::Relaxed));
                if u128::from(since) >= PAUSE.as_millis()
                    && self.refuses_writes.swap(false, Ordering::Relaxed)
                {
                    tracing::info!("the storage takes writes again");
                }
            }
            _ => {}
        }
        result
    }

    /// Runs an operation through a breaker, within a deadline.
    ///
    /// The caller puts the call of the storage into an async block, so that a panic while the storage makes its future is
    /// caught as well. It also pins the block, since an async function has room for its arguments twice, and this operation
    /// passes through several.
    async fn run<T>(
        &self,
        name: &'static str,
        breaker: &Breaker,
        deadline: Duration,
        operation: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        breaker.admit()?;
        let (timer, time) = (self.observer.begin(name), self.observer.time_storage());
        let result = within(deadline, operation).await;
        timer.end(&result);
        time.stop();
        match &result {
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Unavailable
                        | ErrorKind::Denied
                        | ErrorKind::Timeout
                        | ErrorKind::Corrupt
                        | ErrorKind::Other
                ) =>
            {
                breaker.failed(name, error);
                if breaker.is_open() {
                    // At each failure, not only at the first: a metrics recorder may have been installed since.
                    self.report_breakers();
                }
            }
            // A result, or an error about this record only: the storage works.
            _ => {
                if breaker.succeeded() {
                    self.report_breakers();
                }
            }
        }
        result
    }

    /// Sets the gauge to whether a breaker is open.
    fn report_breakers(&self) {
        let mut gauge = self.open_gauge.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock: otherwise an old state could be reported after a newer one.
        let is_open = self.reads.is_open() || self.writes.is_open();
        // Dropped first, so that the gauge is not raised twice.
        *gauge = None;
        *gauge = is_open.then(|| self.observer.raise(Gauge::BreakerOpen));
    }
}

/// Runs an operation of the storage within a deadline.
///
/// # Errors
///
/// Returns the operation's error, `Timeout` if it is not done in time, or `Other` if it panicked.
pub(crate) async fn within<T>(deadline: Duration, operation: impl Future<Output = Result<T>>) -> Result<T> {
    // A panic in the storage must not fail a request that can be answered without the storage. Unwind safety is asserted,
    // because other tasks use the storage after a panic in any case.
    let operation = AssertUnwindSafe(operation).catch_unwind();
    let operation = operation
        .map(|result| result.unwrap_or_else(|_| Err(Error::new(ErrorKind::Other, "the storage panicked"))));
    let mut operation = pin!(operation);
    // Made once the operation has to wait: a storage in memory completes at once, and a timer costs more than its answer.
    let mut timer = pin!(None);
    poll_fn(|cx| {
        if let Poll::Ready(result) = operation.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        // Outside a runtime, creating a timer would panic.
        if timer.is_none() && Handle::try_current().is_ok() {
            // Unconstrained: an operation that uses up the task's budget each time must not outlive its deadline.
            timer.set(Some(unconstrained(sleep(deadline))));
        }
        let Some(timer) = timer.as_mut().as_pin_mut() else { return Poll::Pending };
        timer
            .poll(cx)
            .map(|()| Err(Error::new(ErrorKind::Timeout, "the storage did not answer within the deadline")))
    })
    .await
}
