//! The threads that read, from one queue.
//!
//! Promises: a read whose caller has gone holds up nobody; the threads end when the storage is dropped.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::oneshot;

use super::failure::{closed, failed};
use super::writer::from_sql;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Key, Record};

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// The queue of what is to be read. The threads end with it.
pub(super) struct Readers {
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl Readers {
    pub(super) fn start(connections: Vec<Connection>) -> Result<Self> {
        let queue = Arc::new(Queue::default());
        for connection in connections {
            let queue = Arc::clone(&queue);
            let thread = thread::Builder::new().name("cache-sqlite-reader".to_owned());
            thread.spawn(move || queue.work(connection)).map_err(|error| {
                Error::new(ErrorKind::Unavailable, "a thread for reading could not be started")
                    .with_source(error)
            })?;
        }
        Ok(Self { queue })
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            if !reply.is_closed() {
                let _ = reply.send(read(connection));
            }
        });
        self.queue.state.lock().unwrap_or_else(PoisonError::into_inner).jobs.push_back(job);
        self.queue.filled.notify_one();
        answer.await.map_err(|_| closed())?
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.queue.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.queue.filled.notify_all();
    }
}

impl Queue {
    fn work(&self, mut connection: Connection) {
        loop {
            let job = {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                loop {
                    if let Some(job) = state.jobs.pop_front() {
                        break job;
                    }
                    if state.closed {
                        return;
                    }
                    state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            };
            job(&mut connection);
        }
    }
}

/// The record at a key. What is damaged is absent.
pub(super) fn read(connection: &Connection, key: Key) -> Result<Option<Record>> {
    let mut query = connection
        .prepare_cached(
            "SELECT until, value FROM records WHERE entry = ?1 AND kind = ?2 AND slot = ?3 AND part = ?4",
        )
        .map_err(failed)?;
    let row = query
        .query_row(params![key.entry, key.kind as u8, key.slot, key.part], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
        })
        .optional()
        .map_err(failed)?;
    Ok(row
        .and_then(|(until, value)| Some(Record::from_bytes(value).ok()?.with_retain_until(from_sql(until)))))
}
