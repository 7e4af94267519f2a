//! Tells how long a client's connection may go on waiting.
//!
//! # Invariants
//! - A connection with a request in progress is never closed for being idle.
//! - The head of a request has its own timeout, from its first byte or the beginning of the connection.
//! - An HTTP/2 connection is stalled if its client takes nothing of any response, although each has more to send.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::limits::Limits;

/// Shared by the task that serves a connection, its socket and its responses.
pub struct Activity {
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// When the phase began.
    since: Instant,
    /// Several requests may be in progress at once. The bytes that arrive are not only heads.
    is_http2: bool,
    /// The responses that have more to send than the client takes.
    waiting_for_client: usize,
    /// When the client last took anything.
    taken: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A head is expected, or has begun to arrive.
    Head,
    /// No request has come since the last one was answered.
    Idle,
    /// This number of requests is in progress.
    Busy(usize),
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    Head,
    Idle,
    Stalled,
}

impl Activity {
    pub fn new() -> Self {
        let now = Instant::now();
        let state =
            State { phase: Phase::Head, since: now, is_http2: false, waiting_for_client: 0, taken: now };
        Self { state: Mutex::new(state) }
    }

    /// Records that a request begins.
    pub fn begin(&self, is_http2: bool) {
        let mut state = self.lock();
        state.is_http2 |= is_http2;
        state.phase = match state.phase {
            Phase::Busy(requests) => Phase::Busy(requests + 1),
            Phase::Head | Phase::Idle => {
                state.taken = Instant::now();
                Phase::Busy(1)
            }
        };
    }

    /// Records that a response has ended.
    pub fn end(&self) {
        let mut state = self.lock();
        state.phase = match state.phase {
            Phase::Busy(requests) if requests > 1 => Phase::Busy(requests - 1),
            _ => {
                state.since = Instant::now();
                Phase::Idle
            }
        };
    }

    /// Records that bytes have arrived.
    pub fn received(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Idle && !state.is_http2 {
            state.phase = Phase::Head;
            state.since = Instant::now();
        }
    }

    /// Records that the client has taken bytes. HTTP/1 needs no record, since its socket tells when the client is slow.
    pub fn took(&self) {
        let mut state = self.lock();
        if state.is_http2 {
            state.taken = Instant::now();
        }
    }

    /// Records whether one more, or one less, response waits for the client.
    pub fn waits(&self, more: bool) {
        let mut state = self.lock();
        state.waiting_for_client =
            if more { state.waiting_for_client + 1 } else { state.waiting_for_client.saturating_sub(1) };
    }

    /// Returns why the connection has to be closed, or when to ask again.
    pub fn expired(&self, limits: &Limits) -> Result<Expired, Instant> {
        let state = self.lock();
        let now = Instant::now();
        // Another phase may begin at any time. None that begins from now on ends before this.
        let soon = now + limits.head.min(limits.idle).min(limits.client.timeout);
        let (deadline, expired) = match state.phase {
            Phase::Head => (state.since + limits.head, Expired::Head),
            Phase::Idle => (state.since + limits.idle, Expired::Idle),
            Phase::Busy(requests) if state.is_http2 && state.waiting_for_client == requests => {
                (state.taken + limits.client.timeout, Expired::Stalled)
            }
            Phase::Busy(_) => return Err(soon),
        };
        if now >= deadline { Ok(expired) } else { Err(deadline.min(soon)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
