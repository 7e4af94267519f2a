//! Passes interim responses (102, 103) from the origin's connection to the client's.
//!
//! A tower service returns one response only, so interim ones bypass the cache.
//!
//! # Invariants
//! - An interim response reaches only the request that it answers, and only before that request's final head.
//! - The cache's background requests never reach a client.
//! - A request that is answered without the origin costs one atomic load here.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};

use crate::fields;

/// How many bytes wait for a client that does not read. More are dropped, since no client depends on interim responses; a
/// usual 103 has less than a kilobyte.
const MAX_WAITING_BYTES: usize = 64 * 1024;

tokio::task_local! {
    /// The client whose request this task serves; `None` for a client that must not get interim responses.
    ///
    /// A background request of the cache runs in a task of its own, which has no such value.
    pub static CLIENT: Option<Arc<Interims>>;
}

/// The interim responses on their way to one client connection.
#[derive(Default)]
pub struct Interims {
    /// Whether the request that is being served was sent to the origin. It spares all others the lock.
    sent_to_origin: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The number of the request that is being served. Tickets of earlier ones are void.
    request: u64,
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
    /// The connection has taken a head, and has not asked for the next one yet.
    being_written: bool,
    /// Wakes the task that serves the client.
    waker: Option<Waker>,
}

/// The permission to send interim responses to one request.
pub struct Ticket {
    client: Arc<Interims>,
    request: u64,
}

/// Returns the ticket of the request that this task serves, if its client may get interim responses.
pub async fn ticket() -> Option<Ticket> {
    let client = CLIENT.try_with(Option::clone).ok().flatten()?;
    let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    let mut state = client.lock();
    state.waker = Some(waker);
    let request = state.request;
    drop(state);
    // Release, for the Acquire loads below: the lock orders the state, but the flag is read without it.
    client.sent_to_origin.store(true, Ordering::Release);
    Some(Ticket { client, request })
}

impl Ticket {
    /// Queues an interim response, unless its request has its final head already.
    pub fn send(&self, status: StatusCode, headers: &HeaderMap) {
        // hyper answers `Expect: 100-continue` itself, and 101 would end HTTP on this connection.
        if !status.is_informational() || matches!(status.as_u16(), 100 | 101) {
            return;
        }
        let head = head(status, headers);
        let mut state = self.client.lock();
        if state.request != self.request || state.waiting_bytes + head.len() > MAX_WAITING_BYTES {
            return;
        }
        state.waiting_bytes += head.len();
        state.waiting.push_back(head);
        let waker = state.waker.clone();
        drop(state); // the woken task takes the lock
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Interims {
    /// Voids the request's tickets, and waits until the heads that are queued already are written.
    ///
    /// Only then may hyper get the final head: nothing may be written between it and its body.
    pub fn poll_finish(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.sent_to_origin.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        let mut state = self.lock();
        state.request += 1;
        if state.waiting.is_empty() && !state.being_written {
            state.waker = None;
            self.sent_to_origin.store(false, Ordering::Release);
            return Poll::Ready(());
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Returns the next head to write. The connection calls this once the one before is written.
    pub fn next(&self) -> Option<Bytes> {
        if !self.sent_to_origin.load(Ordering::Acquire) {
            return None;
        }
        let mut state = self.lock();
        let next = state.waiting.pop_front();
        state.waiting_bytes -= next.as_ref().map_or(0, Bytes::len);
        let written = state.being_written && next.is_none();
        state.being_written = next.is_some();
        if written && let Some(waker) = state.waker.clone() {
            drop(state);
            waker.wake(); // `poll_finish` may be waiting for this head
        }
        next
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Formats the head of an interim response, which has no content and hence no Content-Length.
fn head(status: StatusCode, headers: &HeaderMap) -> Bytes {
    let mut headers = headers.clone();
    fields::strip_response(&mut headers);
    headers.remove(header::CONTENT_LENGTH);
    let reason = status.canonical_reason().unwrap_or(if status == 103 { "Early Hints" } else { "" });
    let mut text = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    for (name, value) in &headers {
        for piece in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            text.extend_from_slice(piece);
        }
    }
    text.extend_from_slice(b"\r\n");
    text.into()
}
