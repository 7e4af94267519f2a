//! Entity tags that the cache makes for responses whose origin sends none.
//!
//! # Invariants
//! - A made tag is kept apart from the stored fields, so that no request of the cache to the origin contains it.
//! - A request of a client that contains a made tag is sent without it, unless that would make it unconditional.
//! - Equal tags stand for equal bytes, in the same content coding and of the same variant.

use http::{HeaderMap, HeaderValue, header};
use sha2::{Digest, Sha256};

use super::conditions::opaque_tag;
use super::list::split_list;
use crate::hex;

/// How a made tag begins, by which it is recognized in the requests of clients.
const START: &str = "\"trc:";

/// A strong entity tag that a cache made from the bytes of a body (RFC 9110 §8.8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MadeTag(pub(crate) [u8; 16]);

impl MadeTag {
    /// Returns the tag as the value of an ETag field.
    pub(crate) fn to_value(self) -> HeaderValue {
        let mut text = Vec::with_capacity(START.len() + 33);
        text.extend_from_slice(START.as_bytes());
        text.extend_from_slice(&[b'0'; 32]);
        hex::fill(&mut text[START.len()..], &self.0);
        text.push(b'"');
        // Cannot fail, since the text consists of quotes, letters, digits and a colon.
        HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).unwrap_or(HeaderValue::from_static("\"\""))
    }

    /// Reads a strong tag of this form.
    ///
    /// Returns `None` if the tag is of another form, so that no cache of this crate made it.
    fn parse(tag: &[u8]) -> Option<Self> {
        let digits = tag.strip_prefix(START.as_bytes())?.strip_suffix(b"\"")?;
        hex::read(str::from_utf8(digits).ok()?).map(Self)
    }

    /// Returns whether a tag is this one, by strong comparison (RFC 9110 §8.8.3.2).
    pub(super) fn is(self, tag: &[u8]) -> bool {
        Self::parse(tag) == Some(self)
    }
}

/// Computes a made tag while the bytes of a body arrive.
pub(crate) struct TagHasher(Sha256);

impl TagHasher {
    /// Begins the tag of a response with these stored fields, of the variant with this selection.
    pub(crate) fn new(stored: &HeaderMap, selection: [u8; 16]) -> Self {
        let mut hash = Sha256::new();
        hash.update(selection);
        for coding in stored.get_all(header::CONTENT_ENCODING) {
            hash.update((coding.len() as u64).to_be_bytes());
            hash.update(coding.as_bytes());
        }
        // No coding is as long as this, so that it ends the list.
        hash.update(u64::MAX.to_be_bytes());
        Self(hash)
    }

    /// Adds the next bytes of the body.
    pub(crate) fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// Returns the tag of the complete body.
    pub(crate) fn finish(self) -> MadeTag {
        let digest = self.0.finalize();
        MadeTag(std::array::from_fn(|at| digest[at]))
    }
}

/// Removes made tags from the conditions of a request, before it is sent to the origin (RFC 9110 §13.1).
///
/// The origin does not know them: If-None-Match holds for each, and If-Range for none. If-Match that has no other tag is left
/// as it is. Without it, a request that was to change one version would change any; with it, the origin refuses the request.
pub(crate) fn remove_made_tags(request: &mut HeaderMap) {
    let is_made = |tag: &[u8]| MadeTag::parse(opaque_tag(tag)).is_some();
    if request.get_all(header::IF_RANGE).iter().any(|tag| is_made(tag.as_bytes().trim_ascii())) {
        request.remove(header::IF_RANGE);
        request.remove(header::RANGE);
    }
    for name in [header::IF_NONE_MATCH, header::IF_MATCH] {
        let lines = request.get_all(&name).iter();
        let (made, rest): (Vec<&[u8]>, Vec<&[u8]>) =
            lines.flat_map(|line| split_list(line.as_bytes())).partition(|tag| is_made(tag));
        if made.is_empty() {
            continue;
        }
        if !rest.is_empty() {
            if let Ok(list) = HeaderValue::from_bytes(&rest.join(&b", "[..])) {
                request.insert(name, list);
            }
        } else if name == header::IF_NONE_MATCH {
            request.remove(name);
        }
    }
}
