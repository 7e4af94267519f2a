//! How much of a body waits in hyper for a slow client.
//!
//! hyper's buffer is long, because short ones are slower for bodies from memory, whose bytes are there anyway. The bytes of
//! a body that comes from the origin are there only for this client, so that fewer of them are given to hyper.
//!
//! # Invariants
//! - A body that is held back is polled again: when enough is written, and at the latest when all of it is.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

/// How many bytes from the origin wait for one client, besides the last frame.
const MAX_WAITING: usize = 32 * 1024;

/// Marks a response whose body comes from the origin, in its extensions.
#[derive(Clone, Copy)]
pub struct FromOrigin;

#[derive(Default)]
pub struct Backlog {
    bytes: AtomicUsize,
    body: AtomicWaker,
}

// Relaxed throughout: one task writes and polls, and the waker orders itself.
impl Backlog {
    /// Waits until more may be given to hyper.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.bytes.load(Ordering::Relaxed) < MAX_WAITING {
            return Poll::Ready(());
        }
        self.body.register(cx.waker());
        Poll::Pending
    }

    /// Records that bytes were given to hyper.
    pub fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Records that hyper has written bytes.
    ///
    /// Heads and the lengths of chunks count as well, so that a little more may wait.
    pub fn written(&self, bytes: usize) {
        let waiting = self.bytes.load(Ordering::Relaxed);
        if waiting > 0 {
            self.set(waiting.saturating_sub(bytes));
        }
    }

    /// Records that hyper has written everything.
    pub fn flushed(&self) {
        if self.bytes.load(Ordering::Relaxed) > 0 {
            self.set(0);
        }
    }

    fn set(&self, bytes: usize) {
        self.bytes.store(bytes, Ordering::Relaxed);
        if bytes < MAX_WAITING {
            self.body.wake();
        }
    }
}
