//! The tags that an origin gives to its responses, in fields of its choice.
//!
//! # Invariants
//! - A response with a tag that cannot be kept is not stored, since an invalidation of that tag would not reach it.
//! - At most one tag more than [`MAX_GROUPS`] is returned, so that no response causes unbounded work.

use std::collections::BTreeSet;

use http::{HeaderMap, HeaderName};

use super::groups::MAX_GROUPS;
use super::not_stored::NotStored;

/// The maximum length of a tag in bytes. Cloudflare and Fastly have the same bound.
pub(crate) const MAX_TAG_LEN: usize = 1024;

/// Returns whether a byte ends a tag in a field.
fn is_separator(field: &HeaderName, byte: u8) -> bool {
    match field.as_str() {
        "surrogate-key" => byte == b' ' || byte == b'\t',
        "xkey" => byte == b' ' || byte == b'\t' || byte == b',',
        _ => byte == b',',
    }
}

/// Returns the tags in these fields of a response, each once.
///
/// They are separated by commas, in Surrogate-Key by spaces, and in xkey by either.
///
/// # Errors
/// Returns [`NotStored::UnusableTag`] if a tag is longer than [`MAX_TAG_LEN`] or is not UTF-8.
pub(crate) fn field_tags<'r>(
    response: &'r HeaderMap,
    fields: &[HeaderName],
) -> Result<BTreeSet<&'r str>, NotStored> {
    let mut tags = BTreeSet::new();
    for field in fields {
        let lines = response.get_all(field).iter();
        let pieces = lines.flat_map(|line| line.as_bytes().split(|byte| is_separator(field, *byte)));
        for piece in pieces.map(<[u8]>::trim_ascii).filter(|piece| !piece.is_empty()) {
            let tag = str::from_utf8(piece).map_err(|_| NotStored::UnusableTag)?;
            check_tag(tag)?;
            tags.insert(tag);
            if tags.len() > MAX_GROUPS {
                return Ok(tags);
            }
        }
    }
    Ok(tags)
}

/// Returns whether a response has one of these fields.
pub(crate) fn has_tag_field(response: &HeaderMap, fields: &[HeaderName]) -> bool {
    fields.iter().any(|field| response.contains_key(field))
}

/// Checks the length of a tag.
///
/// # Errors
/// Returns [`NotStored::UnusableTag`] if the tag is longer than [`MAX_TAG_LEN`].
pub(crate) fn check_tag(tag: &str) -> Result<(), NotStored> {
    if tag.len() > MAX_TAG_LEN { Err(NotStored::UnusableTag) } else { Ok(()) }
}
