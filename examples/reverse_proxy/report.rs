//! Reports errors that repeat, at a bounded rate.
//!
//! # Invariants
//! - The first error of a kind is logged at once.
//! - After that, a kind is logged at most once in each interval, with the number of errors since its last line.
//! - No error is missing from these numbers, those before the program ends included.

use std::error::Error as StdError;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often one kind of error is logged at most.
const INTERVAL: Duration = Duration::from_secs(10);

/// The kinds of errors.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    OriginUnreachable,
    OriginInvalid,
    OriginLate,
    OriginStalled,
    OriginBrokenOff,
    AcceptFailed,
    ConnectionsAtLimit,
    TlsFailed,
    SlowClient,
    AccessLogDropped,
    AccessLogFailed,
}

const KINDS: usize = 11;

/// The names of the kinds in the log, in the order of [`Kind`].
const NAMES: [&str; KINDS] = [
    "the origin cannot be reached",
    "the origin sent no valid response",
    "the origin did not answer in time: see --timeout",
    "the origin stopped in the middle of a body: see --timeout",
    "the origin broke off in the middle of a body",
    "no connection can be accepted",
    "--max-connections is reached: new connections wait until others end",
    "a TLS handshake failed",
    "a client was too slow and is disconnected: see --client-timeout and --min-rate",
    "lines of the access log were dropped, because it cannot be written as fast",
    "the access log cannot be written",
];

static STATES: [Mutex<State>; KINDS] = [const { Mutex::new(State::NEW) }; KINDS];

struct State {
    logged: Option<Instant>,
    /// The errors since the last line.
    more: u64,
    /// The text of the latest of them.
    latest: String,
}

impl State {
    const NEW: Self = Self { logged: None, more: 0, latest: String::new() };
}

/// Reports an error.
pub fn report(kind: Kind, cause: impl FnOnce() -> String) {
    let mut state = STATES[kind as usize].lock().unwrap_or_else(PoisonError::into_inner);
    if state.logged.is_some_and(|logged| logged.elapsed() < INTERVAL) {
        if state.more == 0 {
            state.latest = cause(); // only one of them is formatted, since this may be called for every request
        }
        state.more += 1;
        return;
    }
    let more = std::mem::take(&mut state.more);
    state.logged = Some(Instant::now());
    drop(state); // the log may wait for its reader
    line(kind as usize, more + 1, &cause());
}

/// Logs the numbers of errors that have no line yet, every interval.
pub async fn summarize() {
    loop {
        tokio::time::sleep(INTERVAL).await;
        finish();
    }
}

/// Logs the numbers of errors that have no line yet.
pub fn finish() {
    for (number, state) in STATES.iter().enumerate() {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, latest) = (std::mem::take(&mut state.more), std::mem::take(&mut state.latest));
        if count > 0 {
            state.logged = Some(Instant::now());
            drop(state);
            line(number, count, &latest);
        }
    }
}

fn line(number: usize, count: u64, cause: &str) {
    let what = NAMES[number];
    if cause.is_empty() {
        tracing::warn!(target: "reverse_proxy", count, "{what}");
    } else {
        tracing::warn!(target: "reverse_proxy", count, cause, "{what}");
    }
}

/// Returns an error and all its sources as one line.
pub fn causes(error: &dyn StdError) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    line.replace('\n', " ")
}
