//! A storage that fails on demand.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tower_response_cache::storage::{Key, MemoryStorage, Record, Retain, Stamp, Storage};
use tower_response_cache::{Error, ErrorKind, Result, Timestamp};

use super::forward::forward;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Well,
    /// Every operation fails.
    Failing,
    /// No operation completes.
    Hung,
    /// Changes are refused. Reads work.
    ReadOnly,
    /// The storage is full. Reads and deletions work.
    Full,
    /// Changes do not complete. Reads work.
    HungWrites,
    /// Changes fail. Reads work.
    FailingWrites,
    /// Reads do not complete. Changes work.
    HungReads,
    /// Every second operation fails.
    Alternating,
}

#[derive(Clone)]
pub struct Faulty {
    pub inner: MemoryStorage,
    mode: Arc<Mutex<Mode>>,
    /// The number of operations that reached the storage.
    pub operations: Arc<AtomicUsize>,
    wake: Arc<tokio::sync::Notify>,
}

impl Faulty {
    pub fn new(mode: Mode) -> Self {
        Self {
            inner: MemoryStorage::new(),
            mode: Arc::new(Mutex::new(mode)),
            operations: Arc::default(),
            wake: Arc::default(),
        }
    }

    pub fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
        self.wake.notify_waiters();
    }

    pub fn operations(&self) -> usize {
        self.operations.load(Ordering::SeqCst)
    }

    /// Returns an error while the storage is full.
    fn has_room(&self) -> Result<()> {
        match *self.mode.lock().unwrap() {
            Mode::Full => Err(Error::new(ErrorKind::Full, "scripted")),
            _ => Ok(()),
        }
    }

    async fn go(&self, changes: bool) -> Result<()> {
        let number = self.operations.fetch_add(1, Ordering::SeqCst);
        loop {
            let woken = self.wake.notified();
            let mode = *self.mode.lock().unwrap();
            match mode {
                Mode::Well | Mode::Full => return Ok(()),
                Mode::ReadOnly if changes => return Err(Error::new(ErrorKind::ReadOnly, "scripted")),
                Mode::ReadOnly => return Ok(()),
                Mode::HungWrites | Mode::FailingWrites if !changes => return Ok(()),
                Mode::HungReads if changes => return Ok(()),
                Mode::Alternating if number.is_multiple_of(2) => return Ok(()),
                Mode::Alternating | Mode::Failing | Mode::FailingWrites => {
                    return Err(Error::new(ErrorKind::Unavailable, "scripted"));
                }
                Mode::Hung | Mode::HungWrites | Mode::HungReads => woken.await,
            }
        }
    }
}

impl Storage for Faulty {
    forward!(inner: clear, keys, max_record_len);

    async fn read(&self, key: Key) -> Result<Option<Record>> {
        self.go(false).await?;
        self.inner.read(key).await
    }
    async fn write(&self, key: Key, record: Record) -> Result<()> {
        self.go(true).await?;
        self.has_room()?;
        self.inner.write(key, record).await
    }
    async fn delete(&self, key: Key) -> Result<bool> {
        self.go(true).await?;
        self.inner.delete(key).await
    }
    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        self.go(true).await?;
        self.has_room()?;
        self.inner.write_if(key, seen, record).await
    }
    async fn retain(&self, keys: &[Key], retain: Retain) -> Result<u64> {
        self.go(true).await?;
        self.inner.retain(keys, retain).await
    }
    async fn delete_many(&self, keys: &[Key]) -> Result<u64> {
        self.go(true).await?;
        self.inner.delete_many(keys).await
    }
    async fn delete_expired(&self, now: Timestamp) -> Result<u64> {
        self.go(true).await?;
        self.inner.delete_expired(now).await
    }
}
