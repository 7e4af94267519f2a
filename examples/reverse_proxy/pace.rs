//! Decides when a peer is too slow.
//!
//! # Invariants
//! - Only the time that the peer is waited for counts: a slow origin does not make a client late, nor the reverse.
//! - A peer that moves at least the minimum within each timeout is never late, however long the transfer takes.
//! - A peer that never makes this side wait costs no timer and no look at the clock.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// How slow a peer may be.
#[derive(Clone, Copy, Debug)]
pub struct Slowest {
    /// How long the peer may be waited for.
    pub timeout: Duration,
    /// How many bytes it has to move meanwhile, at least one.
    pub least: u64,
}

impl Slowest {
    /// Requires that something comes within the timeout, and a number of bytes per second on average.
    pub fn new(timeout: Duration, bytes_per_second: u64) -> Self {
        let least = timeout.as_secs_f64() * bytes_per_second as f64;
        Self { timeout, least: (least as u64).max(1) }
    }
}

/// Watches one direction of a transfer.
pub struct Pace {
    slowest: Slowest,
    waiting_since: Option<Instant>,
    /// How long the peer was waited for since it had last moved the minimum.
    waited: Duration,
    /// How many bytes it has moved since then.
    moved: u64,
    /// Boxed, since most peers are never waited for long enough to need one.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    pub fn new(slowest: Slowest) -> Self {
        Self { slowest, waiting_since: None, waited: Duration::ZERO, moved: 0, timer: None }
    }

    /// Records that the peer has moved bytes.
    pub fn moved(&mut self, bytes: u64) {
        if let Some(since) = self.waiting_since.take() {
            self.waited += since.elapsed();
        }
        self.moved = self.moved.saturating_add(bytes);
        if self.moved >= self.slowest.least {
            (self.waited, self.moved) = (Duration::ZERO, 0);
        }
    }

    /// Waits for the peer. It is ready once the peer is too slow.
    ///
    /// The caller has polled the peer in vain.
    pub fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let deadline = since + self.slowest.timeout.saturating_sub(self.waited);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx)
    }
}
