//! Reads a [`Download`] for the caller that the response came to, and for its followers.
//!
//! # Invariants
//!
//! - A reader that is behind the bytes in memory reads the storage, and never ends short.
//! - A reader that is dropped holds up no other.
//! - The last reader that is dropped ends the download, unless it wanted a part and has that, or the cache is set to finish
//!   downloads.

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
use crate::service::wakers::Slot;
use crate::storage::{Hold, Record, Storage};

/// A read of a chunk. Boxed, since the type of a storage's future has no name.
type ChunkRead = Pin<Box<dyn Future<Output = Result<Option<Record>>> + Send>>;

/// Tells a flight that its body is still read.
///
/// Each reader of a download holds one. It is an `Arc` of any type: this folder need not know flights, and the flight's own
/// `Arc` costs a reader no allocation.
pub(crate) type Token = Arc<dyn Send + Sync>;

/// Reads a download from one offset to another.
pub(crate) struct Reader<S: Storage> {
    download: Arc<Download<S>>,
    /// Keeps the flight where other requests find it.
    token: Option<Token>,
    /// Where this reader's task is woken.
    slot: Slot,
    /// The number of this reader among the positions.
    number: usize,
    /// The offset of the next byte.
    offset: u64,
    /// Where the wanted part ends; `None`: with the body and its trailers.
    end: Option<u64>,
    /// The response came to this reader's caller, which gets the body as the inner service gave it, even if that is too
    /// short. Followers get what is stored, and no more.
    is_leader: bool,
    /// It reads for the storage alone: once it is dropped, the download ends.
    drains: bool,
    is_done: bool,
    /// The chunk that is being read from the storage.
    chunk: Option<Exclusive<ChunkRead>>,
    /// Keeps the entry from being evicted, from when this reader reads from the storage.
    hold: Option<Hold>,
    /// Set while this reader waits for the slowest. Boxed, since most readers never need it.
    timer: Option<Exclusive<Pin<Box<Sleep>>>>,
}

impl<S: Storage> Reader<S> {
    /// Returns the reader for the caller that the response came to.
    ///
    /// `drains` says that it reads for the storage alone, so that no other reader takes over once it is dropped.
    pub(crate) fn leader(download: Arc<Download<S>>, token: Option<Token>, drains: bool) -> Self {
        let number = download.lock().positions.enter(0);
        let mut reader = Self::new(download, token, number, 0, None, true);
        reader.drains = drains;
        reader
    }

    /// Returns a reader from an offset to another. `None` if it is too late to begin.
    pub(crate) fn follower(
        download: Arc<Download<S>>,
        token: Token,
        start: u64,
        end: Option<u64>,
    ) -> Option<Self> {
        let number = {
            // Under one lock: the download may not stop taking readers, nor release bytes, before this one is among them.
            let mut state = download.lock();
            if !state.takes_readers(download.writer.records.config.coalesce_timeout) {
                return None;
            }
            // Likewise: where storing ends right after this, the chunks that this reader needs must not be deleted at once.
            download.writer.note_followed();
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

    /// Drops the reader as one that has all it wanted, so that the download goes on.
    ///
    /// For a caller that reads by another reader, or is answered without the body.
    pub(crate) fn leave_to_others(mut self) {
        self.end = Some(self.offset);
    }

    /// Returns whether the reader has all of the part that it wanted.
    fn has_its_part(&self) -> bool {
        self.end.is_some_and(|end| self.offset >= end)
    }

    /// Reads while the body is being stored, unless the origin is silent for too long.
    async fn drain(mut self) {
        let patience = self.download.writer.records.config.refresh_timeout;
        while self.download.lock().is_open() {
            let next = poll_fn(|cx| self.poll_frame(cx));
            let Ok(Some(Ok(_))) = timeout_at(after(patience), next).await else { return };
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

    /// Takes the wanted part of the next bytes, and advances by it.
    fn take(&mut self, mut data: Bytes) -> Bytes {
        if let Some(end) = self.end {
            data.truncate(usize::try_from(end - self.offset).unwrap_or(usize::MAX));
        }
        self.offset += data.len() as u64;
        data
    }

    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.finish();
        Poll::Ready(Some(Err(error)))
    }

    /// Ends the reading. The body may be kept for long after that, and the others must not wait for it.
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
            // A chunk is read without the lock: the others go on meanwhile.
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
            // Declared before the guard, so that it is dropped after it: to drop a waker may end a task, and with it a
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
                // Wakers are called without the lock: they may run anything.
                drop(state);
                if others_wait {
                    download.wakers.wake_all();
                }
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            let total = state.buffer.end();
            if self.offset < total {
                // It has come, and was released from memory: the storage has it.
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
                    // A follower gets what a hit would: the trailers that are stored.
                    let trailers = match &state.trailers {
                        Some(trailers) if !self.is_leader => download.writer.trailers(trailers),
                        trailers => trailers.clone(),
                    };
                    drop(state);
                    if is_short && !self.is_leader {
                        return self.fail(BodyError::new(BodyErrorKind::Length, None::<Error>));
                    }
                    self.finish();
                    return Poll::Ready(trailers.map(|map| Ok(Frame::trailers(map))));
                }
            }
            // Registered before the body is polled, and under the same lock: a wake-up that comes right after finds this task.
            replaced_waker = self.slot.wait(cx.waker());
            match download.poll_more(&mut state, download.writer.records.config.body_timeout) {
                Progress::Ready => {
                    drop(state);
                    // This task goes on by itself, and the others have to look at what has come.
                    self.slot.leave();
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
                    // Once it is over, the next round leaves the slowest reader behind.
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
        // The others wait for this reader if it was the slowest. They do not know of an error yet if this reader is dropped
        // because the body panicked in its hands.
        let others_wait =
            state.set_position(self.number, None) | state.end.as_ref().is_some_and(Result::is_err);
        let left = state.positions.leave(self.number);
        let records = Arc::clone(&self.download.writer.records);
        // The origin sends all of it to a caller that wanted a part and has that, and the next request has use for the
        // rest. After a caller that went away before, no request wants any of it.
        let goes_on = left == 0
            && !self.drains
            && (records.config.finish_on_drop || self.has_its_part())
            && state.is_open()
            && Handle::try_current().is_ok();
        // It begins where the body has come to: the bytes before are with the storage, and need not be read again. Under the
        // same lock, so that the bytes from here on are not released meanwhile.
        let offset = state.buffer.end();
        let number = goes_on.then(|| state.positions.enter(offset));
        drop(state);
        if others_wait && left > 0 {
            self.download.wakers.wake_all();
        }
        if let Some(number) = number {
            let (download, token) = (Arc::clone(&self.download), self.token.clone());
            let mut reader = Self::new(download, token, number, offset, None, true);
            // Before it is polled: a runtime that is being dropped drops what is spawned at once, which would come here
            // again.
            reader.drains = true;
            // A task, since no caller polls this reader.
            records.tasks.spawn(reader.drain());
        }
    }
}
