//! The bytes of a download that are at hand in memory: from some place in the body to as far as it has come.
//!
//! Promises: frames come out as they went in, unless one is entered in its middle; whatever their number, finding a
//! place takes logarithmic time.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

#[derive(Debug, Default)]
pub(crate) struct FrameBuffer {
    /// Each with the place where it ends.
    frames: VecDeque<(u64, Bytes)>,
    end: u64,
}

impl FrameBuffer {
    /// How many bytes have come.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Where what is at hand begins.
    pub(crate) fn start(&self) -> u64 {
        self.frames.front().map_or(self.end, |(end, data)| end - data.len() as u64)
    }

    pub(crate) fn push(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.end += data.len() as u64;
            self.frames.push_back((self.end, data));
        }
    }

    /// What is left of the frame at a place; `None`: it is not here.
    pub(crate) fn at(&self, place: u64) -> Option<Bytes> {
        if place < self.start() {
            return None;
        }
        let (end, data) = self.frames.get(self.frames.partition_point(|(end, _)| *end <= place))?;
        let skip = data.len() - (end - place) as usize;
        Some(if skip == 0 { data.clone() } else { data.slice(skip..) })
    }

    /// So many bytes from a place, which is here, or less at the end: in one exact buffer, since a slice would keep
    /// alive the whole read buffer that it came in.
    pub(crate) fn copy(&self, place: u64, len: usize) -> Bytes {
        let len = len.min(usize::try_from(self.end.saturating_sub(place)).unwrap_or(usize::MAX));
        let mut copy = BytesMut::with_capacity(len);
        let first = self.frames.partition_point(|(end, _)| *end <= place);
        for (end, data) in self.frames.iter().skip(first) {
            let begin = end - data.len() as u64;
            let skip = place.saturating_sub(begin) as usize;
            copy.extend_from_slice(&data[skip..data.len().min(skip + len - copy.len())]);
            if copy.len() == len {
                break;
            }
        }
        copy.freeze()
    }

    /// Lets go of what lies before a place.
    pub(crate) fn release(&mut self, place: u64) {
        while self.frames.front().is_some_and(|(end, _)| *end <= place) {
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
    fn a_place_within_a_frame_gives_the_rest_of_it() {
        let buffer = buffer(&["ab", "", "cde", "f"]);
        let at = |place| buffer.at(place).map(|data| String::from_utf8(data.to_vec()).unwrap());
        let all: Vec<_> = (0..7).map(|place| at(place).unwrap_or_default()).collect();
        assert_eq!(all, ["ab", "b", "cde", "de", "e", "f", ""]);
    }

    #[test]
    fn a_copy_spans_frames_and_ends_with_the_bytes() {
        let buffer = buffer(&["ab", "cde", "f"]);
        for place in 0..6 {
            for len in 0..8 {
                let end = (place + len).min(6);
                assert_eq!(buffer.copy(place as u64, len), "abcdef".as_bytes()[place..end]);
            }
        }
    }

    #[test]
    fn what_is_released_is_gone_by_whole_frames() {
        let mut buffer = buffer(&["ab", "cde", "f"]);
        buffer.release(1);
        assert_eq!(buffer.start(), 0);
        buffer.release(4);
        assert_eq!((buffer.start(), buffer.at(1), buffer.end()), (2, None, 6));
        buffer.release(6);
        assert_eq!((buffer.start(), buffer.at(6), buffer.end()), (6, None, 6));
    }
}
