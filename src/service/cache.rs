//! The service itself, and the short way of a hit that needs no waiting.

#[cfg(feature = "axum")]
use std::any::TypeId;
use std::any::type_name;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderName, Request, Response, header, request};
use http_body::Body;
use tower_service::Service;

use super::core::Core;
use super::fetcher::ServiceFetcher;
use super::flow::{Content, First, Route};
use super::lookup::usable_head;
use super::respond::{Asked, stored_status};
use crate::body::CacheBody;
use crate::control::{BypassReason, Outcome, Stored};
use crate::key::{self, EffectiveUri};
use crate::policy::{self, Verdict};
use crate::storage::Storage;

/// A service that answers from a storage where it may, and asks the inner service where it must. Made by
/// [`CacheLayer`](crate::CacheLayer).
///
/// It is always ready: a hit is served even while the inner service is not. A miss makes its own clone of the inner
/// service ready. The error is the inner service's, untouched: the storage never fails a request.
///
/// The request's body must be `Default` (repeated and background requests have an empty one). hyper's `Incoming` is
/// not: box it above the cache.
///
/// A request whose body is axum's passes the cache by unless the feature `axum` is on: axum's nested routers strip the
/// prefix that they matched from the URI, and only with that feature does the cache know what the client asked for.
pub struct Cache<Inner, S: Storage> {
    inner: Inner,
    core: Arc<Core<S>>,
}

impl<Inner, S: Storage> Cache<Inner, S> {
    pub(crate) fn new(inner: Inner, core: Arc<Core<S>>) -> Self {
        Self { inner, core }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &Inner {
        &self.inner
    }
}

impl<Inner: Clone, S: Storage> Clone for Cache<Inner, S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), core: Arc::clone(&self.core) }
    }
}

impl<Inner: fmt::Debug, S: Storage> fmt::Debug for Cache<Inner, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<Inner, S, ReqB, ResB> Service<Request<ReqB>> for Cache<Inner, S>
where
    Inner:
        Service<Request<ReqB>, Response = Response<ResB>, Future: Send, Error: Send> + Clone + Send + 'static,
    S: Storage,
    ReqB: Body + Default + Send + 'static,
    ResB: Body<Data: Send, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + 'static,
{
    type Response = Response<CacheBody<ResB>>;
    type Error = Inner::Error;
    type Future = CacheFuture<ResB, Inner::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Inner::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let bypasses = self.core.enter(&mut parts);
        let content = Content::of(&body);
        let asked = Asked::by(&parts);
        let uri = self.core.identify(&parts);
        let route = match hides_its_path::<ReqB>() {
            true => Route::Bypass(BypassReason::Axum),
            false => self.core.route(&parts, content, asked.interest, uri.as_ref(), bypasses),
        };
        match route {
            Route::Bypass(reason) => {
                let (core, fetcher) = (Arc::clone(&self.core), ServiceFetcher::new(self.inner.clone()));
                CacheFuture::boxed(core.bypass(fetcher, Request::from_parts(parts, body), reason))
            }
            Route::Unsafe => {
                let (core, fetcher) = (Arc::clone(&self.core), ServiceFetcher::new(self.inner.clone()));
                CacheFuture::boxed(core.change(fetcher, parts, body, bypasses))
            }
            #[cfg(feature = "content-keys")]
            Route::Content => {
                let (core, inner) = (Arc::clone(&self.core), self.inner.clone());
                CacheFuture::boxed(core.run_with_content(inner, parts, body))
            }
            Route::Lookup => {
                // Before the lookup: what lands after this is looked for once more.
                let departures = self.core.flights.departures();
                match self.core.answer_now(&parts, asked, uri.as_ref()) {
                    Ok(response) => CacheFuture::ready(response),
                    Err(first) => {
                        let (core, fetcher) =
                            (Arc::clone(&self.core), ServiceFetcher::new(self.inner.clone()));
                        CacheFuture::boxed(core.run(fetcher, parts, body, first, departures))
                    }
                }
            }
        }
    }
}

/// Whether requests with a body of this type come from an axum of which nothing is known here. Its nested routers strip
/// the prefix that they matched from the URI, and what is left would be the key of several resources. In a release build
/// the compiler knows the answer.
#[inline]
fn hides_its_path<B: 'static>() -> bool {
    #[cfg(feature = "axum")]
    if TypeId::of::<B>() == TypeId::of::<axum::body::Body>() {
        return false;
    }
    type_name::<B>() == "axum_core::body::Body"
}

impl<S: Storage> Core<S> {
    /// The usual hit, without waiting and without a box: the head is at hand, its inline variant is the request's,
    /// fresh, and small. Else what was read, so that it is not read again.
    fn answer_now<B>(
        &self,
        parts: &request::Parts,
        asked: Asked<'_>,
        uri: Option<&EffectiveUri<'_>>,
    ) -> Result<Response<CacheBody<B>>, First> {
        if !self.in_flight.is_empty() || !self.owed.is_empty() || !self.config.async_filters.is_empty() {
            return Err(None);
        }
        let Some(uri) = uri else { return Err(None) };
        let at = self.keyer.guess(uri);
        let read = self.store.read_now(at);
        let Some(Ok(Some(record))) = &read else { return Err(read.map(|read| (at, read))) };
        let now = self.config.clock.now();
        let response = (|| {
            let head = usable_head(record, uri, now).filter(|head| self.tells_apart(head))?;
            let (variant, stored) = (&head.inline, &head.inline.response);
            if variant.until <= now
                || !self.owed.believes(stored.response_time, &head.key_text)
                || self.outdated.since(at).is_some()
            {
                return None;
            }
            // Without credentials, a response that is selected by them alone needs no look-up.
            let by_credentials =
                |name: &HeaderName| *name == header::AUTHORIZATION || *name == header::COOKIE;
            let plain = !asked.interest.credentials
                && head.names.iter().all(by_credentials)
                && !(asked.interest.host && uri.host_selects(parts))
                && key::rewritten(parts).is_none();
            let selection = if plain { [0; 16] } else { self.selection(&head.names, parts) };
            if selection != variant.selection {
                return None;
            }
            if !stored.groups.is_empty() && self.belongs_now(&stored.groups, now) != Some(true) {
                return None;
            }
            let freshness = stored.freshness(self.number, &self.config.policy);
            let directives = self.directives_of(parts, asked.interest);
            if directives.reload {
                return None;
            }
            let Verdict::Serve = policy::decide(&directives, &freshness, now) else {
                return None;
            };
            if self.may_refresh_early(&freshness, now) {
                return None;
            }
            let status = stored_status(Outcome::Hit, Stored::Unchanged, &freshness, now);
            self.answer_inline(asked, stored, status)
        })();
        response.ok_or_else(|| read.map(|read| (at, read)))
    }
}

/// The future of a [`Cache`]: ready at once for a hit in memory, boxed for everything else.
pub struct CacheFuture<ResB, E>(State<ResB, E>);

type Boxed<ResB, E> = Pin<Box<dyn Future<Output = Result<Response<CacheBody<ResB>>, E>> + Send>>;

enum State<ResB, E> {
    Ready(Option<Response<CacheBody<ResB>>>),
    Boxed(Boxed<ResB, E>),
}

impl<ResB, E> CacheFuture<ResB, E> {
    fn ready(response: Response<CacheBody<ResB>>) -> Self {
        Self(State::Ready(Some(response)))
    }

    fn boxed(future: impl Future<Output = Result<Response<CacheBody<ResB>>, E>> + Send + 'static) -> Self {
        Self(State::Boxed(Box::pin(future)))
    }
}

/// Nothing is pinned in place: the ready response is only moved out, and the rest is in a box.
impl<ResB, E> Unpin for CacheFuture<ResB, E> {}

impl<ResB, E> Future for CacheFuture<ResB, E> {
    type Output = Result<Response<CacheBody<ResB>>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Boxed(future) => future.as_mut().poll(cx),
            State::Ready(response) => match response.take() {
                Some(response) => Poll::Ready(Ok(response)),
                None => Poll::Pending, // polled after it was ready: there is nothing more to come
            },
        }
    }
}

impl<ResB, E> fmt::Debug for CacheFuture<ResB, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CacheFuture")
    }
}
