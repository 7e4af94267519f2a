//! Forms in parts (`multipart/form-data`, RFC 7578).

use super::media_type::{is_token, with_parameters};
use super::{IgnoredFields, push_count, push_piece};

struct Part<'a> {
    /// The header fields, with names in lower case.
    headers: Vec<(String, &'a [u8])>,
    content: &'a [u8],
}

/// Returns the parts of a form, without the ignored ones.
///
/// They are in order and have their header fields.
///
/// Returns `None` if the form is not in the strict form, because parsers may then disagree on where a part
/// ends. In the strict form no text precedes the first boundary or follows the last, a boundary is alone on
/// its line, and lines end in CR LF.
pub(super) fn canonical(boundary: &[u8], content: &[u8], ignored: &IgnoredFields) -> Option<Vec<u8>> {
    let delimiter = [b"--", boundary].concat();
    // Split wherever the delimiter occurs, even within a line, so that no part can hide in an ignored one.
    let mut pieces = split(content, &delimiter);
    if !pieces.next()?.is_empty() {
        return None;
    }
    let mut parts = Vec::new();
    loop {
        match pieces.next()? {
            // The end of the closing delimiter.
            b"--" | b"--\r\n" => break,
            piece => parts.push(part(piece)?),
        }
    }
    if pieces.next().is_some() {
        return None;
    }
    parts.retain(|part| !part.name().is_some_and(|name| ignored.contains(&name)));

    let mut canonical = Vec::with_capacity(content.len());
    push_count(&mut canonical, parts.len());
    for part in parts {
        push_count(&mut canonical, part.headers.len());
        for (name, value) in &part.headers {
            push_piece(&mut canonical, name.as_bytes());
            push_piece(&mut canonical, value);
        }
        push_piece(&mut canonical, part.content);
    }
    Some(canonical)
}

/// Parses what is between two delimiters.
fn part(piece: &[u8]) -> Option<Part<'_>> {
    let end = find(piece, b"\r\n\r\n")?;
    let (lines, rest) = piece.split_at_checked(end)?;
    // Four bytes: the two line ends after the header fields.
    let content = rest.get(4..)?.strip_suffix(b"\r\n")?;
    let mut headers = Vec::new();
    if !lines.is_empty() {
        headers = split(lines.strip_prefix(b"\r\n")?, b"\r\n").map(header).collect::<Option<_>>()?;
    }
    Some(Part { headers, content })
}

/// Parses a header field.
fn header(line: &[u8]) -> Option<(String, &[u8])> {
    let (name, value) = line.split_at_checked(line.iter().position(|byte| *byte == b':')?)?;
    let value = value.get(1..)?;
    if !is_token(name) || value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        return None;
    }
    Some((std::str::from_utf8(name).ok()?.to_ascii_lowercase(), value.trim_ascii()))
}

impl Part<'_> {
    /// Returns the name of the form field, or `None` if parsers may disagree on it.
    ///
    /// They disagree on a field with two names or an encoded one, and on a backslash, which is an escape to
    /// some and a plain character to others.
    fn name(&self) -> Option<Vec<u8>> {
        let mut fields = self.headers.iter().filter(|(name, _)| name == "content-disposition");
        let (Some((_, field)), None) = (fields.next(), fields.next()) else { return None };
        let (kind, parameters) = with_parameters(field)?;
        if !kind.eq_ignore_ascii_case(b"form-data") || field.contains(&b'\\') {
            return None;
        }
        if parameters.iter().any(|(name, _)| name == "name*") {
            return None;
        }
        parameters.into_iter().find(|(name, _)| name == "name").map(|(_, value)| value)
    }
}

/// Splits a text at each occurrence of `delimiter`, into at least one piece.
fn split<'a>(text: &'a [u8], delimiter: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let from = rest?;
        let Some(at) = find(from, delimiter) else { return rest.take() };
        rest = from.get(at + delimiter.len()..);
        from.get(..at)
    })
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|here| here == wanted)
}
