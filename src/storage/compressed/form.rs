//! The stored form of a payload.

use bytes::Bytes;

use super::Codec;
use crate::error::Result;
use crate::storage::wrapper::PayloadForm;
use crate::storage::{Key, Stamp};

/// The first bytes of every payload in the storage. No payload of the cache's own begins with them.
const MAGIC: [u8; 3] = *b"\xf0zp";
/// The length of [`MAGIC`] and the tag.
const TAGGED: usize = MAGIC.len() + 1;
/// The length of [`MAGIC`], the tag and the length before compression.
const SIZED: usize = TAGGED + 4;
/// The length of the hash that names a dictionary.
#[cfg(feature = "zstd")]
pub(super) const DICTIONARY_ID_LEN: usize = 8;

const AS_IT_IS: u8 = 0;
const ZSTD: u8 = 1;
const LZ4: u8 = 2;
const ZSTD_WITH_DICTIONARY: u8 = 3;

/// The longest payload that is compressed. It bounds what a record can make a reader allocate, and how long a task computes
/// without giving way to others: about 10 ms at the default level.
const MAX_LEN: usize = 4 << 20;
/// Up to which length `read_now` restores payloads. That takes 40 µs at most, as long as the answer of a storage that is near.
const QUICK_LEN: usize = 32 << 10;
/// A payload is compressed if this part of it is saved. Less is not worth the time of every read.
const LEAST_SAVING: usize = 8;

pub(super) struct CompressedForm {
    pub(super) codec: Codec,
    pub(super) min_len: usize,
    #[cfg(feature = "zstd")]
    pub(super) zstd: super::zstd::Zstd,
}

/// A compressed payload, of which the header is read.
struct Compressed<'a> {
    tag: u8,
    /// The length before compression.
    len: usize,
    /// All that follows.
    rest: &'a [u8],
}

impl CompressedForm {
    /// Returns the stored form of a compressed payload, or `None` if compressing does not pay.
    fn compress(&self, payload: &[u8]) -> Option<Bytes> {
        let most = payload.len() - payload.len() / LEAST_SAVING;
        let len = u32::try_from(payload.len()).ok()?.to_be_bytes();
        let (tag, mut out, end) = match self.codec {
            #[cfg(feature = "zstd")]
            Codec::Zstd { .. } => {
                let id = self.zstd.dictionary_id();
                let start = SIZED + id.map_or(0, |id| id.len());
                // zstd gives up when the room is full.
                let mut out = vec![0; most.max(start)];
                let end = start + self.zstd.compress(payload, &mut out[start..])?;
                out[SIZED..start].copy_from_slice(id.as_ref().map_or(&[], |id| id));
                (if id.is_some() { ZSTD_WITH_DICTIONARY } else { ZSTD }, out, end)
            }
            #[cfg(feature = "lz4")]
            Codec::Lz4 => {
                let room = lz4_flex::block::get_maximum_output_size(payload.len());
                let mut out = vec![0; SIZED + room];
                let end = SIZED + lz4_flex::block::compress_into(payload, &mut out[SIZED..]).ok()?;
                (LZ4, out, end)
            }
        };
        if end > most {
            return None;
        }
        out[..MAGIC.len()].copy_from_slice(&MAGIC);
        out[MAGIC.len()] = tag;
        out[TAGGED..SIZED].copy_from_slice(&len);
        out.truncate(end);
        // A storage that keeps records counts the length of a payload, not the room around it.
        out.shrink_to_fit();
        Some(out.into())
    }

    #[allow(unreachable_patterns)] // with all codecs compiled in, none is left for the last but one arm
    /// Restores a payload into `out`, which has its length, and returns how many bytes were written.
    fn restore(
        &self,
        compressed: &Compressed<'_>,
        out: &mut [u8],
    ) -> std::result::Result<Option<usize>, &'static str> {
        match compressed.tag {
            #[cfg(feature = "zstd")]
            ZSTD => Ok(self.zstd.decompress(compressed.rest, out)),
            #[cfg(feature = "zstd")]
            ZSTD_WITH_DICTIONARY => {
                let (id, rest) = compressed.rest.split_first_chunk().ok_or("damaged")?;
                self.zstd.decompress_with(id, rest, out).ok_or("the dictionary is missing")
            }
            #[cfg(feature = "lz4")]
            LZ4 => Ok(lz4_flex::block::decompress_into(compressed.rest, out).ok()),
            ZSTD | ZSTD_WITH_DICTIONARY | LZ4 => Err("the codec is not compiled in"),
            _ => Err("the form is unknown"),
        }
    }
}

/// Reads the header of a compressed payload.
///
/// Returns `None` for all other bytes.
fn header(stored: &[u8]) -> Option<Compressed<'_>> {
    let (tag, rest) = stored.strip_prefix(&MAGIC)?.split_first()?;
    let (len, rest) = rest.split_first_chunk()?;
    Some(Compressed { tag: *tag, len: usize::try_from(u32::from_be_bytes(*len)).ok()?, rest })
}

fn is_as_it_is(stored: &[u8]) -> bool {
    stored.strip_prefix(&MAGIC).is_some_and(|rest| rest.first() == Some(&AS_IT_IS))
}

impl PayloadForm for CompressedForm {
    const STORAGE: &'static str = "compressed";

    fn encode(&self, _: Key, _: Stamp, payload: &Bytes) -> Result<Bytes> {
        let is_tried = payload.len() >= self.min_len && payload.len() <= MAX_LEN;
        let compressed = is_tried.then(|| self.compress(payload)).flatten();
        Ok(compressed.unwrap_or_else(|| [&MAGIC[..], &[AS_IT_IS], payload].concat().into()))
    }

    fn decode(&self, _: Key, _: Stamp, stored: &Bytes) -> std::result::Result<Bytes, &'static str> {
        if is_as_it_is(stored) {
            return Ok(stored.slice(TAGGED..));
        }
        let compressed = header(stored).ok_or("it was not written by this wrapper")?;
        // Before anything is allocated for it.
        if compressed.len > MAX_LEN {
            return Err("it claims to be longer than any that is compressed");
        }
        let mut payload = vec![0; compressed.len];
        let written = self.restore(&compressed, &mut payload)?;
        if written == Some(payload.len()) { Ok(payload.into()) } else { Err("damaged") }
    }

    fn is_quick(&self, stored: &Bytes) -> bool {
        is_as_it_is(stored) || header(stored).is_none_or(|compressed| compressed.len <= QUICK_LEN)
    }

    fn max_payload_len(&self, len: usize) -> usize {
        len.saturating_sub(TAGGED)
    }
}
