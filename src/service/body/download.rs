//! Shares a body from the origin among its readers, and stores it meanwhile.
//!
//! No task of its own drives a download. Each reader that needs the next byte polls the body, on behalf of all readers that
//! wait. So a reader that is slow, stops or is dropped does not keep the others from polling, and two readers in one task
//! never wait for each other.
//!
//! # Invariants
//!
//! - Each reader gets every byte once and in order, or an error.
//! - Bytes that the storage has taken are not kept in memory. A reader that still needs them reads them from the storage.
//! - If storing ends early, the readers that have begun go on at the pace of the slowest one, at most [`MAX_READER_DISTANCE`]
//!   bytes apart. A reader that holds up the others for longer than `body_timeout` fails, and no other reader does.
//! - The response is announced to lookups before any reader gets its last byte.
//!
//! # Locks
//!
//! One lock guards the state. It is a std `Mutex`: it is held while the body and the storage are polled, which returns at
//! once, and never across an await. Under it the locks of `records` and of the wakers are taken, never the other way
//! round. A caller that has locked the map of flights may only call [`Download::may_be_open`], which does not wait.

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
use crate::policy::{self, MadeTag, TagHasher};
use crate::service::records::{ChunkWrite, PlaceholderWrite, Records, WriteError, Writer};
use crate::service::tasks::{Driven, after};
use crate::service::telemetry;
use crate::storage::Storage;
use crate::wakers::Wakers;

/// The maximum distance between readers of a body that is not stored, in bytes.
///
/// Two chunks of the default length. A reader that is scheduled a little later than the others does not hold them up, and a
/// thousand such downloads hold about 256 MiB.
const MAX_READER_DISTANCE: u64 = 256 * 1024;

/// The body of the inner service. Boxed, since a flight and its readers do not know the type of the inner service.
type InnerBody = Pin<Box<dyn Body<Data = Bytes, Error = BodyError> + Send>>;

/// One body from the origin, which any number of readers share.
pub(crate) struct Download<S: Storage> {
    pub(crate) writer: Arc<Writer<S>>,
    /// The announced length.
    pub(crate) expected: Option<u64>,
    /// The wakers of the readers that wait.
    pub(crate) wakers: Arc<Wakers>,
    /// Wakes all readers. The body and the recorder are polled with it: each of them keeps a single waker, and the reader
    /// that polled last may be dropped before the others are.
    waker: Waker,
    /// See the module's documentation for what may be locked under it.
    state: Mutex<DownloadState<S>>,
}

/// The state that the readers of a download share.
pub(crate) struct DownloadState<S: Storage> {
    /// `None` once it has ended.
    body: Option<InnerBody>,
    /// The bytes that are in memory.
    pub(crate) buffer: FrameBuffer,
    storing: Storing<S>,
    /// How the body ended, once it has.
    pub(crate) end: Option<Result<(), BodyError>>,
    /// Boxed, since few bodies have trailers.
    pub(crate) trailers: Option<Box<HeaderMap>>,
    pub(crate) positions: ReaderPositions,
    /// Set while the slowest reader holds up the others.
    stall: Option<Stall>,
    /// When the origin sent the last frame.
    last_frame: Instant,
}

/// Tells whether the body is being stored.
enum Storing<S: Storage> {
    /// It is being stored.
    Recording(Recorder<S>),
    /// All of it is in the storage, or is announced and being written.
    Stored,
    /// It is not stored. Only the buffer has the bytes.
    GivenUp,
}

/// The positions of the readers of a download.
#[derive(Default)]
pub(crate) struct ReaderPositions {
    /// By the number of the reader. The number of a reader that was removed is used again.
    positions: Vec<Position>,
    /// How many numbers are in use.
    readers: usize,
}

/// How far a reader of a download has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// No reader has this number.
    Free,
    /// The reader needs the byte at this offset next.
    At(u64),
    /// The reader needs no more bytes.
    Done,
    /// The reader was left behind because it held up the others for too long.
    TooSlow,
}

/// A time during which the slowest reader holds up the others.
#[derive(Clone, Copy, Debug)]
struct Stall {
    since: Instant,
    /// The last known offset of the slowest reader.
    slowest: u64,
    /// The offset at which the others had to stop. The stall ends only when the slowest reader has reached it: if a single
    /// frame ended it, one slow reader could hold up the others for ever.
    target: u64,
}

/// Tells what polling the body has led to.
pub(crate) enum Progress {
    /// The body has more bytes, or has ended.
    Ready,
    /// The body has nothing yet. The reader will be woken.
    Pending,
    /// The body is not polled before the slowest reader has advanced, or before this time.
    Stalled(Instant),
}

impl<S: Storage> Download<S> {
    /// Begins the download of a body.
    ///
    /// `expected` is its announced length. `awaits_trailers` says that the response announces trailers, so that the body is
    /// not complete when it has its length.
    pub(crate) fn new(
        writer: Arc<Writer<S>>,
        body: impl Body<Data = Bytes, Error = BodyError> + Send + 'static,
        expected: Option<u64>,
        awaits_trailers: bool,
    ) -> Arc<Self> {
        let wakers: Arc<Wakers> = Arc::default();
        let recorder = Recorder::new(Arc::clone(&writer), expected, awaits_trailers);
        let is_empty = body.is_end_stream();
        let mut state = DownloadState {
            body: Some(Box::pin(body)),
            buffer: FrameBuffer::default(),
            storing: Storing::Recording(recorder),
            end: None,
            trailers: None,
            positions: ReaderPositions::default(),
            stall: None,
            last_frame: Instant::now(),
        };
        // Callers do not poll a body that says that it is empty, so that it has to be stored now.
        if is_empty {
            state.finish();
            state.end_with(Ok(()));
        }
        let waker = Waker::from(Arc::clone(&wakers));
        Arc::new(Self { writer, expected, wakers, waker, state: Mutex::new(state) })
    }

    /// Returns whether the body is a slice of another one, which is no longer than is set.
    pub(crate) fn is_slice(&self) -> bool {
        let (Some(slice), Some(len)) = (self.writer.records.config.slices, self.expected) else {
            return false;
        };
        self.writer.part().is_some() && len <= slice
    }

    /// Locks the state.
    ///
    /// While the guard is held, nothing may be awaited and no reader may be dropped.
    pub(crate) fn lock(&self) -> MutexGuard<'_, DownloadState<S>> {
        self.state.lock().unwrap_or_else(|poisoned| {
            // The body panicked while a reader polled it. The task of that reader gets the panic. The other readers get an
            // error, since a body that has panicked must not be polled again.
            let mut state = poisoned.into_inner();
            self.state.clear_poison();
            let error = Error::new(ErrorKind::Other, "the response's body panicked");
            state.end_with(Err(BodyError::new(BodyErrorKind::Inner, Some(error))));
            state
        })
    }

    /// Returns whether new readers may still be accepted, without waiting for the lock.
    ///
    /// The caller has locked the map of flights. The task that holds this lock may be dropping the inner service's body, and
    /// with it a flight, which locks the map: waiting here could deadlock. Returns `true` if it cannot be known.
    pub(crate) fn may_be_open(&self) -> bool {
        match self.state.try_lock() {
            Ok(state) => state.is_open(),
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Poisoned(_)) => false,
        }
    }

    /// Polls the body, on behalf of all readers that wait.
    ///
    /// The caller has registered its waker before, under the same lock, so that it misses no wake-up. `stall_timeout` bounds
    /// how long the slowest reader may hold up the others.
    pub(crate) fn poll_more(&self, state: &mut DownloadState<S>, stall_timeout: Duration) -> Progress {
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
            // A stored body is bounded by its length. Bytes beyond the announced length are not in the storage, so that they
            // must stay in memory for the slowest reader.
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
            // `after` bounds a very long timeout, which cannot be added to an instant.
            let bounded = after(stall_timeout);
            let until = bounded.min(since.checked_add(stall_timeout).unwrap_or(bounded));
            // Outside a runtime there is no timer, and the other readers must not wait for ever.
            if Instant::now() < until && Handle::try_current().is_ok() {
                return Progress::Stalled(until);
            }
            tracing::debug!("a reader of a shared body was too slow, and is left behind");
            // The caller wakes the other readers after it has dropped the lock.
            state.leave_slowest_behind();
            return Progress::Ready;
        }
        match state.poll_body(&mut cx) {
            Poll::Ready(()) => Progress::Ready,
            Poll::Pending => Progress::Pending,
        }
    }

    /// Returns how many bytes follow from an offset on.
    ///
    /// The hint is exact only if the whole body has arrived, or if the origin announced a length that nothing contradicts. A
    /// server may send it as Content-Length: an exact hint for a body that was cut off would make the part look complete.
    pub(crate) fn size_hint(&self, offset: u64) -> SizeHint {
        let state = self.lock();
        let total = state.buffer.end();
        let received = total.saturating_sub(offset);
        let mut hint = SizeHint::new();
        hint.set_lower(received);
        let is_contradicted = |expected| total > expected || (state.end.is_some() && total != expected);
        match (&state.end, self.expected) {
            (Some(Err(_)), None) => {}
            (_, Some(expected)) if is_contradicted(expected) => {}
            (_, Some(expected)) => hint.set_exact(expected.saturating_sub(offset)),
            (Some(Ok(())), None) => hint.set_exact(received),
            (None, None) => {
                let inner = state.body.as_ref().map(|body| body.size_hint()).unwrap_or_default();
                hint.set_lower(inner.lower().saturating_add(received));
                if let Some(upper) = inner.upper() {
                    hint.set_upper(upper.saturating_add(received));
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

impl<S: Storage> DownloadState<S> {
    /// Returns whether the body is still being stored.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.storing, Storing::Recording(_)) && self.end.is_none()
    }

    /// Returns whether a new reader can read the body from its beginning.
    ///
    /// It can while the body is being stored, unless the origin has sent nothing for `max_silence`: then another fetch may
    /// be faster. It can afterwards if the body is so short that all of it is in memory.
    pub(crate) fn accepts_readers(&self, max_silence: Duration) -> bool {
        (self.is_open() && self.last_frame.elapsed() < max_silence)
            || (matches!(self.storing, Storing::Stored) && self.buffer.start() == 0)
    }

    /// Polls the body for one frame. It is ready if there was a frame, or if the body has ended.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut has_its_length = false;
        loop {
            let Some(body) = &mut self.body else { return Poll::Ready(()) };
            let frame = match body.as_mut().poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending if has_its_length => {
                    // Most callers stop reading at the announced length, so that the body has to be stored now.
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
                        Ok(data) => {
                            if let Storing::Recording(recorder) = &mut self.storing {
                                recorder.hash(&data);
                            }
                            self.buffer.push(data);
                        }
                        Err(frame) => self.trailers = frame.into_trailers().ok().map(Box::new),
                    }
                    let total = self.buffer.end();
                    if let Storing::Recording(recorder) = &mut self.storing {
                        if !recorder.accepts(total) {
                            self.storing = Storing::GivenUp;
                        } else if has_ended || (recorder.is_whole(total) && has_its_length) {
                            self.finish();
                        } else if recorder.is_whole(total) {
                            // The body has its length, but does not say that it ends here. It is polled once more before it
                            // is stored: if it has more bytes, the announced length was wrong.
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

    /// Stores the body, which is complete.
    ///
    /// This announces the response to lookups. It is called before any reader gets the last frame, so that the next request
    /// of a caller that has read the body to its end is a hit.
    fn finish(&mut self) {
        if let Storing::Recording(recorder) = &mut self.storing {
            let is_kept = recorder.finish(&self.buffer, self.trailers.as_deref());
            self.storing = if is_kept { Storing::Stored } else { Storing::GivenUp };
        }
    }

    /// Ends the body. A body that ends with an error is not stored.
    fn end_with(&mut self, end: Result<(), BodyError>) {
        // Dropped now, which releases its connection: readers may keep the download for much longer.
        self.body = None;
        if end.is_err() && self.is_open() {
            self.storing = if self.finish_part() { Storing::Stored } else { Storing::GivenUp };
        }
        self.end.get_or_insert(end);
    }

    /// Stores what has arrived of a body as a part of it, since the rest does not arrive.
    fn finish_part(&mut self) -> bool {
        match &mut self.storing {
            Storing::Recording(recorder) => recorder.finish_part(&self.buffer),
            Storing::Stored | Storing::GivenUp => false,
        }
    }

    /// Releases the bytes that every reader has read.
    ///
    /// Returns whether there is room for more.
    fn makes_room(&mut self) -> bool {
        self.buffer.release(self.positions.slowest().unwrap_or(u64::MAX));
        self.buffer.end() - self.buffer.start() < MAX_READER_DISTANCE
    }

    /// Leaves the slowest readers behind. Their next read is an error.
    fn leave_slowest_behind(&mut self) {
        if let Some(slowest) = self.positions.slowest() {
            let all = self.positions.positions.iter_mut();
            all.filter(|position| **position == Position::At(slowest))
                .for_each(|position| *position = Position::TooSlow);
        }
        self.update_stall();
    }

    /// Ends the stall if the slowest reader has reached its target.
    ///
    /// Returns whether that reader has advanced.
    fn update_stall(&mut self) -> bool {
        let Some(stall) = &mut self.stall else { return false };
        let slowest = self.positions.slowest().unwrap_or(u64::MAX);
        let advances = slowest > stall.slowest;
        stall.slowest = slowest;
        if slowest >= stall.target {
            self.stall = None;
        }
        advances
    }

    /// Sets the offset of a reader, or `None` if it needs no more bytes.
    ///
    /// Returns whether other readers may have waited for this.
    pub(crate) fn set_position(&mut self, reader: usize, offset: Option<u64>) -> bool {
        if let Some(position) = self.positions.positions.get_mut(reader)
            && *position != Position::TooSlow
        {
            *position = offset.map_or(Position::Done, Position::At);
        }
        self.update_stall()
    }
}

impl<S: Storage> Drop for DownloadState<S> {
    fn drop(&mut self) {
        // The last reader was dropped before the end.
        self.finish_part();
    }
}

impl ReaderPositions {
    /// Adds a reader that begins at an offset, and returns its number.
    pub(crate) fn enter(&mut self, offset: u64) -> usize {
        self.readers += 1;
        let is_free = |position: &Position| *position == Position::Free;
        // Searched only if a number is free, so that adding many readers at once does not take quadratic time.
        let has_free = self.readers <= self.positions.len();
        let free = if has_free { self.positions.iter().position(is_free) } else { None };
        let reader = free.unwrap_or_else(|| {
            self.positions.push(Position::Free);
            self.positions.len() - 1
        });
        self.positions[reader] = Position::At(offset);
        reader
    }

    /// Removes a reader, and returns how many are left.
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

    /// Returns the lowest offset of all readers that need more bytes.
    fn slowest(&self) -> Option<u64> {
        self.positions
            .iter()
            .filter_map(|position| if let Position::At(offset) = position { Some(*offset) } else { None })
            .min()
    }
}

/// Stores a body while it is downloaded.
///
/// A short body is stored in the record of its response, a longer one in chunks.
pub(crate) struct Recorder<S: Storage> {
    /// `None` once storing was given up or is finished.
    writer: Option<Arc<Writer<S>>>,
    expected: Option<u64>,
    /// The response announces trailers. The body is then not complete when it has its length.
    awaits_trailers: bool,
    /// The number of chunks that were given to the storage.
    chunks: u32,
    /// The entity tag that the cache makes, from the bytes that have arrived.
    hasher: Option<Box<TagHasher>>,
    /// The write of the last chunk, until the storage has answered.
    writing: Option<JoinHandle<Result<(), WriteError>>>,
}

impl<S: Storage> Recorder<S> {
    /// Returns a recorder that has stored nothing yet.
    pub(crate) fn new(writer: Arc<Writer<S>>, expected: Option<u64>, awaits_trailers: bool) -> Self {
        let hasher = writer.tag_hasher();
        Self { writer: Some(writer), expected, awaits_trailers, chunks: 0, hasher, writing: None }
    }

    /// Adds bytes of the body to the entity tag that the cache makes.
    fn hash(&mut self, data: &[u8]) {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(data);
        }
    }

    /// Waits until the body may be polled again. It is ready with `false` if storing has ended.
    ///
    /// One chunk is written at a time, and the body is not polled before the storage has taken it. So a storage that is slower
    /// than the origin slows the download down, and the body does not pile up in memory. Each write ends within its deadline.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>, buffer: &mut FrameBuffer) -> Poll<bool> {
        loop {
            if let Some(writing) = &mut self.writing {
                match Pin::new(writing).poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(written) => {
                        self.writing = None;
                        // The task itself fails only if its runtime shuts down.
                        if let Err(error) = written.unwrap_or(Err(WriteError::NoRuntime)) {
                            self.give_up(|records| error.report(&records.observer));
                        }
                    }
                }
            }
            let Some(writer) = self.writer.clone() else { return Poll::Ready(false) };
            let handed_over = self.handed_over(&writer);
            buffer.release(handed_over);
            // A chunk is written only when bytes after it have arrived. The last one waits for `finish`, which decides whether
            // the body is stored within its record.
            if buffer.end() - handed_over <= writer.chunk_len() as u64 {
                return Poll::Ready(true);
            }
            if let Err(error) = self.begin_chunk(&writer, buffer) {
                self.give_up(|records| error.report(&records.observer));
            }
        }
    }

    /// Returns the offset of the next chunk.
    fn handed_over(&self, writer: &Writer<S>) -> u64 {
        u64::from(self.chunks) * writer.chunk_len() as u64
    }

    /// Announces the next chunk, so that readers find it from now on.
    fn next_chunk(&mut self, writer: &Writer<S>, buffer: &FrameBuffer) -> ChunkWrite {
        let (offset, len) = (self.handed_over(writer), writer.chunk_len());
        // A chunk that is not kept lives only until it is written, and its frames about as long. For the body in a short
        // record that does not hold: its frame may be a small part of a large buffer.
        let data = match writer.records.storage.inner().keeps_records() {
            true => buffer.copy(offset, len),
            false => buffer.slice(offset, len),
        };
        let number = self.chunks;
        self.chunks += 1;
        writer.announce_chunk(number, data)
    }

    /// Begins to write the next chunk.
    ///
    /// A spawned task writes it if it has to wait: a write that was begun must end even if the last reader is dropped, since
    /// only then is it known which chunks have to be deleted.
    ///
    /// # Errors
    ///
    /// Returns the reason why storing has to end.
    fn begin_chunk(&mut self, writer: &Arc<Writer<S>>, buffer: &FrameBuffer) -> Result<(), WriteError> {
        // The placeholder is written first, so that another process sees that the entry is being written.
        let placeholder =
            if self.chunks == 0 { writer.announce_placeholder() } else { PlaceholderWrite::NotNeeded };
        let chunk = self.next_chunk(writer, buffer);
        let owned = Arc::clone(writer);
        let step = async move {
            owned.write_placeholder(placeholder).await?;
            owned.write_chunk(chunk).await
        };
        match writer.records.tasks.drive(step) {
            Driven::Done(written) => written,
            Driven::Spawned(writing) => {
                self.writing = Some(writing);
                Ok(())
            }
            Driven::NoRuntime => Err(WriteError::NoRuntime),
        }
    }

    /// Checks the length so far, and returns whether storing goes on.
    ///
    /// It ends if the body is longer than was announced, or than may be stored.
    pub(crate) fn accepts(&mut self, total: u64) -> bool {
        let Some(writer) = &self.writer else { return false };
        let reason = match self.expected {
            _ if total > writer.records.config.max_body_bytes => "too-large",
            Some(expected) if total > expected => "length",
            _ => return true,
        };
        // The next response is probably too long as well, so that requests for it should not wait for each other.
        writer.records.uncoalescable.add(writer.head(), writer.records.config.clock.now(), None);
        self.give_up(|records| telemetry::unstored(&records.observer, reason));
        false
    }

    /// Returns whether a body of a length is complete.
    pub(crate) fn is_whole(&self, total: u64) -> bool {
        !self.awaits_trailers && self.expected == Some(total)
    }

    /// Ends storing, and deletes the chunks that were written.
    ///
    /// `report` counts the response as not stored.
    pub(crate) fn give_up(&mut self, report: impl FnOnce(&Records<S>)) {
        let (Some(writer), chunks, writing) = (self.writer.take(), self.chunks, self.writing.take()) else {
            return;
        };
        report(&writer.records);
        // Before the chunks are deleted, since other processes need not wait for that.
        writer.release_lease();
        if chunks == 0 {
            return;
        }
        let records = Arc::clone(&writer.records);
        // In a task, since this is called under the lock and from `drop`, where nothing can be awaited. Outside a runtime the
        // chunks stay until they expire.
        records.tasks.spawn(async move {
            // First the write that is running: a chunk that is written after the others were deleted would stay.
            if let Some(writing) = writing {
                let _ = writing.await;
            }
            writer.discard(chunks).await;
        });
    }

    /// Stores the body, which has ended cleanly.
    ///
    /// Returns `false` if it is not stored, because it does not have the announced length, is too short, or belongs to a failed
    /// gRPC call.
    pub(crate) fn finish(&mut self, buffer: &FrameBuffer, trailers: Option<&HeaderMap>) -> bool {
        if self.expected.is_some_and(|expected| expected != buffer.end()) {
            self.give_up(|records| telemetry::unstored(&records.observer, "length"));
            return false;
        }
        if self.writer.as_ref().is_some_and(|writer| buffer.end() < writer.records.config.min_body_bytes) {
            self.give_up(|records| telemetry::unstored(&records.observer, "too-small"));
            return false;
        }
        if trailers.is_some_and(policy::is_failed_call) {
            self.give_up(|records| telemetry::unstored(&records.observer, "grpc-status"));
            return false;
        }
        let Some(writer) = self.writer.take() else { return false };
        let records = Arc::clone(&writer.records);
        let total = buffer.end();
        let made_tag = self.hasher.take().map(|hasher| hasher.finish());
        if self.chunks == 0 && total <= writer.inline_len() as u64 {
            let write = writer.announce_inline(buffer.copy(0, total as usize), trailers, made_tag);
            // A storage in memory has stored it when this returns. For any other storage a spawned task waits, and no reader.
            if let Driven::NoRuntime = records.tasks.drive(writer.commit(write, 0)) {
                telemetry::unstored(&records.observer, "no-runtime");
            }
            return true;
        }
        self.store_chunks(&writer, buffer, trailers, made_tag);
        true
    }

    /// Stores the bytes that have arrived as a part, if they may be stored as one.
    fn finish_part(&mut self, buffer: &FrameBuffer) -> bool {
        let total = buffer.end();
        let Some(expected) = self.expected.filter(|expected| (1..*expected).contains(&total)) else {
            return false;
        };
        let Some(writer) = self.writer.take_if(|writer| writer.becomes_part(expected)) else { return false };
        self.store_chunks(&writer, buffer, None, None);
        true
    }

    /// Stores a body in chunks, of which some may be stored already.
    fn store_chunks(
        &mut self,
        writer: &Arc<Writer<S>>,
        buffer: &FrameBuffer,
        trailers: Option<&HeaderMap>,
        made_tag: Option<MadeTag>,
    ) {
        let (records, total) = (Arc::clone(&writer.records), buffer.end());
        let writer = Arc::clone(writer);
        // Everything that is left is announced now, for readers and lookups. It is written in order, after the chunk that is
        // being written, and the record after all of its chunks: no other process must find a record whose chunks are missing.
        let writing = self.writing.take();
        let placeholder =
            if self.chunks == 0 { writer.announce_placeholder() } else { PlaceholderWrite::NotNeeded };
        let mut rest = VecDeque::new();
        while self.handed_over(&writer) < total {
            rest.push_back(self.next_chunk(&writer, buffer));
        }
        let chunks = self.chunks;
        let write = writer.announce_chunked(total, trailers, made_tag);
        let step = async move {
            let write_all = async {
                if let Some(writing) = writing {
                    writing.await.unwrap_or(Err(WriteError::NoRuntime))?;
                }
                writer.write_placeholder(placeholder).await?;
                while let Some(chunk) = rest.pop_front() {
                    writer.write_chunk(chunk).await?;
                }
                Ok::<(), WriteError>(())
            };
            match write_all.await {
                Ok(()) => {
                    Arc::clone(&writer).commit(write, chunks).await;
                }
                Err(error) => {
                    error.report(&writer.records.observer);
                    writer.release_lease();
                    match error {
                        WriteError::Superseded => writer.withdraw(write, rest.into_iter(), chunks).await,
                        WriteError::Failed(..) | WriteError::NoRuntime => {
                            // Before the chunks are deleted, so that no lookup finds a record that names them.
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
    }
}

impl<S: Storage> Drop for Recorder<S> {
    fn drop(&mut self) {
        // The last reader was dropped before the end, or the body failed.
        self.give_up(|records| telemetry::unstored(&records.observer, "incomplete"));
    }
}
