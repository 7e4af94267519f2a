//! Those who read a [`Download`]: the one that the response came to, and those who follow.
//!
//! Promises: a reader that lags behind what is in memory reads the store; it never ends short; one that is dropped holds
//! up nobody, and the last one ends the download, unless it wanted a part and has that, or the cache is set to finish it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::time::{Sleep, timeout_at};

use super::super::tasks::after;
use super::super::wakers::Slot;
use super::download::{Download, More};
use crate::body::{BodyError, BodyErrorKind, Exclusive, Source};
use crate::error::{Error, Result};
use crate::storage::{Hold, Record, Storage};

type Reading = Pin<Box<dyn Future<Output = Result<Option<Record>>> + Send>>;

/// Held by each reader of a download: whoever made it learns from its end that nobody reads any more. An `Arc` of any type,
/// so that this room need not know flights, and a reader costs no allocation for it.
pub(crate) type Token = Arc<dyn Send + Sync>;

pub(crate) struct Reader<S: Storage> {
    download: Arc<Download<S>>,
    /// Keeps the flight where other requests find it.
    token: Option<Token>,
    slot: Slot,
    number: usize,
    place: u64,
    /// Where what is wanted ends; `None`: with the body, trailers and all.
    until: Option<u64>,
    /// The response came to this one: it gets what the inner service gave, be it too short.
    first: bool,
    /// It reads only for the store.
    drains: bool,
    done: bool,
    /// The chunk that is read from the store.
    chunk: Option<Exclusive<Reading>>,
    /// Keeps the entry from being evicted, from when this reader reads from the storage.
    hold: Option<Hold>,
    /// Set while the others wait for the slowest of them.
    timer: Option<Exclusive<Pin<Box<Sleep>>>>,
}

impl<S: Storage> Reader<S> {
    /// For the one that the response came to. `drains`: it reads for the store alone, and nobody goes on for it.
    pub(crate) fn first(download: Arc<Download<S>>, token: Option<Token>, drains: bool) -> Self {
        let number = download.lock().positions.enter(0);
        let mut reader = Self::new(download, token, number, 0, None, true);
        reader.drains = drains;
        reader
    }

    /// For one who wants the bytes from a place to another; `None`: it is too late to begin.
    pub(crate) fn join(
        download: Arc<Download<S>>,
        token: Token,
        from: u64,
        until: Option<u64>,
    ) -> Option<Self> {
        let number = {
            let mut state = download.lock();
            if !state.takes_readers(download.writer.records.config.flight_timeout) {
                return None;
            }
            state.positions.enter(from)
        };
        download.writer.note_followed();
        Some(Self::new(download, Some(token), number, from, until, false))
    }

    fn new(
        download: Arc<Download<S>>,
        token: Option<Token>,
        number: usize,
        place: u64,
        until: Option<u64>,
        first: bool,
    ) -> Self {
        let slot = download.wakers.slot();
        Self {
            download,
            token,
            slot,
            number,
            place,
            until,
            first,
            drains: false,
            done: false,
            chunk: None,
            hold: None,
            timer: None,
        }
    }

    /// Gives up its own part: the caller reads by another reader, or has its answer without the body.
    pub(crate) fn leave_to_others(mut self) {
        self.until = Some(self.place);
    }

    /// Whether it has all that its caller wanted, which is not the whole body.
    fn has_its_part(&self) -> bool {
        self.until.is_some_and(|until| self.place >= until)
    }

    /// Reads for as long as it is being stored, and the origin is not silent for too long.
    async fn drain(mut self) {
        let patience = self.download.writer.records.config.refresh_timeout;
        while self.download.lock().is_open() {
            let next = poll_fn(|cx| self.poll_frame(cx));
            let Ok(Some(Ok(_))) = timeout_at(after(patience), next).await else { return };
        }
    }

    /// Begins to read the chunk that holds this reader's place.
    fn read_chunk(&mut self) {
        let writer = Arc::clone(&self.download.writer);
        let part = self.place / writer.chunk_len() as u64;
        self.hold.get_or_insert_with(|| writer.hold(self.download.expected));
        let reading = async move {
            let Ok(part) = u32::try_from(part) else { return Ok(None) };
            writer.read_chunk(part).await
        };
        self.chunk = Some(Exclusive::new(Box::pin(reading)));
    }

    /// What is wanted of a chunk that was read.
    fn accept(&mut self, read: Result<Option<Record>>) -> Result<Bytes, BodyError> {
        let chunk = match read {
            Ok(Some(record)) => record.payload(),
            Ok(None) => return Err(BodyError::new(BodyErrorKind::Storage, None::<Error>)),
            Err(error) => return Err(BodyError::new(BodyErrorKind::Storage, Some(error))),
        };
        let skip = (self.place % self.download.writer.chunk_len() as u64) as usize;
        if skip >= chunk.len() {
            return Err(BodyError::new(BodyErrorKind::Length, None::<Error>));
        }
        Ok(chunk.slice(skip..))
    }

    /// Gives what is wanted of these bytes to the caller.
    fn give(&mut self, mut data: Bytes) -> Bytes {
        if let Some(until) = self.until {
            data.truncate(usize::try_from(until - self.place).unwrap_or(usize::MAX));
        }
        self.place += data.len() as u64;
        data
    }

    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.end();
        Poll::Ready(Some(Err(error)))
    }

    fn end(&mut self) {
        self.done = true;
        if self.download.lock().moved(self.number, None) {
            self.download.wakers.wake_all();
        }
    }
}

impl<S: Storage> Source for Reader<S> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.done {
            return Poll::Ready(None);
        }
        if self.has_its_part() {
            self.end();
            return Poll::Ready(None);
        }
        loop {
            if let Some(reading) = &mut self.chunk {
                let read = ready!(reading.get_mut().as_mut().poll(cx));
                self.chunk = None;
                return match self.accept(read) {
                    Ok(data) => {
                        let data = self.give(data);
                        if self.download.lock().moved(self.number, Some(self.place)) {
                            self.download.wakers.wake_all();
                        }
                        Poll::Ready(Some(Ok(Frame::data(data))))
                    }
                    Err(error) => self.fail(error),
                };
            }
            let download = Arc::clone(&self.download);
            let before; // outlives the lock, see `Slot::wait`
            let mut state = download.lock();
            if state.positions.is_cut(self.number) {
                drop(state);
                return self.fail(BodyError::new(BodyErrorKind::TooSlow, None::<Error>));
            }
            if let Some(data) = state.buffer.at(self.place) {
                let data = self.give(data);
                let others_wait = state.moved(self.number, Some(self.place));
                drop(state);
                if others_wait {
                    download.wakers.wake_all();
                }
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            let total = state.buffer.end();
            if self.place < total {
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
                    let is_short = self.until.is_some() || download.expected.is_some_and(|len| len != total);
                    // Others than the first get what is stored, and no more.
                    let trailers = match &state.trailers {
                        Some(trailers) if !self.first => download.writer.trailers(trailers),
                        trailers => trailers.clone(),
                    };
                    drop(state);
                    if is_short && !self.first {
                        return self.fail(BodyError::new(BodyErrorKind::Length, None::<Error>));
                    }
                    self.end();
                    return Poll::Ready(trailers.map(|map| Ok(Frame::trailers(map))));
                }
            }
            before = self.slot.wait(cx.waker());
            match download.poll_more(&mut state, download.writer.records.config.body_deadline) {
                More::Come => {
                    drop(state);
                    self.slot.leave();
                    self.timer = None;
                    download.wakers.wake_all();
                }
                More::Wait => return Poll::Pending,
                More::Stuck(until) => {
                    drop(state);
                    let timer = self
                        .timer
                        .get_or_insert_with(|| Exclusive::new(Box::pin(tokio::time::sleep_until(until))));
                    let timer = timer.get_mut();
                    if timer.deadline() != until {
                        timer.as_mut().reset(until);
                    }
                    drop(before);
                    ready!(timer.as_mut().poll(cx));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.done
            || match self.until {
                Some(until) => self.place >= until,
                None => self.download.is_end(self.place),
            }
    }

    fn size_hint(&self) -> SizeHint {
        match self.until {
            _ if self.done => SizeHint::with_exact(0),
            Some(until) => SizeHint::with_exact(until - self.place),
            None => self.download.size_hint(self.place),
        }
    }
}

impl<S: Storage> Drop for Reader<S> {
    fn drop(&mut self) {
        let mut state = self.download.lock();
        let others_wait = state.moved(self.number, None) | state.end.as_ref().is_some_and(Result::is_err);
        let left = state.positions.leave(self.number);
        let records = Arc::clone(&self.download.writer.records);
        // The origin sends all of it to a caller that wanted a part and has that, and the next request has use for the
        // rest. After a caller that went away before, no request wants any of it.
        let finish = left == 0
            && !self.drains
            && (records.config.finish_on_drop || self.has_its_part())
            && state.is_open()
            && Handle::try_current().is_ok();
        let number = finish.then(|| state.positions.enter(self.place));
        drop(state);
        if others_wait && left > 0 {
            self.download.wakers.wake_all();
        }
        if let Some(number) = number {
            let (download, token) = (Arc::clone(&self.download), self.token.clone());
            let mut reader = Self::new(download, token, number, self.place, None, true);
            // Before it is polled: a runtime that is being dropped drops what is spawned at once, which would come here
            // again.
            reader.drains = true;
            records.tasks.spawn(reader.drain());
        }
    }
}
