//! Reads a stored body from its chunks, as the [`Source`] of a [`CacheBody`](crate::CacheBody).
//!
//! # Invariants
//!
//! - Before the head of the response is returned, the first wanted chunk has been read, and the storage has confirmed that
//!   it has all others.
//! - While the caller uses one chunk, at most [`MAX_READ_AHEAD`] further chunks are read, or as many as a [`Batch`] has if the
//!   storage shares its bytes.
//! - A chunk that is missing or has a wrong length ends the body with an error, never short. The record that names it is not
//!   used again: the caller fetches and replaces it if the head was not returned yet.

use std::collections::VecDeque;
use std::future::Future;
use std::ops::{Range, RangeInclusive};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::future::try_join;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::body::{BodyError, BodyErrorKind, Exclusive, Source};
use crate::entry::{Extent, StoredBody};
use crate::error::{Error, ErrorKind, Result};
use crate::service::records::{ReadDeadline, Records};
use crate::storage::{Hold, Key, Kind, Stamp, Storage};

/// A read of a chunk. Boxed, since the type of a storage's future has no name, and the reader must be `Unpin`.
type ChunkRead = Pin<Box<dyn Future<Output = Result<Option<Bytes>>> + Send>>;

/// Identifies a record, and the version of it that was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordRef {
    pub(crate) key: Key,
    pub(crate) stamp: Stamp,
}

/// The maximum number of chunks that are read before the caller wants them.
///
/// Four chunks of the default length are 512 KiB, which bounds the memory of a reader. They hide the latency of a storage
/// on another host. A storage that answers at once is not read so far ahead.
const MAX_READ_AHEAD: usize = 4;

/// The number of chunks in a batch, and the maximum length of a batch.
///
/// A storage that returns chunks at once shares their bytes, so that a batch takes memory only if its chunks are removed from
/// the storage meanwhile. A body of a mebibyte then needs one operation of the storage, and no hold.
const MAX_BATCH: usize = 8;
const MAX_BATCH_BYTES: u32 = 1024 * 1024;

/// The wanted parts of chunks that were read in one operation, in order. Each is taken when the caller gets it.
#[derive(Default)]
struct Batch {
    chunks: [Option<Bytes>; MAX_BATCH],
    /// The position of the next chunk.
    at: usize,
}

impl Batch {
    /// Takes the next chunk.
    fn take(&mut self) -> Option<Bytes> {
        let chunk = self.chunks.get_mut(self.at)?.take()?;
        self.at += 1;
        Some(chunk)
    }
}

/// Reads a range of a stored body.
pub(crate) struct ChunkReader<S: Storage> {
    records: Arc<Records<S>>,
    /// The record that names the body.
    source: RecordRef,
    /// The record stays if the body is damaged: its head was not returned yet, or the body is a part of the record's, whose
    /// other parts may be whole.
    keeps_record: bool,
    body: ChunkedBody,
    /// The number of the next chunk that is not in the batch.
    next: u32,
    /// The number of the last chunk that is wanted.
    last: u32,
    /// The number of bytes of the chunk `next` that are before the wanted ones.
    skip: usize,
    /// The number of bytes that are still wanted.
    remaining: u64,
    /// The chunks before `next` that were read in one operation.
    batch: Batch,
    /// The storage returns chunks at once, so that they are read in batches.
    shares_chunks: bool,
    /// The reads of the chunks from `next` on, in order. Empty while there is a batch.
    ahead: VecDeque<ReadAhead>,
    /// Boxed, since few bodies have trailers.
    trailers: Option<Box<HeaderMap>>,
    /// Keeps the entry from being evicted while it is read. `None` if all wanted chunks were read at once.
    hold: Option<Hold>,
    /// The body has ended with an error, after which nothing may follow.
    has_failed: bool,
}

/// The read of a chunk that the caller does not want yet.
enum ReadAhead {
    /// It is running in a task.
    Task(ReadTask),
    /// It runs when the caller polls the body. Only outside a runtime.
    Polled(Exclusive<ChunkRead>),
    /// It has ended.
    Read(Result<Option<Bytes>>),
}

/// A read in a task of its own.
///
/// A slow caller, such as a paused media player, may not poll the body for minutes. A read that only the caller polls would
/// occupy a connection meanwhile, and would then be past its deadline.
struct ReadTask(JoinHandle<Result<Option<Bytes>>>);

impl Drop for ReadTask {
    fn drop(&mut self) {
        // The body was dropped, so that the answer of the storage is not needed. No effect once the task has ended.
        self.0.abort();
    }
}

/// Describes a chunked body, as its record does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkedBody {
    pub(crate) id: [u8; 16],
    /// The length of each chunk but the last. Never zero: a record that says so is not decoded.
    pub(crate) chunk_len: u32,
    pub(crate) len: u64,
}

impl ChunkedBody {
    /// Returns the chunks of a stored body, or `None` if it is in its record.
    pub(crate) fn of(body: &StoredBody) -> Option<Self> {
        match *body {
            StoredBody::Inline(_) | StoredBody::Parts(_) => None,
            StoredBody::Chunked { id, chunk_len, len, .. } => Some(Self { id, chunk_len, len }),
        }
    }

    /// Returns the numbers of the chunks with `count` bytes from an offset.
    ///
    /// Returns `None` if the body would have more chunks than there are numbers for them.
    fn numbers(&self, (start, count): (u64, u64)) -> Option<RangeInclusive<u32>> {
        let last = start.checked_add(count.saturating_sub(1))?;
        let number = |position: u64| u32::try_from(position / u64::from(self.chunk_len)).ok();
        Some(number(start)?..=number(last)?)
    }

    /// Returns the maximum number of chunks in a batch.
    fn batch_len(&self) -> u32 {
        (MAX_BATCH_BYTES / self.chunk_len).clamp(1, MAX_BATCH as u32)
    }

    /// Returns whether all of the body is read in one operation of a storage that returns chunks at once.
    pub(crate) fn is_one_batch(&self) -> bool {
        self.len <= u64::from(self.batch_len()) * u64::from(self.chunk_len)
    }

    /// Returns the length of a chunk.
    fn len_of(&self, number: u32) -> u64 {
        let (number, chunk_len) = (u64::from(number), u64::from(self.chunk_len));
        self.len.saturating_sub(number * chunk_len).min(chunk_len)
    }
}

impl<S: Storage> ChunkReader<S> {
    /// Opens `count` bytes of a body from an offset, without waiting.
    ///
    /// Returns `None` if the storage does not return chunks at once, or a chunk is not stored.
    pub(crate) fn open_now(
        records: &Arc<Records<S>>,
        source: RecordRef,
        body: ChunkedBody,
        (start, count): (u64, u64),
        trailers: Option<&HeaderMap>,
    ) -> Option<Box<Self>> {
        let mut reader = Self::new(records, source, body, (start, count), trailers)?;
        // Before the first read, so that no chunk is evicted between two of them. A batch that has all chunks needs no hold,
        // which would cost more than the read.
        if reader.last - reader.next >= reader.batch_len() {
            reader.hold();
        }
        if !reader.read_batch(reader.last) {
            return None;
        }
        reader.keeps_record = false;
        // Boxed only now, since most storages do not return chunks at once.
        Some(Box::new(reader))
    }

    /// Opens `count` bytes of a body from an offset, after [`open_now`](Self::open_now) has returned `None`.
    ///
    /// `further` are ranges of the same body that the response will have after these bytes. Returns `None` if a chunk of any
    /// of them is missing or the storage fails.
    pub(crate) async fn open(
        records: &Arc<Records<S>>,
        source: RecordRef,
        body: ChunkedBody,
        (start, count): (u64, u64),
        further: &[Range<u64>],
        trailers: Option<&HeaderMap>,
    ) -> Option<Box<Self>> {
        let mut reader = Box::new(Self::new(records, source, body, (start, count), trailers)?);
        let further = further.iter().map(|range| body.numbers((range.start, range.end - range.start)));
        let further: Vec<_> = further.collect::<Option<_>>()?;
        if !reader.begin(further).await {
            return None;
        }
        reader.keeps_record = false;
        Some(reader)
    }

    /// Reads the first wanted chunk, and checks that the storage has all others, and the `further` ones.
    ///
    /// Returns false if one is missing or the storage fails.
    async fn begin(&mut self, further: Vec<RangeInclusive<u32>>) -> bool {
        let reader = self;
        reader.hold();
        if reader.remaining == 0 {
            return true;
        }
        // A miss is still possible, so this read has no more time than a lookup.
        let first = reader.read(reader.next, ReadDeadline::Lookup);
        let first = async {
            match first.await {
                Ok(Some(chunk)) => Ok(chunk),
                _ => Err(()),
            }
        };
        // A storage that evicts single keys may have lost any of them, and after the head was sent only an error could say so.
        // A body has fewer chunks than `u32` has numbers, so that the sum does not overflow.
        let others = (reader.next + 1..=reader.last).chain(further.into_iter().flatten());
        let others = others.map(|number| reader.key(number));
        let others = async {
            match reader.records.has_chunks(others).await {
                Ok(true) => Ok(()),
                // Also if the storage failed: the body may be there, so that its record stays, and the next request tries again.
                _ => Err(()),
            }
        };
        // The first chunk is polled first: if it is missing at once, the others are not checked. Their future is boxed, since
        // it would enlarge the future of every lookup, and most lookups find a small body.
        match try_join(first, Box::pin(others)).await {
            Ok((first, ())) => {
                let Ok(data) = reader.accept(Ok(Some(first))) else { return false };
                reader.batch.chunks[0] = Some(data);
                true
            }
            Err(()) => false,
        }
    }

    /// Returns a reader of a range that [`open`](Self::open) was told of, which reads nothing before it is polled.
    ///
    /// Returns `None` if the body would have more chunks than there are numbers for them.
    pub(crate) fn open_later(
        records: &Arc<Records<S>>,
        source: RecordRef,
        body: ChunkedBody,
        part: (u64, u64),
    ) -> Option<Box<Self>> {
        let reader = Self::new(records, source, body, part, None)?;
        Some(Box::new(Self { keeps_record: false, ..reader }))
    }

    /// Returns a reader of `count` bytes of a body from an offset, which has read nothing yet.
    ///
    /// Returns `None` if the body would have more chunks than there are numbers for them.
    fn new(
        records: &Arc<Records<S>>,
        source: RecordRef,
        body: ChunkedBody,
        (start, count): (u64, u64),
        trailers: Option<&HeaderMap>,
    ) -> Option<Self> {
        let numbers = body.numbers((start, count))?;
        // Trailers describe the whole body, so that a part is sent without them.
        let trailers = trailers.filter(|_| count == body.len);
        Some(Self {
            records: Arc::clone(records),
            source,
            keeps_record: true,
            body,
            next: *numbers.start(),
            last: *numbers.end(),
            skip: (start % u64::from(body.chunk_len)) as usize,
            remaining: count,
            batch: Batch::default(),
            shares_chunks: false,
            ahead: VecDeque::new(),
            trailers: trailers.cloned().map(Box::new),
            hold: None,
            has_failed: false,
        })
    }

    /// Keeps the entry from being evicted before others.
    fn hold(&mut self) {
        self.hold = Some(self.records.storage.inner().hold(self.key(self.next), self.body.len));
    }

    /// Returns the maximum number of chunks in a batch.
    fn batch_len(&self) -> u32 {
        self.body.batch_len()
    }

    /// Reads the next batch if the storage returns it at once and has all chunks from `next` to `last`.
    fn read_batch(&mut self, last: u32) -> bool {
        let (first, len) = (self.key(self.next), self.batch_len());
        self.batch.at = 0;
        let chunks = &mut self.batch.chunks[..len as usize];
        let is_read = self.records.read_chunks_now(first, last, chunks);
        self.shares_chunks = is_read && self.accept_batch();
        if !self.shares_chunks {
            // A chunk may be missing or damaged. It is read alone, where that is handled.
            self.batch = Batch::default();
        }
        self.shares_chunks
    }

    /// Checks the chunks of a batch, and reduces them to the wanted parts.
    ///
    /// Returns false if one of them has a wrong length. Then nothing else has changed.
    fn accept_batch(&mut self) -> bool {
        let (mut next, mut skip, mut remaining) = (self.next, self.skip, self.remaining);
        for chunk in self.batch.chunks.iter_mut().map_while(Option::as_mut) {
            if chunk.len() as u64 != self.body.len_of(next) || skip >= chunk.len() {
                return false;
            }
            if skip > 0 {
                chunk.advance(skip);
                skip = 0;
            }
            if chunk.len() as u64 > remaining {
                chunk.truncate(remaining as usize);
            }
            remaining -= chunk.len() as u64;
            next = next.saturating_add(1);
        }
        (self.next, self.skip) = (next, skip);
        true
    }

    /// Returns the key of a chunk.
    fn key(&self, number: u32) -> Key {
        self.source.key.sibling(Kind::Chunk, self.body.id, number)
    }

    /// Returns the future that reads a chunk.
    fn read(&self, number: u32, deadline: ReadDeadline) -> ChunkRead {
        let (key, records) = (self.key(number), Arc::clone(&self.records));
        Box::pin(async move {
            let read = records.read_chunk(key, deadline).await?;
            Ok(read.map(|record| record.payload()))
        })
    }

    /// Begins to read the chunks after the one that the caller gets now.
    ///
    /// Each read is polled once, and goes on in a task if it has to wait. No further read is begun after one that completed
    /// at once: such a storage will return the next chunk as quickly, and a chunk read early would only take up memory.
    fn read_ahead(&mut self, cx: &mut Context<'_>) {
        while self.ahead.len() < MAX_READ_AHEAD && !matches!(self.ahead.back(), Some(ReadAhead::Read(_))) {
            let number = u64::from(self.next) + self.ahead.len() as u64;
            let Some(number) = u32::try_from(number).ok().filter(|number| *number <= self.last) else {
                return;
            };
            let mut read = self.read(number, ReadDeadline::Body);
            self.ahead.push_back(match read.as_mut().poll(cx) {
                Poll::Ready(read) => ReadAhead::Read(read),
                Poll::Pending => match Handle::try_current() {
                    Ok(runtime) => ReadAhead::Task(ReadTask(runtime.spawn(read))),
                    Err(_) => ReadAhead::Polled(Exclusive::new(read)),
                },
            });
        }
    }

    /// Checks the next chunk after it was read, and returns the wanted part of it.
    fn accept(&mut self, read: Result<Option<Bytes>>) -> Result<Bytes, BodyError> {
        match read {
            Ok(Some(mut chunk))
                if chunk.len() as u64 == self.body.len_of(self.next) && self.skip < chunk.len() =>
            {
                chunk.advance(self.skip);
                chunk.truncate(usize::try_from(self.remaining).unwrap_or(usize::MAX));
                self.skip = 0;
                self.next = self.next.saturating_add(1);
                Ok(chunk)
            }
            Ok(Some(_)) => {
                self.put_out_of_use();
                Err(BodyError::new(BodyErrorKind::Length, None::<Error>))
            }
            Ok(None) => {
                self.put_out_of_use();
                Err(BodyError::new(BodyErrorKind::Storage, None::<Error>))
            }
            // The storage failed, which says nothing about the body, so that its record stays.
            Err(error) => Err(BodyError::new(BodyErrorKind::Storage, Some(error))),
        }
    }

    /// Opens a part of a body that is stored in parts, from an offset to another one.
    ///
    /// Returns `None` if a chunk is missing or the storage fails.
    pub(crate) async fn open_part(
        records: &Arc<Records<S>>,
        source: RecordRef,
        extent: &Extent,
        range: Range<u64>,
    ) -> Option<Box<Self>> {
        let Extent { id, chunk_len, len, start } = *extent;
        let (body, part) =
            (ChunkedBody { id, chunk_len, len }, (range.start - start, range.end - range.start));
        if let Some(mut reader) = Self::open_now(records, source, body, part, None) {
            reader.keeps_record = true;
            return Some(reader);
        }
        let mut reader = Box::new(Self::new(records, source, body, part, None)?);
        reader.begin(Vec::new()).await.then_some(reader)
    }

    /// Keeps the record from being used again, since its body is damaged.
    fn put_out_of_use(&self) {
        if self.keeps_record {
            return;
        }
        self.records.put_out_of_use(self.source.key, self.source.stamp, false);
    }

    /// Returns the next chunk of the batch, or of the next batch.
    #[inline]
    fn next_of_batch(&mut self) -> Option<Bytes> {
        let chunk = self.batch.take();
        if chunk.is_some() || !self.shares_chunks {
            return chunk;
        }
        // Only up to the end of this batch: whether there are the others was checked before the head was sent.
        let last = self.last.min(self.next.saturating_add(self.batch_len() - 1));
        self.read_batch(last);
        self.batch.take()
    }

    /// Polls for the wanted part of the next chunk.
    ///
    /// Begins to read the chunks after it.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, BodyError>> {
        let data = match self.next_of_batch() {
            Some(data) => data,
            None => {
                if self.ahead.is_empty() {
                    self.read_ahead(cx);
                }
                // Only the first read is polled here. Each of the others is polled when it is the first, before this returns
                // `Pending` for it, so that no wake-up is lost.
                let read = match self.ahead.front_mut() {
                    Some(ReadAhead::Task(task)) => match ready!(Pin::new(&mut task.0).poll(cx)) {
                        Ok(read) => read,
                        // The task fails only if its runtime shuts down: a panic in the storage is returned as an error.
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
        if self.remaining > 0 && !self.shares_chunks {
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
