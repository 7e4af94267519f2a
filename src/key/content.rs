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

use http::{HeaderMap, HeaderValue, header};
use sha2::{Digest, Sha256};

use super::update_with_length;

pub(crate) use self::ignored::IgnoredFields;
use self::media_type::MediaType;

/// The fields that say what the content of a request is, each with its lines joined (RFC 9110 §8).
#[derive(Clone, Debug, Default)]
pub(crate) struct ContentFields {
    media_type: Option<HeaderValue>,
    coding: Option<HeaderValue>,
    language: Option<HeaderValue>,
    location: Option<HeaderValue>,
}

impl ContentFields {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let joined = |name| {
            let lines: Vec<_> = headers.get_all(name).iter().map(|line| line.as_bytes()).collect();
            match lines.len() {
                0 => None,
                _ => HeaderValue::from_bytes(&lines.join(&b", "[..])).ok(),
            }
        };
        Self {
            media_type: joined(header::CONTENT_TYPE),
            coding: joined(header::CONTENT_ENCODING),
            language: joined(header::CONTENT_LANGUAGE),
            location: joined(header::CONTENT_LOCATION),
        }
    }
}

/// Computes the digest of the content of a request.
///
/// Without `ignored` the content is compared by its bytes, as it is for most media types.
/// Encoded content is not decoded but compared by its bytes. The parameters of the media type count, since
/// each of them may change what the content means (`profile`, `version`). The boundary of a form that was
/// parsed does not.
pub(crate) fn digest(fields: &ContentFields, content: &[u8], ignored: Option<&IgnoredFields>) -> [u8; 32] {
    let media_type = fields.media_type.as_ref();
    let coding = fields
        .coding
        .as_ref()
        .map(|coding| coding.as_bytes().trim_ascii().to_ascii_lowercase())
        .unwrap_or_default();
    let coding = if coding == b"identity" { Vec::new() } else { coding };
    let read = media_type.and_then(|field| MediaType::parse(field.as_bytes()));
    let canonical = match (&read, ignored) {
        (Some(media_type), Some(ignored)) if coding.is_empty() => canonical(media_type, content, ignored),
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
    for (number, field) in [(1, &fields.language), (2, &fields.location)] {
        if let Some(field) = field {
            hash.update([number]);
            update_with_length(&mut hash, field.as_bytes());
        }
    }
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
