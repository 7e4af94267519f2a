//! Reads a stored body from its chunks: the [`Source`] behind a [`CacheBody`](crate::CacheBody).
//!
//! Promises: the first chunk is read, and all others are there, before the response's head goes out; the next one is read while the caller has
//! the last; a chunk that is missing or of another length ends the body with an error, never short; then the record
//! that names it is put out of use.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::future::join;

use super::core::Core;
use crate::body::{BodyError, BodyErrorKind, Exclusive, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Key, Kind, Stamp, Storage};

type Reading = Pin<Box<dyn Future<Output = Result<Option<Bytes>>> + Send>>;

/// The record that names a body: where it is, and what it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named {
    pub(crate) key: Key,
    pub(crate) stamp: Stamp,
}

pub(crate) struct ChunkReader<S> {
    core: Arc<Core<S>>,
    named: Named,
    body: Chunked,
    next: u32,
    /// How many bytes of the next chunk come before what is wanted.
    skip: usize,
    remaining: u64,
    ready: Option<Bytes>,
    ahead: Option<Exclusive<Reading>>,
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
        core: Arc<Core<S>>,
        named: Named,
        body: Chunked,
        start: u64,
        count: u64,
    ) -> Option<Self> {
        let chunk_len = u64::from(body.chunk_len);
        let next = u32::try_from(start / chunk_len).ok()?;
        let skip = (start % chunk_len) as usize;
        let mut reader = Self { core, named, body, next, skip, remaining: count, ready: None, ahead: None };
        if count == 0 {
            return Some(reader);
        }
        let rest = reader.rest()?;
        let reading = reader.read_next()?;
        // Boxed, so that the lookups of small bodies need no room for it.
        let (first, whole) = join(reading, Box::pin(reader.core.store.contains_all(&rest))).await;
        match whole {
            Ok(true) => {}
            Ok(false) => {
                reader.put_out_of_use();
                return None;
            }
            Err(_) => return None,
        }
        match reader.accept(first) {
            Ok(piece) => {
                reader.ready = Some(piece);
                Some(reader)
            }
            Err(_) => None,
        }
    }

    /// The chunks that are wanted after the first. Those that this process is still writing are there for it.
    fn rest(&self) -> Option<Vec<Key>> {
        let last = (self.skip as u64).checked_add(self.remaining - 1)? / u64::from(self.body.chunk_len);
        let last = self.next.checked_add(u32::try_from(last).ok()?)?;
        let keys = (self.next + 1..=last).map(|part| self.named.key.sibling(Kind::Chunk, self.body.id, part));
        Some(keys.filter(|key| self.core.pending.get(*key).is_none()).collect())
    }

    fn read_next(&mut self) -> Option<Reading> {
        let key = self.named.key.sibling(Kind::Chunk, self.body.id, self.next);
        self.next = self.next.checked_add(1)?;
        let core = Arc::clone(&self.core);
        Some(Box::pin(async move {
            if let Some(underway) = core.pending.get(key) {
                return Ok(Some(underway.record.payload()));
            }
            Ok(core.store.read_chunk(key).await?.map(|record| record.payload()))
        }))
    }

    /// The wanted part of a chunk that was read.
    fn accept(&mut self, read: Result<Option<Bytes>>) -> Result<Bytes, BodyError> {
        let part = self.next - 1;
        let before = u64::from(part) * u64::from(self.body.chunk_len);
        let expected = self.body.len.saturating_sub(before).min(u64::from(self.body.chunk_len));
        match read {
            Ok(Some(chunk)) if chunk.len() as u64 == expected && self.skip < chunk.len() => {
                let end = chunk
                    .len()
                    .min(self.skip.saturating_add(usize::try_from(self.remaining).unwrap_or(usize::MAX)));
                let piece = chunk.slice(self.skip..end);
                self.skip = 0;
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
        self.core.put_out_of_use(self.named.key, self.named.stamp);
    }
}

impl<S: Storage> Source for ChunkReader<S> {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if self.remaining == 0 {
            return Poll::Ready(None);
        }
        let piece = match self.ready.take() {
            Some(piece) => Ok(piece),
            None => {
                if self.ahead.is_none() {
                    self.ahead = self.read_next().map(Exclusive::new);
                }
                let Some(ahead) = &mut self.ahead else {
                    return Poll::Ready(Some(Err(BodyError::new(BodyErrorKind::Length, None::<Error>))));
                };
                let read = ready!(ahead.get_mut().as_mut().poll(cx));
                self.ahead = None;
                self.accept(read)
            }
        };
        let piece = match piece {
            Ok(piece) => piece,
            Err(error) => return Poll::Ready(Some(Err(error))),
        };
        self.remaining = self.remaining.saturating_sub(piece.len() as u64);
        if self.remaining > 0
            && let Some(mut reading) = self.read_next()
        {
            // Polled once, so that the store works on it while the caller has this piece.
            match reading.as_mut().poll(cx) {
                Poll::Pending => self.ahead = Some(Exclusive::new(reading)),
                Poll::Ready(read) => match self.accept(read) {
                    Ok(next) => self.ready = Some(next),
                    Err(error) => {
                        // The piece in hand is good: the error comes after it.
                        self.ahead = Some(Exclusive::new(Box::pin(async move {
                            Err(Error::new(ErrorKind::Other, "the stored body is damaged").with_source(error))
                        })));
                    }
                },
            }
        }
        Poll::Ready(Some(Ok(piece)))
    }

    fn remaining(&self) -> u64 {
        self.remaining
    }
}
