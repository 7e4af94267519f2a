//! Opens several ranges of a stored body in chunks, one after another.
//!
//! # Invariants
//!
//! - Before the head of the response is returned, the first wanted chunk has been read, and the storage has confirmed that it
//!   has those of all ranges.
//! - The entry is held from the first range to the last one.

use std::ops::Range;
use std::sync::Arc;

use super::chunks::{ChunkReader, ChunkedBody, RecordRef};
use super::multipart::Part;
use crate::body::{BodyError, BodyErrorKind};
use crate::error::Error;
use crate::service::records::Records;
use crate::storage::{Hold, Kind, Storage};

/// The ranges of a stored body that a response sends.
pub(crate) struct StoredParts<S: Storage> {
    records: Arc<Records<S>>,
    source: RecordRef,
    body: ChunkedBody,
    /// The reader of the first range, until that is opened.
    first: Option<Box<ChunkReader<S>>>,
    /// Keeps the entry from being evicted between two ranges, when no reader holds it.
    _hold: Hold,
}

impl<S: Storage> StoredParts<S> {
    /// Opens ranges of a body without waiting.
    ///
    /// Returns `None` if the storage does not return chunks at once, or a chunk is not stored.
    pub(crate) fn open_now(
        records: &Arc<Records<S>>,
        source: RecordRef,
        body: ChunkedBody,
        ranges: &[Range<u64>],
    ) -> Option<Self> {
        let parts = Self::new(records, source, body);
        let mut readers = ranges.iter().map(|range| parts.reader_now(range));
        let first = readers.next()??;
        // Only whether the others could be opened matters now: they are opened again when it is their turn, so that no more
        // than one has chunks in memory.
        readers.all(|reader| reader.is_some()).then_some(())?;
        Some(Self { first: Some(first), ..parts })
    }

    /// Opens ranges of a body, after [`open_now`](Self::open_now) has returned `None`.
    ///
    /// Returns `None` if a chunk is missing or the storage fails.
    pub(crate) async fn open(
        records: &Arc<Records<S>>,
        source: RecordRef,
        body: ChunkedBody,
        ranges: &[Range<u64>],
    ) -> Option<Self> {
        let parts = Self::new(records, source, body);
        let (first, further) = ranges.split_first()?;
        let first = ChunkReader::open(records, source, body, offset_and_count(first), further, None).await?;
        Some(Self { first: Some(first), ..parts })
    }

    fn new(records: &Arc<Records<S>>, source: RecordRef, body: ChunkedBody) -> Self {
        let chunk = source.key.sibling(Kind::Chunk, body.id, 0);
        let hold = records.storage.inner().hold(chunk, body.len);
        Self { records: Arc::clone(records), source, body, first: None, _hold: hold }
    }

    /// Returns the bytes of a range. The first call is for the first range.
    ///
    /// # Errors
    ///
    /// Returns an error if the range is not in the body.
    pub(crate) fn part(&mut self, range: &Range<u64>) -> Result<Part, BodyError> {
        let later =
            || ChunkReader::open_later(&self.records, self.source, self.body, offset_and_count(range));
        let reader = self.first.take().or_else(|| self.reader_now(range)).or_else(later);
        let reader = reader.ok_or_else(|| BodyError::new(BodyErrorKind::Length, None::<Error>))?;
        Ok(Part::Source(reader))
    }

    fn reader_now(&self, range: &Range<u64>) -> Option<Box<ChunkReader<S>>> {
        ChunkReader::open_now(&self.records, self.source, self.body, offset_and_count(range), None)
    }
}

/// Returns the offset and the number of bytes of a range, as readers want them.
fn offset_and_count(range: &Range<u64>) -> (u64, u64) {
    (range.start, range.end.saturating_sub(range.start))
}
