//! A row of a listing, which describes a stored response.
//!
//! It leaves out the header values: they take most of the memory, and may be secret.

use std::time::Duration;

use http::HeaderName;
use serde::{Serialize, Serializer};
use tower_response_cache::storage::Key;
use tower_response_cache::{StoredEntry, Timestamp};

use crate::text;

#[derive(Debug, Serialize)]
pub struct Row {
    pub url: Box<str>,
    #[serde(serialize_with = "as_text")]
    key: Key,
    pub status: u16,
    /// The Content-Type, with its parameters.
    pub content_type: Option<Box<str>>,
    pub body_bytes: u64,
    /// About what its records take in the storage.
    pub stored_bytes: u64,
    in_chunks: bool,
    /// Null in JSON if the body was stored as a whole.
    parts: Option<Parts>,
    /// Joined by spaces: one allocation, since `list --sort` keeps many rows.
    #[serde(serialize_with = "split")]
    vary: Box<str>,
    /// Whether credentials of the request are part of what selects it.
    personal: bool,
    #[serde(serialize_with = "rfc3339")]
    requested_at: Timestamp,
    #[serde(serialize_with = "rfc3339")]
    pub stored_at: Timestamp,
    /// Null in JSON if the response is fresh for ever.
    #[serde(serialize_with = "rfc3339")]
    pub expires_at: Timestamp,
    #[serde(serialize_with = "rfc3339")]
    retain_until: Timestamp,
    #[serde(rename = "age_seconds", serialize_with = "seconds")]
    pub age: Duration,
    pub fresh: bool,
    tags: Box<[Box<str>]>,
}

/// How much of a body is stored, if it was stored in parts.
#[derive(Debug, Serialize)]
struct Parts {
    bytes: u64,
    count: u32,
}

impl Row {
    pub fn of(entry: &StoredEntry) -> Self {
        Self {
            url: entry.url().into(),
            key: entry.key(),
            status: entry.status().as_u16(),
            content_type: entry.content_type().map(Into::into),
            body_bytes: entry.body_len(),
            stored_bytes: entry.stored_len(),
            in_chunks: entry.is_chunked(),
            parts: entry.partial().map(|of| Parts { bytes: of.stored(), count: of.parts() }),
            vary: entry.vary().iter().map(HeaderName::as_str).collect::<Vec<_>>().join(" ").into(),
            personal: entry.is_personal(),
            requested_at: entry.requested_at(),
            stored_at: entry.stored_at(),
            expires_at: entry.expires_at(),
            retain_until: entry.retain_until(),
            age: entry.age(),
            fresh: entry.is_fresh(),
            tags: entry.tags().map(Into::into).collect(),
        }
    }
}

fn as_text<S: Serializer>(key: &Key, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(key)
}

fn split<S: Serializer>(text: &str, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(text.split_ascii_whitespace())
}

fn rfc3339<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    text::rfc3339(*time).serialize(to)
}

fn seconds<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(time.as_secs())
}

/// Returns the media type of a Content-Type without its parameters, such as `text/html`.
pub fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}
