//! The store behind deadlines and two breakers.
//!
//! Promises: no operation takes longer than its deadline (inside a tokio runtime; outside, a store that answers at once
//! is all that is used); reads that fail leave writes alone, and the other way round; a store that takes no writes is
//! still read; a panic in an operation is an error of it.

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_core::Stream;
use futures_util::{FutureExt, StreamExt, stream};

use super::super::config::Config;
use super::backlog::{Backlog, Waiting};
use super::breaker::{Breaker, PAUSE};
use crate::error::{Error, ErrorKind, Result};
use crate::observe::{Gauge, Level, Observer};
use crate::storage::{Key, Record, Retain, Stamp, Storage, exclusive};
use crate::time::Clock;

pub(crate) struct Guarded<S> {
    store: S,
    clock: Clock,
    deadline: Duration,
    body_deadline: Duration,
    reads: Breaker,
    writes: Breaker,
    backlog: Arc<Backlog>,
    /// Whether the last writes were refused, and when the last one was, in milliseconds since the epoch.
    refuses: AtomicBool,
    refused_at: AtomicU64,
    observer: Arc<Observer>,
    /// While the store is left alone.
    left_alone: Mutex<Option<Level>>,
}

impl<S: Storage> Guarded<S> {
    pub(crate) fn new(store: S, config: &Config, observer: Arc<Observer>) -> Self {
        Self {
            store,
            clock: config.clock.clone(),
            deadline: config.deadline,
            body_deadline: config.body_deadline,
            reads: Breaker::new("reads", config.clock.clone()),
            writes: Breaker::new("writes", config.clock.clone()),
            backlog: Arc::new(Backlog::new(config.clock.clone())),
            refuses: AtomicBool::new(false),
            refused_at: AtomicU64::new(0),
            observer,
            left_alone: Mutex::default(),
        }
    }

    pub(crate) fn store(&self) -> &S {
        &self.store
    }

    /// What the store answers at once, while it is known to be well.
    pub(crate) fn read_now(&self, key: Key) -> Option<Result<Option<Record>>> {
        if self.reads.is_well() { self.store.read_now(key) } else { None }
    }

    pub(crate) async fn read(&self, key: Key) -> Result<Option<Record>> {
        self.run("read", &self.reads, self.deadline, async { self.store.read(key).await }).await
    }

    /// Reads a chunk of a body whose head is already with the caller.
    pub(crate) async fn read_chunk(&self, key: Key) -> Result<Option<Record>> {
        self.run("read_chunk", &self.reads, self.body_deadline, async { self.store.read(key).await }).await
    }

    /// Whether the rest of a body is there.
    pub(crate) async fn contains_all(&self, keys: &[Key]) -> Result<bool> {
        if keys.is_empty() {
            return Ok(true);
        }
        let contains = async { self.store.contains_all(keys).await };
        self.run("contains_all", &self.reads, self.deadline, contains).await
    }

    pub(crate) async fn write(&self, key: Key, record: Record) -> Result<()> {
        self.fits(&record)?;
        self.run_write("write", async { self.store.write(key, record).await }, |()| true).await
    }

    /// A write without comparing, to a place where others compare.
    pub(crate) async fn overwrite(&self, key: Key, record: Record) -> Result<()> {
        let write = async {
            let _guard = exclusive(key).await;
            self.store.write(key, record).await
        };
        self.run_write("overwrite", write, |()| true).await
    }

    pub(crate) async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        self.fits(&record)?;
        let write = async { self.store.write_if(key, seen, record).await };
        self.run_write("write_if", write, |written| *written).await
    }

    pub(crate) async fn retain(&self, keys: &[Key], retain: Retain) -> Result<u64> {
        if keys.is_empty() {
            return Ok(0);
        }
        let retain = async { self.store.retain(keys, retain).await };
        self.run("retain", &self.writes, self.deadline, retain).await
    }

    pub(crate) async fn delete_many(&self, keys: &[Key]) -> Result<u64> {
        let delete = async { self.store.delete_many(keys).await };
        self.run("delete_many", &self.writes, self.deadline, delete).await
    }

    /// Whether the storage has more to write than it can take now.
    pub(crate) fn is_busy(&self) -> bool {
        self.backlog.is_full()
    }

    /// Takes a place among what waits for the storage, for a part of a response.
    ///
    /// # Errors
    ///
    /// Returns `Busy` if there is none; the response is then not stored, which is noted here.
    pub(super) fn enter(&self, record: &Record) -> Result<Waiting> {
        self.backlog.enter(record.weight()).inspect_err(|_| self.note_shed())
    }

    /// Notes a response that is not stored since there was no place.
    pub(crate) fn note_shed(&self) {
        self.backlog.note_shed();
    }

    fn fits(&self, record: &Record) -> Result<()> {
        if record.weight() <= self.store.max_record_len() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::TooLarge, "the record is longer than the store takes"))
    }

    /// A listing of which no step takes longer than a chunk may take.
    pub(crate) fn steps<T: Send, L: Stream<Item = Result<T>> + Send>(
        &self,
        listing: L,
    ) -> impl Stream<Item = Result<T>> + Send + use<T, L, S> {
        let deadline = self.body_deadline;
        stream::unfold(Some(Box::pin(listing)), move |listing| async move {
            let mut listing = listing?;
            match within(deadline, async { Ok(listing.next().await) }).await {
                Ok(Some(item)) => Some((item, Some(listing))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// Runs a write, and notes whether the store takes any.
    async fn run_write<T>(
        &self,
        name: &'static str,
        operation: impl Future<Output = Result<T>>,
        is_written: impl FnOnce(&T) -> bool,
    ) -> Result<T> {
        let result = self.run(name, &self.writes, self.deadline, operation).await;
        match &result {
            Ok(_) => self.backlog.taken(),
            Err(error) if matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Busy) => self.backlog.late(),
            Err(_) => {}
        }
        match &result {
            Err(error) if matches!(error.kind(), ErrorKind::ReadOnly | ErrorKind::Full) => {
                self.refused_at.store(self.clock.now().as_millis(), Ordering::Relaxed);
                if !self.refuses.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "the storage takes no writes: it is read, and nothing new is stored");
                }
            }
            Ok(done) if self.refuses.load(Ordering::Relaxed) && is_written(done) => {
                // A store that is nearly full takes one record and refuses the next.
                let since = self.clock.now().as_millis().abs_diff(self.refused_at.load(Ordering::Relaxed));
                if u128::from(since) >= PAUSE.as_millis() && self.refuses.swap(false, Ordering::Relaxed) {
                    tracing::info!("the storage takes writes again");
                }
            }
            _ => {}
        }
        result
    }

    /// Runs an operation, which is not begun before this: a panic in the making of its future is one of the operation.
    async fn run<T>(
        &self,
        name: &'static str,
        breaker: &Breaker,
        deadline: Duration,
        operation: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        breaker.admit()?;
        let timer = self.observer.begin(name);
        // A panic in a storage is an error of it: the request goes on, and what was to be stored is told of.
        let operation = AssertUnwindSafe(operation).catch_unwind();
        let result = within(deadline, async {
            operation.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Other, "the storage panicked")))
        })
        .await;
        timer.end(&result);
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
                    // Each time, for a recorder may have come since.
                    self.show();
                }
            }
            _ => {
                if breaker.succeeded() {
                    self.show();
                }
            }
        }
        result
    }

    /// Shows whether the storage is left alone.
    fn show(&self) {
        let is_left_alone = self.reads.is_open() || self.writes.is_open();
        let mut level = self.left_alone.lock().unwrap_or_else(PoisonError::into_inner);
        *level = None;
        *level = is_left_alone.then(|| self.observer.raise(Gauge::LeftAlone));
    }
}

/// The operation's result, or a timeout. An operation that is ready at once costs no timer.
pub(crate) async fn within<T>(deadline: Duration, operation: impl Future<Output = Result<T>>) -> Result<T> {
    let mut operation = pin!(operation);
    let first = poll_fn(|cx| Poll::Ready(operation.as_mut().poll(cx))).await;
    if let Poll::Ready(result) = first {
        return result;
    }
    if tokio::runtime::Handle::try_current().is_err() {
        return operation.await;
    }
    match tokio::time::timeout(deadline, operation).await {
        Ok(result) => result,
        Err(_) => Err(Error::new(ErrorKind::Timeout, "the store did not answer within the deadline")),
    }
}
