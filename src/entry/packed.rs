//! Stored forms that own exactly their bytes, and what they take in memory.
//!
//! A client's header values are slices of the buffer that it reads its connection into, so that one value of ten bytes
//! keeps alive some kilobytes, or as much as the largest response that came before on that connection.

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::head::{Membership, Slot, StoredBody, StoredResponse, Tagged};
use crate::policy::LeftOut;
use crate::storage::heap_bytes;

/// The bytes that a field takes in a map beside its name and value: the hash and the links (http's `Bucket`).
const BUCKET: usize = 32;
/// The bytes that a further line of a field takes beside its value: two links.
const EXTRA: usize = 32;
/// The bytes that [`bytes::Bytes`] allocates when it is cloned for the first time, which a hit does.
const COUNTED: usize = 32;

/// Names that take no memory of their own, of those that responses carry; any other counts as if it did.
const STANDARD: [HeaderName; 30] = [
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

impl Slot {
    /// Lets go of every buffer that header values share with others.
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

    /// About how many bytes this has allocated, its own place included. `within_payload`: its values and its body are
    /// slices of a payload that is counted elsewhere.
    pub(super) fn memory(&self, within_payload: bool) -> usize {
        let beside = match self {
            Self::Head(head) => {
                let names = |names: &[HeaderName]| {
                    heap_bytes(size_of_val(names)) + names.iter().map(name_memory).sum::<usize>()
                };
                let left_out = head.left_out.as_ref().map_or(0, |left_out| {
                    heap_bytes(size_of::<LeftOut>()) + names(&left_out.named) + names(&left_out.credentials)
                });
                heap_bytes(head.key_text.len())
                    + names(&head.names)
                    + left_out
                    + head.inline.response.memory(within_payload)
            }
            Self::Variant { key_text, variant, .. } => {
                heap_bytes(key_text.len()) + variant.response.memory(within_payload)
            }
            Self::Index(tags) => {
                let own = |of: &Tagged| heap_bytes(of.tag.len()) + COUNTED + heap_bytes(of.coding.len());
                // A vector that grows has room for up to twice as many.
                heap_bytes(2 * tags.len() * size_of::<Tagged>()) + tags.iter().map(own).sum::<usize>()
            }
            Self::Fence { .. } | Self::Group(_) => 0,
        };
        heap_bytes(2 * size_of::<usize>() + size_of::<Self>()) + beside
    }
}

impl StoredResponse {
    fn memory(&self, within_payload: bool) -> usize {
        let fields = |map: &HeaderMap| map_memory(map, within_payload);
        let body = match &self.body {
            StoredBody::Inline(body) if !within_payload && !body.is_empty() => {
                heap_bytes(body.len()) + COUNTED
            }
            _ => 0,
        };
        let groups = heap_bytes(2 * size_of::<usize>() + self.groups.len() * size_of::<Membership>())
            + self.groups.iter().map(|group| heap_bytes(group.name.len())).sum::<usize>();
        fields(&self.headers) + self.trailers.as_ref().map_or(0, fields) + groups + body
    }
}

/// A copy whose values share one buffer of exactly their length.
fn packed(map: &HeaderMap) -> HeaderMap {
    let mut bytes = BytesMut::with_capacity(map.values().map(HeaderValue::len).sum());
    map.values().for_each(|value| bytes.extend_from_slice(value.as_bytes()));
    let mut bytes = bytes.freeze();
    // The vectors of a clone are as long as they have to be; those of a map that was built up are longer.
    let mut own = map.clone();
    for value in own.values_mut() {
        let sensitive = value.is_sensitive();
        // What is a value already is a value again.
        if let Ok(copy) = HeaderValue::from_maybe_shared(bytes.split_to(value.len())) {
            *value = copy;
            value.set_sensitive(sensitive);
        }
    }
    own
}

/// Returns how many bytes a map has allocated. `within_payload`: it was built by appending, and the values are elsewhere.
fn map_memory(map: &HeaderMap, within_payload: bool) -> usize {
    let field = size_of::<HeaderName>() + size_of::<HeaderValue>() + BUCKET;
    let fields = if within_payload { map.capacity() } else { map.keys_len() };
    let further = map.len() - map.keys_len();
    let further = if within_payload { 2 * further } else { further };
    let names: usize = map.keys().map(name_memory).sum();
    let values = match map.values().map(HeaderValue::len).sum() {
        0 => 0,
        _ if within_payload => 0,
        values => heap_bytes(values) + COUNTED,
    };
    // Four bytes for each place of the index, of which three quarters are used at most.
    let index = heap_bytes(map.capacity() / 3 * 16);
    heap_bytes(fields * field)
        + heap_bytes(further * (size_of::<HeaderValue>() + EXTRA))
        + index
        + names
        + values
}

fn name_memory(name: &HeaderName) -> usize {
    if STANDARD.contains(name) { 0 } else { heap_bytes(name.as_str().len()) + COUNTED }
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
        assert!(read.is_unique(), "the buffer that the values came in is kept alive");
        let starts: Vec<_> =
            own.values().filter(|v| !v.is_empty()).map(|v| v.as_bytes().as_ptr() as usize).collect();
        let first = starts.iter().min().expect("there are values");
        assert!(starts.iter().all(|at| at - first < 30));
    }
}
