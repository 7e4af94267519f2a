//! One body on its way from the origin, read by as many as want it.
//!
//! Promises: the body is asked for more by whoever needs the next byte, so that a reader who is slow, stops or goes away
//! never holds up the others, and two readers in one task never wait for each other; each reader gets every byte once and
//! in order, or an error, never less; what is in the store is not kept in memory. Where storing ends early, those who
//! have begun to read go on through a bounded buffer at the pace of the slowest, and who is too slow for too long fails
//! alone. A reader has the last byte only when the next request finds the response.
//!
//! One lock guards it all. It is held while the body and the store are polled, never across a wait.

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

use super::super::records::{ChunkWrite, Claim, Lost, Records, Writer};
use super::super::tasks::{Driven, after};
use super::super::telemetry;
use super::super::wakers::Wakers;
use super::frame_buffer::FrameBuffer;
use crate::body::{BodyError, BodyErrorKind};
use crate::error::{Error, ErrorKind};
use crate::storage::Storage;

/// How many bytes the fastest reader may be ahead of the slowest, where they are not in the store.
const AHEAD: u64 = 256 * 1024;

/// Boxed, so that readers of any caller can drive it.
type Incoming = Pin<Box<dyn Body<Data = Bytes, Error = BodyError> + Send>>;

pub(crate) struct Download<S: Storage> {
    pub(crate) writer: Arc<Writer<S>>,
    /// The announced length.
    pub(crate) expected: Option<u64>,
    pub(crate) wakers: Arc<Wakers>,
    /// Wakes all who wait.
    waker: Waker,
    state: Mutex<State<S>>,
}

pub(crate) struct State<S: Storage> {
    /// `None`: it has ended.
    body: Option<Incoming>,
    pub(crate) buffer: FrameBuffer,
    storing: Storing<S>,
    pub(crate) end: Option<Result<(), BodyError>>,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) positions: ReaderPositions,
    /// The slowest reader holds up the others.
    stuck: Option<Stuck>,
    /// When the origin was heard last.
    heard: Instant,
}

enum Storing<S: Storage> {
    Recording(Recorder<S>),
    /// It is in the store, or will be there when those who announced it are done.
    Stored,
    /// It is not stored: all there is of it is the buffer.
    GivenUp,
}

/// How far the readers are.
#[derive(Default)]
pub(crate) struct ReaderPositions {
    positions: Vec<Position>,
    readers: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Free,
    At(u64),
    /// It needs nothing more.
    Done,
    /// It was too slow for the others.
    Cut,
}

/// That the slowest reader holds up the others.
#[derive(Clone, Copy, Debug)]
struct Stuck {
    since: Instant,
    /// Where it was when they had to wait for it.
    at: u64,
    /// Where they were: as far as it has to come in its time, so that a frame now and then gains it nothing.
    ahead: u64,
}

/// What came of asking for more.
pub(crate) enum More {
    /// There is more, or the end.
    Come,
    /// Whoever waits is woken.
    Wait,
    /// Nothing more may come until the slowest reader has gone on, or until then.
    Stuck(Instant),
}

impl<S: Storage> Download<S> {
    /// `expected` is the announced length; `awaits_trailers`: the response announces trailers, so that its length alone
    /// does not make it whole.
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
            stuck: None,
            heard: Instant::now(),
        };
        if is_empty {
            state.finish();
            state.end_with(Ok(()));
        }
        let waker = Waker::from(Arc::clone(&wakers));
        Arc::new(Self { writer, expected, wakers, waker, state: Mutex::new(state) })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(|poisoned| {
            // The body panicked while somebody asked it for more. That one's task has the panic.
            let mut state = poisoned.into_inner();
            self.state.clear_poison();
            let error = Error::new(ErrorKind::Other, "the response's body panicked");
            state.end_with(Err(BodyError::new(BodyErrorKind::Inner, Some(error))));
            state
        })
    }

    /// Whether it is still being stored, as far as can be said without waiting. The caller may hold a lock that dropping
    /// the origin's body could need, so this takes none that is held.
    pub(crate) fn may_be_open(&self) -> bool {
        match self.state.try_lock() {
            Ok(state) => state.is_open(),
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Poisoned(_)) => false,
        }
    }

    /// Asks the body for more, on behalf of all who wait.
    pub(crate) fn poll_more(&self, state: &mut State<S>, patience: Duration) -> More {
        let mut cx = Context::from_waker(&self.waker);
        if let Storing::Recording(recorder) = &mut state.storing {
            match recorder.poll_room(&mut cx, &mut state.buffer) {
                Poll::Pending => return More::Wait,
                Poll::Ready(true) => {}
                Poll::Ready(false) => state.storing = Storing::GivenUp,
            }
        }
        let has_room = match state.storing {
            Storing::Recording(_) => true,
            // What comes beyond the announced length is in no store either.
            Storing::Stored => {
                state.makes_room() || self.expected.is_none_or(|expected| state.buffer.end() <= expected)
            }
            Storing::GivenUp => state.makes_room(),
        };
        if !has_room {
            let slowest = state.positions.slowest().unwrap_or_default();
            let ahead = state.buffer.end();
            let stuck =
                state.stuck.get_or_insert_with(|| Stuck { since: Instant::now(), at: slowest, ahead });
            stuck.at = slowest;
            let since = stuck.since;
            let until = after(patience).min(since.checked_add(patience).unwrap_or_else(|| after(patience)));
            if Instant::now() < until && Handle::try_current().is_ok() {
                return More::Stuck(until);
            }
            tracing::debug!("a reader of a shared body was too slow, and is left behind");
            state.cut_slowest();
            self.waker.wake_by_ref();
            return More::Come;
        }
        match state.poll_body(&mut cx) {
            Poll::Ready(()) => More::Come,
            Poll::Pending => More::Wait,
        }
    }

    /// Returns how much may still come beyond a place.
    ///
    /// The hint is exact only where all has come, or where the origin announced the length and has kept to it so far. A
    /// server frames a response by it: an exact hint of a body that broke off would pass half of it off as the whole.
    pub(crate) fn size_hint(&self, place: u64) -> SizeHint {
        let state = self.lock();
        let total = state.buffer.end();
        let come = total.saturating_sub(place);
        let mut hint = SizeHint::new();
        hint.set_lower(come);
        let is_contradicted = |expected| total > expected || (state.end.is_some() && total != expected);
        match (&state.end, self.expected) {
            (Some(Err(_)), None) => {}
            (_, Some(expected)) if is_contradicted(expected) => {}
            (_, Some(expected)) => hint.set_exact(expected.saturating_sub(place)),
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

    /// Whether nothing comes after a place.
    pub(crate) fn is_end(&self, place: u64) -> bool {
        let state = self.lock();
        state.buffer.end() == place
            && state.trailers.is_none()
            && match (&state.end, &state.body) {
                (Some(end), _) => end.is_ok(),
                (None, Some(body)) => body.is_end_stream(),
                (None, None) => true,
            }
    }
}

impl<S: Storage> State<S> {
    /// True while it is being stored.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.storing, Storing::Recording(_)) && self.end.is_none()
    }

    /// Whether who comes now can read it from the beginning: while it is being stored and was heard of within this time,
    /// and afterwards if it is short.
    pub(crate) fn takes_readers(&self, patience: Duration) -> bool {
        (self.is_open() && self.heard.elapsed() < patience)
            || (matches!(self.storing, Storing::Stored) && self.buffer.start() == 0)
    }

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
            self.heard = Instant::now();
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
                            // what has come is not the whole.
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

    /// The body is whole: what it was is stored.
    fn finish(&mut self) {
        if let Storing::Recording(recorder) = &mut self.storing {
            let is_kept = recorder.finish(&self.buffer, self.trailers.clone());
            self.storing = if is_kept { Storing::Stored } else { Storing::GivenUp };
        }
    }

    fn end_with(&mut self, end: Result<(), BodyError>) {
        self.body = None;
        if end.is_err() && self.is_open() {
            self.storing = Storing::GivenUp;
        }
        self.end.get_or_insert(end);
    }

    /// Lets go of what everybody has; true: there is room for more.
    fn makes_room(&mut self) -> bool {
        self.buffer.release(self.positions.slowest().unwrap_or(u64::MAX));
        self.buffer.end() - self.buffer.start() < AHEAD
    }

    fn cut_slowest(&mut self) {
        if let Some(slowest) = self.positions.slowest() {
            let all = self.positions.positions.iter_mut();
            all.filter(|place| **place == Position::At(slowest)).for_each(|place| *place = Position::Cut);
        }
        self.look_at_slowest();
    }

    /// Ends the time of the slowest reader once it has come as far as it had to; true: it has gone on.
    fn look_at_slowest(&mut self) -> bool {
        let Some(stuck) = &mut self.stuck else { return false };
        let slowest = self.positions.slowest().unwrap_or(u64::MAX);
        let goes_on = slowest > stuck.at;
        stuck.at = slowest;
        if slowest >= stuck.ahead {
            self.stuck = None;
        }
        goes_on
    }

    /// Notes that a reader has gone on; true: others may wait for that.
    pub(crate) fn moved(&mut self, reader: usize, to: Option<u64>) -> bool {
        if let Some(place) = self.positions.positions.get_mut(reader)
            && *place != Position::Cut
        {
            *place = to.map_or(Position::Done, Position::At);
        }
        // Where it was the slowest who went on, there may be room now.
        self.look_at_slowest()
    }
}

impl ReaderPositions {
    /// A number for a reader that begins at this place.
    pub(crate) fn enter(&mut self, place: u64) -> usize {
        self.readers += 1;
        let is_free = |place: &Position| *place == Position::Free;
        // Nobody looks for one where there is none.
        let free = Some(&self.positions).filter(|positions| self.readers <= positions.len());
        let reader = free.and_then(|positions| positions.iter().position(is_free)).unwrap_or_else(|| {
            self.positions.push(Position::Free);
            self.positions.len() - 1
        });
        self.positions[reader] = Position::At(place);
        reader
    }

    /// Gives the number back; how many readers are left.
    pub(crate) fn leave(&mut self, reader: usize) -> usize {
        if let Some(place) = self.positions.get_mut(reader) {
            *place = Position::Free;
        }
        self.readers = self.readers.saturating_sub(1);
        self.readers
    }

    pub(crate) fn is_cut(&self, reader: usize) -> bool {
        self.positions.get(reader) == Some(&Position::Cut)
    }

    fn slowest(&self) -> Option<u64> {
        self.positions
            .iter()
            .filter_map(|place| if let Position::At(at) = place { Some(*at) } else { None })
            .min()
    }
}

/// Stores a body while it is downloaded.
pub(crate) struct Recorder<S: Storage> {
    /// `None`: storing was given up, or is finished.
    writer: Option<Arc<Writer<S>>>,
    expected: Option<u64>,
    /// The response announced trailers: its length alone does not make it whole.
    awaits_trailers: bool,
    /// Chunks that were handed to the store.
    parts: u32,
    /// The chunk that the store has not taken yet.
    writing: Option<JoinHandle<Result<(), Lost>>>,
}

impl<S: Storage> Recorder<S> {
    pub(crate) fn new(writer: Arc<Writer<S>>, expected: Option<u64>, awaits_trailers: bool) -> Self {
        Self { writer: Some(writer), expected, awaits_trailers, parts: 0, writing: None }
    }

    /// Ready when another frame may come: a store slower than the body slows it down, within a deadline. False: storing
    /// has ended.
    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>, buffer: &mut FrameBuffer) -> Poll<bool> {
        loop {
            if let Some(writing) = &mut self.writing {
                match Pin::new(writing).poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(written) => {
                        self.writing = None;
                        if let Err(why) = written.unwrap_or(Err(Lost::NoRuntime)) {
                            self.give_up(|records| why.tell(&records.observer));
                        }
                    }
                }
            }
            let Some(writer) = self.writer.clone() else { return Poll::Ready(false) };
            let handed_over = self.handed_over(&writer);
            buffer.release(handed_over);
            if buffer.end() - handed_over <= writer.chunk_len() as u64 {
                return Poll::Ready(true);
            }
            if let Err(why) = self.begin_chunk(&writer, buffer) {
                self.give_up(|records| why.tell(&records.observer));
            }
        }
    }

    /// Where the part of the body ends that the store was given.
    fn handed_over(&self, writer: &Writer<S>) -> u64 {
        u64::from(self.parts) * writer.chunk_len() as u64
    }

    /// The next chunk, announced.
    fn next_chunk(&mut self, writer: &Writer<S>, buffer: &FrameBuffer) -> ChunkWrite {
        let data = buffer.copy(self.handed_over(writer), writer.chunk_len());
        let part = self.parts;
        self.parts += 1;
        writer.announce_chunk(part, data)
    }

    /// Hands the next chunk to the store; an error: storing has to end.
    fn begin_chunk(&mut self, writer: &Arc<Writer<S>>, buffer: &FrameBuffer) -> Result<(), Lost> {
        let claim = if self.parts == 0 { writer.announce_placeholder() } else { Claim::Needless };
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

    /// Notes how much has come; false: it is more than may be stored, and storing has ended.
    pub(crate) fn accepts(&mut self, total: u64) -> bool {
        let Some(writer) = &self.writer else { return false };
        let reason = match self.expected {
            _ if total > writer.records.config.max_entry_bytes => "too-large",
            Some(expected) if total > expected => "length",
            _ => return true,
        };
        // Who comes next need not wait to learn that.
        writer.records.uncoalescable.add(writer.head(), writer.records.config.clock.now(), None);
        self.give_up(|records| telemetry::unstored(&records.observer, reason));
        false
    }

    /// Whether this is all that the response announced.
    pub(crate) fn is_whole(&self, total: u64) -> bool {
        !self.awaits_trailers && self.expected == Some(total)
    }

    /// Ends the storing, and removes the chunks that were written for it.
    pub(crate) fn give_up(&mut self, note: impl FnOnce(&Records<S>)) {
        let (Some(writer), parts, writing) = (self.writer.take(), self.parts, self.writing.take()) else {
            return;
        };
        note(&writer.records);
        writer.give_back_lease();
        if parts == 0 {
            return;
        }
        let records = Arc::clone(&writer.records);
        // Without a runtime they stay until their time.
        records.tasks.spawn(async move {
            if let Some(writing) = writing {
                let _ = writing.await;
            }
            writer.discard(parts).await;
        });
    }

    /// The body ended cleanly: what it was is stored. False: it is not what was announced.
    pub(crate) fn finish(&mut self, buffer: &FrameBuffer, trailers: Option<HeaderMap>) -> bool {
        if self.expected.is_some_and(|expected| expected != buffer.end()) {
            self.give_up(|records| telemetry::unstored(&records.observer, "length"));
            return false;
        }
        if self.writer.as_ref().is_some_and(|writer| buffer.end() < writer.records.config.min_entry_bytes) {
            self.give_up(|records| telemetry::unstored(&records.observer, "too-small"));
            return false;
        }
        let Some(writer) = self.writer.take() else { return false };
        let records = Arc::clone(&writer.records);
        let total = buffer.end();
        if self.parts == 0 && total <= writer.inline_len() as u64 {
            let write = writer.announce_inline(buffer.copy(0, total as usize), trailers);
            if let Driven::NoRuntime = records.tasks.drive(async move { writer.commit(write, 0).await }) {
                telemetry::unstored(&records.observer, "no-runtime");
            }
            return true;
        }
        // What is left is announced at once and written in order, behind the chunk that is on its way.
        let writing = self.writing.take();
        let claim = if self.parts == 0 { writer.announce_placeholder() } else { Claim::Needless };
        let mut rest = Vec::new();
        while self.handed_over(&writer) < total {
            rest.push(self.next_chunk(&writer, buffer));
        }
        let parts = self.parts;
        let write = writer.announce_chunked(total, trailers);
        let step = async move {
            let write_all = async {
                if let Some(writing) = writing {
                    writing.await.unwrap_or(Err(Lost::NoRuntime))?;
                }
                writer.write_placeholder(claim).await?;
                for chunk in rest {
                    writer.write_chunk(chunk).await?;
                }
                Ok::<(), Lost>(())
            };
            match write_all.await {
                Ok(()) => {
                    writer.commit(write, parts).await;
                }
                Err(why) => {
                    why.tell(&writer.records.observer);
                    writer.give_back_lease();
                    drop(write);
                    writer.discard(parts).await;
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
        self.give_up(|records| telemetry::unstored(&records.observer, "incomplete"));
    }
}
