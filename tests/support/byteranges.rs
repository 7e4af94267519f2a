//! A reader of `multipart/byteranges`, which shares no code with the cache.

use std::ops::Range;

/// A part of the content.
#[derive(Debug)]
pub struct Part {
    /// The lines of its head, but for Content-Range.
    pub fields: Vec<String>,
    pub range: Range<usize>,
    /// The length of the whole body, as the part says.
    pub complete_len: usize,
    pub data: Vec<u8>,
}

/// Reads content of a type (RFC 9110 §14.6, RFC 2046 §5.1.1).
///
/// Panics if it is not well-formed, or if a part has another length than its Content-Range says.
pub fn parts(content_type: &str, content: &[u8]) -> Vec<Part> {
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").expect("the type of parts");
    assert!(
        !boundary.is_empty() && boundary.len() <= 70 && boundary.bytes().all(|b| b.is_ascii_alphanumeric())
    );
    let delimiter = format!("\r\n--{boundary}");
    // The line break of the first delimiter may be absent.
    let content = [b"\r\n", content].concat();
    let mut pieces = split(&content, delimiter.as_bytes()).into_iter();
    assert_eq!(pieces.next().unwrap(), b"", "bytes before the first boundary");
    let mut parts: Vec<_> = pieces.collect();
    assert_eq!(parts.pop().unwrap(), b"--\r\n", "the last boundary ends the content");
    parts.into_iter().map(part).collect()
}

fn part(piece: &[u8]) -> Part {
    let piece = piece.strip_prefix(b"\r\n").expect("a line break after the boundary");
    let end =
        piece.windows(4).position(|window| window == b"\r\n\r\n").expect("an empty line after the head");
    let (head, data) = (String::from_utf8(piece[..end].to_vec()).unwrap(), piece[end + 4..].to_vec());
    let is_range = |line: &String| line.to_ascii_lowercase().starts_with("content-range:");
    let (ranges, fields): (Vec<_>, Vec<_>) = head.split("\r\n").map(str::to_owned).partition(is_range);
    assert_eq!(ranges.len(), 1, "{head}");
    let (range, complete_len) = content_range(ranges[0].split_once(": ").unwrap().1);
    assert_eq!(range.len(), data.len(), "{head}");
    Part { fields, range, complete_len, data }
}

/// Reads the value of Content-Range.
pub fn content_range(value: &str) -> (Range<usize>, usize) {
    let (range, complete_len) = value.strip_prefix("bytes ").unwrap().split_once('/').unwrap();
    let (first, last) = range.split_once('-').unwrap();
    (first.parse().unwrap()..last.parse::<usize>().unwrap() + 1, complete_len.parse().unwrap())
}

fn split<'a>(mut rest: &'a [u8], delimiter: &[u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    while let Some(at) = rest.windows(delimiter.len()).position(|window| window == delimiter) {
        pieces.push(&rest[..at]);
        rest = &rest[at + delimiter.len()..];
    }
    pieces.push(rest);
    pieces
}
