//! A storage that counts what is written to it.
//!
//! Some servers charge by the byte.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tower_response_cache::storage::{Key, Kind, MemoryStorage, Record, Retain, Stamp, Storage};
use tower_response_cache::{Error, ErrorKind, Result};

use super::forward::forward;

#[derive(Clone)]
pub struct Counting {
    pub inner: MemoryStorage,
    inline_len: usize,
    written: Arc<Mutex<Vec<(Kind, usize)>>>,
    moved: Arc<AtomicUsize>,
    /// Whether `retain` fails.
    pub moves_fail: Arc<AtomicBool>,
}

impl Counting {
    pub fn new(inline_len: usize) -> Self {
        Self {
            inner: MemoryStorage::new(),
            inline_len,
            written: Arc::default(),
            moved: Arc::default(),
            moves_fail: Arc::default(),
        }
    }

    /// Returns the kinds and lengths of the records written since the last call.
    pub fn written(&self) -> Vec<(Kind, usize)> {
        std::mem::take(&mut self.written.lock().unwrap())
    }

    /// Returns of how many records `retain` has changed the retention time since the last call.
    pub fn moved(&self) -> usize {
        self.moved.swap(0, Ordering::SeqCst)
    }

    fn note(&self, key: Key, record: &Record) {
        self.written.lock().unwrap().push((key.kind, record.to_bytes().len()));
    }
}

impl Storage for Counting {
    forward!(inner: read, delete, clear, keys, contains_all, delete_expired);

    async fn write(&self, key: Key, record: Record) -> Result<()> {
        self.note(key, &record);
        self.inner.write(key, record).await
    }
    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        self.note(key, &record);
        self.inner.write_if(key, seen, record).await
    }
    async fn retain(&self, keys: &[Key], retain: Retain) -> Result<u64> {
        if self.moves_fail.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "scripted"));
        }
        for key in keys {
            let there = self.inner.read(*key).await?.map(|record| record.retain_until());
            let moves = there.is_some_and(|time| retain.apply(time) != time);
            self.moved.fetch_add(usize::from(moves), Ordering::SeqCst);
        }
        self.inner.retain(keys, retain).await
    }
    fn inline_len(&self) -> usize {
        self.inline_len
    }
}
