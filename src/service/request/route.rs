//! Routing: whether a request bypasses the cache, invalidates, or may be answered by the cache.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{HeaderName, Method, Request, header, request};
use http_body::Body;

use crate::control::{BypassReason, Outcome};
use crate::key::{self, EffectiveUri, NoUriReason};
use crate::policy::{self, Interest, NotStored};
use crate::service::config::Recording;
use crate::service::origin::{Answered, Fetcher, respond_unstored, send};
use crate::service::respond;
use crate::service::shared::Shared;
use crate::service::telemetry::{self, traced};
use crate::storage::Storage;

/// Tells how a request is handled.
pub(crate) enum Route {
    /// The request goes to the inner service, and its response is not stored.
    Bypass(BypassReason),
    /// The request goes to the inner service. If it succeeds, its URI is invalidated.
    Unsafe,
    /// The cache may answer the request.
    Lookup,
    /// The cache may answer the request once its content has been read.
    #[cfg(feature = "content-keys")]
    Content,
}

/// Tells whether a request has content, as far as its body says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    None,
    Some,
    /// The body does not say whether it has content.
    Unknown,
}

impl Content {
    /// Reads the length of a body.
    #[inline]
    pub(crate) fn of(body: &impl Body) -> Self {
        if body.is_end_stream() {
            return Self::None;
        }
        let hint = body.size_hint();
        match hint.exact() {
            Some(0) => Self::None,
            None if hint.lower() == 0 => Self::Unknown,
            _ => Self::Some,
        }
    }
}

/// Returns how a request is handled.
///
/// `uri` is its effective URI. `bypasses` says that the user wants the request to bypass the cache.
pub(crate) fn route<S: Storage>(
    shared: &Shared<S>,
    parts: &request::Parts,
    content: Content,
    interest: Interest,
    uri: Option<&EffectiveUri<'_>>,
    bypasses: bool,
) -> Route {
    let config = &shared.config;
    let bypass = match bypasses {
        true => Some(BypassReason::Disabled),
        false if interest.host && uri.is_some_and(|uri| uri.is_host_malformed(parts)) => {
            Some(BypassReason::MalformedHost)
        }
        false => None,
    };
    #[cfg(feature = "content-keys")]
    if config.reads_content(parts) {
        return config.route_by_content(parts, bypass);
    }
    let safe = matches!(parts.method, Method::GET | Method::HEAD);
    if matches!(parts.method, Method::CONNECT | Method::OPTIONS | Method::TRACE) {
        return Route::Bypass(BypassReason::Method);
    }
    if interest.control {
        let has = |name: HeaderName| parts.headers.contains_key(name);
        let has_content = has(header::TRANSFER_ENCODING)
            || parts.headers.get(header::CONTENT_LENGTH).is_some_and(|len| len.as_bytes() != b"0");
        // These two are conditions on the origin's state, which a cache cannot evaluate (RFC 9111 §4.3.2).
        let of_origin = has(header::IF_MATCH) || has(header::IF_UNMODIFIED_SINCE);
        // An unsafe request is sent untouched in any case, and has to invalidate if it succeeds (RFC 9111 §4.4).
        if has(header::UPGRADE) && (safe || uri.is_none()) {
            return Route::Bypass(BypassReason::Upgrade);
        }
        if safe && has_content {
            return Route::Bypass(BypassReason::Content);
        }
        if safe && of_origin {
            return Route::Bypass(BypassReason::Condition);
        }
    }
    match (safe, content) {
        (true, Content::Some) => return Route::Bypass(BypassReason::Content),
        (true, Content::Unknown) => return Route::Bypass(bypass.unwrap_or(BypassReason::UnknownBody)),
        _ => {}
    }
    match uri {
        None => Route::Bypass(bypass.unwrap_or_else(|| why_unidentified(parts))),
        Some(_) if !safe => Route::Unsafe,
        Some(_) if !config.methods.contains(&parts.method) => Route::Bypass(BypassReason::Method),
        Some(_) => match bypass {
            Some(reason) => Route::Bypass(reason),
            None if !config.passes_filters(parts) => Route::Bypass(BypassReason::Filtered),
            None => Route::Lookup,
        },
    }
}

/// Sends a request to the inner service without storing its response.
///
/// A request that accepts only a stored response is refused.
pub(crate) async fn bypass<S: Storage, F: Fetcher>(
    shared: Arc<Shared<S>>,
    mut fetcher: F,
    request: Request<F::RequestBody>,
    reason: BypassReason,
) -> Answered<F> {
    warn_about_bypass(&shared, reason);
    let (config, (parts, body)) = (&shared.config, request.into_parts());
    let is_cacheable = config.methods.contains(&parts.method);
    // `only-if-cached` refuses requests that read. An unsafe request is sent nevertheless, unless the user made its method
    // cacheable.
    let reads = is_cacheable || policy::is_safe(&parts.method);
    if config.recording() == Some(Recording::Replay) || (reads && config.directives(&parts).only_if_cached) {
        return Ok(respond::refuse_request(&shared, &parts));
    }
    traced(telemetry::span(&parts, &config.defaults, false), async {
        let response = send(&shared, &mut fetcher, Request::from_parts(parts, body)).await?;
        let unstored = if is_cacheable { NotStored::Bypassed } else { NotStored::MethodNotCacheable };
        Ok(respond_unstored(&shared, response, Outcome::Bypass(reason), unstored))
    })
    .await
}

/// Warns once about a bypass that is caused by a mistake in the setup.
fn warn_about_bypass<S: Storage>(shared: &Shared<S>, reason: BypassReason) {
    let Some(advice) = reason.advice() else { return };
    let (warned, bit) = (&shared.warned_bypasses, 1 << reason as u32);
    // Loaded first: a layer that never gets a host would otherwise write to shared memory for each request. Relaxed, since
    // the bits publish no other memory; `fetch_or` lets only one task send the event.
    if warned.load(Ordering::Relaxed) & bit == 0 && warned.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
        tracing::warn!(reason = reason.word(), advice, "requests pass the cache by");
    }
}

/// Returns why a request without an effective URI bypasses the cache.
pub(super) fn why_unidentified(parts: &request::Parts) -> BypassReason {
    match key::no_uri_reason(parts) {
        NoUriReason::NoResource => BypassReason::NoResource,
        NoUriReason::NoHost => BypassReason::NoHost,
        NoUriReason::MalformedHost => BypassReason::MalformedHost,
    }
}
