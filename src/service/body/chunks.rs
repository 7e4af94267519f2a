//! Reads a stored body from its chunks: the [`Source`] behind a [`CacheBody`](crate::CacheBody).
//!
//! Promises: the first chunk is read, and all others are there, before the response's head goes out; the next ones are
//! read while the caller has the last, a bounded number of them; a chunk that is missing or of another length ends the
//! body with an error, never short; then the record that names it is put out of use.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::future::try_join;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::super::records::{Patience, Records};
use crate::body::{BodyError, BodyErrorKind, Exclusive, Source};
use crate::error::{Error, Result};
use crate::storage::{Hold, Key, Kind, Stamp, Storage};

type Reading = Pin<Box<dyn Future<Output = Result<Option<Bytes>>> + Send>>;

/// The record that names a body: where it is, and what it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named {
    pub(crate) key: Key,
    pub(crate) stamp: Stamp,
}

/// How many chunks are asked for before they are wanted, where the store takes its time: what a reader holds at most.
const AHEAD: usize = 4;

pub(crate) struct ChunkReader<S: Storage> {
    records: Arc<Records<S>>,
    named: Named,
    body: Chunked,
    /// The chunk that comes next.
    part: u32,
    /// The last one that is wanted.
    last: u32,
    /// How many bytes of the next chunk come before what is wanted.
    skip: usize,
    remaining: u64,
    /// The next chunk's wanted part, if it is there already.
    ready: Option<Bytes>,
    /// Those behind it, in order.
    ahead: VecDeque<Ahead>,
    trailers: Option<Box<HeaderMap>>,
    /// Keeps the entry from being evicted meanwhile.
    _hold: Hold,
    /// An error was given: nothing comes after it.
    failed: bool,
}

/// A chunk that was asked for.
enum Ahead {
    Reading(Exclusive<Reading>),
    Read(Result<Option<Bytes>>),
}

/// Why a body cannot be read.
enum Missing {
    /// A chunk of it is not there.
    Gone,
    /// The storage did not answer.
    Unknown,
}

/// A chunked body, as its record describes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunked {
    pub(crate) id: [u8; 16],
    pub(crate) chunk_len: u32,
    pub(crate) len: u64,
}

impl<S: Storage> ChunkReader<S> {
    /// Opens the bytes from `start`, `count` of them; `None`: the body is gone.
    pub(crate) async fn open(
        records: Arc<Records<S>>,
        named: Named,
        body: Chunked,
        start: u64,
        count: u64,
        trailers: Option<HeaderMap>,
    ) -> Option<Self> {
        let chunk_len = u64::from(body.chunk_len);
        let part = u32::try_from(start / chunk_len).ok()?;
        let last = u32::try_from(start.checked_add(count.saturating_sub(1))? / chunk_len).ok()?;
        let skip = (start % chunk_len) as usize;
        let hold = records.store.store().hold(named.key.sibling(Kind::Chunk, body.id, part), body.len);
        let mut reader = Self {
            records,
            named,
            body,
            part,
            last,
            skip,
            remaining: count,
            ready: None,
            ahead: VecDeque::new(),
            trailers: trailers.map(Box::new),
            _hold: hold,
            failed: false,
        };
        if count == 0 {
            return Some(reader);
        }
        // There is still a way back, so it has no more time than a lookup.
        let first = reader.read(part, Patience::Lookup);
        let first = async {
            match first.await {
                Ok(Some(chunk)) => Ok(chunk),
                Ok(None) => Err(Missing::Gone),
                Err(_) => Err(Missing::Unknown),
            }
        };
        // Boxed, so that the lookups of small bodies need no room for it. The first chunk is asked for first: what it is
        // missing for needs no others.
        let others = (part + 1..=last).map(|part| reader.key(part));
        let others = async {
            match reader.records.has_chunks(others).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(Missing::Gone),
                Err(_) => Err(Missing::Unknown),
            }
        };
        match try_join(first, Box::pin(others)).await {
            Ok((first, ())) => {
                let piece = reader.accept(Ok(Some(first))).ok()?;
                reader.ready = Some(piece);
                Some(reader)
            }
            Err(Missing::Gone) => {
                reader.put_out_of_use();
                None
            }
            Err(Missing::Unknown) => None,
        }
    }

    fn key(&self, part: u32) -> Key {
        self.named.key.sibling(Kind::Chunk, self.body.id, part)
    }

    fn read(&self, part: u32, patience: Patience) -> Reading {
        let (key, records) = (self.key(part), Arc::clone(&self.records));
        Box::pin(async move {
            let read = records.read_chunk(key, patience).await?;
            Ok(read.map(|record| record.payload()))
        })
    }

    /// Asks for the chunks after the one that the caller gets now. Each is polled once, so that the store works on it
    /// meanwhile. A store that answers at once is not asked further ahead.
    fn read_ahead(&mut self, cx: &mut Context<'_>) {
        while self.ahead.len() < AHEAD && !matches!(self.ahead.back(), Some(Ahead::Read(_))) {
            let next = u64::from(self.part) + self.ahead.len() as u64;
            let Some(part) = u32::try_from(next).ok().filter(|part| *part <= self.last) else { return };
            let mut reading = self.read(part, Patience::Body);
            self.ahead.push_back(match reading.as_mut().poll(cx) {
                Poll::Pending => Ahead::Reading(Exclusive::new(reading)),
                Poll::Ready(read) => Ahead::Read(read),
            });
        }
    }

    /// The wanted part of a chunk that was read.
    fn accept(&mut self, read: Result<Option<Bytes>>) -> Result<Bytes, BodyError> {
        let before = u64::from(self.part) * u64::from(self.body.chunk_len);
        let expected = self.body.len.saturating_sub(before).min(u64::from(self.body.chunk_len));
        match read {
            Ok(Some(chunk)) if chunk.len() as u64 == expected && self.skip < chunk.len() => {
                let end = chunk
                    .len()
                    .min(self.skip.saturating_add(usize::try_from(self.remaining).unwrap_or(usize::MAX)));
                let piece = chunk.slice(self.skip..end);
                self.skip = 0;
                self.part = self.part.saturating_add(1);
                Ok(piece)
            }
            Ok(Some(_)) => {
                self.put_out_of_use();
                Err(BodyError::new(BodyErrorKind::Length, None::<Error>))
            }
            Ok(None) => {
                self.put_out_of_use();
                Err(BodyError::new(BodyErrorKind::Storage, None::<Error>))
            }
            Err(error) => Err(BodyError::new(BodyErrorKind::Storage, Some(error))),
        }
    }

    /// The body is damaged, so what names it is of no use.
    fn put_out_of_use(&self) {
        self.records.put_out_of_use(self.named.key, self.named.stamp, false);
    }
}

impl<S: Storage> ChunkReader<S> {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, BodyError>> {
        let piece = match self.ready.take() {
            Some(piece) => piece,
            None => {
                if self.ahead.is_empty() {
                    self.read_ahead(cx);
                }
                let read = match self.ahead.front_mut() {
                    Some(Ahead::Reading(reading)) => ready!(reading.get_mut().as_mut().poll(cx)),
                    Some(Ahead::Read(read)) => std::mem::replace(read, Ok(None)),
                    None => return Poll::Ready(Err(BodyError::new(BodyErrorKind::Length, None::<Error>))),
                };
                self.ahead.pop_front();
                self.accept(read)?
            }
        };
        self.remaining = self.remaining.saturating_sub(piece.len() as u64);
        if self.remaining > 0 {
            self.read_ahead(cx);
        }
        Poll::Ready(Ok(piece))
    }
}

impl<S: Storage> Source for ChunkReader<S> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.failed {
            return Poll::Ready(None);
        }
        if self.remaining == 0 {
            return Poll::Ready(self.trailers.take().map(|map| Ok(Frame::trailers(*map))));
        }
        let piece = ready!(self.poll_piece(cx));
        self.failed = piece.is_err();
        Poll::Ready(Some(piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.failed || (self.remaining == 0 && self.trailers.is_none())
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}
