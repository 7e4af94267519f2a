//! The description of a stored response: [`StoredEntry`].
//!
//! # Invariants
//! - All its values are of one moment, when the record was read.
//! - Its `Debug` text contains no field values, which may be secret.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::control::PartialBody;
use crate::entry::{StoredBody, Variant};
use crate::key::split_id;
use crate::policy::{Freshness, MadeTag};
use crate::storage::{Key, Record};
use crate::time::Timestamp;

/// A stored response, as it was when the handle read it.
///
/// It holds the head of the response, and its body only if that is small enough to be stored within the head record.
/// [`read_entry`](crate::CacheHandle::read_entry) returns the body. The number of hits is not known, since a hit writes
/// nothing.
#[derive(Clone)]
pub struct StoredEntry {
    pub(super) key: Key,
    /// The text of the key.
    pub(super) key_text: Box<str>,
    pub(super) names: Box<[HeaderName]>,
    pub(super) variant: Variant,
    pub(super) record: Record,
    freshness: Freshness,
    now: Timestamp,
}

impl StoredEntry {
    pub(super) fn new(
        (key, record): (Key, Record),
        key_text: &str,
        names: &[HeaderName],
        variant: &Variant,
        (freshness, now): (Freshness, Timestamp),
    ) -> Self {
        let (key_text, names, variant) = (key_text.into(), names.into(), variant.clone());
        Self { key, key_text, names, variant, record, freshness, now }
    }

    /// Returns the URL, normalised and without ignored query parameters.
    ///
    /// For an entry that the user named ([`key_fn`](crate::CacheLayerBuilder::key_fn),
    /// [`CacheOptions::key`](crate::CacheOptions::key)) it is `cache-key:///` and the name.
    ///
    /// For a response that answers several queries ([`no_vary_search`](crate::CacheLayerBuilder::no_vary_search)) it has their
    /// common query.
    pub fn url(&self) -> &str {
        split_id(&self.key_text).0
    }

    /// Returns whether it is stored for all queries that its No-Vary-Search treats as equivalent.
    pub(super) fn is_for_queries(&self) -> bool {
        split_id(&self.key_text).1.is_some()
    }

    /// Returns the key of its record in the storage.
    pub fn key(&self) -> Key {
        self.key
    }

    /// Returns the status of the response.
    pub fn status(&self) -> StatusCode {
        self.variant.response.status
    }

    /// Returns the fields of the response as they are stored.
    ///
    /// Age is zero; it is replaced when the response is served.
    pub fn headers(&self) -> &HeaderMap {
        &self.variant.response.headers
    }

    /// Returns the media type with its parameters, or `None` if there is none that is text.
    pub fn content_type(&self) -> Option<&str> {
        self.headers().get(header::CONTENT_TYPE)?.to_str().ok()
    }

    /// Returns the length of the body in bytes.
    ///
    /// If the body has a content coding, it is the encoded length.
    pub fn body_len(&self) -> u64 {
        self.variant.response.body().len()
    }

    /// Returns how much of the body is stored, if it was stored in parts.
    ///
    /// Returns `None` for a body that was stored as a whole.
    pub fn partial(&self) -> Option<PartialBody> {
        self.variant.response.body().partial()
    }

    /// Returns about how many bytes the response takes in the storage, with the chunks of its body.
    pub fn stored_len(&self) -> u64 {
        let chunks = if self.is_chunked() { self.variant.response.body().stored_len() } else { 0 };
        self.record.weight() as u64 + chunks
    }

    /// Returns whether the body is stored in chunks, apart from its head.
    pub fn is_chunked(&self) -> bool {
        !matches!(self.variant.response.body(), StoredBody::Inline(_))
    }

    /// Returns the request fields that tell this URL's responses apart.
    ///
    /// They are the fields of Vary and of the cache's settings. In a private cache `authorization` and, unless
    /// [`ignore_cookie`](crate::CacheLayerBuilder::ignore_cookie) is set, `cookie` are among them.
    pub fn vary(&self) -> &[HeaderName] {
        &self.names
    }

    /// Returns the entity tag that the cache made for it, as the value of an ETag field.
    ///
    /// It is not among the [`headers`](Self::headers), which are those of the origin. Only a cache with
    /// [`make_etags`](crate::CacheLayerBuilder::make_etags) sends it. Returns `None` if the origin sent an ETag, or if the
    /// response was stored without this setting.
    pub fn made_etag(&self) -> Option<HeaderValue> {
        self.variant.response.made_tag().map(MadeTag::to_value)
    }

    /// Returns whether it is only for requests with the same credentials.
    pub fn is_personal(&self) -> bool {
        self.variant.is_personal
    }

    /// Returns the time at which the request that fetched or last revalidated it was sent.
    pub fn requested_at(&self) -> Timestamp {
        self.variant.response.request_time
    }

    /// Returns the time at which it was received, or last confirmed by the origin.
    pub fn stored_at(&self) -> Timestamp {
        self.variant.response.response_time
    }

    /// Returns the time until which it is fresh, or when it was [expired](crate::CacheHandle::expire).
    ///
    /// [`Timestamp::NEVER`] means that it does not become stale.
    ///
    /// A response with `no-cache` has such a time too, though it is validated before each use.
    pub fn expires_at(&self) -> Timestamp {
        let left = self.freshness.lifetime_at(self.now).saturating_sub(self.freshness.initial_age);
        self.freshness.response_time + left
    }

    /// Returns the time until which it is retained, to be revalidated or served stale.
    ///
    /// [`Timestamp::NEVER`] means that it does not expire.
    ///
    /// With [`default_tti`](crate::CacheLayerBuilder::default_tti) it is the time at which it becomes idle, unless it is used
    /// before. A bounded storage may evict it earlier.
    pub fn retain_until(&self) -> Timestamp {
        self.variant.until.min(self.record.retain_until())
    }

    /// Returns its age (RFC 9111 §4.2.3) when it was read.
    pub fn age(&self) -> Duration {
        self.freshness.age(self.now)
    }

    /// Returns the remaining freshness lifetime in seconds, which is negative once it is stale.
    pub fn ttl(&self) -> i64 {
        self.freshness.ttl(self.now)
    }

    /// Returns whether it could be served without the origin when it was read.
    ///
    /// A response with `no-cache` could not.
    pub fn is_fresh(&self) -> bool {
        !self.freshness.no_cache && self.freshness.age(self.now) < self.freshness.lifetime_at(self.now)
    }

    /// Returns whether it would be fresh, had it not been [expired](crate::CacheHandle::expire) by hand.
    pub fn is_expired(&self) -> bool {
        self.freshness.is_expired(self.now)
    }

    /// Returns the [tags](crate::CacheOptions::tags) that it was stored with.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.variant.response.groups.iter().filter(|group| group.is_tag).map(|group| &*group.name)
    }

    /// Returns the groups that the origin put it in (Cache-Groups, RFC 9875).
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.variant.response.groups.iter().filter(|group| !group.is_tag).map(|group| &*group.name)
    }

    /// Returns the time for which it had been stored when it was read.
    pub(super) fn stored_for(&self) -> Duration {
        self.now.since(self.stored_at())
    }
}

impl fmt::Debug for StoredEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredEntry")
            .field("url", &self.url())
            .field("status", &self.status())
            .field("body_len", &self.body_len())
            .field("stored_at", &self.stored_at())
            .field("expires_at", &self.expires_at())
            .finish_non_exhaustive()
    }
}
