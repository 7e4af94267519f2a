//! Decoded records that own exactly their bytes, and the memory that they take.
//!
//! The header values of a client are slices of the buffer into which it reads its connection. One value of
//! ten bytes keeps some kilobytes alive, or as much as the largest response that came before on that
//! connection.

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::head::{DecodedRecord, Membership, StoredBody, StoredResponse, Tagged};
use crate::policy::IgnoredSelectors;
use crate::storage::heap_bytes;

// The sizes of private types of `http` and `bytes`, on 64 bits. The estimate decides what a storage evicts
// and need not be exact.

/// The bytes of a field in a map besides its name and value.
///
/// These are the hash and the links (`Bucket` of `http`).
const BUCKET_OVERHEAD: usize = 32;
/// The bytes of a further line of a field besides its value, for two links.
const EXTRA_VALUE_OVERHEAD: usize = 32;
/// The bytes that [`bytes::Bytes`] allocates when it is first cloned.
///
/// Every hit clones a body.
const SHARED_BYTES_OVERHEAD: usize = 32;

/// The names in responses that `http` stores without an allocation. All other names are counted as allocated.
const STANDARD_NAMES: [HeaderName; 30] = [
    header::ACCEPT_RANGES,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::AGE,
    header::ALLOW,
    header::ALT_SVC,
    header::CACHE_CONTROL,
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::CONTENT_LOCATION,
    header::CONTENT_SECURITY_POLICY,
    header::CONTENT_TYPE,
    header::DATE,
    header::ETAG,
    header::EXPIRES,
    header::LAST_MODIFIED,
    header::LINK,
    header::LOCATION,
    header::REFERRER_POLICY,
    header::SERVER,
    header::SET_COOKIE,
    header::STRICT_TRANSPORT_SECURITY,
    header::VARY,
    header::X_CONTENT_TYPE_OPTIONS,
    header::X_FRAME_OPTIONS,
];

impl DecodedRecord {
    /// Copies header values, so that they share no buffer with others.
    pub(super) fn pack(&mut self) {
        let response = match self {
            Self::Head(head) => &mut head.inline.response,
            Self::Variant { variant, .. } => &mut variant.response,
            Self::Index(tags) => {
                for Tagged { tag, .. } in tags {
                    if let Ok(own) = HeaderValue::from_bytes(tag.as_bytes()) {
                        *tag = own;
                    }
                }
                return;
            }
            Self::Fence { .. } | Self::Group(_) => return,
        };
        response.headers = packed(&response.headers);
        if let Some(trailers) = &mut response.trailers {
            *trailers = packed(trailers);
        }
    }

    /// Estimates the bytes that this has allocated, including itself.
    ///
    /// With `within_payload` its values and its body are slices of a payload, which is counted elsewhere.
    pub(super) fn memory(&self, within_payload: bool) -> usize {
        let contents = match self {
            Self::Head(head) => {
                let names = |names: &[HeaderName]| {
                    heap_bytes(size_of_val(names)) + names.iter().map(name_memory).sum::<usize>()
                };
                let ignored_selectors = head.ignored_selectors.as_ref().map_or(0, |ignored_selectors| {
                    heap_bytes(size_of::<IgnoredSelectors>())
                        + names(&ignored_selectors.named)
                        + names(&ignored_selectors.credentials)
                });
                heap_bytes(head.key_text.len())
                    + names(&head.names)
                    + ignored_selectors
                    + head.inline.response.memory(within_payload)
            }
            Self::Variant { key_text, variant, .. } => {
                heap_bytes(key_text.len()) + variant.response.memory(within_payload)
            }
            Self::Index(tags) => {
                let own = |of: &Tagged| {
                    heap_bytes(of.tag.len()) + SHARED_BYTES_OVERHEAD + heap_bytes(of.coding.len())
                };
                // A vector that has grown may have room for twice as many elements.
                heap_bytes(2 * tags.len() * size_of::<Tagged>()) + tags.iter().map(own).sum::<usize>()
            }
            Self::Fence { .. } | Self::Group(_) => 0,
        };
        heap_bytes(2 * size_of::<usize>() + size_of::<Self>()) + contents
    }
}

impl StoredResponse {
    fn memory(&self, within_payload: bool) -> usize {
        let fields = |map: &HeaderMap| map_memory(map, within_payload);
        let body = match &self.body {
            StoredBody::Inline(body) if !within_payload && !body.is_empty() => {
                heap_bytes(body.len()) + SHARED_BYTES_OVERHEAD
            }
            _ => 0,
        };
        let groups = heap_bytes(2 * size_of::<usize>() + self.groups.len() * size_of::<Membership>())
            + self.groups.iter().map(|group| heap_bytes(group.name.len())).sum::<usize>();
        fields(&self.headers) + self.trailers.as_ref().map_or(0, fields) + groups + body
    }
}

/// Returns a copy whose values share one buffer of exactly their total length.
fn packed(map: &HeaderMap) -> HeaderMap {
    let mut bytes = BytesMut::with_capacity(map.values().map(HeaderValue::len).sum());
    map.values().for_each(|value| bytes.extend_from_slice(value.as_bytes()));
    let mut bytes = bytes.freeze();
    // Cloned, because the vectors of a clone have the exact length, while those of a map that was built up
    // are longer.
    let mut own = map.clone();
    for value in own.values_mut() {
        let sensitive = value.is_sensitive();
        // Cannot fail, since the bytes are those of a value.
        if let Ok(copy) = HeaderValue::from_maybe_shared(bytes.split_to(value.len())) {
            *value = copy;
            value.set_sensitive(sensitive);
        }
    }
    own
}

/// Estimates the bytes that a map has allocated.
///
/// With `within_payload` it was built by appending, so that its vectors may be longer, and its values are
/// counted elsewhere.
fn map_memory(map: &HeaderMap, within_payload: bool) -> usize {
    let field = size_of::<HeaderName>() + size_of::<HeaderValue>() + BUCKET_OVERHEAD;
    let fields = if within_payload { map.capacity() } else { map.keys_len() };
    let further = map.len() - map.keys_len();
    let further = if within_payload { 2 * further } else { further };
    let names: usize = map.keys().map(name_memory).sum();
    let values = match map.values().map(HeaderValue::len).sum() {
        0 => 0,
        _ if within_payload => 0,
        values => heap_bytes(values) + SHARED_BYTES_OVERHEAD,
    };
    // Four bytes for each slot of the index, of which at most three quarters are used.
    let index = heap_bytes(map.capacity() / 3 * 16);
    heap_bytes(fields * field)
        + heap_bytes(further * (size_of::<HeaderValue>() + EXTRA_VALUE_OVERHEAD))
        + index
        + names
        + values
}

fn name_memory(name: &HeaderName) -> usize {
    if STANDARD_NAMES.contains(name) { 0 } else { heap_bytes(name.as_str().len()) + SHARED_BYTES_OVERHEAD }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_values_share_one_buffer_and_no_other() {
        let read = bytes::Bytes::from(vec![b'v'; 100_000]);
        let mut map = HeaderMap::with_capacity(100);
        for (name, at) in [("a", 0), ("etag", 500), ("a", 90_000), ("empty", 0)] {
            let len = if name == "empty" { 0 } else { 10 };
            let value = HeaderValue::from_maybe_shared(read.slice(at..at + len)).expect("a value");
            map.append(HeaderName::from_static(name), value);
        }
        map.get_mut("etag").expect("it is there").set_sensitive(true);
        let own = packed(&map);
        assert_eq!(own, map);
        let order = |map: &HeaderMap| map.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(order(&own), order(&map));
        assert!(own["etag"].is_sensitive() && !own["a"].is_sensitive());
        drop(map);
        assert!(read.is_unique(), "the buffer that the values came in is retain_until alive");
        let starts: Vec<_> =
            own.values().filter(|v| !v.is_empty()).map(|v| v.as_bytes().as_ptr() as usize).collect();
        let first = starts.iter().min().expect("there are values");
        assert!(starts.iter().all(|at| at - first < 30));
    }
}
