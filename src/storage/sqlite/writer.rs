//! The one connection that writes: what waits is committed together.
//!
//! Promises: who is answered is answered after the commit; an operation that fails does not fail the others of its
//! batch; nothing waits for an operation whose caller has gone, and its transaction is never left open.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::FutureExt;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use tokio::sync::oneshot;

use super::evict::evict;
use super::failure::{closed, failed};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Key, Record, Retain, Stamp};
use crate::time::Timestamp;

/// So many operations are committed at once, at most.
const BATCH: usize = 128;
/// So many entries that were read are remembered until the next commit.
const TOUCHED: usize = 4096;

/// A change, and what it answers as a number.
#[derive(Clone)]
pub(super) enum Change {
    Write {
        key: Key,
        stamp: Stamp,
        until: Timestamp,
        value: Bytes,
        condition: Option<Option<Stamp>>,
    },
    Delete(Vec<Key>),
    Clear,
    Retain(Vec<Key>, Retain),
    DeleteExpired(Timestamp),
    /// Nothing but what was used, which every commit brings up to date.
    Touch,
}

struct Waiting {
    change: Change,
    reply: oneshot::Sender<Result<u64>>,
}

/// The queue before the connection.
pub(super) struct Writer {
    connection: tokio_rusqlite::Connection,
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    waiting: Mutex<Vec<Waiting>>,
    /// When entries were last read, since the last commit.
    touched: Mutex<HashMap<[u8; 16], i64>>,
    max_bytes: u64,
}

/// SQLite's integers are signed: its largest stands for never.
pub(super) fn to_sql(time: Timestamp) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn from_sql(until: i64) -> Timestamp {
    if until == i64::MAX {
        Timestamp::NEVER
    } else {
        Timestamp::from_millis(u64::try_from(until).unwrap_or(0))
    }
}

pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Writer {
    pub(super) fn new(connection: tokio_rusqlite::Connection, max_bytes: u64) -> Self {
        let shared = Shared { waiting: Mutex::default(), touched: Mutex::default(), max_bytes };
        Self { connection, shared: Arc::new(shared) }
    }

    pub(super) fn connection(&self) -> &tokio_rusqlite::Connection {
        &self.connection
    }

    /// Carries out a change, together with those that wait at the same time.
    pub(super) async fn apply(&self, change: Change) -> Result<u64> {
        let (reply, answer) = oneshot::channel();
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(Waiting { change, reply });
        let shared = Arc::clone(&self.shared);
        // Whichever call comes first takes all that waits; the others then find nothing to do.
        self.connection
            .call_raw(move |connection| shared.commit_waiting(connection))
            .await
            .map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// Notes that an entry was read. It is written with the next commit, or on its own once there are many.
    pub(super) fn touch(&self, entry: [u8; 16]) {
        let many = {
            let mut touched = self.shared.touched.lock().unwrap_or_else(PoisonError::into_inner);
            if touched.len() >= 2 * TOUCHED {
                return;
            }
            touched.insert(entry, now());
            touched.len() == TOUCHED
        };
        if many {
            let _ = self.apply(Change::Touch).now_or_never(); // it is on its way; nobody waits for it
        }
    }
}

impl Shared {
    fn commit_waiting(&self, connection: &mut Connection) {
        loop {
            let batch: Vec<Waiting> = {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                let count = waiting.len().min(BATCH);
                waiting.drain(..count).collect()
            };
            if batch.is_empty() {
                return;
            }
            let changes: Vec<&Change> = batch.iter().map(|waiting| &waiting.change).collect();
            match self.commit(connection, &changes) {
                Ok(answers) => {
                    for (waiting, answer) in batch.into_iter().zip(answers) {
                        let _ = waiting.reply.send(answer); // its caller may have gone
                    }
                }
                Err(error) if batch.len() == 1 || error.kind() == ErrorKind::Timeout => {
                    for waiting in batch {
                        let _ = waiting.reply.send(Err(error.clone()));
                    }
                }
                Err(_) => {
                    // One of them broke the transaction: each for itself.
                    for waiting in batch {
                        let answer = self.commit(connection, &[&waiting.change]);
                        let answer =
                            answer.and_then(|mut answers| answers.pop().unwrap_or_else(|| Err(closed())));
                        let _ = waiting.reply.send(answer);
                    }
                }
            }
        }
    }

    fn commit(&self, connection: &mut Connection, changes: &[&Change]) -> Result<Vec<Result<u64>>> {
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let touched = std::mem::take(&mut *self.touched.lock().unwrap_or_else(PoisonError::into_inner));
        for (entry, used) in touched {
            transaction
                .prepare_cached("UPDATE entries SET used = ?2 WHERE entry = ?1 AND used < ?2")
                .and_then(|mut update| update.execute(params![entry, used]))
                .map_err(failed)?;
        }
        let mut answers = Vec::with_capacity(changes.len());
        for change in changes {
            answers.push(match self.carry_out(&transaction, change) {
                // What SQLite refuses ends the transaction; what we refuse has changed nothing.
                Err(error) if error.kind() != ErrorKind::TooLarge => return Err(error),
                answer => answer,
            });
        }
        evict(&transaction, self.max_bytes).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        Ok(answers)
    }

    fn carry_out(&self, transaction: &Transaction<'_>, change: &Change) -> Result<u64> {
        match change {
            Change::Touch => Ok(0),
            Change::Write { key, stamp, until, value, condition } => {
                if let Some(seen) = condition {
                    let there = stamp_there(transaction, *key, seen.is_none()).map_err(failed)?;
                    if there == Some(*stamp) {
                        return Ok(1);
                    }
                    if there != *seen {
                        return Ok(0);
                    }
                }
                self.write(transaction, *key, *stamp, *until, value)
            }
            Change::Delete(keys) => each(
                transaction,
                keys,
                "DELETE FROM records WHERE entry = ?1 AND kind = ?2 AND slot = ?3 AND part = ?4",
            ),
            Change::Clear => {
                transaction.execute_batch("DELETE FROM records").map_err(failed)?;
                Ok(0)
            }
            Change::Retain(keys, retain) => {
                let (function, time) = match retain {
                    Retain::AtLeast(time) => ("max", *time),
                    Retain::AtMost(time) => ("min", *time),
                };
                let time = to_sql(time);
                each(
                    transaction,
                    keys,
                    &format!(
                        "UPDATE records SET until = {function}(until, {time}) WHERE entry = ?1 AND kind = ?2 AND slot = ?3 AND part = ?4"
                    ),
                )
            }
            Change::DeleteExpired(now) => {
                let deleted = transaction.execute("DELETE FROM records WHERE until <= ?1", [to_sql(*now)]);
                deleted.map(|count| count as u64).map_err(failed)
            }
        }
    }

    fn write(
        &self,
        transaction: &Transaction<'_>,
        key: Key,
        stamp: Stamp,
        until: Timestamp,
        value: &Bytes,
    ) -> Result<u64> {
        let size = (value.len() + super::evict::OVERHEAD) as i64;
        let others: i64 = transaction
            .prepare_cached(
                "SELECT coalesce((SELECT bytes FROM entries WHERE entry = ?1), 0) - coalesce((SELECT size FROM records
                 WHERE entry = ?1 AND kind = ?2 AND slot = ?3 AND part = ?4), 0)",
            )
            .and_then(|mut query| {
                query.query_row(params![key.entry, key.kind as u8, key.slot, key.part], |row| row.get(0))
            })
            .map_err(failed)?;
        if u64::try_from(others.saturating_add(size)).unwrap_or(0) > self.max_bytes / 2 {
            return Err(Error::new(ErrorKind::TooLarge, "the entry would take more than half of the store"));
        }
        transaction
            .prepare_cached(
                "INSERT INTO records VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                 ON CONFLICT (entry, kind, slot, part) DO UPDATE SET
                 stamp = excluded.stamp, until = excluded.until, size = excluded.size, value = excluded.value",
            )
            .and_then(|mut insert| {
                insert.execute(params![
                    key.entry,
                    key.kind as u8,
                    key.slot,
                    key.part,
                    stamp.to_bytes(),
                    to_sql(until),
                    size,
                    &value[..]
                ])
            })
            .map_err(failed)?;
        transaction
            .prepare_cached("UPDATE entries SET used = ?2 WHERE entry = ?1")
            .and_then(|mut update| update.execute(params![key.entry, now()]))
            .map_err(failed)?;
        Ok(1)
    }
}

/// The stamp of the record that is there. One that cannot be read counts as absent, as it does for readers; that is
/// looked into only where it makes a difference.
fn stamp_there(
    transaction: &Transaction<'_>,
    key: Key,
    look_inside: bool,
) -> rusqlite::Result<Option<Stamp>> {
    let place = params![key.entry, key.kind as u8, key.slot, key.part];
    let stamp: Option<[u8; 16]> = transaction
        .prepare_cached(
            "SELECT stamp FROM records WHERE entry = ?1 AND kind = ?2 AND slot = ?3 AND part = ?4",
        )?
        .query_row(place, |row| row.get(0))
        .optional()?;
    if stamp.is_none() || !look_inside {
        return Ok(stamp.map(Stamp::from_bytes));
    }
    let value: Vec<u8> = transaction
        .prepare_cached(
            "SELECT value FROM records WHERE entry = ?1 AND kind = ?2 AND slot = ?3 AND part = ?4",
        )?
        .query_row(place, |row| row.get(0))?;
    Ok(stamp.filter(|_| Record::from_bytes(value).is_ok()).map(Stamp::from_bytes))
}

/// Runs a statement for each key; the sum of the rows that it changed.
fn each(transaction: &Transaction<'_>, keys: &[Key], sql: &str) -> Result<u64> {
    let mut statement = transaction.prepare_cached(sql).map_err(failed)?;
    let mut count = 0;
    for key in keys {
        let rows =
            statement.execute(params![key.entry, key.kind as u8, key.slot, key.part]).map_err(failed)?;
        count += rows as u64;
    }
    Ok(count)
}
