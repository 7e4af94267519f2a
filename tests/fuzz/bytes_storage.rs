//! A storage that keeps records as bytes, and can flip a bit of one.
//!
//! Storages on disks and servers keep bytes too.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tower_response_cache::storage::{Key, Record, Storage};
use tower_response_cache::{Error, ErrorKind, Result};

#[derive(Clone, Debug, Default)]
pub struct BytesStorage(Arc<Mutex<BTreeMap<Key, Bytes>>>);

impl BytesStorage {
    /// Flips a bit of one of the records.
    pub fn damage(&self, choice: u8) {
        let mut map = self.0.lock().unwrap();
        let at = usize::from(choice) % map.len().max(1);
        if let Some(record) = map.values_mut().nth(at) {
            let mut bytes = record.to_vec();
            let at = usize::from(choice).wrapping_mul(7919) % bytes.len();
            bytes[at] ^= 1 << (choice % 8);
            *record = bytes.into();
        }
    }
}

impl Storage for BytesStorage {
    async fn read(&self, key: Key) -> Result<Option<Record>> {
        let bytes = self.0.lock().unwrap().get(&key).cloned();
        match bytes.map(Record::from_bytes) {
            None => Ok(None),
            Some(Ok(record)) => Ok(Some(record)),
            // The contract demands that damaged records are absent.
            Some(Err(error)) if error.kind() == ErrorKind::Corrupt => Ok(None),
            Some(Err(error)) => Err(Error::new(ErrorKind::Other, "unexpected").with_source(error)),
        }
    }

    async fn write(&self, key: Key, record: Record) -> Result<()> {
        self.0.lock().unwrap().insert(key, record.to_bytes());
        Ok(())
    }

    async fn delete(&self, key: Key) -> Result<bool> {
        Ok(self.0.lock().unwrap().remove(&key).is_some())
    }

    async fn clear(&self) -> Result<()> {
        self.0.lock().unwrap().clear();
        Ok(())
    }

    fn keys(&self) -> impl Stream<Item = Result<Key>> + Send {
        stream::iter(self.0.lock().unwrap().keys().copied().map(Ok).collect::<Vec<_>>())
    }
}
