//! The one connection that writes, and its queue.
//!
//! Promises: operations that wait together are committed together, and answered after the commit; one that fails is
//! undone alone; no transaction is left open, whoever stops waiting. What nobody waits for any more is not begun.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::eviction;
use super::failure::{closed, failed, failed_change, is_busy, is_full, patiently, upgraded};
use super::inspect::VERSION;
use super::log::{Log, WAIT, cut};
use super::operation::{Operation, Outcome};
use super::recency::Recency;
use super::source::{Role, Source, Watch};
use super::table::Table;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::evictions::evicted;
use crate::storage::holds::Holds;

const MOST_AT_ONCE: usize = 256;
const MOST_BYTES_AT_ONCE: usize = 8 << 20;
const USES_AT_ONCE: usize = 1024;
/// How often an event tells of damage that stays.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// What is this short is written whatever the length of the log: invalidations are.
const SMALL: usize = 4096;

pub(super) struct Writer {
    connection: tokio_rusqlite::Connection,
    desk: Arc<Desk>,
}

/// What the writer's thread and those who ask it share.
struct Desk {
    queue: Mutex<Queue>,
    recency: Arc<Recency>,
    holds: Arc<Holds>,
    max_bytes: i64,
    patience: Duration,
    source: Arc<Source>,
    /// Damage was found, and is not seen to yet.
    is_damaged: AtomicBool,
    /// Used by the writer's thread alone.
    state: Mutex<State>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Nothing takes jobs any more.
    is_closed: bool,
}

struct State {
    watch: Watch,
    log: Log,
    /// When an event told of damage that stays.
    told: Option<Instant>,
}

struct Job {
    operation: Operation,
    reply: oneshot::Sender<Result<u64>>,
}

impl Job {
    fn answer(self, result: Result<u64>) {
        let _ = self.reply.send(result); // nobody waits for it any more
    }
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        recency: Arc<Recency>,
        holds: Arc<Holds>,
        max_bytes: i64,
        patience: Duration,
        source: Arc<Source>,
    ) -> Self {
        let watch = source.watch(&connection);
        let state = Mutex::new(State { watch, log: Log::default(), told: None });
        let (queue, is_damaged) = Default::default();
        let desk = Desk { queue, recency, holds, max_bytes, patience, source, is_damaged, state };
        Self { connection: connection.into(), desk: Arc::new(desk) }
    }

    /// Carries out an operation; answers when it is committed.
    pub(super) async fn run(&self, operation: Operation) -> Result<u64> {
        let (reply, answer) = oneshot::channel();
        {
            let mut queue = self.desk.queue();
            if queue.is_closed {
                return Err(closed());
            }
            queue.jobs.push_back(Job { operation, reply });
        }
        let desk = Arc::clone(&self.desk);
        self.post(move |connection| desk.work(connection))?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Writes down the uses noted in memory, some time soon.
    pub(super) fn write_uses(&self) {
        let desk = Arc::clone(&self.desk);
        let _ = self.post(move |connection| desk.write_uses(connection)); // closed: nothing to keep
    }

    /// Says which of the files that had the name is asked from now on, for [`recover`](Self::recover).
    pub(super) fn generation(&self) -> u64 {
        self.desk.source.generation()
    }

    /// The file was damaged that was asked at this generation: sees to it, some time soon.
    pub(super) fn recover(&self, seen: u64) {
        if !self.desk.is_damaged.swap(true, Ordering::AcqRel) {
            let desk = Arc::clone(&self.desk);
            let _ = self.post(move |connection| desk.recover(connection, seen)); // closed: the next one to open it sees to it
        }
    }

    /// Merges the log into the file and closes the connection, when everything that was asked for before is done. `before`
    /// is done first. Without `merges` the log is left to the connection's own closing.
    pub(super) async fn close(&self, merges: bool, before: impl FnOnce() + Send + 'static) -> Result<()> {
        let desk = Arc::clone(&self.desk);
        let merged = self.connection.call_raw(move |connection| {
            before();
            desk.close();
            if !merges {
                return Ok(());
            }
            // Readers of other processes in the way: then the last of them merges it.
            cut(connection, WAIT.min(desk.patience)).map(drop).map_err(failed)
        });
        let Ok(merged) = merged.await else { return Ok(()) }; // it is closed already
        match self.connection.clone().close().await {
            Ok(()) | Err(tokio_rusqlite::Error::ConnectionClosed) => merged,
            Err(_) => merged.and(Err(closed())),
        }
    }

    /// Asks through this connection, in turn with the writes.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let desk = Arc::clone(&self.desk);
        let asked = self.connection.call_raw(move |connection| {
            desk.renew(connection)?;
            patiently(desk.patience, || question(connection)).map_err(failed)
        });
        asked.await.map_err(|_| closed())?
    }

    /// Sends work to the writer's thread; does not wait for it.
    pub(super) fn post(&self, work: impl FnOnce(&mut Connection) + Send + 'static) -> Result<()> {
        // The first poll sends; what comes back tells only that the work is done.
        match self.connection.call_raw(work).now_or_never() {
            Some(Err(_)) => {
                self.desk.close();
                Err(closed())
            }
            _ => Ok(()),
        }
    }
}

impl Desk {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes no more jobs. Those that wait end as closed: their replies go.
    fn close(&self) {
        let mut queue = self.queue();
        queue.is_closed = true;
        queue.jobs.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes sure that the connection is to the file that has the name.
    fn renew(&self, connection: &mut Connection) -> Result<()> {
        self.source.renew(connection, &mut self.state().watch, Role::Writer)
    }

    /// Sets a damaged file aside and opens a new one, where that is wanted; tells of it.
    fn recover(&self, connection: &mut Connection, seen: u64) {
        self.is_damaged.store(false, Ordering::Release);
        // A reader may tell of the old file when a new one is in its place already.
        if self.source.generation() != seen {
            return;
        }
        let mut state = self.state();
        if let Some(aside) = self.source.set_aside(&state.watch) {
            tracing::error!(
                file = %self.source.shown(),
                aside = %aside.display(),
                "the cache's file is damaged: it is set aside, and a new one is made"
            );
            drop(state);
            let _ = self.renew(connection); // whose error the next operation tells
        } else if self.source.looks_same(&mut state.watch)
            && state.told.is_none_or(|told| told.elapsed() >= TOLD_EVERY)
        {
            state.told = Some(Instant::now());
            tracing::error!(file = %self.source.shown(), "the cache's file is damaged: remove it, and a new one is made");
        }
    }

    /// Takes what waits, up to a bound, and carries it out in one transaction.
    fn work(&self, connection: &mut Connection) {
        let mut jobs = self.take();
        if jobs.is_empty() {
            return;
        }
        if let Err(error) = self.renew(connection) {
            return jobs.into_iter().for_each(|job| job.answer(Err(error.clone())));
        }
        if self.state().log.is_stuck() && self.state().log.keep_short(connection, self.patience) {
            let (long, short) = jobs.into_iter().partition(|job| job.operation.weight() > SMALL);
            jobs = short;
            Vec::into_iter(long).for_each(|job: Job| job.answer(Err(log_is_full())));
        }
        let operations: Vec<&Operation> = jobs.iter().map(|job| &job.operation).collect();
        let results = self.carry_out(connection, &operations);
        for (job, result) in jobs.into_iter().zip(results) {
            job.answer(result);
        }
        self.state().log.keep_short(connection, self.patience);
    }

    fn carry_out(&self, connection: &Connection, operations: &[&Operation]) -> Vec<Result<u64>> {
        let commit =
            |operations: &[&Operation]| patiently(self.patience, || self.commit(connection, operations));
        let result = commit(operations).or_else(|error| match is_full(&error) {
            // What is merged leaves its place in the log to be written again.
            true if cut(connection, WAIT.min(self.patience)).is_ok_and(|is_cut| is_cut) => commit(operations),
            _ => Err(error),
        });
        match result {
            Ok(results) => results,
            // What failed may have been one of them: each alone, so that the others succeed.
            Err(error) if operations.len() > 1 && !is_busy(&error) => {
                let alone = |operation: &&Operation| {
                    let mut results =
                        commit(&[operation]).map_err(|error| failed_change(error, connection))?;
                    results.pop().unwrap_or_else(|| Err(closed()))
                };
                operations.iter().map(alone).collect()
            }
            Err(error) => {
                let error = failed_change(error, connection);
                operations.iter().map(|_| Err(error.clone())).collect()
            }
        }
    }

    fn take(&self) -> Vec<Job> {
        let mut queue = self.queue();
        let (mut jobs, mut bytes) = (Vec::new(), 0);
        while jobs.len() < MOST_AT_ONCE
            && bytes < MOST_BYTES_AT_ONCE
            && let Some(job) = queue.jobs.pop_front()
        {
            if !job.reply.is_closed() {
                bytes += job.operation.weight();
                jobs.push(job);
            }
        }
        jobs
    }

    /// One transaction, once. Fails as a whole, or says for each operation what came of it.
    fn commit(
        &self,
        connection: &Connection,
        operations: &[&Operation],
    ) -> rusqlite::Result<Vec<Result<u64>>> {
        let mut gone = 0;
        let committed = self.transaction(connection, |table| {
            let (before, used) = (table.total, self.recency.tick());
            let limit = self.max_bytes / 2;
            let mut results = Vec::with_capacity(operations.len());
            for operation in operations {
                if operations.len() == 1 {
                    results.push(answer(operation.apply(table, used, limit)?));
                    continue;
                }
                let total = table.total;
                table.execute("SAVEPOINT one", [])?;
                match operation.apply(table, used, limit) {
                    Ok(outcome) => results.push(answer(outcome)),
                    // The whole transaction again: SQLite has undone it already, or another has to end first.
                    Err(error) if table.connection().is_autocommit() || is_busy(&error) => return Err(error),
                    Err(error) => {
                        table.execute("ROLLBACK TO one", [])?;
                        table.total = total;
                        results.push(Err(failed(error)));
                    }
                }
                table.execute("RELEASE one", [])?;
            }
            gone = eviction::make_room(table, before, self.max_bytes, &self.recency, &self.holds)?;
            Ok(results)
        });
        if committed.is_ok() {
            evicted("sqlite", gone);
        }
        committed
    }

    fn write_uses(&self, connection: &mut Connection) {
        if !self.source.looks_same(&mut self.state().watch) {
            return; // they are of a file that is gone: none is made for them, least of all when the storage ends
        }
        for uses in self.recency.take().chunks(USES_AT_ONCE) {
            let written = self.transaction(connection, |table| {
                uses.iter().try_for_each(|&(entry, used)| eviction::set_used(table, entry, used))
            });
            if let Err(error) = written {
                tracing::debug!(error = %failed(error), "the times of last use are lost");
                return;
            }
        }
    }

    fn transaction<T>(
        &self,
        connection: &Connection,
        change: impl FnOnce(&mut Table<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        if !connection.is_autocommit() {
            connection.execute_batch("ROLLBACK")?;
        }
        let execute = |sql: &str| connection.prepare_cached(sql)?.execute([]).map(drop);
        patiently(self.patience, || execute("BEGIN IMMEDIATE"))?;
        let result = is_ours(connection).and_then(|()| Table::load(connection)).and_then(|mut table| {
            let before = table.total;
            let result = change(&mut table)?;
            if table.total != before {
                table.store()?;
            }
            patiently(self.patience, || execute("COMMIT"))?;
            Ok(result)
        });
        if result.is_err() && !connection.is_autocommit() {
            let _ = execute("ROLLBACK"); // tried again before the next transaction
        }
        result
    }
}

/// An error where a newer version has brought the tables to its own layout, which this one would damage.
fn is_ours(connection: &Connection) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("SELECT user_version FROM pragma_user_version")?;
    let version: i32 = statement.query_row([], |row| row.get(0))?;
    if version == VERSION { Ok(()) } else { Err(upgraded()) }
}

fn answer(outcome: Outcome) -> Result<u64> {
    match outcome {
        Outcome::Count(count) => Ok(count),
        Outcome::TooLarge => Err(too_large()),
    }
}

pub(super) fn too_large() -> Error {
    Error::new(ErrorKind::TooLarge, "the record or its entry would take more than half of the store's bound")
}

fn log_is_full() -> Error {
    Error::new(
        ErrorKind::Full,
        "the log cannot be merged, for somebody reads from it all the time: end that reader",
    )
}
