//! A digest of the content of a request.
//!
//! Different spellings of the same content share a digest.
//!
//! # Invariants
//! - Contents share a digest only if they are equal, or differ only in what has no meaning in their media
//!   type or in fields that the user ignores.
//! - Content that is malformed, ambiguous or of another media type is compared by its bytes.
//! - No content causes a panic, or takes time that grows with the square of its length.
//! - The digest is the same in every process.

mod form;
mod ignored;
mod json;
mod media_type;
mod multipart;

use http::HeaderValue;
use sha2::{Digest, Sha256};

use super::update_with_length;

pub(crate) use self::ignored::IgnoredFields;
use self::media_type::MediaType;

/// Computes the digest of the content of a request.
///
/// `media_type` is its Content-Type and `coding` its Content-Encoding, whose lines the caller has joined.
/// Encoded content is not decoded but compared by its bytes. The parameters of the media type count, since
/// each of them may change what the content means (`profile`, `version`). The boundary of a form that was
/// parsed does not.
pub(crate) fn digest(
    media_type: Option<&HeaderValue>,
    coding: Option<&HeaderValue>,
    content: &[u8],
    ignored: &IgnoredFields,
) -> [u8; 32] {
    let coding = coding.map(|coding| coding.as_bytes().trim_ascii().to_ascii_lowercase()).unwrap_or_default();
    let coding = if coding == b"identity" { Vec::new() } else { coding };
    let read = media_type.and_then(|field| MediaType::parse(field.as_bytes()));
    let canonical = match &read {
        Some(media_type) if coding.is_empty() => canonical(media_type, content, ignored),
        _ => None,
    };

    let mut hash = Sha256::new();
    // Names the version of this digest, so that another version does not find what this one has stored.
    update_with_length(&mut hash, b"tower-response-cache content 1");
    update_with_length(&mut hash, &coding);
    match (&read, media_type) {
        (Some(read), _) => {
            hash.update([2]);
            update_with_length(&mut hash, &read.canonical(canonical.is_some()));
        }
        (None, Some(malformed)) => {
            hash.update([1]);
            update_with_length(&mut hash, malformed.as_bytes());
        }
        (None, None) => hash.update([0]),
    }
    hash.update([u8::from(canonical.is_some())]);
    update_with_length(&mut hash, canonical.as_deref().unwrap_or(content));
    hash.finalize().into()
}

/// Returns the form that all spellings of a content share.
///
/// Returns `None` if the content is compared by its bytes.
fn canonical(media_type: &MediaType, content: &[u8], ignored: &IgnoredFields) -> Option<Vec<u8>> {
    // In other charsets the byte of a quote or an ampersand may be a part of another character.
    if !media_type.is_utf8() {
        return None;
    }
    match media_type.essence() {
        "application/x-www-form-urlencoded" => form::canonical(content, ignored),
        "multipart/form-data" => multipart::canonical(media_type.boundary()?, content, ignored),
        json if json == "application/json" || json.ends_with("+json") => json::canonical(content, ignored),
        _ => None,
    }
}

/// Appends a piece to a canonical form, after its length.
///
/// Without the lengths, different lists of pieces could be equal when joined.
fn push_piece(canonical: &mut Vec<u8>, piece: &[u8]) {
    push_count(canonical, piece.len());
    canonical.extend_from_slice(piece);
}

fn push_count(canonical: &mut Vec<u8>, count: usize) {
    canonical.extend_from_slice(&(count as u64).to_be_bytes());
}

#[cfg(test)]
mod tests;
