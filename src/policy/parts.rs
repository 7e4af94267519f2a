//! Partial responses, and when they may be combined (RFC 9110 §14.4 and §15.3.7, RFC 9111 §3.3 and §3.4).

use http::{HeaderMap, HeaderValue, header};

use super::conditions::strong_date;
use super::freshness::entity_tag;
use crate::time::Timestamp;

/// Returns the value of If-Range that asks for parts of a response (RFC 9110 §13.1.5).
///
/// It is the strong entity tag of the response, or else its Last-Modified, if that is strong: at least a second before Date
/// (§8.8.2.2). Returns `None` for a response without a strong validator, whose parts must not be combined.
pub(crate) fn strong_validator(response: &HeaderMap) -> Option<&HeaderValue> {
    // A date must not stand in for an entity tag that is weak or malformed (RFC 9110 §13.1.5).
    if response.contains_key(header::ETAG) {
        let is_strong = entity_tag(response).is_some_and(|tag| !tag.starts_with(b"W/"));
        return response.get(header::ETAG).filter(|_| is_strong);
    }
    strong_date(response, Timestamp::EPOCH).and_then(|_| response.get(header::LAST_MODIFIED))
}
