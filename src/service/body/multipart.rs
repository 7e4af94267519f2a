//! Sends several ranges of a body as `multipart/byteranges`, as the [`Source`] of a [`CacheBody`](crate::CacheBody).
//!
//! # Invariants
//!
//! - The length of the content is known before its first byte is sent, and the content has that length or ends with an error.
//! - One part is open at a time. The next one is opened after the last byte of the one before.
//! - A part whose source ends early, or exceeds the range with its last frame, ends the content with an error.

use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::{Frame, SizeHint};

use crate::body::{BodyError, BodyErrorKind, Source};
use crate::error::Error;
use crate::hex;
use crate::storage::random_id;

/// The boundaries and heads around the ranges of a body in `multipart/byteranges` (RFC 9110 §14.6).
pub(crate) struct Layout {
    /// 128 random bits, so that no body contains it by chance or by intent (RFC 2046 §5.1.1).
    boundary: String,
    /// The beginning of each part's head, up to the value of Content-Range.
    opening: Vec<u8>,
    ranges: Vec<Range<u64>>,
    /// The length of the body that the ranges are of.
    complete_len: u64,
    /// The number of bytes with all heads and boundaries.
    len: u64,
}

impl Layout {
    /// Lays out ranges of a body of this length, whose response has these fields.
    ///
    /// The ranges are not empty and lie in the body.
    pub(crate) fn new(ranges: Vec<Range<u64>>, complete_len: u64, headers: &HeaderMap) -> Self {
        let boundary = hex::text(&random_id());
        let mut opening = format!("\r\n--{boundary}\r\n").into_bytes();
        // Each part says the type of the body, since the response has that of the whole content (RFC 9110 §15.3.7.2).
        for value in headers.get_all(header::CONTENT_TYPE) {
            opening.extend_from_slice(b"Content-Type: ");
            opening.extend_from_slice(value.as_bytes());
            opening.extend_from_slice(b"\r\n");
        }
        opening.extend_from_slice(b"Content-Range: ");
        let mut layout = Self { boundary, opening, ranges, complete_len, len: 0 };
        let heads = (0..layout.ranges.len()).filter_map(|number| layout.head(number));
        let parts = heads.map(|(head, range)| head.len() as u64 + (range.end - range.start));
        layout.len = parts.fold(layout.ending().len() as u64, u64::saturating_add);
        layout
    }

    /// Returns the number of bytes of the content.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Returns the ranges, in the order in which they are sent.
    pub(crate) fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// Returns the value of Content-Type for the response.
    ///
    /// The boundary is not quoted, since some clients cannot read a quoted one (RFC 9110 §14.6).
    pub(crate) fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// Returns the bytes before a part, and its range.
    fn head(&self, number: usize) -> Option<(Bytes, Range<u64>)> {
        let range = self.ranges.get(number)?.clone();
        // The line break before a boundary belongs to it, and nothing is before the first one.
        let opening = if number == 0 { self.opening.get(2..)? } else { &self.opening };
        let value = content_range(&range, self.complete_len);
        Some((Bytes::from([opening, value.as_bytes(), b"\r\n\r\n"].concat()), range))
    }

    /// Returns the bytes after the last part.
    fn ending(&self) -> Bytes {
        Bytes::from(format!("\r\n--{}--\r\n", self.boundary))
    }
}

/// Returns the value of Content-Range for a part of a body (RFC 9110 §14.4).
pub(crate) fn content_range(range: &Range<u64>, complete_len: u64) -> String {
    format!("bytes {}-{}/{complete_len}", range.start, range.end.saturating_sub(1))
}

/// The bytes of a part.
pub(crate) enum Part {
    /// They are in memory.
    Data(Bytes),
    /// A reader provides them.
    Source(Box<dyn Source>),
}

/// Sends parts one after another.
pub(crate) struct Multipart<F> {
    layout: Arc<Layout>,
    /// Returns the bytes of a range. It is called for each range of the layout in order.
    open: F,
    part: Part,
    /// The number of bytes that are missing of the part.
    missing: u64,
    /// The number of the next part. The number of parts stands for the ending.
    next: usize,
    /// The number of bytes that are still to be sent.
    remaining: u64,
    has_failed: bool,
}

impl<F> Multipart<F>
where
    F: FnMut(Range<u64>) -> Result<Part, BodyError> + Send + Sync,
{
    /// Returns a source of parts that a function opens.
    pub(crate) fn new(layout: Arc<Layout>, open: F) -> Self {
        let remaining = layout.len();
        let part = Part::Data(Bytes::new());
        Self { layout, open, part, missing: 0, next: 0, remaining, has_failed: false }
    }

    /// Polls for the next bytes of the content. Returns `None` at its end.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if self.missing > 0 {
            let data = ready!(self.poll_part(cx))?;
            self.missing -= data.len() as u64;
            return Poll::Ready(Some(Ok(data)));
        }
        let number = self.next;
        self.next = number.saturating_add(1);
        let Some((head, range)) = self.layout.head(number) else {
            let is_ending = number == self.layout.ranges.len();
            return Poll::Ready(is_ending.then(|| Ok(self.layout.ending())));
        };
        self.missing = range.end - range.start;
        // The part before is dropped only after this one was opened, so that the entry is held all the time.
        self.part = (self.open)(range)?;
        Poll::Ready(Some(Ok(head)))
    }

    /// Polls for the next bytes of the part.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, BodyError>> {
        let wrong_length = || BodyError::new(BodyErrorKind::Length, None::<Error>);
        loop {
            let data = match &mut self.part {
                Part::Data(data) if data.is_empty() => return Poll::Ready(Err(wrong_length())),
                Part::Data(data) => std::mem::take(data),
                Part::Source(source) => match ready!(source.poll_frame(cx)) {
                    // Trailers end a body, so that the bytes that are missing will not come.
                    Some(frame) => frame?.into_data().map_err(|_| wrong_length())?,
                    None => return Poll::Ready(Err(wrong_length())),
                },
            };
            if data.len() as u64 > self.missing {
                return Poll::Ready(Err(wrong_length()));
            }
            if !data.is_empty() {
                return Poll::Ready(Ok(data));
            }
        }
    }
}

impl<F> Source for Multipart<F>
where
    F: FnMut(Range<u64>) -> Result<Part, BodyError> + Send + Sync,
{
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_end_stream() {
            return Poll::Ready(None);
        }
        let data = ready!(self.poll_data(cx));
        match &data {
            Some(Ok(data)) => self.remaining = self.remaining.saturating_sub(data.len() as u64),
            Some(Err(_)) => self.has_failed = true,
            None => {}
        }
        Poll::Ready(data.map(|data| data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.has_failed || self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::Waker;

    use super::*;

    /// Provides these frames.
    struct Frames(VecDeque<Frame<Bytes>>);

    impl Source for Frames {
        fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::new()
        }
    }

    fn frames(frames: &[&'static str]) -> Part {
        let frames = frames.iter().map(|data| Frame::data(Bytes::from_static(data.as_bytes())));
        Part::Source(Box::new(Frames(frames.collect())))
    }

    fn layout(ranges: &[Range<u64>]) -> Arc<Layout> {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, "text/plain".parse().unwrap())]);
        Arc::new(Layout::new(ranges.to_vec(), 1000, &headers))
    }

    /// Reads all frames, and checks that the hint of the size is right before each of them.
    fn read(source: &mut dyn Source) -> Result<String, BodyErrorKind> {
        let mut content = Vec::new();
        let len = source.size_hint().exact().unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(frame)) = source.poll_frame(&mut cx) {
            match frame {
                Ok(frame) => content.extend_from_slice(frame.data_ref().unwrap()),
                Err(error) => {
                    assert!(source.is_end_stream());
                    assert!(matches!(source.poll_frame(&mut cx), Poll::Ready(None)));
                    return Err(error.kind());
                }
            }
            assert_eq!(source.size_hint().exact(), Some(len - content.len() as u64));
        }
        assert!(source.is_end_stream());
        assert_eq!(content.len() as u64, len);
        Ok(String::from_utf8(content).unwrap())
    }

    #[test]
    fn parts_have_heads_and_exact_length() {
        let layout = layout(&[500..504, 0..2]);
        let open = |range: Range<u64>| match range.start {
            500 => Ok(frames(&["", "ab", "", "cd"])),
            _ => Ok(Part::Data(Bytes::from_static(b"xy"))),
        };
        let content = read(&mut Multipart::new(Arc::clone(&layout), open)).unwrap();
        let content_type = layout.content_type();
        let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
        let expected = format!(
            "--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 500-503/1000\r\n\r\nabcd\r\n\
             --{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/1000\r\n\r\nxy\r\n--{boundary}--\r\n"
        );
        assert_eq!(content, expected);
    }

    #[test]
    fn boundaries_differ() {
        assert_ne!(layout(&[0..1, 500..501]).boundary, layout(&[0..1, 500..501]).boundary);
    }

    #[test]
    fn part_of_wrong_length_is_an_error() {
        let trailers = || {
            let frame = Frame::trailers(HeaderMap::new());
            Part::Source(Box::new(Frames([Frame::data(Bytes::from_static(b"a")), frame].into())))
        };
        let parts: [fn() -> Part; 4] =
            [|| frames(&["a"]), || frames(&["abc"]), || Part::Data(Bytes::from_static(b"a")), || frames(&[])];
        for open in parts {
            let read = read(&mut Multipart::new(layout(&[0..2, 500..502]), |_| Ok(open())));
            assert_eq!(read, Err(BodyErrorKind::Length));
        }
        let read = read(&mut Multipart::new(layout(&[0..2, 500..502]), |_| Ok(trailers())));
        assert_eq!(read, Err(BodyErrorKind::Length));
    }

    #[test]
    fn part_that_cannot_be_opened_is_an_error() {
        let mut opened = 0;
        let open = |_| {
            opened += 1;
            let error = || BodyError::new(BodyErrorKind::Storage, None::<Error>);
            if opened == 1 { Ok(frames(&["ab"])) } else { Err(error()) }
        };
        assert_eq!(read(&mut Multipart::new(layout(&[0..2, 500..502]), open)), Err(BodyErrorKind::Storage));
    }
}
