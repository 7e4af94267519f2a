//! Shares one body from the origin among its readers, and stores it while it comes.
//!
//! No task drives a download. Each reader that needs the next byte asks the body for it, on behalf of all that wait: a
//! reader that is slow, stops or is dropped never keeps the others from asking, and two readers in one task never wait for
//! each other.
//!
//! # Invariants
//!
//! - Each reader gets every byte once and in order, or an error; never less.
//! - Bytes that the storage has taken are not kept in memory; a reader behind them reads them from the storage.
//! - Where storing ends early, the readers that have begun go on through a window of [`MAX_READ_AHEAD`] bytes, at the pace
//!   of the slowest. A reader that holds up the others for longer than their patience fails, and no other does.
//! - The response is announced to lookups before any reader gets its last byte.
//!
//! # Locks
//!
//! One lock guards the state. It is a `std` mutex: it is held while the body and the storage are polled, which returns at
//! once, and never across an `await`. Under it the locks of `records` and of the wakers are taken, never the other way
//! round. The map of flights may be locked by a caller, which therefore asks [`Download::may_be_open`] alone.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, SizeHint};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::frame_buffer::FrameBuffer;
use crate::body::{BodyError, BodyErrorKind};
use crate::error::{Error, ErrorKind};
use crate::service::records::{ChunkWrite, Claim, Lost, Records, Writer};
use crate::service::tasks::{Driven, after};
use crate::service::telemetry;
use crate::service::wakers::Wakers;
use crate::storage::Storage;

/// Bounds how far readers may be apart where the body is not stored, in bytes.
///
/// Two chunks of the default length: a reader that is scheduled a little later is not waited for, and a thousand such
/// downloads hold about 256 MiB.
const MAX_READ_AHEAD: u64 = 256 * 1024;

/// The inner service's body. Boxed, since a flight and its readers do not know which service their response came from.
type InnerBody = Pin<Box<dyn Body<Data = Bytes, Error = BodyError> + Send>>;

/// Holds one body from the origin, which any number of readers share.
pub(crate) struct Download<S: Storage> {
    pub(crate) writer: Arc<Writer<S>>,
    /// The announced length.
    pub(crate) expected: Option<u64>,
    /// The tasks of the readers that wait.
    pub(crate) wakers: Arc<Wakers>,
    /// Wakes all of them. The body and the recorder are polled with it: each keeps a single waker, and the reader that
    /// polled last may be dropped before the others are.
    waker: Waker,
    /// See the module's page for what may be locked under it.
    state: Mutex<State<S>>,
}

/// Holds what the readers of a download share.
pub(crate) struct State<S: Storage> {
    /// `None`: it has ended.
    body: Option<InnerBody>,
    /// The bytes that are in memory.
    pub(crate) buffer: FrameBuffer,
    storing: Storing<S>,
    /// How the body ended, once it has.
    pub(crate) end: Option<Result<(), BodyError>>,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) positions: ReaderPositions,
    /// Set while the slowest reader holds up the others.
    stall: Option<Stall>,
    /// When the origin sent something last.
    last_frame: Instant,
}

/// Says whether the body is being stored.
enum Storing<S: Storage> {
    Recording(Recorder<S>),
    /// All of it is in the storage, or announced and on its way there.
    Stored,
    /// It is not stored: the buffer alone has the bytes to come.
    GivenUp,
}

/// Keeps the position of each reader.
#[derive(Default)]
pub(crate) struct ReaderPositions {
    /// By the number of the reader; freed numbers are used again.
    positions: Vec<Position>,
    readers: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// No reader has this number.
    Free,
    /// The reader needs the byte at this offset next.
    At(u64),
    /// The reader needs nothing more.
    Done,
    /// The reader was left behind, since it held up the others for too long.
    TooSlow,
}

/// Times a reader that holds up the others.
#[derive(Clone, Copy, Debug)]
struct Stall {
    since: Instant,
    /// Where the slowest reader was seen last.
    slowest: u64,
    /// How far it has to come: to where the others were when they had to stop. A frame now and then would not do, or one
    /// slow reader could hold up the others for ever.
    target: u64,
}

/// Says how asking the body for more has ended.
pub(crate) enum Progress {
    /// There is more, or the end.
    Ready,
    /// The reader is woken when there is.
    Pending,
    /// Nothing more may come before the slowest reader has gone on, or before this moment.
    Stalled(Instant),
}

impl<S: Storage> Download<S> {
    /// Begins a download of a body of the length `expected`, where that is announced.
    ///
    /// `awaits_trailers` says that the response announces trailers, so that its length alone does not make it whole.
    pub(crate) fn new(
        writer: Arc<Writer<S>>,
        body: impl Body<Data = Bytes, Error = BodyError> + Send + 'static,
        expected: Option<u64>,
        awaits_trailers: bool,
    ) -> Arc<Self> {
        let wakers: Arc<Wakers> = Arc::default();
        let recorder = Recorder::new(Arc::clone(&writer), expected, awaits_trailers);
        let is_empty = body.is_end_stream();
        let mut state = State {
            body: Some(Box::pin(body)),
            buffer: FrameBuffer::default(),
            storing: Storing::Recording(recorder),
            end: None,
            trailers: None,
            positions: ReaderPositions::default(),
            stall: None,
            last_frame: Instant::now(),
        };
        // Callers do not poll a body that says that it is empty, so that there is no later time to store it.
        if is_empty {
            state.finish();
            state.end_with(Ok(()));
        }
        let waker = Waker::from(Arc::clone(&wakers));
        Arc::new(Self { writer, expected, wakers, waker, state: Mutex::new(state) })
    }

    /// Locks the state. Nothing may be awaited, and no reader dropped, while it is held.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(|poisoned| {
            // The body panicked while a reader polled it. That reader's task has the panic; the others get an error, since
            // a body that has panicked must not be polled again.
            let mut state = poisoned.into_inner();
            self.state.clear_poison();
            let error = Error::new(ErrorKind::Other, "the response's body panicked");
            state.end_with(Err(BodyError::new(BodyErrorKind::Inner, Some(error))));
            state
        })
    }

    /// Returns whether the body may still be open to new readers, without waiting for the lock.
    ///
    /// The caller has locked the map of flights. The holder of this lock may be dropping the inner service's body, and that
    /// may drop a flight, which locks the map: to wait here could deadlock. True if in doubt.
    pub(crate) fn may_be_open(&self) -> bool {
        match self.state.try_lock() {
            Ok(state) => state.is_open(),
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Poisoned(_)) => false,
        }
    }

    /// Asks the body for more, on behalf of all readers that wait.
    ///
    /// The caller has put its waker into `wakers` before, under the same lock: whatever becomes ready from then on wakes
    /// it.
    pub(crate) fn poll_more(&self, state: &mut State<S>, patience: Duration) -> Progress {
        let mut cx = Context::from_waker(&self.waker);
        if let Storing::Recording(recorder) = &mut state.storing {
            match recorder.poll_ready(&mut cx, &mut state.buffer) {
                Poll::Pending => return Progress::Pending,
                Poll::Ready(true) => {}
                Poll::Ready(false) => state.storing = Storing::GivenUp,
            }
        }
        let has_room = match state.storing {
            Storing::Recording(_) => true,
            // A stored body is bounded by its length. What comes beyond the announced length is not in the storage, so that
            // it has to wait for the slowest reader.
            Storing::Stored => {
                state.makes_room() || self.expected.is_none_or(|expected| state.buffer.end() <= expected)
            }
            Storing::GivenUp => state.makes_room(),
        };
        if !has_room {
            let slowest = state.positions.slowest().unwrap_or_default();
            let target = state.buffer.end();
            let stall = state.stall.get_or_insert_with(|| Stall { since: Instant::now(), slowest, target });
            stall.slowest = slowest;
            let since = stall.since;
            // `after` bounds a patience without end, which cannot be added to a moment.
            let until = after(patience).min(since.checked_add(patience).unwrap_or_else(|| after(patience)));
            // Outside a runtime there is no timer to wait with, and the others must not wait for ever.
            if Instant::now() < until && Handle::try_current().is_ok() {
                return Progress::Stalled(until);
            }
            tracing::debug!("a reader of a shared body was too slow, and is left behind");
            // The caller wakes the others once it has dropped the lock.
            state.leave_slowest_behind();
            return Progress::Ready;
        }
        match state.poll_body(&mut cx) {
            Poll::Ready(()) => Progress::Ready,
            Poll::Pending => Progress::Pending,
        }
    }

    /// Returns how many bytes may still come from an offset on.
    ///
    /// The hint is exact only where all has come, or where the origin announced the length and has kept to it so far. A
    /// server frames a response by it: an exact hint of a body that broke off would pass half of it off as the whole.
    pub(crate) fn size_hint(&self, offset: u64) -> SizeHint {
        let state = self.lock();
        let total = state.buffer.end();
        let come = total.saturating_sub(offset);
        let mut hint = SizeHint::new();
        hint.set_lower(come);
        let is_contradicted = |expected| total > expected || (state.end.is_some() && total != expected);
        match (&state.end, self.expected) {
            (Some(Err(_)), None) => {}
            (_, Some(expected)) if is_contradicted(expected) => {}
            (_, Some(expected)) => hint.set_exact(expected.saturating_sub(offset)),
            (Some(Ok(())), None) => hint.set_exact(come),
            (None, None) => {
                let inner = state.body.as_ref().map(|body| body.size_hint()).unwrap_or_default();
                hint.set_lower(inner.lower().saturating_add(come));
                if let Some(upper) = inner.upper() {
                    hint.set_upper(upper.saturating_add(come));
                }
            }
        }
        hint
    }

    /// Returns whether the body ends at an offset, without trailers or an error.
    pub(crate) fn is_end(&self, offset: u64) -> bool {
        let state = self.lock();
        state.buffer.end() == offset
            && state.trailers.is_none()
            && match (&state.end, &state.body) {
                (Some(end), _) => end.is_ok(),
                (None, Some(body)) => body.is_end_stream(),
                (None, None) => true,
            }
    }
}

impl<S: Storage> State<S> {
    /// Returns whether the body is still being stored.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.storing, Storing::Recording(_)) && self.end.is_none()
    }

    /// Returns whether a new reader can read the body from its beginning.
    ///
    /// It can while the body is being stored, unless the origin has been silent for longer than the reader's patience: then
    /// a fetch of its own may well be faster. It can afterwards if the body is so short that all of it is in memory.
    pub(crate) fn takes_readers(&self, patience: Duration) -> bool {
        (self.is_open() && self.last_frame.elapsed() < patience)
            || (matches!(self.storing, Storing::Stored) && self.buffer.start() == 0)
    }

    /// Polls the body for one frame. Ready if there was one, or an end.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut has_its_length = false;
        loop {
            let Some(body) = &mut self.body else { return Poll::Ready(()) };
            let frame = match body.as_mut().poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending if has_its_length => {
                    // Most callers stop at the announced length, so that there may be no later time to store it.
                    self.finish();
                    return Poll::Ready(());
                }
                Poll::Pending => return Poll::Pending,
            };
            self.last_frame = Instant::now();
            match frame {
                Some(Ok(frame)) => {
                    let has_ended = body.is_end_stream();
                    match frame.into_data() {
                        Ok(data) => self.buffer.push(data),
                        Err(frame) => self.trailers = frame.into_trailers().ok(),
                    }
                    let total = self.buffer.end();
                    if let Storing::Recording(recorder) = &mut self.storing {
                        if !recorder.accepts(total) {
                            self.storing = Storing::GivenUp;
                        } else if has_ended || (recorder.is_whole(total) && has_its_length) {
                            self.finish();
                        } else if recorder.is_whole(total) {
                            // The body does not say that it ends here. Where more is at hand, the length was a lie, and
                            // what has come is not the whole: it is polled once more before it is stored.
                            has_its_length = true;
                            continue;
                        }
                    }
                    if has_ended {
                        self.end_with(Ok(()));
                    }
                }
                Some(Err(error)) => self.end_with(Err(error)),
                None => {
                    self.finish();
                    self.end_with(Ok(()));
                }
            }
            return Poll::Ready(());
        }
    }

    /// Stores the body, which is whole.
    ///
    /// This announces the response to lookups. It is done before any reader gets the last frame, so that a caller that has
    /// read the body to its end finds it with the next request.
    fn finish(&mut self) {
        if let Storing::Recording(recorder) = &mut self.storing {
            let is_kept = recorder.finish(&self.buffer, self.trailers.clone());
            self.storing = if is_kept { Storing::Stored } else { Storing::GivenUp };
        }
    }

    /// Ends the body. A body that broke off is not stored.
    fn end_with(&mut self, end: Result<(), BodyError>) {
        // Gives the connection back at once: readers may keep the download for much longer.
        self.body = None;
        if end.is_err() && self.is_open() {
            self.storing = Storing::GivenUp;
        }
        self.end.get_or_insert(end);
    }

    /// Releases the bytes that every reader has. Returns whether there is room for more.
    fn makes_room(&mut self) -> bool {
        self.buffer.release(self.positions.slowest().unwrap_or(u64::MAX));
        self.buffer.end() - self.buffer.start() < MAX_READ_AHEAD
    }

    /// Leaves the slowest readers behind. The next time that they read they get an error.
    fn leave_slowest_behind(&mut self) {
        if let Some(slowest) = self.positions.slowest() {
            let all = self.positions.positions.iter_mut();
            all.filter(|position| **position == Position::At(slowest))
                .for_each(|position| *position = Position::TooSlow);
        }
        self.update_stall();
    }

    /// Ends the stall once the slowest reader has come as far as it had to. Returns whether that reader has gone on.
    fn update_stall(&mut self) -> bool {
        let Some(stall) = &mut self.stall else { return false };
        let slowest = self.positions.slowest().unwrap_or(u64::MAX);
        let goes_on = slowest > stall.slowest;
        stall.slowest = slowest;
        if slowest >= stall.target {
            self.stall = None;
        }
        goes_on
    }

    /// Notes where a reader is now. `None` says that it needs nothing more.
    ///
    /// Returns whether other readers may have waited for that.
    pub(crate) fn set_position(&mut self, reader: usize, offset: Option<u64>) -> bool {
        if let Some(position) = self.positions.positions.get_mut(reader)
            && *position != Position::TooSlow
        {
            *position = offset.map_or(Position::Done, Position::At);
        }
        self.update_stall()
    }
}

impl ReaderPositions {
    /// Adds a reader that begins at an offset. Returns its number.
    pub(crate) fn enter(&mut self, offset: u64) -> usize {
        self.readers += 1;
        let is_free = |position: &Position| *position == Position::Free;
        // Searched only where there is a free number, so that many readers that come together do not take quadratic time.
        let has_free = self.readers <= self.positions.len();
        let free = if has_free { self.positions.iter().position(is_free) } else { None };
        let reader = free.unwrap_or_else(|| {
            self.positions.push(Position::Free);
            self.positions.len() - 1
        });
        self.positions[reader] = Position::At(offset);
        reader
    }

    /// Removes a reader. Returns how many are left.
    pub(crate) fn leave(&mut self, reader: usize) -> usize {
        if let Some(position) = self.positions.get_mut(reader) {
            *position = Position::Free;
        }
        self.readers = self.readers.saturating_sub(1);
        self.readers
    }

    /// Returns whether a reader was left behind.
    pub(crate) fn is_too_slow(&self, reader: usize) -> bool {
        self.positions.get(reader) == Some(&Position::TooSlow)
    }

    fn slowest(&self) -> Option<u64> {
        self.positions
            .iter()
            .filter_map(|position| if let Position::At(offset) = position { Some(*offset) } else { None })
            .min()
    }
}

/// Stores a body while it is downloaded.
///
/// A short body is stored in its response's record, a longer one in chunks.
pub(crate) struct Recorder<S: Storage> {
    /// `None`: storing was given up, or is finished.
    writer: Option<Arc<Writer<S>>>,
    expected: Option<u64>,
    /// The response announced trailers: its length alone does not make it whole.
    awaits_trailers: bool,
    /// How many chunks were handed to the storage.
    chunks: u32,
    /// The write of the last of them, until the storage has answered.
    writing: Option<JoinHandle<Result<(), Lost>>>,
}

impl<S: Storage> Recorder<S> {
    pub(crate) fn new(writer: Arc<Writer<S>>, expected: Option<u64>, awaits_trailers: bool) -> Self {
        Self { writer: Some(writer), expected, awaits_trailers, chunks: 0, writing: None }
    }

    /// Waits until another frame may come. Ready with false if storing has ended.
    ///
    /// One chunk is written at a time, and the body is not polled before the storage has taken it: a storage that is slower
    /// than the origin slows it down, instead of having the body pile up in memory. Each write ends within its deadline.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>, buffer: &mut FrameBuffer) -> Poll<bool> {
        loop {
            if let Some(writing) = &mut self.writing {
                match Pin::new(writing).poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(written) => {
                        self.writing = None;
                        // The task itself fails only if its runtime is shut down.
                        if let Err(why) = written.unwrap_or(Err(Lost::NoRuntime)) {
                            self.give_up(|records| why.tell(&records.observer));
                        }
                    }
                }
            }
            let Some(writer) = self.writer.clone() else { return Poll::Ready(false) };
            let handed_over = self.handed_over(&writer);
            buffer.release(handed_over);
            // A chunk is handed over only when more than it has come. What may be the last one waits for `finish`, which
            // decides whether the body is stored within its record.
            if buffer.end() - handed_over <= writer.chunk_len() as u64 {
                return Poll::Ready(true);
            }
            if let Err(why) = self.begin_chunk(&writer, buffer) {
                self.give_up(|records| why.tell(&records.observer));
            }
        }
    }

    /// Returns where the next chunk begins.
    fn handed_over(&self, writer: &Writer<S>) -> u64 {
        u64::from(self.chunks) * writer.chunk_len() as u64
    }

    /// Announces the next chunk, so that readers find it from now on.
    fn next_chunk(&mut self, writer: &Writer<S>, buffer: &FrameBuffer) -> ChunkWrite {
        let data = buffer.copy(self.handed_over(writer), writer.chunk_len());
        let number = self.chunks;
        self.chunks += 1;
        writer.announce_chunk(number, data)
    }

    /// Hands the next chunk to the storage.
    ///
    /// A task of its own writes it if it has to wait: a write that was begun must end even if the last reader is dropped,
    /// since only then is it known which chunks have to be removed.
    ///
    /// # Errors
    ///
    /// Returns why storing has to end.
    fn begin_chunk(&mut self, writer: &Arc<Writer<S>>, buffer: &FrameBuffer) -> Result<(), Lost> {
        // The placeholder comes first: a process that looks meanwhile sees that the entry is being written.
        let claim = if self.chunks == 0 { writer.announce_placeholder() } else { Claim::Needless };
        let chunk = self.next_chunk(writer, buffer);
        let owned = Arc::clone(writer);
        let step = async move {
            owned.write_placeholder(claim).await?;
            owned.write_chunk(chunk).await
        };
        match writer.records.tasks.drive(step) {
            Driven::Done(written) => written,
            Driven::Spawned(writing) => {
                self.writing = Some(writing);
                Ok(())
            }
            Driven::NoRuntime => Err(Lost::NoRuntime),
        }
    }

    /// Checks how much has come. Returns false if it is more than may be stored: then storing has ended.
    pub(crate) fn accepts(&mut self, total: u64) -> bool {
        let Some(writer) = &self.writer else { return false };
        let reason = match self.expected {
            _ if total > writer.records.config.max_body_bytes => "too-large",
            Some(expected) if total > expected => "length",
            _ => return true,
        };
        // The next response will most likely be like this one, so that requests had better not wait for each other.
        writer.records.uncoalescable.add(writer.head(), writer.records.config.clock.now(), None);
        self.give_up(|records| telemetry::unstored(&records.observer, reason));
        false
    }

    /// Returns whether this length is all that the response announced.
    pub(crate) fn is_whole(&self, total: u64) -> bool {
        !self.awaits_trailers && self.expected == Some(total)
    }

    /// Ends the storing, and removes the chunks that were written for it.
    pub(crate) fn give_up(&mut self, note: impl FnOnce(&Records<S>)) {
        let (Some(writer), chunks, writing) = (self.writer.take(), self.chunks, self.writing.take()) else {
            return;
        };
        note(&writer.records);
        // At once: other processes need not wait for the chunks to be removed.
        writer.give_back_lease();
        if chunks == 0 {
            return;
        }
        let records = Arc::clone(&writer.records);
        // A task, for this is called under the lock, and from `drop`. Outside a runtime the chunks stay until they expire.
        records.tasks.spawn(async move {
            // A chunk that is written after the others were removed would stay.
            if let Some(writing) = writing {
                let _ = writing.await;
            }
            writer.discard(chunks).await;
        });
    }

    /// Stores the body, which has ended cleanly. Returns false if it is not as it was announced, and not stored.
    pub(crate) fn finish(&mut self, buffer: &FrameBuffer, trailers: Option<HeaderMap>) -> bool {
        if self.expected.is_some_and(|expected| expected != buffer.end()) {
            self.give_up(|records| telemetry::unstored(&records.observer, "length"));
            return false;
        }
        if self.writer.as_ref().is_some_and(|writer| buffer.end() < writer.records.config.min_body_bytes) {
            self.give_up(|records| telemetry::unstored(&records.observer, "too-small"));
            return false;
        }
        let Some(writer) = self.writer.take() else { return false };
        let records = Arc::clone(&writer.records);
        let total = buffer.end();
        if self.chunks == 0 && total <= writer.inline_len() as u64 {
            let write = writer.announce_inline(buffer.copy(0, total as usize), trailers);
            // A storage in memory has it when this returns; a task waits for any other, and no reader does.
            if let Driven::NoRuntime = records.tasks.drive(async move { writer.commit(write, 0).await }) {
                telemetry::unstored(&records.observer, "no-runtime");
            }
            return true;
        }
        // All that is left is announced at once, for readers and lookups, and written in order: behind the chunk that is on
        // its way, and the record after all of its chunks, so that no other process finds a body with a part missing.
        let writing = self.writing.take();
        let claim = if self.chunks == 0 { writer.announce_placeholder() } else { Claim::Needless };
        let mut rest = VecDeque::new();
        while self.handed_over(&writer) < total {
            rest.push_back(self.next_chunk(&writer, buffer));
        }
        let chunks = self.chunks;
        let write = writer.announce_chunked(total, trailers);
        let step = async move {
            let write_all = async {
                if let Some(writing) = writing {
                    writing.await.unwrap_or(Err(Lost::NoRuntime))?;
                }
                writer.write_placeholder(claim).await?;
                while let Some(chunk) = rest.pop_front() {
                    writer.write_chunk(chunk).await?;
                }
                Ok::<(), Lost>(())
            };
            match write_all.await {
                Ok(()) => {
                    writer.commit(write, chunks).await;
                }
                Err(why) => {
                    why.tell(&writer.records.observer);
                    writer.give_back_lease();
                    match why {
                        Lost::Superseded => writer.withdraw(write, rest.into_iter(), chunks).await,
                        Lost::Failed(..) | Lost::NoRuntime => {
                            // Before the chunks go: no lookup may find a record that names them.
                            drop(write);
                            writer.discard(chunks).await;
                        }
                    }
                }
            }
        };
        if let Driven::NoRuntime = records.tasks.drive(step) {
            telemetry::unstored(&records.observer, "no-runtime");
        }
        true
    }
}

impl<S: Storage> Drop for Recorder<S> {
    fn drop(&mut self) {
        // The last reader was dropped before the end, or the body failed.
        self.give_up(|records| telemetry::unstored(&records.observer, "incomplete"));
    }
}
