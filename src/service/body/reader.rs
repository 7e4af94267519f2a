//! Reads a [`Download`], for the leader of a flight and for its followers.
//!
//! # Invariants
//!
//! - A reader that is behind the bytes in memory reads the storage, and never ends short.
//! - A reader that is dropped holds up no other reader.
//! - When the last reader is dropped, the download ends, unless that reader has all of the part that it wanted,
//!   `finish_on_drop` is set, or it is of a slice.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::time::{Sleep, timeout_at};

use super::download::{Download, Progress};
use crate::body::{BodyError, BodyErrorKind, Exclusive, Source};
use crate::error::{Error, Result};
use crate::service::tasks::after;
use crate::storage::{Hold, Record, Storage};
use crate::wakers::WakerSlot;

/// A read of a chunk. Boxed, since the type of a storage's future has no name.
type RecordRead = Pin<Box<dyn Future<Output = Result<Option<Record>>> + Send>>;

/// Keeps a flight in its map while its body is being read.
///
/// Each reader of a download holds one. It is an `Arc` of any type, so that this folder need not know flights. It is the
/// flight's own `Arc`, so that a reader allocates nothing for it.
pub(crate) type Token = Arc<dyn Send + Sync>;

/// Reads a download from one offset to another.
pub(crate) struct Reader<S: Storage> {
    download: Arc<Download<S>>,
    /// Keeps the flight where other requests find it.
    token: Option<Token>,
    /// Holds the waker of this reader's task.
    slot: WakerSlot,
    /// The number of this reader in the positions.
    number: usize,
    /// The offset of the next byte.
    offset: u64,
    /// The end of the wanted part. `None`: the end of the body, with its trailers.
    end: Option<u64>,
    /// This is the reader of the leader's caller.
    ///
    /// It returns the body as the inner service does, even if that is shorter than announced. The reader of a follower
    /// returns only what is stored.
    is_leader: bool,
    /// It reads only for the storage. When it is dropped, the download ends.
    drains: bool,
    is_done: bool,
    /// The read of a chunk from the storage.
    chunk: Option<Exclusive<RecordRead>>,
    /// Keeps the entry from being evicted once this reader reads from the storage.
    hold: Option<Hold>,
    /// Set while this reader waits for the slowest one. Boxed, since most readers never need it.
    timer: Option<Exclusive<Pin<Box<Sleep>>>>,
}

impl<S: Storage> Reader<S> {
    /// Returns the reader for the caller of the leader.
    ///
    /// `drains` says that it reads only for the storage, so that no other reader continues when it is dropped.
    pub(crate) fn leader(download: Arc<Download<S>>, token: Option<Token>, drains: bool) -> Self {
        let number = download.lock().positions.enter(0);
        let mut reader = Self::new(download, token, number, 0, None, true);
        reader.drains = drains;
        reader
    }

    /// Returns a reader for a follower, from an offset to another.
    ///
    /// Returns `None` if the download accepts no more readers.
    pub(crate) fn follower(
        download: Arc<Download<S>>,
        token: Token,
        start: u64,
        end: Option<u64>,
    ) -> Option<Self> {
        let number = {
            // Both under one lock: the download must not end, nor release bytes, before this reader has a position.
            let mut state = download.lock();
            if !state.accepts_readers(download.writer.records.config.coalesce_timeout) {
                return None;
            }
            // Under the same lock: if storing ends right after this, the chunks that this reader needs must not be deleted.
            download.writer.mark_followed();
            state.positions.enter(start)
        };
        Some(Self::new(download, Some(token), number, start, end, false))
    }

    fn new(
        download: Arc<Download<S>>,
        token: Option<Token>,
        number: usize,
        offset: u64,
        end: Option<u64>,
        is_leader: bool,
    ) -> Self {
        let slot = download.wakers.slot();
        Self {
            download,
            token,
            slot,
            number,
            offset,
            end,
            is_leader,
            drains: false,
            is_done: false,
            chunk: None,
            hold: None,
            timer: None,
        }
    }

    /// Drops the reader as one that has read its part.
    ///
    /// The download goes on. The caller reads by another reader, or is answered without the body.
    pub(crate) fn leave_to_others(mut self) {
        self.end = Some(self.offset);
    }

    /// Returns whether the reader has all of the part that it wanted.
    fn has_its_part(&self) -> bool {
        self.end.is_some_and(|end| self.offset >= end)
    }

    /// Reads until the body is stored, or the origin is silent for too long.
    pub(crate) async fn drain(mut self) {
        let timeout = self.download.writer.records.config.refresh_timeout;
        while self.download.lock().is_open() {
            let next = poll_fn(|cx| self.poll_frame(cx));
            let Ok(Some(Ok(_))) = timeout_at(after(timeout), next).await else { return };
        }
    }

    /// Begins to read the chunk that holds the next byte.
    fn read_chunk(&mut self) {
        let writer = Arc::clone(&self.download.writer);
        let number = self.offset / writer.chunk_len() as u64;
        self.hold.get_or_insert_with(|| writer.hold(self.download.expected));
        let read = async move {
            let Ok(number) = u32::try_from(number) else { return Ok(None) };
            writer.read_chunk(number).await
        };
        self.chunk = Some(Exclusive::new(Box::pin(read)));
    }

    /// Returns the rest of a chunk that was read, from the next byte on.
    fn rest_of_chunk(&mut self, read: Result<Option<Record>>) -> Result<Bytes, BodyError> {
        let chunk = match read {
            Ok(Some(record)) => record.payload(),
            Ok(None) => return Err(BodyError::new(BodyErrorKind::Storage, None::<Error>)),
            Err(error) => return Err(BodyError::new(BodyErrorKind::Storage, Some(error))),
        };
        let skip = (self.offset % self.download.writer.chunk_len() as u64) as usize;
        if skip >= chunk.len() {
            return Err(BodyError::new(BodyErrorKind::Length, None::<Error>));
        }
        Ok(chunk.slice(skip..))
    }

    /// Returns the wanted part of the next bytes, and advances by it.
    fn take(&mut self, mut data: Bytes) -> Bytes {
        if let Some(end) = self.end {
            data.truncate(usize::try_from(end - self.offset).unwrap_or(usize::MAX));
        }
        self.offset += data.len() as u64;
        data
    }

    /// Ends the reader with an error.
    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.finish();
        Poll::Ready(Some(Err(error)))
    }

    /// Ends the reader.
    ///
    /// Its caller may keep the body for long after that, and other readers must not wait for it.
    fn finish(&mut self) {
        self.is_done = true;
        if self.download.lock().set_position(self.number, None) {
            self.download.wakers.wake_all();
        }
    }
}

impl<S: Storage> Source for Reader<S> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_done {
            return Poll::Ready(None);
        }
        if self.has_its_part() {
            self.finish();
            return Poll::Ready(None);
        }
        loop {
            // A chunk is read without the lock, so that the other readers go on meanwhile.
            if let Some(read) = &mut self.chunk {
                let read = ready!(read.get_mut().as_mut().poll(cx));
                self.chunk = None;
                return match self.rest_of_chunk(read) {
                    Ok(data) => {
                        let data = self.take(data);
                        if self.download.lock().set_position(self.number, Some(self.offset)) {
                            self.download.wakers.wake_all();
                        }
                        Poll::Ready(Some(Ok(Frame::data(data))))
                    }
                    Err(error) => self.fail(error),
                };
            }
            let download = Arc::clone(&self.download);
            // Declared before the guard, so that it is dropped after it: dropping a waker may drop a task, and with it a
            // reader of this download, which locks the state.
            let replaced_waker;
            let mut state = download.lock();
            if state.positions.is_too_slow(self.number) {
                drop(state);
                return self.fail(BodyError::new(BodyErrorKind::TooSlow, None::<Error>));
            }
            if let Some(data) = state.buffer.at(self.offset) {
                let data = self.take(data);
                let others_wait = state.set_position(self.number, Some(self.offset));
                // Wakers are called without the lock, since they may run any code.
                drop(state);
                if others_wait {
                    download.wakers.wake_all();
                }
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            let total = state.buffer.end();
            if self.offset < total {
                // The byte has arrived and was released from memory, so that the storage has it.
                drop(state);
                self.read_chunk();
                continue;
            }
            match &state.end {
                None => {}
                Some(Err(error)) => {
                    let error = error.clone();
                    drop(state);
                    return self.fail(error);
                }
                Some(Ok(())) => {
                    let is_short = self.end.is_some() || download.expected.is_some_and(|len| len != total);
                    // A follower gets what a hit would get: the trailers that are stored.
                    let trailers = match &state.trailers {
                        Some(trailers) if !self.is_leader => download.writer.trailers(trailers),
                        trailers => trailers.as_deref().cloned(),
                    };
                    drop(state);
                    if is_short && !self.is_leader {
                        return self.fail(BodyError::new(BodyErrorKind::Length, None::<Error>));
                    }
                    self.finish();
                    return Poll::Ready(trailers.map(|map| Ok(Frame::trailers(map))));
                }
            }
            // Registered before the body is polled, and under the same lock, so that a wake-up right after that is not missed.
            replaced_waker = self.slot.register(cx.waker());
            match download.poll_more(&mut state, download.writer.records.config.body_timeout) {
                Progress::Ready => {
                    drop(state);
                    // This task goes on by itself. The other readers have to be woken to read what has arrived.
                    self.slot.unregister();
                    self.timer = None;
                    download.wakers.wake_all();
                }
                Progress::Pending => return Poll::Pending,
                Progress::Stalled(until) => {
                    drop(state);
                    let timer = self
                        .timer
                        .get_or_insert_with(|| Exclusive::new(Box::pin(tokio::time::sleep_until(until))));
                    let timer = timer.get_mut();
                    if timer.deadline() != until {
                        timer.as_mut().reset(until);
                    }
                    drop(replaced_waker);
                    // When the time is over, the next round of this loop leaves the slowest reader behind.
                    ready!(timer.as_mut().poll(cx));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_done
            || match self.end {
                Some(end) => self.offset >= end,
                None => self.download.is_end(self.offset),
            }
    }

    fn size_hint(&self) -> SizeHint {
        match self.end {
            _ if self.is_done => SizeHint::with_exact(0),
            Some(end) => SizeHint::with_exact(end - self.offset),
            None => self.download.size_hint(self.offset),
        }
    }
}

impl<S: Storage> Drop for Reader<S> {
    fn drop(&mut self) {
        let mut state = self.download.lock();
        // The others wait for this reader if it was the slowest. They also have to be woken if the body has failed: they do
        // not know it yet if this reader is dropped because the body panicked while it polled.
        let others_wait =
            state.set_position(self.number, None) | state.end.as_ref().is_some_and(Result::is_err);
        let left = state.positions.leave(self.number);
        let records = Arc::clone(&self.download.writer.records);
        // A caller that has read the part that it wanted has caused the whole to be fetched, which later requests can use.
        // After a caller that was dropped before that, the body may not be wanted by any request. A slice is short, and on its
        // way already: the next reader would have to ask for its rest, most of which has been sent by then.
        let continues = left == 0
            && !self.drains
            && (records.config.finish_on_drop || self.has_its_part() || self.download.is_slice())
            && state.is_open()
            && Handle::try_current().is_ok();
        // It begins at the end of what has arrived: the bytes before are in the storage, and need not be read again. Under the
        // same lock, so that the bytes from here on are not released meanwhile.
        let offset = state.buffer.end();
        let number = continues.then(|| state.positions.enter(offset));
        drop(state);
        if others_wait && left > 0 {
            self.download.wakers.wake_all();
        }
        if let Some(number) = number {
            let (download, token) = (Arc::clone(&self.download), self.token.clone());
            let mut reader = Self::new(download, token, number, offset, None, true);
            // Set before it is spawned: a runtime that shuts down drops a spawned future at once, and this `drop` would spawn
            // again.
            reader.drains = true;
            // In a task, since no caller polls this reader.
            records.tasks.spawn(reader.drain());
        }
    }
}
