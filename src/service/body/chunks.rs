//! Reads a stored body from its chunks, as the [`Source`] behind a [`CacheBody`](crate::CacheBody).
//!
//! # Invariants
//!
//! - Before the response's head goes out, the first wanted chunk has been read, and the storage has said that it has all
//!   others.
//! - The next chunks are read while the caller has the last one, [`MAX_READ_AHEAD`] of them at most.
//! - A chunk that is missing or of another length ends the body with an error, never short. The record that names it is not
//!   used again.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::future::try_join;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::body::{BodyError, BodyErrorKind, Exclusive, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::service::records::{Patience, Records};
use crate::storage::{Hold, Key, Kind, Stamp, Storage};

/// A read of a chunk. Boxed, since the type of a storage's future has no name, and the reader must be `Unpin`.
type ChunkRead = Pin<Box<dyn Future<Output = Result<Option<Bytes>>> + Send>>;

/// Identifies the record that names a body, at the version that was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordRef {
    pub(crate) key: Key,
    pub(crate) stamp: Stamp,
}

/// Bounds the chunks that are asked for before the caller wants them.
///
/// Four chunks of the default length are 512 KiB, the most that a reader holds. They hide the latency of a storage on
/// another host; a storage that answers at once is not asked so far ahead.
const MAX_READ_AHEAD: usize = 4;

/// Reads a range of a stored body.
pub(crate) struct ChunkReader<S: Storage> {
    records: Arc<Records<S>>,
    /// The record that names the body.
    source: RecordRef,
    body: ChunkedBody,
    /// The number of the next chunk.
    next: u32,
    /// The number of the last chunk that is wanted.
    last: u32,
    /// How many bytes of the next chunk come before the wanted ones.
    skip: usize,
    /// How many bytes are still wanted.
    remaining: u64,
    /// The wanted part of the first chunk, until the caller takes it.
    first: Option<Bytes>,
    /// The chunks from `next` on that were asked for, in order.
    ahead: VecDeque<ReadAhead>,
    /// Boxed, since few bodies have trailers.
    trailers: Option<Box<HeaderMap>>,
    /// Keeps the entry from being evicted meanwhile.
    _hold: Hold,
    /// An error was given: nothing comes after it.
    has_failed: bool,
}

/// A chunk that was asked for.
enum ReadAhead {
    Task(ReadTask),
    /// Outside a runtime, the caller polls the read.
    Polled(Exclusive<ChunkRead>),
    Read(Result<Option<Bytes>>),
}

/// A read in a task of its own.
///
/// A caller that is slow, such as a player that pauses, may not poll the body for minutes. A read that only the caller
/// polls would stand still meanwhile, keep a connection from others, and then be past its deadline.
struct ReadTask(JoinHandle<Result<Option<Bytes>>>);

impl Drop for ReadTask {
    fn drop(&mut self) {
        // The body was dropped, so that the storage need not answer any more. Without effect once the task has ended.
        self.0.abort();
    }
}

/// Says why a body cannot be read.
enum Missing {
    /// The storage does not have one of its chunks.
    Gone,
    /// The storage did not answer.
    Unknown,
}

/// Describes a chunked body, as its record does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkedBody {
    pub(crate) id: [u8; 16],
    /// The length of each chunk but the last. Never zero: a record that says so is not decoded.
    pub(crate) chunk_len: u32,
    pub(crate) len: u64,
}

impl<S: Storage> ChunkReader<S> {
    /// Opens `count` bytes from `start` on. Returns `None` if the body is gone.
    pub(crate) async fn open(
        records: Arc<Records<S>>,
        source: RecordRef,
        body: ChunkedBody,
        start: u64,
        count: u64,
        trailers: Option<HeaderMap>,
    ) -> Option<Self> {
        let chunk_len = u64::from(body.chunk_len);
        let next = u32::try_from(start / chunk_len).ok()?;
        let last = u32::try_from(start.checked_add(count.saturating_sub(1))? / chunk_len).ok()?;
        let skip = (start % chunk_len) as usize;
        // Before the first read, so that no chunk is evicted between two of them.
        let hold = records.store.store().hold(source.key.sibling(Kind::Chunk, body.id, next), body.len);
        let mut reader = Self {
            records,
            source,
            body,
            next,
            last,
            skip,
            remaining: count,
            first: None,
            ahead: VecDeque::new(),
            trailers: trailers.map(Box::new),
            _hold: hold,
            has_failed: false,
        };
        if count == 0 {
            return Some(reader);
        }
        // A miss is still possible, so this read has no more time than a lookup.
        let first = reader.read(next, Patience::Lookup);
        let first = async {
            match first.await {
                Ok(Some(chunk)) => Ok(chunk),
                Ok(None) => Err(Missing::Gone),
                Err(_) => Err(Missing::Unknown),
            }
        };
        // A storage that evicts single keys may have lost any of them, and once the head is out only an error could tell.
        // There are fewer chunks than numbers, so the sum does not overflow.
        let others = (next + 1..=last).map(|number| reader.key(number));
        let others = async {
            match reader.records.has_chunks(others).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(Missing::Gone),
                Err(_) => Err(Missing::Unknown),
            }
        };
        // The first chunk is polled first: if it is missing at once, the others are not asked for. Their future is boxed,
        // so that the future of a lookup, which most often finds a small body, has no room for it.
        match try_join(first, Box::pin(others)).await {
            Ok((first, ())) => {
                let data = reader.accept(Ok(Some(first))).ok()?;
                reader.first = Some(data);
                Some(reader)
            }
            Err(Missing::Gone) => {
                reader.put_out_of_use();
                None
            }
            // The body may well be there: the next request tries again.
            Err(Missing::Unknown) => None,
        }
    }

    fn key(&self, number: u32) -> Key {
        self.source.key.sibling(Kind::Chunk, self.body.id, number)
    }

    fn read(&self, number: u32, patience: Patience) -> ChunkRead {
        let (key, records) = (self.key(number), Arc::clone(&self.records));
        Box::pin(async move {
            let read = records.read_chunk(key, patience).await?;
            Ok(read.map(|record| record.payload()))
        })
    }

    /// Asks for the chunks after the one that the caller gets now.
    ///
    /// Each read is polled once, and goes on in a task if it has to wait. No more are begun after one that was ready at
    /// once: such a storage has the next as quickly, and its chunks would only take up memory.
    fn read_ahead(&mut self, cx: &mut Context<'_>) {
        while self.ahead.len() < MAX_READ_AHEAD && !matches!(self.ahead.back(), Some(ReadAhead::Read(_))) {
            let number = u64::from(self.next) + self.ahead.len() as u64;
            let Some(number) = u32::try_from(number).ok().filter(|number| *number <= self.last) else {
                return;
            };
            let mut read = self.read(number, Patience::Body);
            self.ahead.push_back(match read.as_mut().poll(cx) {
                Poll::Ready(read) => ReadAhead::Read(read),
                Poll::Pending => match Handle::try_current() {
                    Ok(runtime) => ReadAhead::Task(ReadTask(runtime.spawn(read))),
                    Err(_) => ReadAhead::Polled(Exclusive::new(read)),
                },
            });
        }
    }

    /// Checks the next chunk, which was read, and returns the wanted part of it.
    fn accept(&mut self, read: Result<Option<Bytes>>) -> Result<Bytes, BodyError> {
        let before = u64::from(self.next) * u64::from(self.body.chunk_len);
        let expected = self.body.len.saturating_sub(before).min(u64::from(self.body.chunk_len));
        match read {
            Ok(Some(chunk)) if chunk.len() as u64 == expected && self.skip < chunk.len() => {
                let end = chunk
                    .len()
                    .min(self.skip.saturating_add(usize::try_from(self.remaining).unwrap_or(usize::MAX)));
                let data = chunk.slice(self.skip..end);
                self.skip = 0;
                self.next = self.next.saturating_add(1);
                Ok(data)
            }
            Ok(Some(_)) => {
                self.put_out_of_use();
                Err(BodyError::new(BodyErrorKind::Length, None::<Error>))
            }
            Ok(None) => {
                self.put_out_of_use();
                Err(BodyError::new(BodyErrorKind::Storage, None::<Error>))
            }
            // The storage failed, which says nothing about the body: its record stays.
            Err(error) => Err(BodyError::new(BodyErrorKind::Storage, Some(error))),
        }
    }

    /// Keeps the record from being used again, since its body is damaged.
    fn put_out_of_use(&self) {
        self.records.put_out_of_use(self.source.key, self.source.stamp, false);
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, BodyError>> {
        let data = match self.first.take() {
            Some(data) => data,
            None => {
                if self.ahead.is_empty() {
                    self.read_ahead(cx);
                }
                // Only the first one is polled here. Each of the others is polled in its turn, before this returns
                // `Pending` for it, so that no wake-up is lost.
                let read = match self.ahead.front_mut() {
                    Some(ReadAhead::Task(task)) => match ready!(Pin::new(&mut task.0).poll(cx)) {
                        Ok(read) => read,
                        // Only the shutdown of its runtime ends the task: a panic of the storage is an error of it.
                        Err(error) => {
                            let message = "the runtime that read the storage was shut down";
                            Err(Error::new(ErrorKind::Other, message).with_source(error))
                        }
                    },
                    Some(ReadAhead::Polled(read)) => ready!(read.get_mut().as_mut().poll(cx)),
                    Some(ReadAhead::Read(read)) => std::mem::replace(read, Ok(None)),
                    None => return Poll::Ready(Err(BodyError::new(BodyErrorKind::Length, None::<Error>))),
                };
                self.ahead.pop_front();
                self.accept(read)?
            }
        };
        self.remaining = self.remaining.saturating_sub(data.len() as u64);
        if self.remaining > 0 {
            self.read_ahead(cx);
        }
        Poll::Ready(Ok(data))
    }
}

impl<S: Storage> Source for ChunkReader<S> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.has_failed {
            return Poll::Ready(None);
        }
        if self.remaining == 0 {
            return Poll::Ready(self.trailers.take().map(|map| Ok(Frame::trailers(*map))));
        }
        let data = ready!(self.poll_data(cx));
        self.has_failed = data.is_err();
        Poll::Ready(Some(data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.has_failed || (self.remaining == 0 && self.trailers.is_none())
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}
