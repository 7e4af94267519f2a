//! The parts of a form (`multipart/form-data`, RFC 7578).

use super::media_type::{is_token, with_parameters};
use super::{Ignored, put, put_count};

struct Part<'a> {
    /// Names in lower case.
    headers: Vec<(String, &'a [u8])>,
    content: &'a [u8],
}

/// The parts in their order, with their header fields. `None`: not in the strict form, so that readers may disagree on
/// where a part ends: text before the first boundary or after the last, a boundary anywhere but alone on its line,
/// lines that end in something else than CR LF.
pub(super) fn canonical(boundary: &[u8], content: &[u8], ignored: &Ignored) -> Option<Vec<u8>> {
    let delimiter = [b"--", boundary].concat();
    // Every place counts where this stands, so that no part can hide in another, ignored one.
    let mut pieces = split(content, &delimiter);
    if !pieces.next()?.is_empty() {
        return None;
    }
    let mut parts = Vec::new();
    loop {
        match pieces.next()? {
            b"--" | b"--\r\n" => break,
            piece => parts.push(part(piece)?),
        }
    }
    if pieces.next().is_some() {
        return None;
    }
    parts.retain(|part| !part.name().is_some_and(|name| ignored.names(&name)));

    let mut canonical = Vec::with_capacity(content.len());
    put_count(&mut canonical, parts.len());
    for part in parts {
        put_count(&mut canonical, part.headers.len());
        for (name, value) in &part.headers {
            put(&mut canonical, name.as_bytes());
            put(&mut canonical, value);
        }
        put(&mut canonical, part.content);
    }
    Some(canonical)
}

/// What stands between two delimiters.
fn part(piece: &[u8]) -> Option<Part<'_>> {
    let end = find(piece, b"\r\n\r\n")?;
    let (lines, rest) = piece.split_at_checked(end)?;
    let content = rest.get(4..)?.strip_suffix(b"\r\n")?;
    let mut headers = Vec::new();
    if !lines.is_empty() {
        headers = split(lines.strip_prefix(b"\r\n")?, b"\r\n").map(header).collect::<Option<_>>()?;
    }
    Some(Part { headers, content })
}

fn header(line: &[u8]) -> Option<(String, &[u8])> {
    let (name, value) = line.split_at_checked(line.iter().position(|byte| *byte == b':')?)?;
    let value = value.get(1..)?;
    if !is_token(name) || value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        return None;
    }
    Some((std::str::from_utf8(name).ok()?.to_ascii_lowercase(), value.trim_ascii()))
}

impl Part<'_> {
    /// The field's name, where all readers agree on it: not with two of them, an encoded one, or a backslash, which
    /// escapes for some and is a plain character for others.
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

/// What stands between the places where `delimiter` is; at least one piece.
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
