//! Connections that read: threads on one queue, and connections for reading in the caller's own task.
//!
//! Promises: the threads end when this is dropped; a question whose asker is gone is not asked.

use std::sync::{Mutex, TryLockError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::failure::{closed, failed, is_busy, patiently};
use crate::error::{Error, ErrorKind, Result};

type Question = Box<dyn FnOnce(&Connection) + Send>;

pub(super) struct Readers {
    queue: Sender<Question>,
    in_task: Vec<Mutex<Connection>>,
    threads: Vec<JoinHandle<()>>,
    patience: Duration,
}

impl Readers {
    /// Starts a thread for each of `threads`; keeps `in_task` for [`now`](Readers::now).
    pub(super) fn start(
        threads: Vec<Connection>,
        in_task: Vec<Connection>,
        patience: Duration,
    ) -> Result<Self> {
        let (queue, questions) = crossbeam_channel::unbounded();
        let start = |connection: Connection| {
            let questions = questions.clone();
            std::thread::Builder::new()
                .name("sqlite-reader".to_owned())
                .spawn(move || answer(&connection, &questions))
                .map_err(|error| {
                    Error::new(ErrorKind::Unavailable, "no thread can be started to read the store")
                        .with_source(error)
                })
        };
        let threads = threads.into_iter().map(start).collect::<Result<_>>()?;
        let in_task = in_task.into_iter().map(Mutex::new).collect();
        Ok(Self { queue, in_task, threads, patience })
    }

    pub(super) fn has_threads(&self) -> bool {
        !self.threads.is_empty()
    }

    /// Closes all connections; waits until they are. For a thread that may wait.
    pub(super) fn close(self) {
        let Self { queue, in_task, threads, .. } = self;
        drop((queue, in_task));
        for thread in threads {
            let _ = thread.join(); // one that panicked is closed too
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
                let _ = reply.send(patiently(patience, || question(connection))); // nobody waits any more
            }
        });
        self.queue.send(question).map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?.map_err(failed)
    }

    /// Asks in this task, if a connection is free and nothing is in its way.
    pub(super) fn now<T>(&self, question: impl Fn(&Connection) -> rusqlite::Result<T>) -> Option<Result<T>> {
        let free = self.in_task.iter().find_map(|connection| match connection.try_lock() {
            Ok(connection) => Some(connection),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        })?;
        match question(&free) {
            Err(error) if is_busy(&error) => None,
            result => Some(result.map_err(failed)),
        }
    }
}

fn answer(connection: &Connection, questions: &Receiver<Question>) {
    while let Ok(question) = questions.recv() {
        question(connection);
    }
}
