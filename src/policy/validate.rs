//! Validation: what is asked, which stored response a 304 is about, and what it changes (RFC 9111 §4.3, §3.2).

use http::{HeaderMap, HeaderName, header};

use super::conditions::{weakly_equal, without_weakness};
use super::dates;
use super::freshness::entity_tag;
use super::store::{MOST_FIELDS, connection_names, is_of_connection};

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
    if entity_tag(stored).is_some()
        && let Some(tag) = stored.get(header::ETAG)
    {
        request.insert(header::IF_NONE_MATCH, tag.clone());
    }
    if dates::single(stored, &header::LAST_MODIFIED).is_some()
        && let Some(modified) = stored.get(header::LAST_MODIFIED)
    {
        request.insert(header::IF_MODIFIED_SINCE, modified.clone());
    }
}

/// Whether a 304 confirms this stored response (RFC 9111 §4.3.4). The request asked about this one alone, so a 304
/// without any validator is about it too.
pub(crate) fn selects_304(stored: &HeaderMap, not_modified: &HeaderMap) -> bool {
    if let Some(tag) = entity_tag(not_modified) {
        return match entity_tag(stored) {
            // A strong one selects by strong comparison.
            Some(mine) if without_weakness(tag) == tag => mine == tag,
            Some(mine) => weakly_equal(mine, tag),
            None => false,
        };
    }
    match not_modified.get(header::LAST_MODIFIED).map(dates::parse) {
        Some(date) => date.is_some() && date == dates::single(stored, &header::LAST_MODIFIED),
        None => true,
    }
}

/// Updates stored fields from a 304 (RFC 9111 §3.2): each field that it has replaces all lines of that name, except
/// those that describe the stored bytes and those of the connection.
pub(crate) fn freshen(stored: &mut HeaderMap, from: &HeaderMap) {
    if from.len() > MOST_FIELDS {
        return; // together they could be more than a map of fields takes
    }
    let named = connection_names(from);
    for name in from.keys() {
        let of_body =
            [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::CONTENT_RANGE].contains(name);
        if of_body || is_of_connection(name) || named.contains(name) {
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
}
