//! What a request's content means, as a digest that two spellings of one content share.
//!
//! Promises: contents share a digest only if they are the same, or differ in nothing but what their media type gives no
//! meaning to and the fields that the user ignores; what is malformed, ambiguous or of another media type is told
//! apart by its bytes; nothing panics, and the time grows with the content's length and not with its square, whatever
//! it holds; the digest is the same in every process.

mod form;
mod ignored;
mod json;
mod media_type;
mod multipart;

use http::HeaderValue;
use sha2::{Digest, Sha256};

use super::part;

pub(crate) use self::ignored::Ignored;
use self::media_type::MediaType;

/// The digest of a request's content. `media_type` is its Content-Type; `coding` is its Content-Encoding, several lines
/// of which are joined by the caller.
///
/// What is in a coding is not looked into. The parameters of the media type count, since any may change what the
/// content means (`profile`, `version`), except the boundary of a form that was understood.
pub(crate) fn digest(
    media_type: Option<&HeaderValue>,
    coding: Option<&HeaderValue>,
    content: &[u8],
    ignored: &Ignored,
) -> [u8; 32] {
    let coding = coding.map(|coding| coding.as_bytes().trim_ascii().to_ascii_lowercase()).unwrap_or_default();
    let coding = if coding == b"identity" { Vec::new() } else { coding };
    let read = media_type.and_then(|field| MediaType::of(field.as_bytes()));
    let canonical = match &read {
        Some(media_type) if coding.is_empty() => canonical(media_type, content, ignored),
        _ => None,
    };

    let mut hash = Sha256::new();
    part(&mut hash, b"tower-response-cache content 1");
    part(&mut hash, &coding);
    match (&read, media_type) {
        (Some(read), _) => {
            hash.update([2]);
            part(&mut hash, &read.canonical(canonical.is_some()));
        }
        (None, Some(malformed)) => {
            hash.update([1]);
            part(&mut hash, malformed.as_bytes());
        }
        (None, None) => hash.update([0]),
    }
    hash.update([u8::from(canonical.is_some())]);
    part(&mut hash, canonical.as_deref().unwrap_or(content));
    hash.finalize().into()
}

/// The form that all spellings of a content share; `None`: its bytes are what it is told apart by.
fn canonical(media_type: &MediaType, content: &[u8], ignored: &Ignored) -> Option<Vec<u8>> {
    if !media_type.is_utf8() {
        return None; // a quote or an ampersand may be half of another character
    }
    match media_type.essence() {
        "application/x-www-form-urlencoded" => form::canonical(content, ignored),
        "multipart/form-data" => multipart::canonical(media_type.boundary()?, content, ignored),
        json if json == "application/json" || json.ends_with("+json") => json::canonical(content, ignored),
        _ => None,
    }
}

/// A piece of a canonical form, with its length, so that no two lists of pieces are the same when joined.
fn put(canonical: &mut Vec<u8>, piece: &[u8]) {
    put_count(canonical, piece.len());
    canonical.extend_from_slice(piece);
}

fn put_count(canonical: &mut Vec<u8>, count: usize) {
    canonical.extend_from_slice(&(count as u64).to_be_bytes());
}

#[cfg(test)]
mod tests;
