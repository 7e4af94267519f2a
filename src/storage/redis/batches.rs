//! Small reads that are sent together.
//!
//! The driver needs a timer, two task switches and several allocations for each command that it sends. If many tasks read at the
//! same time, that costs more than the read itself. So a read that begins while several others are under way waits until one of
//! them is answered, and is sent together with those that wait as well.
//!
//! # Invariants
//!
//! - A read that waits is sent by a task of the runtime, never by another read, whose caller might not poll it any more.
//! - While a read waits, at least one of these tasks is running. If its runtime ends, the read is sent by itself. If its
//!   runtime is not driven, the read begins another task, and is sent by itself if that does not help.
//! - A batch that is not answered in time does not delay the reads that come after it.
//! - At most [`MAX_BATCH_LEN`] reads are sent together, each a command of its own, so no further permission is needed.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use deadpool_redis::redis::{Cmd, Pipeline, Value};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::connections::{CommandKind, Connections, Request, STALLED_AFTER};
use super::error::{map_error, unexpected_answer};
use crate::error::Result;

/// How many reads are sent by themselves at the same time. Fewer tasks than this have nothing to gain from waiting.
const MAX_DIRECT: usize = 4;
/// How many batches are under way at the same time. While the server answers one, the next is prepared.
const MAX_BATCHES: usize = 2;
/// How many reads are sent together. Their answers arrive together, too: with 32 KiB each, that is 1 MiB.
const MAX_BATCH_LEN: usize = 32;

/// Sends reads, together if many are under way.
pub(super) struct Batches {
    connections: Arc<Connections>,
    /// A std `Mutex`, since it is never held over an await.
    state: Mutex<State>,
}

struct State {
    /// The reads under way that were sent by themselves.
    direct: usize,
    /// The tasks that send batches.
    batches: usize,
    /// Incremented when these tasks are given up. They are not counted any more.
    epoch: u64,
    waiting: Vec<Waiting>,
    /// When reads that waited were last sent.
    taken_at: Instant,
}

/// A read that waits to be sent.
struct Waiting {
    command: Cmd,
    answer: oneshot::Sender<Result<Value>>,
}

impl Batches {
    pub(super) fn new(connections: Arc<Connections>) -> Arc<Self> {
        let state = State { direct: 0, batches: 0, epoch: 0, waiting: Vec::new(), taken_at: Instant::now() };
        Arc::new(Self { connections, state: Mutex::new(state) })
    }

    /// Sends a command that reads a small value, and returns its answer.
    ///
    /// `command` is called again if the answer was lost.
    pub(super) async fn read(self: &Arc<Self>, command: impl Fn() -> Cmd) -> Result<Value> {
        // Sent at one place for both cases, so that the future has room for it once.
        let (command, _direct) = match self.enqueue(command()) {
            Ok(answer) => match self.wait(answer).await {
                Some(answer) => return answer,
                None => (command(), None),
            },
            Err(command) => (command, Some(Direct(self))),
        };
        self.send(&command).await
    }

    /// Waits until a batch has brought the answer of a read.
    ///
    /// Returns `None` if the read has to be sent by itself: its batch was dropped, or nothing has come for long.
    async fn wait(self: &Arc<Self>, mut answer: oneshot::Receiver<Result<Value>>) -> Option<Result<Value>> {
        for _ in 0..2 {
            match tokio::time::timeout(STALLED_AFTER, &mut answer).await {
                Ok(answer) => return answer.ok(),
                Err(_) => self.revive(),
            }
        }
        None
    }

    /// Begins a task in this runtime if those that should send the waiting reads have sent none for long.
    ///
    /// They hand over sooner than that, so their runtime is not driven: a current-thread runtime runs its tasks only while a
    /// thread blocks on it.
    fn revive(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.waiting.is_empty() || state.taken_at.elapsed() < STALLED_AFTER {
            return;
        }
        (state.epoch, state.batches, state.taken_at) = (state.epoch + 1, 1, Instant::now());
        let slot = Slot { batches: Arc::clone(self), epoch: state.epoch };
        drop(state);
        self.spawn(slot);
    }

    async fn send(&self, command: &Cmd) -> Result<Value> {
        // Boxed, since the driver's futures are large, and the cache's futures contain this one several times.
        Box::pin(self.connections.run(Request::Command(command), CommandKind::READ)).await
    }

    /// Lets a read wait for the next batch.
    ///
    /// Gives the command back if it is to be sent by itself. Then it is counted as such.
    fn enqueue(self: &Arc<Self>, command: Cmd) -> Result<oneshot::Receiver<Result<Value>>, Cmd> {
        let mut state = self.lock();
        if state.direct < MAX_DIRECT {
            state.direct += 1;
            return Err(command);
        }
        let (answer, receiver) = oneshot::channel();
        state.waiting.push(Waiting { command, answer });
        if state.batches < MAX_BATCHES {
            state.batches += 1;
            let slot = Slot { batches: Arc::clone(self), epoch: state.epoch };
            drop(state);
            self.spawn(slot);
        }
        Ok(receiver)
    }

    /// Begins a task that sends batches. Without a runtime, the slot is given back.
    fn spawn(&self, slot: Slot) {
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(send_batches(slot));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends batches until no read waits.
async fn send_batches(slot: Slot) {
    let mut slot = Some(slot);
    while let Some(batches) = slot.as_ref().map(|slot| Arc::clone(&slot.batches)) {
        let waiting: Vec<Waiting> = {
            let mut state = batches.lock();
            state.taken_at = Instant::now();
            let len = state.waiting.len().min(MAX_BATCH_LEN);
            state.waiting.drain(..len).collect()
        };
        if waiting.is_empty() {
            // The slot's drop looks again, for a read that has begun to wait since.
            return;
        }
        send_batch(&batches, waiting, &mut slot).await;
    }
}

/// Sends a batch, and hands over the slot if it is not answered in time.
async fn send_batch(batches: &Arc<Batches>, waiting: Vec<Waiting>, slot: &mut Option<Slot>) {
    let mut pipeline = Pipeline::with_capacity(waiting.len());
    let mut readers = Vec::with_capacity(waiting.len());
    for Waiting { command, answer } in waiting {
        // The callers of the others have given up.
        if !answer.is_closed() {
            pipeline.add_command(command);
            readers.push(answer);
        }
    }
    if readers.is_empty() {
        return;
    }
    let mut sent = pin!(batches.connections.run(Request::Pipeline(&pipeline), CommandKind::READ));
    let mut gone_early = None;
    let answer = loop {
        if let Ok(answer) = tokio::time::timeout(STALLED_AFTER, &mut sent).await {
            break answer;
        }
        // The reads that wait must not wait for this batch, which may be large, or on a connection that does not answer.
        if let Some(slot) = slot.take() {
            batches.spawn(slot);
        }
        // A reader has given up after it has waited for long. As with a read of its own, the connection is suspect, and the
        // drop of `sent` discards it.
        let gone = readers.iter().filter(|reader| reader.is_closed()).count();
        if gone > *gone_early.get_or_insert(gone) {
            return;
        }
    };
    match answer {
        Ok(Value::Array(values)) if values.len() == readers.len() => {
            for (reader, value) in readers.into_iter().zip(values) {
                // A failed send: the reader has gone.
                let _ = reader.send(value.extract_error().map_err(|error| map_error(&error, false)));
            }
        }
        Ok(_) => readers.into_iter().for_each(|reader| drop(reader.send(Err(unexpected_answer())))),
        Err(error) => readers.into_iter().for_each(|reader| drop(reader.send(Err(error.clone())))),
    }
}

/// Counts a read that was sent by itself, until it is answered or dropped.
struct Direct<'a>(&'a Batches);

impl Drop for Direct<'_> {
    fn drop(&mut self) {
        self.0.lock().direct -= 1;
    }
}

/// The right to send batches.
struct Slot {
    batches: Arc<Batches>,
    epoch: u64,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.batches.lock();
        if state.epoch != self.epoch {
            return;
        }
        state.batches -= 1;
        // Those that wait now would wait for nothing. They are sent by themselves, since their senders are dropped.
        let waiting = if state.batches == 0 { std::mem::take(&mut state.waiting) } else { Vec::new() };
        drop(state);
        drop(waiting);
    }
}
