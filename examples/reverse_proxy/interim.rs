//! Interim responses (102, 103), which a service cannot carry: they go from the origin's connection to the client's past
//! the cache.
//!
//! Promises: one reaches only the request that it answers, and only before that request's final head; requests that the
//! cache makes in the background have no way to a client; a request that asks no origin pays one look at a flag.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};

use crate::fields;

/// What waits for a client that does not read; more is dropped, since a client can do without it.
const MOST_WAITING: usize = 64 * 1024;

tokio::task_local! {
    /// The client's connection, inside the task that serves it; `None` for a client that must not get interim responses.
    /// A background request runs in a task of its own, which has no such value.
    pub static CLIENT: Option<Arc<Interims>>;
}

/// The interim responses on their way to one client.
#[derive(Default)]
pub struct Interims {
    /// Whether the request that is being served has asked the origin.
    asked: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Which request is being served: the earlier ones' tickets are void.
    request: u64,
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
    /// One was taken by the connection, which has not yet come back for the next.
    being_written: bool,
    /// The task that serves the client.
    waker: Option<Waker>,
}

/// Lets one request's interim responses through.
pub struct Ticket {
    client: Arc<Interims>,
    request: u64,
}

/// The ticket of the request that this task serves, if its client may get interim responses.
pub async fn ticket() -> Option<Ticket> {
    let client = CLIENT.try_with(Option::clone).ok().flatten()?;
    let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    let mut state = client.lock();
    state.waker = Some(waker);
    let request = state.request;
    drop(state);
    client.asked.store(true, Ordering::Release);
    Some(Ticket { client, request })
}

impl Ticket {
    pub fn send(&self, status: StatusCode, headers: &HeaderMap) {
        // 100 is between each two neighbours, and 101 would end HTTP on this connection.
        if !status.is_informational() || matches!(status.as_u16(), 100 | 101) {
            return;
        }
        let head = head(status, headers);
        let mut state = self.client.lock();
        if state.request != self.request || state.waiting_bytes + head.len() > MOST_WAITING {
            return;
        }
        state.waiting_bytes += head.len();
        state.waiting.push_back(head);
        let waker = state.waker.clone();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Interims {
    /// Voids the request's tickets; ready once all that came before is written. Only then may the final head be given
    /// to the connection.
    pub fn poll_finish(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.asked.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        let mut state = self.lock();
        state.request += 1;
        if state.waiting.is_empty() && !state.being_written {
            state.waker = None;
            self.asked.store(false, Ordering::Release);
            return Poll::Ready(());
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The next one to be written, once the one before is.
    pub fn next(&self) -> Option<Bytes> {
        if !self.asked.load(Ordering::Acquire) {
            return None;
        }
        let mut state = self.lock();
        let next = state.waiting.pop_front();
        state.waiting_bytes -= next.as_ref().map_or(0, Bytes::len);
        let written = state.being_written && next.is_none();
        state.being_written = next.is_some();
        if written && let Some(waker) = state.waker.clone() {
            drop(state);
            waker.wake(); // the service may be waiting for this
        }
        next
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As it is written. It has no content, so no field may speak of any.
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
