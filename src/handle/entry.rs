//! What is told of a stored response.
//!
//! Promises: it is of one moment, the one when it was read; its text form names no header's value.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode, header};

use crate::entry::{StoredBody, Variant};
use crate::policy::Freshness;
use crate::storage::{Key, Record};
use crate::time::Timestamp;

/// A stored response, as it was when the handle read it. It holds the response's head, and its body only where that is
/// small enough to be stored with the head; [`read_entry`](crate::CacheHandle::read_entry) gives the body. How often it was
/// served is not kept: a hit writes nothing.
#[derive(Clone)]
pub struct StoredEntry {
    pub(super) key: Key,
    pub(super) url: Box<str>,
    pub(super) names: Box<[HeaderName]>,
    pub(super) variant: Variant,
    pub(super) record: Record,
    freshness: Freshness,
    now: Timestamp,
}

impl StoredEntry {
    pub(super) fn new(
        (key, record): (Key, Record),
        url: &str,
        names: &[HeaderName],
        variant: &Variant,
        (freshness, now): (Freshness, Timestamp),
    ) -> Self {
        let (url, names, variant) = (url.into(), names.into(), variant.clone());
        Self { key, url, names, variant, record, freshness, now }
    }

    /// The URL as the cache knows it: normalised, without the query parameters that it ignores. Where the user names what a
    /// request is about ([`key_fn`](crate::CacheLayerBuilder::key_fn), [`CacheOptions::key`](crate::CacheOptions::key)), it is
    /// `cache-key:///` and that name.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it is in the storage.
    pub fn key(&self) -> Key {
        self.key
    }

    /// The response's status.
    pub fn status(&self) -> StatusCode {
        self.variant.response.status
    }

    /// The response's fields, as they are stored: with an Age of zero, which is overwritten when it is served.
    pub fn headers(&self) -> &HeaderMap {
        &self.variant.response.headers
    }

    /// The media type of its body, with parameters; `None`: there is none, or it is no text.
    pub fn content_type(&self) -> Option<&str> {
        self.headers().get(header::CONTENT_TYPE)?.to_str().ok()
    }

    /// The length of the body in bytes, as it is served (with its content coding, if it has one).
    pub fn body_len(&self) -> u64 {
        self.variant.response.body.len()
    }

    /// About how many bytes the response takes in the storage: its record and the chunks of its body.
    pub fn stored_len(&self) -> u64 {
        let chunks = if self.is_chunked() { self.body_len() } else { 0 };
        self.record.weight() as u64 + chunks
    }

    /// Whether the body is stored in chunks, apart from the head.
    pub fn is_chunked(&self) -> bool {
        matches!(self.variant.response.body, StoredBody::Chunked { .. })
    }

    /// Returns the request fields that tell this URL's responses apart.
    ///
    /// They are the fields of Vary and of the cache's settings. In a private cache `authorization` and, unless
    /// [`ignore_cookie`](crate::CacheLayerBuilder::ignore_cookie) is set, `cookie` are among them.
    pub fn vary(&self) -> &[HeaderName] {
        &self.names
    }

    /// Whether credentials of the request are among what it was selected by.
    pub fn is_personal(&self) -> bool {
        self.variant.personal
    }

    /// When the request for it went out; after a 304: the one that was answered by that.
    pub fn requested_at(&self) -> Timestamp {
        self.variant.response.request_time
    }

    /// When it was received, or last confirmed by the origin.
    pub fn stored_at(&self) -> Timestamp {
        self.variant.response.response_time
    }

    /// Until when it is fresh; [`Timestamp::NEVER`]: for ever. For a response with `no-cache` too, which is validated before
    /// each use.
    pub fn expires_at(&self) -> Timestamp {
        let left = self.freshness.lifetime.saturating_sub(self.freshness.initial_age);
        self.freshness.response_time + left
    }

    /// Until when it is kept at most, be it to be revalidated or served though stale; [`Timestamp::NEVER`]: for ever. A
    /// bounded storage may evict it before.
    pub fn kept_until(&self) -> Timestamp {
        self.variant.until
    }

    /// Its age (RFC 9111 §4.2.3) when it was read.
    pub fn age(&self) -> Duration {
        self.freshness.age(self.now)
    }

    /// Seconds for which it is still fresh; negative once it is stale.
    pub fn ttl(&self) -> i64 {
        self.freshness.ttl(self.now)
    }

    /// Whether it could be served without asking the origin, when it was read. One with `no-cache` could not.
    pub fn is_fresh(&self) -> bool {
        !self.freshness.no_cache && self.freshness.age(self.now) < self.freshness.lifetime
    }

    /// The user's [tags](crate::CacheOptions::tags) that it was stored with.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.variant.response.groups.iter().filter(|group| group.is_tag).map(|group| &*group.name)
    }

    /// The origin's groups that it belongs to (Cache-Groups, RFC 9875).
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.variant.response.groups.iter().filter(|group| !group.is_tag).map(|group| &*group.name)
    }

    /// For how long before it was read it had been stored.
    pub(super) fn stored_for(&self) -> Duration {
        self.now.since(self.stored_at())
    }
}

impl fmt::Debug for StoredEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredEntry")
            .field("url", &self.url)
            .field("status", &self.status())
            .field("body_len", &self.body_len())
            .field("stored_at", &self.stored_at())
            .field("expires_at", &self.expires_at())
            .finish_non_exhaustive()
    }
}
