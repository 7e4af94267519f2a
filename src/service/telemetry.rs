//! Counts, spans and events: everything that the cache tells about itself.
//!
//! # Invariants
//!
//! - Nothing that is told holds a query, user information, the value of a field, or a key.
//! - Without a subscriber, an event costs one look at a number, and nothing is made for it.

use std::future::Future;

use http::{Response, request};
use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::body::CacheBody;
use crate::control::CacheStatus;
use crate::error::{Error, ErrorKind};
use crate::key::{Defaults, EffectiveUri};
use crate::observe::{Count, Observer};

/// Makes the span of a request's way to the origin.
pub(super) fn span(parts: &request::Parts, defaults: &Defaults, is_background: bool) -> Span {
    let uri = || EffectiveUri::of(parts, defaults);
    tracing::debug_span!(
        "http_cache",
        method = %parts.method,
        host = uri().as_ref().map(EffectiveUri::host),
        path = uri().as_ref().map_or(parts.uri.path(), EffectiveUri::path_alone),
        background = is_background,
        outcome = Empty,
        reason = Empty,
        stored = Empty,
    )
}

/// Runs a future within its span, and records the status of its response there.
pub(super) async fn traced<B: Send, E: Send>(
    span: Span,
    answering: impl Future<Output = Result<Response<CacheBody<B>>, E>> + Send,
) -> Result<Response<CacheBody<B>>, E> {
    let answer = answering.instrument(span.clone()).await;
    if let Ok(response) = &answer
        && let Some(status) = response.body().status()
    {
        let (outcome, reason) = status.outcome.words();
        span.record("outcome", outcome).record("reason", reason).record("stored", status.stored.word());
    }
    answer
}

/// Tells that a request has its answer. `parts` is the request, where no span tells of it.
#[inline]
pub(super) fn answered(
    observer: &Observer,
    status: &CacheStatus,
    parts: Option<&request::Parts>,
    defaults: &Defaults,
) {
    observer.answered(status);
    let uri = || EffectiveUri::of(parts?, defaults);
    tracing::debug!(
        outcome = status.outcome.words().0,
        reason = status.outcome.words().1,
        stored = status.stored.word(),
        ttl = status.ttl,
        age = status.age.map(|age| age.as_secs()),
        collapsed = status.collapsed,
        background = status.is_background,
        method = parts.map(|parts| parts.method.as_str()),
        host = uri().as_ref().map(EffectiveUri::host),
        path = parts
            .map(|parts| { uri().as_ref().map_or(parts.uri.path(), EffectiveUri::path_alone).to_owned() }),
        "answered"
    );
}

/// Tells that the inner service failed.
pub(super) fn origin_failed(observer: &Observer) {
    observer.count(Count::OriginError);
    tracing::debug!("the inner service failed");
}

/// Tells that a response which was to be stored is not.
pub(super) fn unstored(observer: &Observer, reason: &'static str) {
    observer.count(Count::Unstored(reason));
    tracing::debug!(reason, "not stored");
}

/// Tells that a response which was to be stored is not, because this operation of the storage failed.
pub(super) fn write_failed(observer: &Observer, operation: &'static str, error: &Error) {
    if error.kind() == ErrorKind::Busy {
        return unstored(observer, "storage-busy");
    }
    let reason = "storage-failed";
    observer.count(Count::Unstored(reason));
    tracing::debug!(reason, operation, %error, "not stored");
}

/// Tells that an entry is invalidated. `cause` is `method`, `head`, `group` or `hand`; `uri` is the entry's, where it is
/// known.
pub(crate) fn invalidated(observer: &Observer, cause: &'static str, uri: Option<&EffectiveUri<'_>>) {
    observer.count(Count::Invalidation(cause));
    // A name that the user gave to an entry is a key, and may hold anything.
    let uri = uri.filter(|uri| !uri.is_named());
    let (host, path) = (uri.map(EffectiveUri::host), uri.map(EffectiveUri::path_alone));
    tracing::debug!(cause, host, path, "invalidated");
}

/// Tells that a background refresh has ended.
pub(super) fn refreshed(observer: &Observer, result: &'static str) {
    observer.count(Count::Refresh(result));
    tracing::debug!(result, "a background refresh ended");
}
