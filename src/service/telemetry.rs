//! What the flow tells of itself: counts, spans and events.
//!
//! Promises: nothing that is told holds a query, user information, a field's value or a key; where nobody listens, an
//! event costs one look at a number, and nothing is made for it.

use std::future::Future;
#[cfg(feature = "metrics")]
use std::sync::{Arc, atomic::Ordering};

use http::{Request, Response, request};
use tracing::field::Empty;
use tracing::{Instrument, Span};

use super::core::Core;
use super::fetcher::Fetcher;
use crate::body::CacheBody;
use crate::control::CacheStatus;
use crate::error::{Error, ErrorKind};
use crate::key::EffectiveUri;
use crate::observe::{Count, Gauge};
use crate::storage::Storage;

/// How often the bytes of the storage are shown at most, in milliseconds.
#[cfg(feature = "metrics")]
const SHOWN_EVERY: u64 = 5_000;

impl<S: Storage> Core<S> {
    /// Sends a request to the origin.
    pub(crate) async fn send<F: Fetcher>(
        &self,
        fetcher: &mut F,
        request: Request<F::RequestBody>,
    ) -> Result<Response<F::Body>, F::Error> {
        let _under_way = self.observer.raise(Gauge::OriginRequests);
        let result = fetcher.fetch(request).await;
        if result.is_err() {
            self.observer.count(Count::OriginError);
            tracing::debug!("the inner service failed");
        }
        result
    }

    /// The span of a request's way to the origin.
    pub(crate) fn span(&self, parts: &request::Parts) -> Span {
        let uri = || EffectiveUri::of(parts, &self.config.defaults);
        tracing::debug_span!(
            "http_cache",
            method = %parts.method,
            host = uri().as_ref().map(EffectiveUri::host),
            path = uri().as_ref().map_or(parts.uri.path(), EffectiveUri::path_alone),
            background = self.is_beside(parts),
            outcome = Empty,
            reason = Empty,
            stored = Empty,
        )
    }

    /// A request has its answer. `parts`: the request, where no span tells of it.
    #[inline]
    pub(crate) fn note_answer(&self, status: &CacheStatus, parts: Option<&request::Parts>) {
        self.observer.answered(status);
        let uri = || EffectiveUri::of(parts?, &self.config.defaults);
        tracing::debug!(
            outcome = status.outcome.words().0,
            reason = status.outcome.words().1,
            stored = status.stored.word(),
            ttl = status.ttl,
            age = status.age.map(|age| age.as_secs()),
            collapsed = status.collapsed,
            background = status.beside,
            method = parts.map(|parts| parts.method.as_str()),
            host = uri().as_ref().map(EffectiveUri::host),
            path = parts.map(|parts| {
                uri().as_ref().map_or(parts.uri.path(), EffectiveUri::path_alone).to_owned()
            }),
            "answered"
        );
    }

    /// A response that was to be stored is not.
    pub(crate) fn note_unstored(&self, reason: &'static str) {
        self.observer.count(Count::Unstored(reason));
        tracing::debug!(reason, "not stored");
    }

    /// A response that was to be stored is not, since this operation of the storage failed.
    pub(crate) fn note_failed(&self, operation: &'static str, error: &Error) {
        if error.kind() == ErrorKind::Busy {
            self.store.note_shed();
            return self.note_unstored("storage-busy");
        }
        let reason = "storage-failed";
        self.observer.count(Count::Unstored(reason));
        tracing::debug!(reason, operation, %error, "not stored");
    }

    /// Shows how much the storage keeps, when that has not been shown for a while. Asked after something was stored.
    #[cfg(feature = "metrics")]
    pub(crate) fn show_usage(self: &Arc<Self>) {
        let now = self.config.clock.now().as_millis();
        let shown = self.usage_shown.load(Ordering::Relaxed);
        let is_due = shown == 0 || now < shown || now - shown >= SHOWN_EVERY;
        let order = Ordering::Relaxed;
        if !is_due || self.usage_shown.compare_exchange(shown, now, order, order).is_err() {
            return;
        }
        let core = Arc::clone(self);
        self.tasks.spawn(async move {
            if let Ok(usage) = core.usage().await {
                core.observer.show_usage(usage);
            }
        });
    }

    #[cfg(not(feature = "metrics"))]
    #[allow(clippy::unused_self)]
    pub(crate) fn show_usage(&self) {}

    /// An entry is invalidated. `cause`: `method`, `head` or `hand`; `uri`: what it is the entry of, where that is known.
    pub(crate) fn note_invalidation(&self, cause: &'static str, uri: Option<&EffectiveUri<'_>>) {
        self.observer.count(Count::Invalidation(cause));
        // A name of the user's is a key.
        let uri = uri.filter(|uri| !uri.is_named());
        let (host, path) = (uri.map(EffectiveUri::host), uri.map(EffectiveUri::path_alone));
        tracing::debug!(cause, host, path, "invalidated");
    }

    /// A background refresh has ended.
    pub(crate) fn note_refresh(&self, result: &'static str) {
        self.observer.count(Count::Refresh(result));
        tracing::debug!(result, "a background refresh ended");
    }
}

/// Goes a way within its span, which is then told what came of it.
pub(crate) async fn traced<B: Send, E: Send>(
    span: Span,
    way: impl Future<Output = Result<Response<CacheBody<B>>, E>> + Send,
) -> Result<Response<CacheBody<B>>, E> {
    let answer = way.instrument(span.clone()).await;
    if let Ok(response) = &answer
        && let Some(status) = response.body().status()
    {
        let (outcome, reason) = status.outcome.words();
        span.record("outcome", outcome).record("reason", reason).record("stored", status.stored.word());
    }
    answer
}
