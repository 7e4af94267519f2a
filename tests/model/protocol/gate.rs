//! A storage whose every operation waits until the schedule decides its fate.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;
use tower_response_cache::storage::{Key, MemoryStorage, Record, Retain, Stamp, Storage};
use tower_response_cache::{Error, ErrorKind, Result};

use crate::support::forward::forward;

/// The fate of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It succeeds.
    Done,
    /// It succeeds, and its caller sees a timeout.
    DoneUnheard,
    /// It is carried out twice, and its caller gets the second answer.
    Doubled,
    /// Its caller sees a timeout. It is carried out later, or never.
    Late,
    /// Its process has crashed. Neither this operation nor any later one reaches the storage.
    Gone,
}

/// A step that waits for its release.
pub struct Waiting {
    pub process: usize,
    /// Whether a fate other than success is permitted.
    pub may_fail: bool,
    go: oneshot::Sender<Fate>,
}

type Later = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Clone, Default)]
pub struct Gates {
    waiting: Arc<Mutex<VecDeque<Waiting>>>,
    late: Arc<Mutex<Vec<Later>>>,
    crashed: Arc<Mutex<Vec<usize>>>,
}

impl Gates {
    pub async fn pass(&self, process: usize, may_fail: bool) -> Fate {
        if self.crashed.lock().unwrap().contains(&process) {
            return Fate::Gone;
        }
        let (go, gone) = oneshot::channel();
        self.waiting.lock().unwrap().push_back(Waiting { process, may_fail, go });
        gone.await.unwrap_or(Fate::Gone)
    }

    /// Returns the process of each waiting step, and whether the step may fail.
    pub fn choices(&self) -> Vec<(usize, bool)> {
        let mut waiting = self.waiting.lock().unwrap();
        waiting.retain(|waiting| !waiting.go.is_closed());
        waiting.iter().map(|waiting| (waiting.process, waiting.may_fail)).collect()
    }

    pub fn release(&self, index: usize, fate: Fate) {
        let waiting = self.waiting.lock().unwrap().remove(index).unwrap();
        let _ = waiting.go.send(fate);
    }

    /// Crashes a process. None of its operations reaches the storage any more.
    pub fn crash(&self, process: usize) {
        self.crashed.lock().unwrap().push(process);
        self.waiting.lock().unwrap().retain(|waiting| waiting.process != process);
    }

    pub fn late(&self) -> usize {
        self.late.lock().unwrap().len()
    }

    /// Carries out an operation that was delayed.
    pub async fn run_late(&self, index: usize) {
        let later = self.late.lock().unwrap().remove(index);
        later.await;
    }
}

#[derive(Clone)]
pub struct GatedStorage {
    pub inner: MemoryStorage,
    pub gates: Gates,
    pub process: usize,
}

impl GatedStorage {
    async fn run<T: Send + 'static, F>(
        &self,
        changes: bool,
        operation: impl Fn(MemoryStorage) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let timeout = || Error::new(ErrorKind::Timeout, "scripted");
        match self.gates.pass(self.process, changes).await {
            Fate::Done => operation(self.inner.clone()).await,
            Fate::Gone => Err(timeout()),
            Fate::DoneUnheard => {
                let _ = operation(self.inner.clone()).await;
                Err(timeout())
            }
            Fate::Doubled => {
                let _ = operation(self.inner.clone()).await;
                operation(self.inner.clone()).await
            }
            Fate::Late => {
                let later = operation(self.inner.clone());
                self.gates.late.lock().unwrap().push(Box::pin(async move {
                    let _ = later.await;
                }));
                Err(timeout())
            }
        }
    }
}

impl Storage for GatedStorage {
    forward!(inner: clear, keys, delete_expired);

    async fn read(&self, key: Key) -> Result<Option<Record>> {
        self.run(false, |store| async move { store.read(key).await }).await
    }
    async fn write(&self, key: Key, record: Record) -> Result<()> {
        self.run(true, |store| {
            let record = record.clone();
            async move { store.write(key, record).await }
        })
        .await
    }
    async fn delete(&self, key: Key) -> Result<bool> {
        self.run(true, |store| async move { store.delete(key).await }).await
    }
    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        self.run(true, |store| {
            let record = record.clone();
            async move { store.write_if(key, seen, record).await }
        })
        .await
    }
    async fn retain(&self, keys: &[Key], retain: Retain) -> Result<u64> {
        let keys = keys.to_vec();
        self.run(true, |store| {
            let keys = keys.clone();
            async move { store.retain(&keys, retain).await }
        })
        .await
    }
    async fn delete_many(&self, keys: &[Key]) -> Result<u64> {
        let keys = keys.to_vec();
        self.run(true, |store| {
            let keys = keys.clone();
            async move { store.delete_many(&keys).await }
        })
        .await
    }
}
