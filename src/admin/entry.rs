//! Stored responses as JSON.
//!
//! # Invariants
//! - No value of a field that usually holds credentials or cookies is written.

use http::{HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::{Map, Value};

use super::Shared;
use super::problem::Problem;
use crate::handle::{Judged, Judgement, StoredEntry};
use crate::hex;
use crate::policy::{Freshness, ValidateReason};
use crate::storage::{Key, Storage};
use crate::time::Timestamp;

/// Fields whose values are credentials or cookies.
const SECRET: [&str; 5] = ["set-cookie", "set-cookie2", "cookie", "authorization", "proxy-authorization"];
/// Words in the names of other fields that usually hold credentials.
const SECRET_WORDS: [&str; 7] = ["auth", "token", "secret", "password", "api-key", "apikey", "session"];

/// How much of a body is stored, if it was stored in parts.
#[derive(Debug, Serialize)]
struct PartsOfBody {
    bytes: u64,
    count: u32,
}

/// A stored response without its fields, which take most of the memory.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    key: String,
    entry: String,
    pub(super) url: Box<str>,
    pub(super) status: u16,
    content_type: Option<Box<str>>,
    pub(super) body_bytes: u64,
    stored_bytes: u64,
    is_chunked: bool,
    parts: Option<PartsOfBody>,
    vary: Vec<Box<str>>,
    is_personal: bool,
    requested_at: Option<u64>,
    stored_at: Option<u64>,
    expires_at: Option<u64>,
    retain_until: Option<u64>,
    age: u64,
    ttl: i64,
    is_fresh: bool,
    is_expired: bool,
    tags: Vec<Box<str>>,
    groups: Vec<Box<str>>,
}

impl Row {
    pub(super) fn of(entry: &StoredEntry) -> Self {
        Self {
            key: entry.key().to_string(),
            entry: hex::text(&entry.key().entry),
            url: entry.url().into(),
            status: entry.status().as_u16(),
            content_type: entry.content_type().map(Into::into),
            body_bytes: entry.body_len(),
            stored_bytes: entry.stored_len(),
            is_chunked: entry.is_chunked(),
            parts: entry.partial().map(|of| PartsOfBody { bytes: of.stored(), count: of.parts() }),
            vary: entry.vary().iter().map(|name| name.as_str().into()).collect(),
            is_personal: entry.is_personal(),
            requested_at: millis(entry.requested_at()),
            stored_at: millis(entry.stored_at()),
            expires_at: millis(entry.expires_at()),
            retain_until: millis(entry.retain_until()),
            age: entry.age().as_secs(),
            ttl: entry.ttl(),
            is_fresh: entry.is_fresh(),
            is_expired: entry.is_expired(),
            tags: entry.tags().map(Into::into).collect(),
            groups: entry.groups().map(Into::into).collect(),
        }
    }
}

/// Returns a time in milliseconds, or `None` for one that never comes.
pub(super) fn millis(time: Timestamp) -> Option<u64> {
    (!time.is_never()).then(|| time.as_millis())
}

/// All that is known of a response, and what the cache does with it.
#[derive(Debug, Serialize)]
pub(super) struct Description {
    /// Whether a GET without directives gets it without asking the origin.
    is_served: bool,
    state: &'static str,
    explanation: String,
    key: String,
    response: Option<Row>,
    freshness: Option<Facts>,
    fields: Vec<Field>,
}

/// The values that decide whether a response may be used (RFC 9111 §4.2).
#[derive(Debug, Serialize)]
struct Facts {
    lifetime: u64,
    age_when_received: u64,
    no_cache: bool,
    must_revalidate: bool,
    is_immutable: bool,
    stale_while_revalidate: u64,
    stale_if_error: Option<u64>,
    has_validator: bool,
    expired_by_hand_at: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Field {
    name: Box<str>,
    /// `None` if it is withheld.
    value: Option<Box<str>>,
}

impl Facts {
    fn of(freshness: &Freshness) -> Self {
        Self {
            lifetime: freshness.lifetime.as_secs(),
            age_when_received: freshness.initial_age.as_secs(),
            no_cache: freshness.no_cache,
            must_revalidate: freshness.must_revalidate,
            is_immutable: freshness.immutable,
            stale_while_revalidate: freshness.stale_while_revalidate.as_secs(),
            stale_if_error: freshness.stale_if_error.map(|window| window.as_secs()),
            has_validator: freshness.has_validator,
            expired_by_hand_at: freshness.expired_at.and_then(millis),
        }
    }
}

impl Field {
    fn of((name, value): (&HeaderName, &HeaderValue)) -> Self {
        let value = (!is_secret(name, value)).then(|| String::from_utf8_lossy(value.as_bytes()).into());
        Self { name: name.as_str().into(), value }
    }
}

fn is_secret(name: &HeaderName, value: &HeaderValue) -> bool {
    let name = name.as_str();
    let is_named = SECRET.contains(&name) || SECRET_WORDS.iter().any(|word| name.contains(word));
    // Challenges of a server contain "auth" in their name, but are no secret.
    value.is_sensitive() || (is_named && !matches!(name, "www-authenticate" | "proxy-authenticate"))
}

impl Description {
    fn of(judged: &Judged) -> Self {
        let Judged { key, judgement, response } = judged;
        let has_validator = response.as_ref().is_some_and(|(_, freshness)| freshness.has_validator);
        Self {
            is_served: matches!(judgement, Judgement::Fresh | Judgement::StaleWhileRevalidate),
            state: state(judgement),
            explanation: explanation(judgement, has_validator),
            key: key.to_string(),
            response: response.as_ref().map(|(entry, _)| Row::of(entry)),
            freshness: response.as_ref().map(|(_, freshness)| Facts::of(freshness)),
            fields: response.iter().flat_map(|(entry, _)| entry.headers()).map(Field::of).collect(),
        }
    }
}

fn state(judgement: &Judgement) -> &'static str {
    match judgement {
        Judgement::Fresh => "fresh",
        Judgement::StaleWhileRevalidate => "stale-while-revalidate",
        Judgement::StaleIfError(_) => "stale-if-error",
        Judgement::MustValidate(_) => "must-validate",
        Judgement::Absent => "absent",
        Judgement::Expired => "expired",
        Judgement::Invalidated => "invalidated",
        Judgement::GroupInvalidated { is_tag: true, .. } => "tag-invalidated",
        Judgement::GroupInvalidated { is_tag: false, .. } => "group-invalidated",
        Judgement::BeingWritten => "being-written",
        Judgement::Unreachable => "unreachable",
        Judgement::OtherSettings => "other-settings",
        Judgement::Damaged => "damaged",
    }
}

fn explanation(judgement: &Judgement, has_validator: bool) -> String {
    let why = |reason: &ValidateReason| match reason {
        ValidateReason::Expired => "It was made stale by hand",
        ValidateReason::NoCache => "It has no-cache",
        _ => "It is stale",
    };
    let how = if has_validator {
        "the origin is asked whether it is still valid"
    } else {
        "it has no validator, so that it is fetched again"
    };
    match judgement {
        Judgement::Fresh => "It is fresh, and served without asking the origin.".to_owned(),
        Judgement::StaleWhileRevalidate => {
            "It is stale. stale-while-revalidate permits that it is served while it is refreshed in the background."
                .to_owned()
        }
        Judgement::StaleIfError(reason) => {
            format!("{}: {how} first. If the origin fails, it is served stale.", why(reason))
        }
        Judgement::MustValidate(reason) => {
            format!("{}: {how} before each use, and it is not served if the origin fails.", why(reason))
        }
        Judgement::Absent => "Nothing is stored for this URL or key.".to_owned(),
        Judgement::Expired => {
            "The time for which it is kept is over. It is no longer served, and will be removed.".to_owned()
        }
        Judgement::Invalidated => {
            "It was deleted, or an unsafe request has invalidated it. It is not served.".to_owned()
        }
        Judgement::GroupInvalidated { is_tag, name } => {
            let kind = if *is_tag { "tag" } else { "group" };
            format!("Its {kind} {name} was invalidated, or the record of the {kind} is gone. It is not served.")
        }
        Judgement::BeingWritten => "A response is being written in its place.".to_owned(),
        Judgement::Unreachable => {
            "The first response of its URL was replaced, so that no request leads to it. It is not served."
                .to_owned()
        }
        Judgement::OtherSettings => {
            "It was stored under other settings of keys, cookies or tags than this cache has. It is not served."
                .to_owned()
        }
        Judgement::Damaged => "The record cannot be read. It counts as absent.".to_owned(),
    }
}

/// Describes the response at a key.
pub(super) async fn at<S: Storage>(shared: &Shared<S>, key: &str) -> Result<Description, Problem> {
    let key: Key = key.parse().map_err(|_| {
        Problem::bad("the key has to be 74 hexadecimal digits, as the list of entries shows them")
    })?;
    Ok(Description::of(&shared.handle.judge_key(key).await?))
}

/// Describes the first response of a URL.
pub(super) async fn of<S: Storage>(
    shared: &Shared<S>,
    mut query: Map<String, Value>,
) -> Result<Description, Problem> {
    let url = query.remove("url");
    match (url.as_ref().and_then(Value::as_str), query.is_empty()) {
        (Some(url), true) => Ok(Description::of(&shared.handle.judge_url(url).await?)),
        _ => Err(Problem::bad("the query needs url=, a URL with its scheme and host, and nothing else")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_with_credentials_are_withheld() {
        let value = HeaderValue::from_static("value");
        let is_withheld =
            |name: &'static str| Field::of((&HeaderName::from_static(name), &value)).value.is_none();
        for name in SECRET.into_iter().chain(["x-auth-user", "x-session-id", "x-api-key", "csrf-token"]) {
            assert!(is_withheld(name), "{name}");
        }
        for name in ["www-authenticate", "proxy-authenticate", "etag", "cache-control", "content-type"] {
            assert!(!is_withheld(name), "{name}");
        }
        let mut value = HeaderValue::from_static("value");
        value.set_sensitive(true);
        assert!(Field::of((&HeaderName::from_static("etag"), &value)).value.is_none());
    }
}
