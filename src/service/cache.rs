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

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::origin::{ServiceFetcher, change};
#[cfg(feature = "content-keys")]
use super::request::run_with_content;
use super::request::{Content, Route, answer_now, bypass, route, run};
use super::respond::Asked;
use super::shared::Shared;
use crate::body::CacheBody;
use crate::control::BypassReason;
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
    shared: Arc<Shared<S>>,
}

impl<Inner, S: Storage> Cache<Inner, S> {
    pub(crate) fn new(inner: Inner, shared: Arc<Shared<S>>) -> Self {
        Self { inner, shared }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &Inner {
        &self.inner
    }
}

impl<Inner: Clone, S: Storage> Clone for Cache<Inner, S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: Arc::clone(&self.shared) }
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
        let shared = &self.shared;
        let bypasses = shared.config.enter(&mut parts) || shared.is_disabled();
        let content = Content::of(&body);
        let asked = Asked::by(&parts);
        let uri = shared.config.identify(&parts);
        let route = match hides_its_path::<ReqB>() {
            true => Route::Bypass(BypassReason::Axum),
            false => route(shared, &parts, content, asked.interest, uri.as_ref(), bypasses),
        };
        // Before the lookup: a response that lands after this is looked for once more.
        let departures = shared.flights.departures();
        let first = match route {
            Route::Lookup => match answer_now(shared, &parts, asked, uri.as_ref()) {
                Ok(response) => return CacheFuture::ready(response),
                Err(first) => first,
            },
            _ => None,
        };
        drop(uri);
        let (shared, inner) = (Arc::clone(shared), self.inner.clone());
        match route {
            Route::Bypass(reason) => {
                let request = Request::from_parts(parts, body);
                CacheFuture::boxed(bypass(shared, ServiceFetcher::new(inner), request, reason))
            }
            Route::Unsafe => {
                CacheFuture::boxed(change(shared, ServiceFetcher::new(inner), parts, body, bypasses))
            }
            #[cfg(feature = "content-keys")]
            Route::Content => CacheFuture::boxed(run_with_content(shared, inner, parts, body)),
            Route::Lookup => {
                let fetcher = ServiceFetcher::new(inner);
                CacheFuture::boxed(run(shared, fetcher, parts, body, first, departures))
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

/// The future of a [`Cache`]: ready at once for a hit in memory, boxed for everything else.
///
/// # Panics
///
/// Panics if it is polled after it was ready.
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
            State::Ready(response) => {
                let response = response.take();
                Poll::Ready(Ok(response.expect("`CacheFuture` polled after completion")))
            }
        }
    }
}

impl<ResB, E> fmt::Debug for CacheFuture<ResB, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CacheFuture")
    }
}
