//! The decoded records of an entry.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::expiries::{Expiries, ExpiryId, earlier};
use super::parts::{Extent, Parts};
use crate::control::PartialBody;
use crate::policy::{self, Freshness, IgnoredSelectors, MadeTag, NoVarySearch, RuleTtl};
use crate::storage::{Key, Kind};
use crate::time::Timestamp;

/// A decoded record, except a chunk or a lease.
#[derive(Debug)]
pub(crate) enum DecodedRecord {
    /// The head of an entry, with its first variant inline.
    Head(Head),
    /// A further variant, which belongs to the head of this generation.
    Variant { key_text: Box<str>, generation: [u8; 16], variant: Variant },
    /// A tombstone, or a placeholder for a response whose chunks are being written. Later writes are compared
    /// with its stamp.
    Fence { until: Timestamp, placeholder: bool },
    /// The further variants of a generation that have an entity tag, oldest first.
    Index(Vec<Tagged>),
    /// The value of a group.
    Group(GroupValue),
    /// The values of No-Vary-Search that a path had last, newest first.
    Searches(Vec<Search>),
}

impl DecodedRecord {
    /// Returns the stored response in this record, if it holds one.
    pub(crate) fn variant(&self) -> Option<&Variant> {
        match self {
            Self::Head(head) => Some(&head.inline),
            Self::Variant { variant, .. } => Some(variant),
            Self::Fence { .. } | Self::Index(_) | Self::Group(_) | Self::Searches(_) => None,
        }
    }

    /// Returns the text of the effective URI, and the generation, if this record holds a stored response.
    pub(crate) fn uri_and_generation(&self) -> Option<(&str, [u8; 16])> {
        match self {
            Self::Head(head) => Some((&head.key_text, head.generation)),
            Self::Variant { key_text, generation, .. } => Some((key_text, *generation)),
            Self::Fence { .. } | Self::Index(_) | Self::Group(_) | Self::Searches(_) => None,
        }
    }

    /// Returns the expiries of the entry, or none if this is not its head.
    pub(crate) fn expiries(&self) -> Option<&Expiries> {
        match self {
            Self::Head(head) => Some(&head.expiries),
            _ => None,
        }
    }

    /// Returns this record with another response, or `None` if it holds none.
    pub(crate) fn with(&self, variant: Variant) -> Option<Self> {
        match self {
            Self::Head(head) => Some(Self::Head(Head { inline: variant, ..head.clone() })),
            Self::Variant { key_text, generation, .. } => {
                Some(Self::Variant { key_text: key_text.clone(), generation: *generation, variant })
            }
            Self::Fence { .. } | Self::Index(_) | Self::Group(_) | Self::Searches(_) => None,
        }
    }
}

/// The value of a group of responses. Its members are the responses that were stored with this value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupValue {
    /// A random value, replaced by each invalidation.
    pub(crate) value: [u8; 16],
    /// The time of the last invalidation, or the epoch if there was none.
    ///
    /// It is read from the clock of the process that made the invalidation.
    pub(crate) since: Timestamp,
    /// The id of the cache that made the last invalidation.
    pub(crate) by: [u8; 16],
    /// The expiries of the group while it had this value. They leave members in the group, which are stale.
    pub(crate) expiries: Expiries,
}

/// A value of No-Vary-Search that responses of a path had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Search {
    pub(crate) value: NoVarySearch,
    /// A random id, which is part of the keys of the responses that are stored for all equivalent queries.
    ///
    /// A value that was listed before, and is listed again, has another id.
    pub(crate) id: [u8; 16],
    /// The response for which the value was listed, which is stored for its own query alone.
    pub(crate) first: Option<FirstOfSearch>,
}

/// The response with which a value of No-Vary-Search came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FirstOfSearch {
    pub(crate) key_text: Box<str>,
    /// The time of the lookup before its fetch.
    pub(crate) at: Timestamp,
}

/// The membership of a response in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) name: Box<str>,
    /// Whether the user named the group. Otherwise the origin did, and the group is the origin's own.
    pub(crate) is_tag: bool,
    /// The key of the value of the group.
    pub(crate) key: Key,
    /// The value that the group had when the response was stored.
    pub(crate) value: [u8; 16],
    /// The last expiry of the group when the response was fetched.
    pub(crate) expiry: ExpiryId,
    /// The time until which the value of the group was retained then.
    ///
    /// It is not stored: in a record that was read from the storage it is the epoch.
    pub(crate) retain_until: Timestamp,
}

/// A further variant in the index of entity tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tagged {
    pub(crate) selection: [u8; 16],
    pub(crate) tag: HeaderValue,
    /// The Content-Encoding of the variant, empty if it has none.
    pub(crate) coding: Box<[u8]>,
}

/// The head of an entry.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// The text of the effective URI. Every lookup compares it, because keys are hashes.
    pub(crate) key_text: Box<str>,
    /// The names of the fields that select a variant, sorted.
    pub(crate) names: Vec<HeaderName>,
    /// The fields that select no variant only because of the cache's settings.
    ///
    /// These are the settings of the cache that stored this head.
    pub(crate) ignored_selectors: Option<Box<IgnoredSelectors>>,
    /// A random id. Variants of another generation cannot be found.
    pub(crate) generation: [u8; 16],
    /// The time until which this key must not become empty.
    ///
    /// It is carried over from a tombstone that this head replaced.
    pub(crate) fence: Timestamp,
    /// The expiries of the entry in this generation, for all its variants.
    pub(crate) expiries: Expiries,
    /// The first variant.
    pub(crate) inline: Variant,
}

/// A stored response, and the requests that it answers.
#[derive(Clone, Debug)]
pub(crate) struct Variant {
    /// The time until which it may be used at most.
    pub(crate) until: Timestamp,
    /// The hash of the values of the selecting fields.
    pub(crate) selection: [u8; 16],
    /// Whether credentials are among those values.
    pub(crate) is_personal: bool,
    /// Whether values that the origin does not know of are among those values.
    ///
    /// Credentials are such values.
    ///
    /// Its entity tag is then never offered to the origin for a request with other values.
    pub(crate) has_hidden_selector: bool,
    /// The last expiry of the entry when the response was fetched.
    pub(crate) expiry: ExpiryId,
    pub(crate) response: StoredResponse,
}

/// A stored response.
#[derive(Clone, Debug)]
pub(crate) struct StoredResponse {
    pub(crate) status: StatusCode,
    /// The header fields. Age is zero in place of the received one, and is overwritten in place when the
    /// response is served.
    pub(crate) headers: HeaderMap,
    /// The corrected initial age (RFC 9111 §4.2.3), in milliseconds.
    pub(crate) initial_age_ms: u64,
    pub(crate) request_time: Timestamp,
    pub(crate) response_time: Timestamp,
    /// The lifetime that a rule of the user gives it.
    pub(crate) given: Option<RuleTtl>,
    /// When it was expired, if it was.
    ///
    /// In a record that a lookup has returned, this includes the expiries of its entry and its groups.
    pub(crate) expired_at: Option<Timestamp>,
    /// The groups that it belongs to.
    pub(crate) groups: Arc<[Membership]>,
    /// The body and the trailers.
    ///
    /// They arrive last, so that a writer prepares the record without them.
    pub(crate) content: OnceLock<StoredContent>,
    /// The freshness of the response, computed by its first lookup.
    ///
    /// It follows from the options of the cache with this number.
    pub(crate) freshness: OnceLock<(u64, Freshness)>,
}

/// The body and the trailers of a stored response.
#[derive(Clone, Debug)]
pub(crate) struct StoredContent {
    pub(crate) body: StoredBody,
    /// Boxed, since few bodies have trailers.
    pub(crate) trailers: Option<Box<HeaderMap>>,
    /// The entity tag that the cache made from the bytes of the body, if the origin sent none.
    pub(crate) made_tag: Option<MadeTag>,
}

/// The body of a stored response, in its record or in chunks, or parts of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoredBody {
    Inline(Bytes),
    Chunked {
        id: [u8; 16],
        chunk_len: u32,
        len: u64,
        /// The time until which all chunks are retained at least. A record that needs them no longer than
        /// this does not move their times.
        retain_until: Timestamp,
    },
    /// Not all of it may be stored. Shared, since a list of parts may be long.
    Parts(Arc<Parts>),
}

impl StoredBody {
    /// Returns the length of the complete body in bytes.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Chunked { len, .. } => *len,
            Self::Parts(parts) => parts.len,
        }
    }

    /// Returns the number of bytes that are stored.
    pub(crate) fn stored_len(&self) -> u64 {
        match self {
            Self::Parts(parts) => parts.stored_len(),
            whole => whole.len(),
        }
    }

    /// Returns the stored parts of the body, unless it was stored as a whole.
    pub(crate) fn parts(&self) -> Option<&Arc<Parts>> {
        match self {
            Self::Parts(parts) => Some(parts),
            _ => None,
        }
    }

    /// Returns how much of the body is stored, unless it was stored as a whole.
    pub(crate) fn partial(&self) -> Option<PartialBody> {
        let parts = self.parts()?;
        PartialBody::new(parts.stored_len(), parts.len, parts.count())
    }

    /// Returns the stored parts of the body. One that was stored as a whole, in chunks, is one part.
    pub(crate) fn as_parts(&self) -> Option<Cow<'_, Arc<Parts>>> {
        match *self {
            Self::Inline(_) => None,
            Self::Parts(ref parts) => Some(Cow::Borrowed(parts)),
            Self::Chunked { id, chunk_len, len, retain_until } => {
                let extent = Extent { id, chunk_len, len, start: 0 };
                Some(Cow::Owned(Arc::new(Parts::new(id, len, extent, retain_until))))
            }
        }
    }

    /// Returns whether both are the body of one fetch.
    ///
    /// Their chunks may be retained until different times.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Chunked { id, .. }, Self::Chunked { id: other, .. }) => id == other,
            (Self::Parts(parts), Self::Parts(other)) => (parts.id, parts.runs()) == (other.id, other.runs()),
            _ => self == other,
        }
    }

    /// Returns the body with another time until which its chunks are retained.
    pub(crate) fn with_retain_until(mut self, time: Timestamp) -> Self {
        match &mut self {
            Self::Inline(_) => {}
            Self::Chunked { retain_until, .. } => *retain_until = time,
            Self::Parts(parts) => Arc::make_mut(parts).retain_until = time,
        }
        self
    }

    /// Returns the time until which all chunks are retained at least, or `None` if it has none.
    pub(crate) fn chunks_until(&self) -> Option<Timestamp> {
        match self {
            Self::Inline(_) => None,
            Self::Chunked { retain_until, .. } => Some(*retain_until),
            Self::Parts(parts) => Some(parts.retain_until),
        }
    }

    /// Returns the keys of the chunks, of which a body in its record has none.
    pub(crate) fn chunks(&self, head: Key) -> ChunkKeys {
        let none = Vec::new().into_iter();
        match self {
            Self::Inline(_) => ChunkKeys { first: head, parts: 0..0, others: none },
            &Self::Chunked { id, chunk_len, len, .. } => {
                let parts = u32::try_from(len.div_ceil(u64::from(chunk_len.max(1)))).unwrap_or(u32::MAX);
                ChunkKeys { first: head.sibling(Kind::Chunk, id, 0), parts: 0..parts, others: none }
            }
            Self::Parts(parts) => {
                let extents = parts.extents().into_iter();
                let extents: Vec<_> = extents.map(|of| (of.id, of.chunks().unwrap_or(u32::MAX))).collect();
                ChunkKeys {
                    first: head.sibling(Kind::Chunk, parts.id, 0),
                    parts: 0..0,
                    others: extents.into_iter(),
                }
            }
        }
    }
}

/// The keys of a body's chunks, in order.
///
/// They are made one by one, or in batches of bounded size. A damaged or forged record of a hundred bytes may
/// claim billions of chunks, and the keys are needed to find out whether these exist.
#[derive(Clone, Debug)]
pub(crate) struct ChunkKeys {
    first: Key,
    parts: Range<u32>,
    /// The ids of the bodies after this one, and how many chunks each has.
    others: std::vec::IntoIter<([u8; 16], u32)>,
}

impl ChunkKeys {
    /// The keys of one batch.
    ///
    /// These are 40 KiB of keys, for 128 MiB of a body in chunks of the default length.
    pub(crate) const BATCH: usize = 1024;

    /// Returns the next keys, at most [`BATCH`](Self::BATCH) of them.
    ///
    /// Returns `None` after the last.
    pub(crate) fn next_batch(&mut self) -> Option<Vec<Key>> {
        let batch: Vec<Key> = self.take(Self::BATCH).collect();
        (!batch.is_empty()).then_some(batch)
    }

    /// Returns whether both are the chunks of one body.
    pub(crate) fn is_body_of(&self, other: &Self) -> bool {
        (self.first.entry, self.first.slot) == (other.first.entry, other.first.slot)
    }
}

impl Iterator for ChunkKeys {
    type Item = Key;

    fn next(&mut self) -> Option<Key> {
        loop {
            if let Some(part) = self.parts.next() {
                return Some(Key { part, ..self.first });
            }
            let (id, parts) = self.others.next()?;
            (self.first.slot, self.parts) = (id, 0..parts);
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let others: usize = self.others.as_slice().iter().map(|(_, parts)| *parts as usize).sum();
        let len = self.parts.len() + others;
        (len, Some(len))
    }
}

impl ExactSizeIterator for ChunkKeys {}

impl StoredContent {
    /// Creates the content of a response.
    pub(crate) fn new(body: StoredBody, trailers: Option<HeaderMap>) -> Self {
        Self { body, trailers: trailers.map(Box::new), made_tag: None }
    }

    /// Returns the content with an entity tag that the cache made.
    pub(crate) fn with_made_tag(self, made_tag: Option<MadeTag>) -> Self {
        Self { made_tag, ..self }
    }
}

impl StoredResponse {
    /// Returns the body, which is empty before it has arrived.
    pub(crate) fn body(&self) -> &StoredBody {
        static EMPTY: StoredBody = StoredBody::Inline(Bytes::new());
        self.content.get().map_or(&EMPTY, |content| &content.body)
    }

    /// Returns the trailers, which most responses do not have.
    pub(crate) fn trailers(&self) -> Option<&HeaderMap> {
        self.content.get()?.trailers.as_deref()
    }

    /// Returns the entity tag that the cache made for the response.
    ///
    /// It does not count beside one of the origin, which a 304 may have added.
    pub(crate) fn made_tag(&self) -> Option<MadeTag> {
        let made_tag = self.content.get()?.made_tag?;
        (!self.headers.contains_key(header::ETAG)).then_some(made_tag)
    }

    /// Returns the response with a body and trailers.
    pub(crate) fn with_content(self, content: StoredContent) -> Self {
        Self { content: OnceLock::from(content), ..self }
    }

    /// Returns whether both come from the same fetch.
    pub(crate) fn is_of_the_fetch_of(&self, other: &Self) -> bool {
        (self.request_time, self.response_time, self.status)
            == (other.request_time, other.response_time, other.status)
            && self.headers == other.headers
            && self.body().is_same(other.body())
    }

    /// Returns the response as one that was expired at a time, or before.
    pub(crate) fn expired(self, at: Option<Timestamp>) -> Self {
        Self { expired_at: earlier(self.expired_at, at), freshness: OnceLock::new(), ..self }
    }

    /// Returns the freshness of the response by the options of a cache.
    ///
    /// `cache` is the number of the cache.
    ///
    /// Caches with different options may share a record in memory. Only the first of them has its result
    /// remembered.
    pub(crate) fn freshness(&self, cache: u64, options: &policy::Options) -> Cow<'_, Freshness> {
        match self.freshness.get() {
            Some((of, freshness)) if *of == cache => Cow::Borrowed(freshness),
            _ => {
                let mut freshness = Freshness::new(
                    self.status,
                    &self.headers,
                    self.request_time,
                    self.response_time,
                    options,
                );
                freshness.initial_age = std::time::Duration::from_millis(self.initial_age_ms);
                let mut freshness = freshness.with_rule_ttl(self.given);
                freshness.expired_at = self.expired_at;
                // Fails if another task, or another cache, was first: its result stays.
                let _ = self.freshness.set((cache, freshness.clone()));
                Cow::Owned(freshness)
            }
        }
    }
}
