//! The signal that the file was changed, by `PRAGMA data_version`.
//!
//! [The pragma](https://www.sqlite.org/pragma.html#pragma_data_version) returns another number once another connection has
//! committed a change, of this process or of another. It reads memory that all processes share, and takes about 2 µs. It does
//! not say what was changed, so one number counts for all keys.
//!
//! # Invariants
//!
//! - The count never returns to an earlier value, also if the file is replaced.
//! - The count is at most [`MAX_AGE`] old, or as old as the caller permits.
//! - A task waits for at most one query of the pragma. It never opens a file.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::readers::Reader;
use super::reopen::Reopener;

/// For how long an answer of the pragma is used. At a hundred thousand reads per second, one in a hundred asks for it.
const MAX_AGE: Duration = Duration::from_millis(1);
/// After how long opening the connection is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct ChangeSignal {
    started: Instant,
    /// The count, and when the pragma was asked for it, in nanoseconds after `started`. Both are written under the lock. A task
    /// that reads the time first finds a count that is at least as new.
    count: AtomicU64,
    asked_at: AtomicU64,
    state: Arc<Mutex<State>>,
    reopener: Arc<Reopener>,
}

#[derive(Default)]
struct State {
    /// The connection, which is made for the first call.
    reader: Option<Reader>,
    /// The number that it has returned last. Numbers of different connections are not comparable.
    version: Option<i64>,
    /// When a thread began to open it.
    opened_at: Option<Instant>,
    is_closed: bool,
}

impl ChangeSignal {
    pub(super) fn new(reopener: Arc<Reopener>) -> Self {
        Self {
            started: Instant::now(),
            count: AtomicU64::new(0),
            asked_at: AtomicU64::new(0),
            state: Arc::default(),
            reopener,
        }
    }

    /// Returns the number of changes of the file, at most `max_age` old. Returns `None` while there is no connection.
    pub(super) fn count(&self, max_age: Duration) -> Option<u64> {
        let now = Instant::now();
        let max_age = max_age.min(MAX_AGE);
        // Zero until the first answer. Acquire: see `asked_at`.
        let asked_at = self.asked_at.load(Ordering::Acquire);
        if asked_at > 0 && self.nanos(now).saturating_sub(asked_at) < max_age.as_nanos() as u64 {
            return Some(self.count.load(Ordering::Acquire));
        }
        let mut state = lock(&self.state);
        let version = state.ask(now);
        if version.is_none() || version != state.version {
            self.count.fetch_add(1, Ordering::Release);
            state.version = version;
        }
        match version {
            Some(_) => {
                // Two tasks may come here in another order than their clocks say.
                self.asked_at.fetch_max(self.nanos(now).max(1), Ordering::Release);
                Some(self.count.load(Ordering::Acquire))
            }
            None => {
                self.asked_at.store(0, Ordering::Release);
                self.open(state, now);
                None
            }
        }
    }

    /// Closes the connection.
    pub(super) fn close(&self) -> impl FnOnce() + Send + use<> {
        let state = Arc::clone(&self.state);
        move || {
            let mut state = lock(&state);
            (state.reader, state.is_closed) = (None, true);
        }
    }

    /// Opens the connection on a thread, since that may take long.
    fn open(&self, mut state: MutexGuard<'_, State>, now: Instant) {
        let is_recent = state.opened_at.is_some_and(|at| now.saturating_duration_since(at) < RETRY_INTERVAL);
        if is_recent || state.is_closed {
            return;
        }
        state.opened_at = Some(now);
        let (shared, reopener, old) =
            (Arc::clone(&self.state), Arc::clone(&self.reopener), state.reader.take());
        drop(state);
        let open = move || {
            drop(old);
            let opened = Reader::open(&reopener);
            let mut state = lock(&shared);
            if !state.is_closed {
                state.reader = opened.ok();
            }
        };
        // If no thread can be started, the next call after the interval tries again.
        let _ = std::thread::Builder::new().name("sqlite-open".to_owned()).spawn(open);
    }

    fn nanos(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_nanos() as u64
    }
}

impl State {
    /// Asks for the number. Returns `None` if there is no connection, or if its file was replaced.
    fn ask(&mut self, now: Instant) -> Option<i64> {
        let reader = self.reader.as_mut()?;
        if !reader.is_current(now) {
            return None;
        }
        let mut statement = reader.connection().prepare_cached("PRAGMA data_version").ok()?;
        statement.query_row([], |row| row.get(0)).ok()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A panic leaves a state that the next question corrects.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
