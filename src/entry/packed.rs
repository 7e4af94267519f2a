//! Decoded records that own exactly their bytes, and the memory that they take.
//!
//! The header values of a client are slices of the buffer into which it reads its connection. One value of
//! ten bytes keeps some kilobytes alive, or as much as the largest response that came before on that
//! connection.

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::head::{DecodedRecord, Membership, Search, StoredBody, StoredContent, StoredResponse, Tagged};
use super::parts::Parts;
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

impl DecodedRecord {
    /// Copies header values, so that they share no buffer with others.
    pub(super) fn pack(&mut self) {
        match self {
            Self::Head(head) => head.inline.response.pack(),
            Self::Variant { variant, .. } => variant.response.pack(),
            Self::Index(tags) => {
                for Tagged { tag, .. } in tags {
                    if let Ok(own) = HeaderValue::from_bytes(tag.as_bytes()) {
                        *tag = own;
                    }
                }
            }
            Self::Fence { .. } | Self::Group(_) | Self::Searches(_) => {}
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
                    + heap_bytes(size_of_val(head.expiries.list()))
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
            Self::Group(group) => heap_bytes(size_of_val(group.expiries.list())),
            Self::Searches(searches) => {
                let own = |of: &Search| {
                    let names = of.value.names.iter().map(|name| heap_bytes(name.len())).sum::<usize>();
                    let first = of.first.as_ref().map_or(0, |first| heap_bytes(first.key_text.len()));
                    heap_bytes(of.value.names.len() * size_of::<String>()) + names + first
                };
                heap_bytes(2 * searches.len() * size_of::<Search>()) + searches.iter().map(own).sum::<usize>()
            }
            Self::Fence { .. } => 0,
        };
        heap_bytes(2 * size_of::<usize>() + size_of::<Self>()) + contents
    }
}

impl StoredResponse {
    /// Copies the values of header fields and trailers, so that they share no buffer with others.
    pub(crate) fn pack(&mut self) {
        pack(&mut self.headers);
        // A copy has room for its fields alone, whatever was added to the map before.
        self.headers = self.headers.clone();
        if let Some(content) = self.content.get_mut() {
            content.pack();
        }
    }

    fn memory(&self, within_payload: bool) -> usize {
        let fields = |map: &HeaderMap| map_memory(map, within_payload);
        let body = match self.body() {
            StoredBody::Inline(body) if !within_payload && !body.is_empty() => {
                heap_bytes(body.len()) + SHARED_BYTES_OVERHEAD
            }
            StoredBody::Parts(parts) => {
                heap_bytes(size_of::<Parts>() + 16) + heap_bytes(size_of_val(parts.runs()))
            }
            _ => 0,
        };
        let groups = heap_bytes(2 * size_of::<usize>() + self.groups.len() * size_of::<Membership>())
            + self.groups.iter().map(|group| heap_bytes(group.name.len())).sum::<usize>();
        let trailers = |map| heap_bytes(size_of::<HeaderMap>()) + fields(map);
        fields(&self.headers) + self.trailers().map_or(0, trailers) + groups + body
    }
}

impl StoredContent {
    /// Copies the values of the trailers, so that they share no buffer with others.
    pub(crate) fn pack(&mut self) {
        if let Some(trailers) = &mut self.trailers {
            pack(trailers);
        }
    }
}

/// Copies a map that was made for its fields, if more than a quarter of its room is left.
///
/// Maps are made with room for 6, 12, 24 … fields. A copy has room for its fields alone.
pub(crate) fn fit(map: HeaderMap) -> HeaderMap {
    if map.capacity() > most_room(&map) { map.clone() } else { map }
}

/// Returns for how many fields a map has room at most after [`fit`].
fn most_room(map: &HeaderMap) -> usize {
    map.keys_len() + map.keys_len() / 4
}

/// Copies the values into one buffer of exactly their total length.
fn pack(map: &mut HeaderMap) {
    let mut bytes = BytesMut::with_capacity(map.values().map(HeaderValue::len).sum());
    map.values().for_each(|value| bytes.extend_from_slice(value.as_bytes()));
    let mut bytes = bytes.freeze();
    for value in map.values_mut() {
        let sensitive = value.is_sensitive();
        // Cannot fail, since the bytes are those of a value.
        if let Ok(copy) = HeaderValue::from_maybe_shared(bytes.split_to(value.len())) {
            *value = copy;
            value.set_sensitive(sensitive);
        }
    }
}

/// Estimates the bytes that a map has allocated.
///
/// With `within_payload` it was built by appending, so that its vectors may be longer, and its values are
/// counted elsewhere.
fn map_memory(map: &HeaderMap, within_payload: bool) -> usize {
    let field = size_of::<HeaderName>() + size_of::<HeaderValue>() + BUCKET_OVERHEAD;
    let fields = if within_payload { map.capacity() } else { map.capacity().min(most_room(map)) };
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

/// Returns whether `http` stores a name without an allocation. All other names are counted as allocated.
///
/// These are the standard names that are usual in responses. By their text, which the compiler compares by length first: a
/// list of names would be searched for each field of each record.
fn is_standard(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "accept-ranges"
            | "access-control-allow-credentials"
            | "access-control-allow-headers"
            | "access-control-allow-methods"
            | "access-control-allow-origin"
            | "access-control-expose-headers"
            | "age"
            | "allow"
            | "alt-svc"
            | "cache-control"
            | "content-disposition"
            | "content-encoding"
            | "content-language"
            | "content-length"
            | "content-location"
            | "content-security-policy"
            | "content-type"
            | "date"
            | "etag"
            | "expires"
            | "last-modified"
            | "link"
            | "location"
            | "referrer-policy"
            | "server"
            | "set-cookie"
            | "strict-transport-security"
            | "vary"
            | "x-content-type-options"
            | "x-frame-options"
    )
}

fn name_memory(name: &HeaderName) -> usize {
    if is_standard(name) { 0 } else { heap_bytes(name.as_str().len()) + SHARED_BYTES_OVERHEAD }
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
        let mut own = map.clone();
        pack(&mut own);
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
