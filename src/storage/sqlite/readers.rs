//! The connections that read, on threads or in the calling task.
//!
//! # Invariants
//!
//! - The threads end when the readers are closed or dropped.
//! - A query is not run if its caller no longer waits for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::error::{closed, is_busy, map_error, retry_while_busy};
use super::reopen::{FileCheck, Reopener, Role};
use crate::error::{Error, ErrorKind, Result};

type Query = Box<dyn FnOnce(Result<&Connection>) + Send>;

/// A reader that tasks share. `None` once it is closed.
type InTaskReader = Arc<Mutex<Option<Reader>>>;

pub(super) struct Readers {
    /// One queue for all threads, so that no query waits behind a slow one. `None` ends the thread that takes it.
    queue: Sender<Option<Query>>,
    in_task: Vec<InTaskReader>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    has_threads: bool,
    busy_timeout: Duration,
}

struct Reader {
    connection: Connection,
    file_check: FileCheck,
    reopener: Arc<Reopener>,
    role: Role,
}

impl Readers {
    /// Starts a thread for each connection in `threads`, and keeps those in `in_task` for
    /// [`query_in_task`](Readers::query_in_task).
    pub(super) fn start(
        threads: Vec<Connection>,
        in_task: Vec<Connection>,
        busy_timeout: Duration,
        reopener: &Arc<Reopener>,
    ) -> Result<Self> {
        let reader = |busy_timeout| {
            move |connection: Connection| Reader {
                file_check: reopener.begin_check(&connection),
                connection,
                reopener: Arc::clone(reopener),
                role: Role::Reader { busy_timeout },
            }
        };
        // A crossbeam channel, since several threads receive from it.
        let (queue, queries) = crossbeam_channel::unbounded();
        let start = |mut reader: Reader| {
            let queries = queries.clone();
            std::thread::Builder::new()
                .name("sqlite-reader".to_owned())
                .spawn(move || run_queries(&mut reader, &queries))
                .map_err(|error| {
                    Error::new(ErrorKind::Unavailable, "no thread can be started to read the storage")
                        .with_source(error)
                })
        };
        let threads = threads.into_iter().map(reader(busy_timeout)).map(start).collect::<Result<Vec<_>>>()?;
        let in_task = in_task.into_iter().map(reader(Duration::ZERO));
        let in_task = in_task.map(|reader| Arc::new(Mutex::new(Some(reader)))).collect();
        let has_threads = !threads.is_empty();
        Ok(Self { queue, in_task, threads: Mutex::new(threads), has_threads, busy_timeout })
    }

    pub(super) fn has_threads(&self) -> bool {
        self.has_threads
    }

    /// Closes all connections, after the queries before it.
    ///
    /// The returned function waits for that, so it must not be called on a worker of the runtime.
    pub(super) fn close(&self) -> impl FnOnce() + Send + use<> {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for _ in &threads {
            // Fails if all threads have ended already.
            let _ = self.queue.send(None);
        }
        let in_task = self.in_task.clone();
        move || {
            for reader in in_task {
                drop(reader.lock().unwrap_or_else(PoisonError::into_inner).take());
            }
            for thread in threads {
                // A thread that has panicked has closed its connection, too.
                let _ = thread.join();
            }
        }
    }

    /// Runs a query on one of the threads.
    pub(super) async fn query<T: Send + 'static>(
        &self,
        query: impl Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let busy_timeout = self.busy_timeout;
        // Boxed, since queries of different types share the queue.
        let query: Query = Box::new(move |connection| {
            if !reply.is_closed() {
                let found = connection.and_then(|connection| {
                    retry_while_busy(busy_timeout, || query(connection)).map_err(map_error)
                });
                // Fails if the caller stopped waiting meanwhile.
                let _ = reply.send(found);
            }
        });
        self.queue.send(Some(query)).map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// Runs a query in this task.
    ///
    /// Returns `None` if no connection is free, the database is busy, or a connection must be opened anew first.
    pub(super) fn query_in_task<T>(
        &self,
        query: impl Fn(&Connection) -> rusqlite::Result<T>,
    ) -> Option<Result<T>> {
        // `try_lock`, since a task must not wait for the query of another one.
        let (slot, mut guard) = self.in_task.iter().find_map(|slot| match slot.try_lock() {
            Ok(guard) => Some((slot, guard)),
            Err(TryLockError::Poisoned(poisoned)) => Some((slot, poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        })?;
        let reader = guard.as_mut()?;
        if !reader.is_current() {
            reopen_on_thread(slot, guard);
            return None;
        }
        match query(&reader.connection) {
            // A thread runs it again, and waits.
            Err(error) if is_busy(&error) => None,
            result => Some(result.map_err(map_error)),
        }
    }
}

impl Reader {
    /// Returns whether the file is still at its path. Makes at most one system call.
    fn is_current(&mut self) -> bool {
        self.reopener.is_recent(&self.file_check) || self.reopener.is_unchanged(&mut self.file_check)
    }

    /// Returns the connection, opened anew if its file was replaced.
    fn current_connection(&mut self) -> Result<&Connection> {
        if !self.reopener.is_recent(&self.file_check) {
            self.reopener.reopen_if_replaced(&mut self.connection, &mut self.file_check, self.role)?;
        }
        Ok(&self.connection)
    }
}

fn run_queries(reader: &mut Reader, queries: &Receiver<Option<Query>>) {
    while let Ok(Some(query)) = queries.recv() {
        query(reader.current_connection());
    }
}

/// Opens an in-task connection anew on a thread, since that may take long.
fn reopen_on_thread(slot: &InTaskReader, guard: MutexGuard<'_, Option<Reader>>) {
    // Otherwise each query would start a thread, as long as the file at the path cannot be used.
    let is_refused = guard.as_ref().is_none_or(|reader| reader.reopener.refused_recently(&reader.file_check));
    drop(guard);
    if is_refused {
        return;
    }
    let slot = Arc::clone(slot);
    let reopen = move || {
        if let Some(reader) = &mut *slot.lock().unwrap_or_else(PoisonError::into_inner) {
            // The threads that read meet the same error and return it to their callers.
            let _ = reader.current_connection();
        }
    };
    // If no thread can be started, the connection stays as it is, and the threads that read serve all queries.
    let _ = std::thread::Builder::new().name("sqlite-open".to_owned()).spawn(reopen);
}
