//! The counts, spans and events of the service.
//!
//! # Invariants
//!
//! - No span and no event contains a query, user information, a field value or a key.
//! - Without a subscriber, an event costs the comparison of a number, and its fields are not computed.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Response, request};
use tracing::field::Empty;
use tracing::instrument::Instrumented;
use tracing::{Instrument, Span};

use crate::body::CacheBody;
use crate::control::CacheStatus;
use crate::error::{Error, ErrorKind};
use crate::key::{Defaults, EffectiveUri};
use crate::observe::{Count, Observer};

/// Returns the span of a request that goes to the origin.
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
pub(super) fn traced<F>(span: Span, answering: F) -> Traced<F> {
    Traced { answering: answering.instrument(span) }
}

pin_project_lite::pin_project! {
    /// The future of [`traced`].
    ///
    /// It is written by hand because an async function has room for its arguments twice, and the future of an exchange takes
    /// kilobytes.
    pub(super) struct Traced<F> {
        #[pin]
        answering: Instrumented<F>,
    }
}

impl<F, B, E> Future for Traced<F>
where
    F: Future<Output = Result<Response<CacheBody<B>>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut answering = self.project().answering;
        let answer = ready!(answering.as_mut().poll(cx));
        if let Ok(response) = &answer
            && let Some(status) = response.body().status()
        {
            let (outcome, reason) = status.outcome.words();
            let span = answering.span();
            span.record("outcome", outcome).record("reason", reason).record("stored", status.stored.word());
        }
        Poll::Ready(answer)
    }
}

/// Counts a response, and sends the event about it.
///
/// `parts` is the request, if no span describes it.
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
        ttl = status.ttl(),
        age = status.age().map(|age| age.as_secs()),
        collapsed = status.collapsed,
        background = status.is_background,
        method = parts.map(|parts| parts.method.as_str()),
        host = uri().as_ref().map(EffectiveUri::host),
        path = parts
            .map(|parts| { uri().as_ref().map_or(parts.uri.path(), EffectiveUri::path_alone).to_owned() }),
        "answered"
    );
}

/// Counts an error of the inner service, and sends the event about it.
pub(super) fn origin_failed(observer: &Observer) {
    observer.count(Count::OriginError);
    tracing::debug!("the inner service failed");
}

/// Counts a response that could not be stored, and sends the event about it.
pub(super) fn unstored(observer: &Observer, reason: &'static str) {
    observer.count(Count::Unstored(reason));
    tracing::debug!(reason, "not stored");
}

/// Counts a response that is not stored because a storage operation failed.
///
/// It sends the event about the response too.
pub(super) fn write_failed(observer: &Observer, operation: &'static str, error: &Error) {
    if error.kind() == ErrorKind::Busy {
        return unstored(observer, "storage-busy");
    }
    let reason = "storage-failed";
    observer.count(Count::Unstored(reason));
    tracing::debug!(reason, operation, %error, "not stored");
}

/// Counts an invalidation, and sends the event about it.
///
/// `cause` is `method`, `head`, `group`, `manual` or `expiry`. `uri` is the URI of the entry, if it is known.
pub(crate) fn invalidated(observer: &Observer, cause: &'static str, uri: Option<&EffectiveUri<'_>>) {
    observer.count(Count::Invalidation(cause));
    // A name that the user gave to an entry is a key, and may contain anything.
    let uri = uri.filter(|uri| !uri.is_named());
    let (host, path) = (uri.map(EffectiveUri::host), uri.map(EffectiveUri::path_alone));
    tracing::debug!(cause, host, path, "invalidated");
}

/// Counts a body that broke off, and sends the event about it.
///
/// `result` is `done`, `changed` or `failed`. The body broke off at the offset.
pub(super) fn resumed(observer: &Observer, result: &'static str, offset: u64) {
    observer.count(Count::Resumption(result));
    tracing::debug!(result, offset, "a body broke off");
}

/// Counts a background refresh that has ended, and sends the event about it.
pub(super) fn refreshed(observer: &Observer, result: &'static str) {
    observer.count(Count::Refresh(result));
    tracing::debug!(result, "a background refresh ended");
}
