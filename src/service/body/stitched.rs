//! Joins the pieces of a body, which are stored or come from the origin.
//!
//! # Invariants
//!
//! - The reader gets each wanted byte once and in order, or an error.
//! - A piece that ends early, or fails although it was stored, is continued by another piece.
//! - At most one piece is open, and the one that was opened before the head was sent.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::chunks::{ChunkReader, RecordRef};
use crate::body::{BodyError, BodyErrorKind, Exclusive, Source};
use crate::entry::Parts;
use crate::error::Error;
use crate::observe::ByteCounter;
use crate::service::records::Records;
use crate::storage::Storage;

/// Opens the pieces of a body.
pub(crate) trait Pieces: Send + Sized + 'static {
    /// Opens the piece that begins at an offset.
    ///
    /// `avoids_storage` says that the storage has just failed to return the bytes there.
    fn open(
        &mut self,
        offset: u64,
        avoids_storage: bool,
    ) -> impl Future<Output = Result<Piece, BodyError>> + Send;
}

/// A contiguous part of a body.
pub(crate) struct Piece {
    pub(crate) source: Box<dyn Source>,
    /// It is read from the storage.
    pub(crate) is_stored: bool,
    /// The offset after its last byte. An origin that sends more does not have the bytes after it replaced.
    pub(crate) end: u64,
}

/// The pieces of a body of which all wanted bytes are stored in parts.
pub(crate) struct StoredPieces<S: Storage> {
    records: Arc<Records<S>>,
    source: RecordRef,
    parts: Arc<Parts>,
    /// The end of the wanted bytes.
    end: u64,
}

impl<S: Storage> StoredPieces<S> {
    /// Returns the pieces of the parts of the response in a record.
    pub(crate) fn new(records: &Arc<Records<S>>, source: RecordRef, parts: &Arc<Parts>, end: u64) -> Self {
        Self { records: Arc::clone(records), source, parts: Arc::clone(parts), end }
    }
}

impl<S: Storage> Pieces for StoredPieces<S> {
    async fn open(&mut self, offset: u64, avoids_storage: bool) -> Result<Piece, BodyError> {
        let run = self.parts.run_at(offset).filter(|_| !avoids_storage);
        if let Some(run) = run
            && let Some(source) = {
                let wanted = offset..run.range.end.min(self.end);
                ChunkReader::open_part(&self.records, self.source, &run.extent, wanted).await
            }
        {
            return Ok(Piece { source, is_stored: true, end: run.range.end });
        }
        Err(BodyError::new(BodyErrorKind::Storage, None::<Error>))
    }
}

/// Opens a piece, and returns the pieces for the next one.
type Opening<P> = Pin<Box<dyn Future<Output = (P, Result<Piece, BodyError>)> + Send>>;

enum State<P> {
    /// Nothing is open.
    Closed(P),
    Opening(Exclusive<Opening<P>>),
    /// A piece is read, of which this many bytes have come.
    Open(P, Piece, u64),
    Ended,
}

/// Reads a range of a body from pieces.
pub(crate) struct Stitched<P> {
    state: State<P>,
    /// The bytes that are still wanted.
    wanted: Range<u64>,
    /// A piece that was opened already, with the offset where it begins.
    first: Option<(u64, Piece)>,
    /// Count the bytes of stored pieces, and of the others.
    counters: Option<(ByteCounter, ByteCounter)>,
}

impl<P: Pieces> Stitched<P> {
    /// Returns a reader of a range.
    ///
    /// `first` is a piece that was opened already, with the offset where it begins.
    pub(crate) fn new(pieces: P, wanted: Range<u64>, first: Option<(u64, Piece)>) -> Self {
        Self { state: State::Closed(pieces), wanted, first, counters: None }
    }

    /// Counts the bytes of stored pieces, and of the others.
    pub(crate) fn counting(self, stored: ByteCounter, others: ByteCounter) -> Self {
        Self { counters: Some((stored, others)), ..self }
    }

    /// Ends with an error.
    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.state = State::Ended;
        Poll::Ready(Some(Err(error)))
    }

    /// Begins to open the piece at the next byte.
    fn open(mut pieces: P, offset: u64, avoids_storage: bool) -> State<P> {
        State::Opening(Exclusive::new(Box::pin(async move {
            let piece = pieces.open(offset, avoids_storage).await;
            (pieces, piece)
        })))
    }
}

impl<P: Pieces + Sync> Source for Stitched<P> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if self.wanted.is_empty() {
                // Dropped now, which ends the last piece: its bytes after the wanted ones are not needed.
                self.state = State::Ended;
            }
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Ended => return Poll::Ready(None),
                State::Closed(pieces) => {
                    self.state = match self.first.take_if(|(offset, _)| *offset <= self.wanted.start) {
                        Some((offset, piece)) if offset == self.wanted.start => State::Open(pieces, piece, 0),
                        _ => Self::open(pieces, self.wanted.start, false),
                    };
                }
                State::Opening(mut opening) => match opening.get_mut().as_mut().poll(cx) {
                    Poll::Pending => {
                        self.state = State::Opening(opening);
                        return Poll::Pending;
                    }
                    Poll::Ready((pieces, Ok(piece))) => self.state = State::Open(pieces, piece, 0),
                    Poll::Ready((_, Err(error))) => return self.fail(error),
                },
                State::Open(pieces, mut piece, read) => {
                    let Poll::Ready(frame) = piece.source.poll_frame(cx) else {
                        self.state = State::Open(pieces, piece, read);
                        return Poll::Pending;
                    };
                    match frame {
                        Some(Ok(frame)) => {
                            let Ok(mut data) = frame.into_data() else {
                                // Trailers describe the whole body.
                                self.state = State::Open(pieces, piece, read);
                                continue;
                            };
                            // Up to the piece that is open already, whose bytes follow.
                            let next = self.first.as_ref().map_or(u64::MAX, |(offset, _)| *offset);
                            let end = self.wanted.end.min(piece.end).min(next.max(self.wanted.start));
                            let most = end.saturating_sub(self.wanted.start);
                            let is_over = data.len() as u64 >= most;
                            data.truncate(usize::try_from(most).unwrap_or(usize::MAX));
                            self.wanted.start += data.len() as u64;
                            if let Some((stored, others)) = &self.counters {
                                if piece.is_stored { stored } else { others }.add(data.len());
                            }
                            self.state = match is_over {
                                true => State::Closed(pieces),
                                false => State::Open(pieces, piece, read + data.len() as u64),
                            };
                            if !data.is_empty() {
                                return Poll::Ready(Some(Ok(Frame::data(data))));
                            }
                        }
                        Some(Err(_)) if piece.is_stored => {
                            self.state = Self::open(pieces, self.wanted.start, true);
                        }
                        Some(Err(error)) => return self.fail(error),
                        None if read > 0 => self.state = State::Closed(pieces),
                        // No piece may be empty: the next one would begin at the same byte, for ever.
                        None => return self.fail(BodyError::new(BodyErrorKind::Length, None::<Error>)),
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.wanted.is_empty() || matches!(self.state, State::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        match self.state {
            State::Ended => SizeHint::with_exact(0),
            _ => SizeHint::with_exact(self.wanted.end - self.wanted.start),
        }
    }
}
