//! The connection that writes, and the queue of operations before it.
//!
//! # Invariants
//!
//! - Operations that wait at the same time are committed together, and are answered after the commit.
//! - An operation that fails is undone alone.
//! - No transaction stays open, even if a caller stops waiting for its operation.
//! - An operation is not begun if its caller no longer waits for it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::error::{closed, is_busy, is_full, map_error, map_write_error, newer_layout, retry_while_busy};
use super::eviction::{self, Recency};
use super::operation::{Operation, Outcome};
use super::reopen::{FileCheck, Reopener, Role};
use super::schema::VERSION;
use super::tables::Tables;
use super::wal::{TRUNCATE_TIMEOUT, WalMonitor, truncate};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::evictions::evicted;
use crate::storage::holds::Holds;

/// The most operations in one transaction. A commit costs far more than an operation, so more of them would gain little, and
/// the first would wait longer for its answer.
const MAX_BATCH_OPERATIONS: usize = 256;
/// The bytes after which a transaction takes no further operation. It keeps a batch of large records well below the length at
/// which the WAL is truncated.
const MAX_BATCH_BYTES: usize = 8 << 20;
/// The most times of use in one transaction, which other processes' writes wait for.
const MAX_BATCH_USES: usize = 1024;
/// The least time between two events about damage that stays.
const DAMAGE_EVENT_INTERVAL: Duration = Duration::from_secs(60);
/// The length in bytes up to which a record is always written. Invalidations are that short: they must not fail because the WAL
/// is too long.
const MAX_ALWAYS_WRITTEN: usize = 4096;

/// The connection that writes, on a thread of its own.
pub(super) struct Writer {
    connection: tokio_rusqlite::Connection,
    shared: Arc<Shared>,
}

/// The state that the writer's thread shares with the tasks that use it.
struct Shared {
    queue: Mutex<Queue>,
    recency: Arc<Recency>,
    holds: Arc<Holds>,
    max_bytes: i64,
    busy_timeout: Duration,
    reopener: Arc<Reopener>,
    /// Damage was reported, and the writer's thread has not handled it yet.
    is_damaged: AtomicBool,
    /// Used by the writer's thread only, so the lock is never contended. It makes `Shared` usable from its closures.
    state: Mutex<State>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// The thread takes no more jobs.
    is_closed: bool,
}

struct State {
    file_check: FileCheck,
    wal: WalMonitor,
    /// The time of the last event about damage that stays.
    damage_event_at: Option<Instant>,
}

struct Job {
    operation: Operation,
    reply: oneshot::Sender<Result<u64>>,
}

impl Job {
    fn answer(self, result: Result<u64>) {
        // Fails if the caller no longer waits, which is none of the writer's business.
        let _ = self.reply.send(result);
    }
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        recency: Arc<Recency>,
        holds: Arc<Holds>,
        max_bytes: i64,
        busy_timeout: Duration,
        reopener: Arc<Reopener>,
    ) -> Self {
        let file_check = reopener.begin_check(&connection);
        let state = Mutex::new(State { file_check, wal: WalMonitor::default(), damage_event_at: None });
        let (queue, is_damaged) = Default::default();
        let shared = Shared { queue, recency, holds, max_bytes, busy_timeout, reopener, is_damaged, state };
        Self { connection: connection.into(), shared: Arc::new(shared) }
    }

    /// Executes an operation. Returns when it is committed.
    pub(super) async fn execute(&self, operation: Operation) -> Result<u64> {
        let (reply, answer) = oneshot::channel();
        {
            // Checked under the lock: a job that is queued after the last batch would never be answered.
            let mut queue = self.shared.lock_queue();
            if queue.is_closed {
                return Err(closed());
            }
            queue.jobs.push_back(Job { operation, reply });
        }
        // One batch per job. The first of several takes all jobs that wait, and the others find the queue empty.
        let shared = Arc::clone(&self.shared);
        self.post(move |connection| shared.run_batch(connection))?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Writes the times of use that are kept in memory. Does not wait for it.
    pub(super) fn flush_uses(&self) {
        let shared = Arc::clone(&self.shared);
        // Fails if the writer is closed, which has flushed them before.
        let _ = self.post(move |connection| shared.flush_uses(connection));
    }

    /// Returns the generation of the file that is used from now on, for [`report_damage`](Self::report_damage).
    pub(super) fn generation(&self) -> u64 {
        self.shared.reopener.generation()
    }

    /// Reports that the file of a generation is damaged. The writer's thread handles it; does not wait for that.
    pub(super) fn report_damage(&self, generation: u64) {
        // Many operations may find the damage at once. One report is enough, until it is handled.
        if !self.shared.is_damaged.swap(true, Ordering::AcqRel) {
            let shared = Arc::clone(&self.shared);
            // Fails if the writer is closed. Then the damage is found when the file is opened again.
            let _ = self.post(move |connection| shared.handle_damage(connection, generation));
        }
    }

    /// Merges the WAL into the file and closes the connection.
    ///
    /// All earlier work is done first, then `before`. If `merge` is false, only closing the connection merges the WAL.
    pub(super) async fn close(&self, merge: bool, before: impl FnOnce() + Send + 'static) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let merged = self.connection.call_raw(move |connection| {
            before();
            shared.close();
            if !merge {
                return Ok(());
            }
            // If readers of other processes are in the way, the last one that closes the file merges the WAL.
            truncate(connection, TRUNCATE_TIMEOUT.min(shared.busy_timeout)).map(drop).map_err(map_error)
        });
        // An error means that the connection is closed already.
        let Ok(merged) = merged.await else { return Ok(()) };
        match self.connection.clone().close().await {
            Ok(()) | Err(tokio_rusqlite::Error::ConnectionClosed) => merged,
            Err(_) => merged.and(Err(closed())),
        }
    }

    /// Runs a query on this connection, in turn with the writes.
    pub(super) async fn query<T: Send + 'static>(
        &self,
        query: impl Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = Arc::clone(&self.shared);
        let result = self.connection.call_raw(move |connection| {
            shared.reopen_if_replaced(connection)?;
            retry_while_busy(shared.busy_timeout, || query(connection)).map_err(map_error)
        });
        result.await.map_err(|_| closed())?
    }

    /// Sends work to the writer's thread. Does not wait for it.
    pub(super) fn post(&self, work: impl FnOnce(&mut Connection) + Send + 'static) -> Result<()> {
        // The first poll of `call_raw` sends the work, and later ones only wait until it is done. So the work is done even if
        // the caller's task is dropped.
        match self.connection.call_raw(work).now_or_never() {
            Some(Err(_)) => {
                self.shared.close();
                Err(closed())
            }
            _ => Ok(()),
        }
    }
}

impl Shared {
    fn lock_queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses further jobs. Those in the queue fail with `closed`, since their reply senders are dropped.
    fn close(&self) {
        let mut queue = self.lock_queue();
        queue.is_closed = true;
        queue.jobs.clear();
    }

    fn reopen_if_replaced(&self, connection: &mut Connection) -> Result<()> {
        self.reopener.reopen_if_replaced(connection, &mut self.lock_state().file_check, Role::Writer)
    }

    /// Sets a damaged file aside and opens a new one, if the settings say so. Reports it by an event.
    fn handle_damage(&self, connection: &mut Connection, generation: u64) {
        // Cleared first, so that damage that is found from now on is reported again.
        self.is_damaged.store(false, Ordering::Release);
        // A slow reader may report the damage of a file that was already replaced by a new one.
        if self.reopener.generation() != generation {
            return;
        }
        let mut state = self.lock_state();
        if let Some(aside) = self.reopener.set_aside(&state.file_check) {
            tracing::error!(
                file = %self.reopener.location(),
                aside = %aside.display(),
                "the cache's file is damaged: it is set aside, and a new one is made"
            );
            drop(state);
            // If this fails, the next operation fails for the same reason and returns the error.
            let _ = self.reopen_if_replaced(connection);
        } else if self.reopener.is_unchanged(&mut state.file_check)
            && state.damage_event_at.is_none_or(|at| at.elapsed() >= DAMAGE_EVENT_INTERVAL)
        {
            state.damage_event_at = Some(Instant::now());
            tracing::error!(
                file = %self.reopener.location(),
                "the cache's file is damaged: remove it, and a new one is made"
            );
        }
    }

    /// Commits the operations that wait in one transaction, up to the bounds of a batch.
    fn run_batch(&self, connection: &mut Connection) {
        let mut jobs = self.take_batch();
        if jobs.is_empty() {
            return;
        }
        if let Err(error) = self.reopen_if_replaced(connection) {
            return jobs.into_iter().for_each(|job| job.answer(Err(error.clone())));
        }
        // Before the batch only if truncating has failed before, since otherwise it was done after the last batch.
        if self.lock_state().wal.is_stuck() && self.lock_state().wal.keep_short(connection, self.busy_timeout)
        {
            let (refused, accepted) =
                jobs.into_iter().partition(|job| job.operation.written_bytes() > MAX_ALWAYS_WRITTEN);
            jobs = accepted;
            Vec::into_iter(refused).for_each(|job: Job| job.answer(Err(wal_is_full())));
        }
        let operations: Vec<&Operation> = jobs.iter().map(|job| &job.operation).collect();
        let results = self.commit(connection, &operations);
        for (job, result) in jobs.into_iter().zip(results) {
            job.answer(result);
        }
        // After the answers, so that no caller waits for it.
        self.lock_state().wal.keep_short(connection, self.busy_timeout);
    }

    fn take_batch(&self) -> Vec<Job> {
        let mut queue = self.lock_queue();
        let (mut jobs, mut bytes) = (Vec::new(), 0);
        while jobs.len() < MAX_BATCH_OPERATIONS
            && bytes < MAX_BATCH_BYTES
            && let Some(job) = queue.jobs.pop_front()
        {
            // A job whose caller has given up is dropped here.
            if !job.reply.is_closed() {
                bytes += job.operation.written_bytes();
                jobs.push(job);
            }
        }
        jobs
    }

    /// Commits operations, together if possible. Returns the result of each.
    fn commit(&self, connection: &Connection, operations: &[&Operation]) -> Vec<Result<u64>> {
        let commit = |operations: &[&Operation]| {
            retry_while_busy(self.busy_timeout, || self.try_commit(connection, operations))
        };
        let result = commit(operations).or_else(|error| match is_full(&error) {
            // Truncating the WAL frees the space that it takes on the disk.
            true if truncate(connection, TRUNCATE_TIMEOUT.min(self.busy_timeout))
                .is_ok_and(|is_truncated| is_truncated) =>
            {
                commit(operations)
            }
            _ => Err(error),
        });
        match result {
            Ok(results) => results,
            // One of them may have made the whole transaction fail, so each gets a transaction of its own. Not if the
            // database is busy: each of them would wait for the whole busy timeout again.
            Err(error) if operations.len() > 1 && !is_busy(&error) => {
                let commit_one = |operation: &&Operation| {
                    let mut results =
                        commit(&[operation]).map_err(|error| map_write_error(error, connection))?;
                    results.pop().unwrap_or_else(|| Err(closed()))
                };
                operations.iter().map(commit_one).collect()
            }
            Err(error) => {
                let error = map_write_error(error, connection);
                operations.iter().map(|_| Err(error.clone())).collect()
            }
        }
    }

    /// Runs one transaction, once. It fails as a whole, or returns the result of each operation.
    fn try_commit(
        &self,
        connection: &Connection,
        operations: &[&Operation],
    ) -> rusqlite::Result<Vec<Result<u64>>> {
        let mut evictions = 0;
        let committed = self.transaction(connection, |tables| {
            let (before, used) = (tables.total_bytes, self.recency.now());
            let max_entry_bytes = self.max_bytes / 2;
            let mut results = Vec::with_capacity(operations.len());
            for operation in operations {
                if operations.len() == 1 {
                    results.push(count(operation.apply(tables, used, max_entry_bytes)?));
                    continue;
                }
                // A savepoint undoes a failed operation without undoing those before it.
                let total_bytes = tables.total_bytes;
                tables.execute("SAVEPOINT operation", [])?;
                match operation.apply(tables, used, max_entry_bytes) {
                    Ok(outcome) => results.push(count(outcome)),
                    // The savepoint is of no use if SQLite has already rolled the whole transaction back, or if another
                    // connection's transaction has to end first.
                    Err(error) if tables.connection().is_autocommit() || is_busy(&error) => {
                        return Err(error);
                    }
                    Err(error) => {
                        tables.execute("ROLLBACK TO operation", [])?;
                        tables.total_bytes = total_bytes;
                        results.push(Err(map_error(error)));
                    }
                }
                tables.execute("RELEASE operation", [])?;
            }
            evictions = eviction::make_room(tables, before, self.max_bytes, &self.recency, &self.holds)?;
            Ok(results)
        });
        // Counted after the commit, since a transaction that is repeated evicts again.
        if committed.is_ok() {
            evicted("sqlite", evictions);
        }
        committed
    }

    fn flush_uses(&self, connection: &mut Connection) {
        // If the file was removed or replaced, the times are those of entries that are gone. A new file must not be created
        // for them, least of all while the storage closes.
        if !self.reopener.is_unchanged(&mut self.lock_state().file_check) {
            return;
        }
        for uses in self.recency.take().chunks(MAX_BATCH_USES) {
            let written = self.transaction(connection, |tables| {
                uses.iter().try_for_each(|&(entry, used)| eviction::set_used(tables, entry, used))
            });
            if let Err(error) = written {
                // No reason to fail anything: entries may be evicted a little too early.
                tracing::debug!(error = %map_error(error), "the times of the last hits could not be written");
                return;
            }
        }
    }

    fn transaction<T>(
        &self,
        connection: &Connection,
        change: impl FnOnce(&mut Tables<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        // Only if the rollback of the last transaction failed.
        if !connection.is_autocommit() {
            connection.execute_batch("ROLLBACK")?;
        }
        let execute = |sql: &str| connection.prepare_cached(sql)?.execute([]).map(drop);
        // IMMEDIATE takes the write lock before anything is read. A transaction that reads first cannot wait for that lock:
        // SQLite fails it at once if another connection has written since.
        retry_while_busy(self.busy_timeout, || execute("BEGIN IMMEDIATE"))?;
        let result =
            check_version(connection).and_then(|()| Tables::load(connection)).and_then(|mut tables| {
                let before = tables.total_bytes;
                let result = change(&mut tables)?;
                if tables.total_bytes != before {
                    tables.save_total()?;
                }
                retry_while_busy(self.busy_timeout, || execute("COMMIT"))?;
                Ok(result)
            });
        if result.is_err() && !connection.is_autocommit() {
            // If this fails, the next transaction tries it again.
            let _ = execute("ROLLBACK");
        }
        result
    }
}

/// Returns an error if a newer version of this crate has migrated the tables.
///
/// This version would damage them.
fn check_version(connection: &Connection) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("SELECT user_version FROM pragma_user_version")?;
    let version: i32 = statement.query_row([], |row| row.get(0))?;
    if version == VERSION { Ok(()) } else { Err(newer_layout()) }
}

fn count(outcome: Outcome) -> Result<u64> {
    match outcome {
        Outcome::Count(count) => Ok(count),
        Outcome::TooLarge => Err(too_large()),
    }
}

pub(super) fn too_large() -> Error {
    Error::new(ErrorKind::TooLarge, "the record or its entry would take more than half of max_bytes")
}

fn wal_is_full() -> Error {
    let message = "the write-ahead log cannot be truncated, since a connection reads from it all the time: end that reader";
    Error::new(ErrorKind::Full, message)
}
