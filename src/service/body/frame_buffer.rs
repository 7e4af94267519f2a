//! The bytes of a download that are in memory.
//!
//! They are one part of the body without gaps, which ends with the last byte that has arrived.
//!
//! # Invariants
//!
//! - A frame is returned as it was added, unless a reader begins in the middle of it.
//! - Finding an offset takes logarithmic time, whatever the number of frames.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// The length below which a frame is copied.
///
/// A server or client reads into buffers of 8 KiB and more, and each frame keeps its buffer alive: an origin that sends a
/// byte at a time would occupy a gigabyte before the first chunk is full.
const SHORT_FRAME: usize = 2048;

/// Holds the frames of a download that are still needed.
#[derive(Debug, Default)]
pub(crate) struct FrameBuffer {
    /// Each frame with the offset of its end, which a binary search finds.
    frames: VecDeque<(u64, Bytes)>,
    /// The offset of the end of the last frame.
    end: u64,
}

impl FrameBuffer {
    /// Returns how many bytes of the body have arrived.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Returns the offset of the first byte that is in memory.
    pub(crate) fn start(&self) -> u64 {
        self.frames.front().map_or(self.end, |(end, data)| end - data.len() as u64)
    }

    /// Appends a frame.
    ///
    /// A short one is copied, unless it is the first: most short bodies are a single frame.
    pub(crate) fn push(&mut self, data: Bytes) {
        // An empty frame would have the same end as the frame before it, and the search by offset needs distinct ends.
        if !data.is_empty() {
            // Most bodies are a single frame.
            if self.end == 0 {
                self.frames.reserve_exact(1);
            }
            let is_copied = self.end > 0 && data.len() < SHORT_FRAME;
            self.end += data.len() as u64;
            let data = if is_copied { Bytes::copy_from_slice(&data) } else { data };
            self.frames.push_back((self.end, data));
        }
    }

    /// Returns the rest of the frame that holds an offset.
    ///
    /// Returns `None` if the offset is not in memory.
    pub(crate) fn at(&self, offset: u64) -> Option<Bytes> {
        if offset < self.start() {
            return None;
        }
        let (end, data) = self.frames.get(self.frames.partition_point(|(end, _)| *end <= offset))?;
        let skip = data.len() - (end - offset) as usize;
        Some(if skip == 0 { data.clone() } else { data.slice(skip..) })
    }

    /// Copies `len` bytes from an offset that is in memory, or fewer at the end.
    ///
    /// The copy is one buffer of the exact length: a slice would keep alive the whole read buffer that it came in.
    pub(crate) fn copy(&self, offset: u64, len: usize) -> Bytes {
        let len = len.min(usize::try_from(self.end.saturating_sub(offset)).unwrap_or(usize::MAX));
        let mut copy = BytesMut::with_capacity(len);
        let first = self.frames.partition_point(|(end, _)| *end <= offset);
        for (end, data) in self.frames.iter().skip(first) {
            let begin = end - data.len() as u64;
            let skip = offset.saturating_sub(begin) as usize;
            copy.extend_from_slice(&data[skip..data.len().min(skip + len - copy.len())]);
            if copy.len() == len {
                break;
            }
        }
        copy.freeze()
    }

    /// Returns `len` bytes from an offset that is in memory, without a copy if one frame has them all.
    ///
    /// The bytes keep alive the whole buffer that their frame came in, which is about as long as the frame.
    pub(crate) fn slice(&self, offset: u64, len: usize) -> Bytes {
        let len = len.min(usize::try_from(self.end.saturating_sub(offset)).unwrap_or(usize::MAX));
        match self.at(offset) {
            Some(mut rest) if rest.len() >= len => rest.split_to(len),
            _ => self.copy(offset, len),
        }
    }

    /// Releases the frames that end at or before an offset.
    ///
    /// A frame is released only as a whole, since a part of it would keep all of its memory anyway.
    pub(crate) fn release(&mut self, offset: u64) {
        while self.frames.front().is_some_and(|(end, _)| *end <= offset) {
            self.frames.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(frames: &[&'static str]) -> FrameBuffer {
        let mut buffer = FrameBuffer::default();
        frames.iter().for_each(|frame| buffer.push(Bytes::from_static(frame.as_bytes())));
        buffer
    }

    #[test]
    fn offset_within_a_frame_gives_its_rest() {
        let buffer = buffer(&["ab", "", "cde", "f"]);
        let at = |offset| buffer.at(offset).map(|data| String::from_utf8(data.to_vec()).unwrap());
        let all: Vec<_> = (0..7).map(|offset| at(offset).unwrap_or_default()).collect();
        assert_eq!(all, ["ab", "b", "cde", "de", "e", "f", ""]);
    }

    #[test]
    fn copy_spans_frames_and_stops_at_the_end() {
        let buffer = buffer(&["ab", "cde", "f"]);
        for offset in 0..6 {
            for len in 0..8 {
                let end = (offset + len).min(6);
                assert_eq!(buffer.copy(offset as u64, len), "abcdef".as_bytes()[offset..end]);
            }
        }
    }

    #[test]
    fn slice_equals_copy_and_shares_the_frame() {
        let buffer = buffer(&["ab", "cde", "f"]);
        for offset in 0..6 {
            for len in 0..8 {
                assert_eq!(buffer.slice(offset, len), buffer.copy(offset, len));
            }
        }
        let is_shared =
            |offset, len| buffer.slice(offset, len).as_ptr() == buffer.at(offset).unwrap().as_ptr();
        assert!(is_shared(3, 2) && !is_shared(3, 3));
    }

    #[test]
    fn short_frames_keep_no_read_buffer() {
        let read = Bytes::from(vec![b'x'; 2 * SHORT_FRAME]);
        let mut buffer = FrameBuffer::default();
        buffer.push(read.slice(..1));
        buffer.push(read.slice(1..SHORT_FRAME));
        buffer.push(read.slice(SHORT_FRAME..));
        let shares = |offset: usize| buffer.at(offset as u64).unwrap().as_ptr() == read[offset..].as_ptr();
        assert!(shares(0) && !shares(1) && shares(SHORT_FRAME));
        assert_eq!(buffer.copy(0, read.len()), read);
    }

    #[test]
    fn whole_frames_are_released() {
        let mut buffer = buffer(&["ab", "cde", "f"]);
        buffer.release(1);
        assert_eq!(buffer.start(), 0);
        buffer.release(4);
        assert_eq!((buffer.start(), buffer.at(1), buffer.end()), (2, None, 6));
        buffer.release(6);
        assert_eq!((buffer.start(), buffer.at(6), buffer.end()), (6, None, 6));
    }
}
