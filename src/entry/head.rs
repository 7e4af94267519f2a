//! The decoded forms of the records of an entry.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::policy::{self, Freshness, LeftOut, RuleTtl};
use crate::storage::{Key, Kind};
use crate::time::Timestamp;

/// What may stand in the place of a head or a variant.
#[derive(Debug)]
pub(crate) enum Slot {
    /// The head of an entry, with its first variant inline.
    Head(Head),
    /// A further variant, of the head of this generation.
    Variant { key_text: Box<str>, generation: [u8; 16], variant: Variant },
    /// An invalidation, or (`placeholder`) a body that somebody writes. Cannot be served; it is there to be compared.
    Fence { until: Timestamp, placeholder: bool },
    /// The further variants of a generation that have an entity tag, oldest first.
    Index(Vec<Tagged>),
    /// The value of a group.
    Group(GroupValue),
}

impl Slot {
    /// The stored response in it.
    pub(crate) fn variant(&self) -> Option<&Variant> {
        match self {
            Self::Head(head) => Some(&head.inline),
            Self::Variant { variant, .. } => Some(variant),
            Self::Fence { .. } | Self::Index(_) | Self::Group(_) => None,
        }
    }

    /// The same with another response in the place of the one in it.
    pub(crate) fn with(&self, variant: Variant) -> Option<Self> {
        match self {
            Self::Head(head) => Some(Self::Head(Head { inline: variant, ..head.clone() })),
            Self::Variant { key_text, generation, .. } => {
                Some(Self::Variant { key_text: key_text.clone(), generation: *generation, variant })
            }
            Self::Fence { .. } | Self::Index(_) | Self::Group(_) => None,
        }
    }
}

/// What a group of responses is at present. Its members are those that were stored with this very value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupValue {
    /// Random, and another one after each invalidation.
    pub(crate) value: [u8; 16],
    /// When it was invalidated, by the clock of who did; the epoch: it was not.
    pub(crate) since: Timestamp,
    /// Who did.
    pub(crate) by: [u8; 16],
}

/// That a response belongs to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) name: Box<str>,
    /// The user named it; else the origin did, for itself.
    pub(crate) is_tag: bool,
    /// Where the group's value is.
    pub(crate) key: Key,
    /// The value that it had when the response was stored.
    pub(crate) value: [u8; 16],
    /// Until when the value was kept then. Not stored: in a record that was read it is the epoch.
    pub(crate) kept: Timestamp,
}

/// A further variant, as the index names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tagged {
    pub(crate) selection: [u8; 16],
    pub(crate) tag: HeaderValue,
    /// Its Content-Encoding; empty for none.
    pub(crate) coding: Box<[u8]>,
}

/// The head of an entry.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// The effective URI, compared on every lookup: a hash alone is never believed.
    pub(crate) key_text: Box<str>,
    /// The fields that tell variants apart, sorted.
    pub(crate) names: Vec<HeaderName>,
    /// Those that would, but for the settings of the cache that stored it.
    pub(crate) left_out: Option<Box<LeftOut>>,
    /// Random; variants of another generation cannot be reached.
    pub(crate) generation: [u8; 16],
    /// Until when the place must not be empty: carried over from a tombstone that stood here.
    pub(crate) fence: Timestamp,
    /// The first variant.
    pub(crate) inline: Variant,
}

/// One stored response and which requests it answers.
#[derive(Clone, Debug)]
pub(crate) struct Variant {
    /// Until when it may be used, at most.
    pub(crate) until: Timestamp,
    /// The hash of the selecting values.
    pub(crate) selection: [u8; 16],
    /// Credentials were among those values.
    pub(crate) personal: bool,
    /// Credentials, or something else that its origin does not know of, were among those values: it is never offered to
    /// a request with others.
    pub(crate) apart: bool,
    pub(crate) response: StoredResponse,
}

/// A response as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct StoredResponse {
    pub(crate) status: StatusCode,
    /// With an Age of zero in place of the one that came: it is overwritten when served.
    pub(crate) headers: HeaderMap,
    /// Corrected initial age (RFC 9111 §4.2.3), in milliseconds.
    pub(crate) initial_age_ms: u64,
    pub(crate) request_time: Timestamp,
    pub(crate) response_time: Timestamp,
    /// The lifetime that a rule gave it.
    pub(crate) given: Option<RuleTtl>,
    /// The groups that it belongs to.
    pub(crate) groups: Arc<[Membership]>,
    pub(crate) body: StoredBody,
    pub(crate) trailers: Option<HeaderMap>,
    /// Computed when first asked for, with the policy options of the cache of this number.
    pub(crate) freshness: OnceLock<(u64, Freshness)>,
}

/// A body: in the record itself, or in chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoredBody {
    Inline(Bytes),
    Chunked {
        id: [u8; 16],
        chunk_len: u32,
        len: u64,
        /// Until when all chunks are kept, at least: a record that needs them for no longer leaves their times alone.
        kept: Timestamp,
    },
}

impl StoredBody {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Chunked { len, .. } => *len,
        }
    }

    /// Whether both are what one fetch brought, however long its chunks are kept.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Chunked { id, .. }, Self::Chunked { id: other, .. }) => id == other,
            _ => self == other,
        }
    }

    /// Returns the body with its chunks kept until another time.
    pub(crate) fn kept_until(mut self, time: Timestamp) -> Self {
        if let Self::Chunked { kept, .. } = &mut self {
            *kept = time;
        }
        self
    }

    /// Returns the keys of the chunks.
    pub(crate) fn chunks(&self, head: Key) -> ChunkKeys {
        match *self {
            Self::Inline(_) => ChunkKeys { first: head, parts: 0..0 },
            Self::Chunked { id, chunk_len, len, .. } => {
                let parts = u32::try_from(len.div_ceil(u64::from(chunk_len.max(1)))).unwrap_or(u32::MAX);
                ChunkKeys { first: head.sibling(Kind::Chunk, id, 0), parts: 0..parts }
            }
        }
    }
}

/// The keys of a body's chunks, in order.
///
/// They are made one by one, or in batches of bounded size: a record of a hundred bytes may claim billions of chunks, and a
/// cache asks the storage about them before it believes that.
#[derive(Clone, Debug)]
pub(crate) struct ChunkKeys {
    first: Key,
    parts: Range<u32>,
}

impl ChunkKeys {
    /// How many keys a storage is asked about at once: 38 KiB of keys, and 128 MiB of a body in usual chunks.
    pub(crate) const BATCH: usize = 1024;

    /// Returns the next keys, at most [`BATCH`](Self::BATCH) of them; `None` after the last.
    pub(crate) fn next_batch(&mut self) -> Option<Vec<Key>> {
        let batch: Vec<Key> = self.take(Self::BATCH).collect();
        (!batch.is_empty()).then_some(batch)
    }

    /// Whether both are the chunks of one body.
    pub(crate) fn is_body_of(&self, other: &Self) -> bool {
        (self.first.entry, self.first.slot) == (other.first.entry, other.first.slot)
    }
}

impl Iterator for ChunkKeys {
    type Item = Key;

    fn next(&mut self) -> Option<Key> {
        let part = self.parts.next()?;
        Some(Key { part, ..self.first })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.parts.size_hint()
    }
}

impl ExactSizeIterator for ChunkKeys {}

impl StoredResponse {
    /// Whether both are what one and the same fetch brought.
    pub(crate) fn is_of_the_fetch_of(&self, other: &Self) -> bool {
        (self.request_time, self.response_time, self.status)
            == (other.request_time, other.response_time, other.status)
            && self.headers == other.headers
            && self.body.is_same(&other.body)
    }

    /// The response's freshness by these options; `cache` numbers the cache whose options they are.
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
                let freshness = freshness.with_rule_ttl(self.given);
                let _ = self.freshness.set((cache, freshness.clone())); // another cache's stays, if it was first
                Cow::Owned(freshness)
            }
        }
    }
}
