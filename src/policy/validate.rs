//! Validating stored responses, and freshening them by the answer (RFC 9111 §4.3 and §3.2).

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::conditions::{opaque_tag, weakly_equal};
use super::dates;
use super::freshness::entity_tag;
use super::options::Options;
use super::storing::{MAX_FIELDS, UnstoredFields};
use crate::time::Timestamp;

/// The fields that make a request conditional or partial (RFC 9110 §13.1 and §14.2).
const CONDITIONS: [HeaderName; 6] = [
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_MATCH,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
    header::RANGE,
];

/// Removes the preconditions and the range of a request (RFC 9110 §13.1 and §14.2).
///
/// The request then asks for the whole response.
pub(crate) fn strip_conditions(request: &mut HeaderMap) {
    for name in CONDITIONS {
        request.remove(name);
    }
}

/// Makes a request validate one stored response (RFC 9111 §4.3.1).
///
/// The caller's own preconditions and range are removed, since they are answered from the result.
pub(crate) fn add_validators(request: &mut HeaderMap, stored: &HeaderMap) {
    strip_conditions(request);
    if let Some(tag) = entity_tag_of(stored) {
        request.insert(header::IF_NONE_MATCH, tag.clone());
    }
    if last_modified(stored).is_some()
        && let Some(modified) = stored.get(header::LAST_MODIFIED)
    {
        request.insert(header::IF_MODIFIED_SINCE, modified.clone());
    }
}

/// Makes a request ask which of several stored variants answers it (RFC 9111 §4.1 and §4.3.1).
///
/// It sends the variants' entity tags, and no date: a 304 to a date would not say which variant it is about.
pub(crate) fn add_entity_tags(request: &mut HeaderMap, tags: &[HeaderValue]) {
    strip_conditions(request);
    let tags: Vec<&[u8]> = tags.iter().map(HeaderValue::as_bytes).collect();
    if let Ok(list) = HeaderValue::from_bytes(&tags.join(&b", "[..])) {
        request.insert(header::IF_NONE_MATCH, list);
    }
}

/// Returns the ETag field of a response, if it is well formed (RFC 9110 §8.8.3).
pub(crate) fn entity_tag_of(response: &HeaderMap) -> Option<&HeaderValue> {
    entity_tag(response)?;
    response.get(header::ETAG)
}

/// Returns whether the entity tag of a 304 selects a stored response with this tag (RFC 9111 §4.3.4).
///
/// A strong tag is compared strongly, a weak one weakly.
pub(crate) fn tag_selects(of_304: &[u8], stored: &[u8]) -> bool {
    let is_strong = opaque_tag(of_304) == of_304;
    if is_strong { stored == of_304 } else { weakly_equal(stored, of_304) }
}

/// Returns whether a 304 confirms this stored response (RFC 9111 §4.3.4).
///
/// The request asked about this response alone, so that a 304 without a validator is about it too.
pub(crate) fn selects_304(stored: &HeaderMap, not_modified: &HeaderMap) -> bool {
    if let Some(tag) = entity_tag(not_modified) {
        return entity_tag(stored).is_some_and(|stored_tag| tag_selects(tag, stored_tag));
    }
    if !not_modified.contains_key(header::LAST_MODIFIED) {
        return true;
    }
    let date = last_modified(not_modified);
    date.is_some() && date == last_modified(stored)
}

/// Returns whether the 200 to a HEAD is about this stored response (RFC 9111 §4.3.5).
///
/// If it is, it freshens the stored response. Otherwise the stored response counts as stale. `len` is the length of the
/// stored body in bytes.
pub(crate) fn head_confirms(stored: &HeaderMap, len: u64, head: &HeaderMap) -> bool {
    let has = |name: HeaderName| head.contains_key(name);
    let length = || head.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok();
    let same_tag = || match (entity_tag(stored), entity_tag(head)) {
        (Some(stored_tag), Some(head_tag)) => stored_tag == head_tag,
        _ => false,
    };
    let same_date = || last_modified(head).is_some_and(|date| Some(date) == last_modified(stored));
    let same_coding = stored.get(header::CONTENT_ENCODING) == head.get(header::CONTENT_ENCODING);
    same_coding
        && (!has(header::ETAG) || same_tag())
        && (!has(header::LAST_MODIFIED) || same_date())
        // Transfer-Encoding overrides Content-Length (RFC 9112 §6.3).
        && (!has(header::CONTENT_LENGTH) || has(header::TRANSFER_ENCODING) || length() == Some(len))
}

/// Returns Last-Modified, only to be compared with another one (RFC 9110 §8.8.2).
///
/// Both are read with the same century for a year of two digits, so that the century does not matter.
fn last_modified(headers: &HeaderMap) -> Option<Timestamp> {
    dates::single(headers, &header::LAST_MODIFIED, Timestamp::EPOCH)
}

/// Updates the stored fields from a 304, or from the 200 to a HEAD (RFC 9111 §3.2).
///
/// Each field of the newer response replaces all stored lines of that name. Fields that describe the stored bytes, and
/// fields about the connection, are left as they are.
pub(crate) fn freshen(stored: &mut HeaderMap, from: &HeaderMap, options: &Options) {
    if from.len() > MAX_FIELDS {
        return; // together with the stored fields they could be more than a `HeaderMap` holds
    }
    let connection_fields = UnstoredFields::by_connection(from);
    for name in from.keys() {
        let describes_body =
            [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::CONTENT_RANGE].contains(name);
        if describes_body || !connection_fields.passes(name) {
            continue;
        }
        stored.remove(name);
        for value in from.get_all(name) {
            stored.append(name.clone(), value.clone());
        }
    }
    if !from.contains_key(header::AGE) {
        stored.remove(header::AGE); // it was the age at the previous response
    }
    if !from.contains_key(header::DATE) {
        stored.remove(header::DATE); // it was the date of the previous response; the time of receipt replaces it
    }
    // The newer directives may restrict fields that the older ones did not.
    for name in &UnstoredFields::restricted(stored, options) {
        stored.remove(name);
    }
}
