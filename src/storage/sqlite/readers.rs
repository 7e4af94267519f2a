//! Connections that read: threads on one queue, and connections for reading in the caller's own task.
//!
//! Promises: the threads end when this is closed or dropped; a question whose asker is gone is not asked.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::failure::{closed, failed, is_busy, patiently};
use super::source::{Role, Source, Watch};
use crate::error::{Error, ErrorKind, Result};

type Question = Box<dyn FnOnce(Result<&Connection>) + Send>;

pub(super) struct Readers {
    /// A thread that takes nothing from it ends.
    queue: Sender<Option<Question>>,
    /// Nothing once they are closed.
    in_task: Vec<Arc<Mutex<Option<Reader>>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    has_threads: bool,
    patience: Duration,
}

struct Reader {
    connection: Connection,
    watch: Watch,
    source: Arc<Source>,
    role: Role,
}

impl Readers {
    /// Starts a thread for each of `threads`; keeps `in_task` for [`now`](Readers::now).
    pub(super) fn start(
        threads: Vec<Connection>,
        in_task: Vec<Connection>,
        patience: Duration,
        source: &Arc<Source>,
    ) -> Result<Self> {
        let reader = |wait| {
            move |connection: Connection| Reader {
                watch: source.watch(&connection),
                connection,
                source: Arc::clone(source),
                role: Role::Reader(wait),
            }
        };
        let (queue, questions) = crossbeam_channel::unbounded();
        let start = |mut reader: Reader| {
            let questions = questions.clone();
            std::thread::Builder::new()
                .name("sqlite-reader".to_owned())
                .spawn(move || answer(&mut reader, &questions))
                .map_err(|error| {
                    Error::new(ErrorKind::Unavailable, "no thread can be started to read the store")
                        .with_source(error)
                })
        };
        let threads = threads.into_iter().map(reader(patience)).map(start).collect::<Result<Vec<_>>>()?;
        let in_task = in_task.into_iter().map(reader(Duration::ZERO));
        let in_task = in_task.map(|reader| Arc::new(Mutex::new(Some(reader)))).collect();
        let has_threads = !threads.is_empty();
        Ok(Self { queue, in_task, threads: Mutex::new(threads), has_threads, patience })
    }

    pub(super) fn has_threads(&self) -> bool {
        self.has_threads
    }

    /// Closes all connections, when what was asked before is answered. What this gives waits for that: for a thread that may.
    pub(super) fn close(&self) -> impl FnOnce() + Send + use<> {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for _ in &threads {
            let _ = self.queue.send(None); // all are gone: then there is nothing to end
        }
        let in_task = self.in_task.clone();
        move || {
            for reader in in_task {
                drop(reader.lock().unwrap_or_else(PoisonError::into_inner).take());
            }
            for thread in threads {
                let _ = thread.join(); // one that panicked is closed too
            }
        }
    }

    /// Asks on one of the threads.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let patience = self.patience;
        let question: Question = Box::new(move |connection| {
            if !reply.is_closed() {
                let found = connection
                    .and_then(|connection| patiently(patience, || question(connection)).map_err(failed));
                let _ = reply.send(found); // nobody waits any more
            }
        });
        self.queue.send(Some(question)).map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// Asks in this task, if a connection is free and nothing is in its way.
    pub(super) fn now<T>(&self, question: impl Fn(&Connection) -> rusqlite::Result<T>) -> Option<Result<T>> {
        let (slot, mut free) = self.in_task.iter().find_map(|slot| match slot.try_lock() {
            Ok(reader) => Some((slot, reader)),
            Err(TryLockError::Poisoned(poisoned)) => Some((slot, poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        })?;
        let reader = free.as_mut()?;
        if !reader.is_current() {
            renew_elsewhere(slot, free);
            return None;
        }
        match question(&reader.connection) {
            Err(error) if is_busy(&error) => None,
            result => Some(result.map_err(failed)),
        }
    }
}

impl Reader {
    /// Whether the file still has its name, as far as can be told at once.
    fn is_current(&mut self) -> bool {
        self.source.is_fresh(&self.watch) || self.source.looks_same(&mut self.watch)
    }

    fn renewed(&mut self) -> Result<&Connection> {
        if !self.source.is_fresh(&self.watch) {
            self.source.renew(&mut self.connection, &mut self.watch, self.role)?;
        }
        Ok(&self.connection)
    }
}

fn answer(reader: &mut Reader, questions: &Receiver<Option<Question>>) {
    while let Ok(Some(question)) = questions.recv() {
        question(reader.renewed());
    }
}

/// Has a connection of tasks renewed by a thread, since that may take long.
fn renew_elsewhere(slot: &Arc<Mutex<Option<Reader>>>, free: MutexGuard<'_, Option<Reader>>) {
    let is_tried = free.as_ref().is_none_or(|reader| reader.source.is_refused(&reader.watch));
    drop(free);
    if is_tried {
        return;
    }
    let slot = Arc::clone(slot);
    let renew = move || {
        if let Some(reader) = &mut *slot.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = reader.renewed(); // told by the thread that reads
        }
    };
    // Without a thread it is not renewed, and the threads that read answer.
    let _ = std::thread::Builder::new().name("sqlite-open".to_owned()).spawn(renew);
}
