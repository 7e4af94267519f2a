//! Validation: what is asked, which stored response a 304 is about, and what it changes (RFC 9111 §4.3, §3.2).

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::conditions::{weakly_equal, without_weakness};
use super::dates;
use super::freshness::entity_tag;
use super::options::Options;
use super::store::{MOST_FIELDS, Withheld};
use crate::time::Timestamp;

const CONDITIONS: [HeaderName; 6] = [
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_MATCH,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
    header::RANGE,
];

/// Removes preconditions and the range: the request asks for the whole response.
pub(crate) fn strip_conditions(request: &mut HeaderMap) {
    for name in CONDITIONS {
        request.remove(name);
    }
}

/// Makes a request ask whether the stored response is still good (RFC 9111 §4.3.1), and nothing else: the caller's own
/// conditions and range are answered from the result.
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

/// Makes a request without a stored response of its own ask whether one of the others is meant (RFC 9111 §4.1,
/// §4.3.1). Several are asked about, so that no Last-Modified is sent.
pub(crate) fn add_entity_tags(request: &mut HeaderMap, tags: &[HeaderValue]) {
    strip_conditions(request);
    let tags: Vec<&[u8]> = tags.iter().map(HeaderValue::as_bytes).collect();
    if let Ok(list) = HeaderValue::from_bytes(&tags.join(&b", "[..])) {
        request.insert(header::IF_NONE_MATCH, list);
    }
}

/// The entity tag of a response, if it has a good one.
pub(crate) fn entity_tag_of(response: &HeaderMap) -> Option<&HeaderValue> {
    entity_tag(response)?;
    response.get(header::ETAG)
}

/// Whether a 304 with this entity tag is about a stored response with that one: a strong one selects by strong
/// comparison (RFC 9111 §4.3.4).
pub(crate) fn tag_selects(of_304: &[u8], stored: &[u8]) -> bool {
    if without_weakness(of_304) == of_304 { stored == of_304 } else { weakly_equal(stored, of_304) }
}

/// Whether a 304 confirms this stored response (RFC 9111 §4.3.4). The request asked about this one alone, so a 304
/// without any validator is about it too.
pub(crate) fn selects_304(stored: &HeaderMap, not_modified: &HeaderMap) -> bool {
    if let Some(tag) = entity_tag(not_modified) {
        return entity_tag(stored).is_some_and(|mine| tag_selects(tag, mine));
    }
    if !not_modified.contains_key(header::LAST_MODIFIED) {
        return true;
    }
    let date = last_modified(not_modified);
    date.is_some() && date == last_modified(stored)
}

/// Whether the 200 to a HEAD is about this stored response: then it freshens it, and else the stored one counts as
/// stale (RFC 9111 §4.3.5). `len` is the length of the stored body.
pub(crate) fn head_confirms(stored: &HeaderMap, len: u64, head: &HeaderMap) -> bool {
    let has = |name: HeaderName| head.contains_key(name);
    let length = || head.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok();
    let same_tag = || match (entity_tag(stored), entity_tag(head)) {
        (Some(mine), Some(tag)) => mine == tag,
        _ => false,
    };
    let same_date = || last_modified(head).is_some_and(|date| Some(date) == last_modified(stored));
    let same_coding = stored.get(header::CONTENT_ENCODING) == head.get(header::CONTENT_ENCODING);
    same_coding
        && (!has(header::ETAG) || same_tag())
        && (!has(header::LAST_MODIFIED) || same_date())
        // Transfer-Encoding overrides a length beside it (RFC 9112 §6.3).
        && (!has(header::CONTENT_LENGTH) || has(header::TRANSFER_ENCODING) || length() == Some(len))
}

/// For comparison alone: the century of a year of two digits does not matter.
fn last_modified(headers: &HeaderMap) -> Option<Timestamp> {
    dates::single(headers, &header::LAST_MODIFIED, Timestamp::EPOCH)
}

/// Updates stored fields from a 304 or the 200 to a HEAD (RFC 9111 §3.2): each field that it has replaces all lines of
/// that name, except those that describe the stored bytes and those of the connection.
pub(crate) fn freshen(stored: &mut HeaderMap, from: &HeaderMap, options: &Options) {
    if from.len() > MOST_FIELDS {
        return; // together they could be more than a map of fields takes
    }
    let named = Withheld::by_connection(from);
    for name in from.keys() {
        let of_body =
            [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::CONTENT_RANGE].contains(name);
        if of_body || !named.passes(name) {
            continue;
        }
        stored.remove(name);
        for value in from.get_all(name) {
            stored.append(name.clone(), value.clone());
        }
    }
    if !from.contains_key(header::AGE) {
        stored.remove(header::AGE); // that was the age of what is replaced
    }
    if !from.contains_key(header::DATE) {
        stored.remove(header::DATE); // likewise; the time of receipt takes its place
    }
    for name in &Withheld::restricted(stored, options) {
        stored.remove(name);
    }
}
