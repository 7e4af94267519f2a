//! The connections that read, on threads or in the calling task.
//!
//! # Invariants
//!
//! - The threads end when the readers are closed or dropped.
//! - A query is not run if its caller no longer waits for it.
//! - A task waits neither for a connection nor for a lock of the database.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::change_signal::ChangeSignal;
use super::error::{closed, is_busy, map_error, retry_while_busy};
use super::queries;
use super::reopen::{FileCheck, Reopener, Role};
use super::stall_budget::{STALL, Site, StallBudget};
use super::suspension::Mark;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::key::Key;
use crate::storage::recent_records::RecentRecords;
use crate::storage::record::Record;

/// The most bytes of a record that is read in the task, unless all are. Copying a longer one stalls the worker for long even if
/// its pages are in memory, and little of its time would be saved.
const MAX_LEN_IN_TASK: usize = 256 << 10;

type Query = Box<dyn FnOnce(Result<&Connection>) + Send>;

/// A reader that tasks share. `None` once it is closed.
type InTaskReader = Arc<Mutex<Option<Reader>>>;

pub(super) struct Readers {
    /// One queue for all threads, so that no query waits behind a slow one. `None` ends the thread that takes it.
    queue: Sender<Option<Query>>,
    in_task: Vec<InTaskReader>,
    recent: Arc<RecentRecords>,
    /// `None` if every read runs in the task, however slow the disk is.
    stall_budget: Option<Arc<StallBudget>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    has_threads: bool,
    busy_timeout: Duration,
    signal: ChangeSignal,
}

pub(super) struct Reader {
    connection: Connection,
    file_check: FileCheck,
    reopener: Arc<Reopener>,
    role: Role,
}

impl Readers {
    /// Starts a thread for each connection in `threads`, and keeps those in `in_task` for
    /// [`read_in_task`](Readers::read_in_task).
    pub(super) fn start(
        threads: Vec<Connection>,
        in_task: Vec<Connection>,
        stall_budget: Option<StallBudget>,
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
        let stall_budget = stall_budget.map(Arc::new);
        let recent = Arc::new(RecentRecords::new());
        Ok(Self {
            queue,
            in_task,
            recent,
            stall_budget,
            threads: Mutex::new(threads),
            has_threads,
            busy_timeout,
            signal: ChangeSignal::new(Arc::clone(reopener)),
        })
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
        let (in_task, close_signal) = (self.in_task.clone(), self.signal.close());
        move || {
            close_signal();
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

    /// Returns the query that reads a record on a thread.
    ///
    /// It tells the [`StallBudget`] how long it takes.
    pub(super) fn read_query(
        &self,
        key: Key,
    ) -> impl Fn(&Connection) -> rusqlite::Result<Option<Record>> + Send + 'static {
        let (stall_budget, recent) = (self.stall_budget.clone(), Arc::clone(&self.recent));
        move |connection| {
            let (begun, mark) = (Instant::now(), Mark::new());
            let found = queries::read_up_to(connection, Some(&recent), key, usize::MAX)?.flatten();
            let is_short = found.as_ref().is_none_or(|record| record.weight() <= MAX_LEN_IN_TASK);
            if let Some(stall_budget) = stall_budget.as_deref().filter(|_| is_short) {
                stall_budget.observe(Site::Thread, is_slow(begun, mark));
            }
            Ok(found)
        }
    }

    /// Reads a record in this task.
    ///
    /// Returns `None` if a thread must read it: while the disk is slow, if the record is long, no connection is free, the
    /// database is busy, or a connection must be opened anew first.
    pub(super) fn read_in_task(&self, key: Key) -> Option<Result<Option<Record>>> {
        let max_len = if self.stall_budget.is_some() { MAX_LEN_IN_TASK } else { usize::MAX };
        self.run_in_task(|connection| queries::read_up_to(connection, Some(&self.recent), key, max_len))
    }

    /// Runs a short query in this task, as [`read_in_task`](Readers::read_in_task) does.
    ///
    /// Also returns `None` if the query does.
    pub(super) fn run_in_task<T>(
        &self,
        query: impl Fn(&Connection) -> rusqlite::Result<Option<T>>,
    ) -> Option<Result<T>> {
        if self.in_task.is_empty() {
            return None;
        }
        let begun = Instant::now();
        let Some(stall_budget) = &self.stall_budget else {
            return self.try_in_task(query, begun);
        };
        if stall_budget.site() == Site::Thread {
            return None;
        }
        let mark = Mark::recent(begun);
        let found = self.try_in_task(query, begun);
        let is_slow = is_slow(begun, mark);
        // If a thread has to repeat it, only one of the two is a read.
        if found.is_some() || is_slow {
            stall_budget.observe(Site::Task, is_slow);
        }
        found
    }

    /// Returns the number of changes of the file, if a task may ask for it.
    ///
    /// Returns `None` while the disk is slow.
    pub(super) fn change_count(&self, max_age: Duration) -> Option<u64> {
        let is_slow = self.stall_budget.as_ref().is_some_and(|budget| budget.site() == Site::Thread);
        if self.in_task.is_empty() || is_slow { None } else { self.signal.count(max_age) }
    }

    fn try_in_task<T>(
        &self,
        query: impl Fn(&Connection) -> rusqlite::Result<Option<T>>,
        now: Instant,
    ) -> Option<Result<T>> {
        // The first free connection, so that no more page caches are filled than tasks read at the same time. `try_lock`,
        // since a task must not wait for the query of another one.
        let (slot, mut guard) = self.in_task.iter().find_map(|slot| match slot.try_lock() {
            Ok(guard) => Some((slot, guard)),
            Err(TryLockError::Poisoned(poisoned)) => Some((slot, poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        })?;
        let reader = guard.as_mut()?;
        if !reader.is_current(now) {
            reopen_on_thread(slot, guard);
            return None;
        }
        match query(&reader.connection) {
            // A thread runs it again, and waits.
            Err(error) if is_busy(&error) => None,
            Err(error) => Some(Err(map_error(error))),
            Ok(found) => found.map(Ok),
        }
    }
}

impl Reader {
    /// Opens a connection that is used in tasks. May take long.
    pub(super) fn open(reopener: &Arc<Reopener>) -> Result<Self> {
        let connection = reopener.open_reader(Duration::ZERO)?;
        let file_check = reopener.begin_check(&connection);
        let role = Role::Reader { busy_timeout: Duration::ZERO };
        Ok(Self { connection, file_check, reopener: Arc::clone(reopener), role })
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Returns whether the file is still at its path. Makes at most one system call.
    pub(super) fn is_current(&mut self, now: Instant) -> bool {
        self.reopener.is_recent(&self.file_check, now) || self.reopener.is_unchanged(&mut self.file_check)
    }

    /// Returns the connection, opened anew if its file was replaced.
    fn current_connection(&mut self) -> Result<&Connection> {
        if !self.reopener.is_recent(&self.file_check, Instant::now()) {
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

/// Returns whether a read that ends now was slow by itself, and not because the system ran other threads meanwhile.
fn is_slow(begun: Instant, mark: Mark) -> bool {
    begun.elapsed() >= STALL && !mark.was_suspended(STALL)
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn suspended_read_is_not_slow() {
        let (begun, mark) = (Instant::now() - STALL, Mark::new());
        assert!(!is_slow(begun, mark));
        std::thread::sleep(STALL);
        assert!(is_slow(begun, mark));
        assert!(!is_slow(Instant::now(), mark));
    }
}
