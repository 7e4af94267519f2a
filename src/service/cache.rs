//! The tower service of the cache: [`Cache`].

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

use super::config::Config;
use super::origin::{ServiceFetcher, forward_unsafe};
#[cfg(feature = "content-keys")]
use super::request::run_with_content;
use super::request::{Content, FirstLook, Route, bypass, look_now, look_then_run, route, run, run_absent};
use super::respond::RequestView;
use super::shared::Shared;
use crate::adapt::{DefaultBody, EmptyBody};
use crate::body::CacheBody;
use crate::control::BypassReason;
use crate::storage::Storage;

/// A service that answers requests from a storage, and otherwise calls the inner service.
///
/// It is created by [`Cache::new`] or by a [`CacheLayer`](crate::CacheLayer).
///
/// It is always ready, so that a hit is served even while the inner service is not ready. A miss makes its own clone of the
/// inner service ready. The error type is that of the inner service, whose errors are passed on unchanged: the storage never
/// fails a request with an error.
///
/// The inner service must implement `Clone`, and the body of the request `Default`, since the cache repeats requests and
/// sends some of its own, with an empty body. [`adapt`](crate::adapt) has what to do with other services and bodies.
///
/// A request with the body type of axum bypasses the cache unless the feature `axum` is enabled. The nested routers of axum
/// strip the matched prefix from the URI, and only with that feature does the cache know the URI that the client requested.
pub struct Cache<Inner, S: Storage, M = DefaultBody> {
    inner: Inner,
    shared: Arc<Shared<S>>,
    empty_body: M,
}

impl<Inner, S: Storage> Cache<Inner, S> {
    /// Returns a private cache with the default settings around an inner service.
    ///
    /// It is short for `CacheLayer::new(storage).layer(inner)`. For a cache with settings, or one that several services
    /// share, use a [`CacheLayer`](crate::CacheLayer).
    pub fn new(inner: Inner, storage: S) -> Self {
        Self::from_shared(inner, Shared::new(storage, Config::default()), DefaultBody)
    }
}

impl<Inner, S: Storage, M> Cache<Inner, S, M> {
    /// Returns a cache with the state of a layer.
    pub(crate) fn from_shared(inner: Inner, shared: Arc<Shared<S>>, empty_body: M) -> Self {
        Self { inner, shared, empty_body }
    }

    /// Returns a reference to the inner service.
    pub fn get_ref(&self) -> &Inner {
        &self.inner
    }

    /// Returns a mutable reference to the inner service.
    ///
    /// Fetches that are running go on with their own clones of it.
    pub fn get_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }

    /// Returns the inner service, and drops the cache around it.
    ///
    /// The [`CacheLayer`](crate::CacheLayer) and its other services are unaffected.
    pub fn into_inner(self) -> Inner {
        self.inner
    }
}

impl<Inner: Clone, S: Storage, M: Clone> Clone for Cache<Inner, S, M> {
    fn clone(&self) -> Self {
        let (inner, empty_body) = (self.inner.clone(), self.empty_body.clone());
        Self { inner, shared: Arc::clone(&self.shared), empty_body }
    }
}

impl<Inner: fmt::Debug, S: Storage, M> fmt::Debug for Cache<Inner, S, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<Inner, S, M, ReqB, ResB> Service<Request<ReqB>> for Cache<Inner, S, M>
where
    Inner:
        Service<Request<ReqB>, Response = Response<ResB>, Future: Send, Error: Send> + Clone + Send + 'static,
    S: Storage,
    M: EmptyBody<ReqB>,
    ReqB: Body + Send + 'static,
    ResB: Body<Data: Send, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + 'static,
{
    type Response = Response<CacheBody<ResB>>;
    type Error = Inner::Error;
    type Future = CacheFuture<ResB, Inner::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Inner::Error>> {
        // Always ready, since only the request decides whether the inner service is needed. A fetch makes its clone ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let shared = &self.shared;
        let bypasses = shared.config.enter(&mut parts) || shared.is_disabled();
        let content = Content::of(&body);
        let view = RequestView::of(&parts);
        let uri = shared.config.identify(&parts);
        let route = match hides_its_path::<ReqB>() {
            true => Route::Bypass(BypassReason::Axum),
            false => route(shared, &parts, content, view.interest, uri.as_ref(), bypasses),
        };
        // Read before the lookup: if a flight ends after this, the request looks for its response again.
        let ended_flights = shared.flights.ended_flights();
        let look = match route {
            Route::Lookup => match look_now(shared, view, uri.as_ref()) {
                Ok(FirstLook::Answer(response)) => return CacheFuture::ready(response),
                look => look,
            },
            _ => Ok(FirstLook::Unclear(None)),
        };
        let interest = view.interest;
        // It borrows the request, which is moved below.
        drop(uri);
        let shared = Arc::clone(shared);
        let fetcher = ServiceFetcher::new(self.inner.clone(), self.empty_body.clone());
        match route {
            Route::Bypass(reason) => {
                let request = Request::from_parts(parts, body);
                CacheFuture::boxed(bypass(shared, fetcher, request, reason))
            }
            Route::Unsafe => CacheFuture::boxed(forward_unsafe(shared, fetcher, parts, body, bypasses)),
            #[cfg(feature = "content-keys")]
            Route::Content => CacheFuture::boxed(run_with_content(shared, fetcher, parts, body)),
            Route::Lookup => match look {
                Ok(FirstLook::Answer(response)) => CacheFuture::ready(response),
                Ok(FirstLook::Absent(absent)) => {
                    CacheFuture::boxed(run_absent(shared, fetcher, parts, body, absent, ended_flights))
                }
                Ok(FirstLook::Unclear(prior_read)) => {
                    CacheFuture::boxed(run(shared, fetcher, parts, body, prior_read, ended_flights))
                }
                Err(head) => CacheFuture::boxed(look_then_run(
                    shared,
                    fetcher,
                    parts,
                    interest,
                    body,
                    head,
                    ended_flights,
                )),
            },
        }
    }
}

/// Returns whether a body type is that of axum, whose routers may strip the path.
///
/// The nested routers of axum strip the matched prefix from the URI, and the rest would be the key of several resources.
/// The feature `axum` reads the whole URI. Without it, the body type is recognized by its name, since this crate then does
/// not depend on axum. The compiler evaluates the comparison in a release build.
#[inline]
fn hides_its_path<B: 'static>() -> bool {
    #[cfg(feature = "axum")]
    if TypeId::of::<B>() == TypeId::of::<axum::body::Body>() {
        return false;
    }
    type_name::<B>() == "axum_core::body::Body"
}

/// The response future of a [`Cache`].
///
/// It is ready at once for a hit in memory. For any other request it contains a boxed future.
///
/// # Panics
///
/// Panics if it is polled again after it was ready.
pub struct CacheFuture<ResB, E>(FutureState<ResB, E>);

/// A boxed future of a response.
///
/// Boxed, since the type of an `async fn` cannot be named, and since a hit should not have the size of a fetch.
type Boxed<ResB, E> = Pin<Box<dyn Future<Output = Result<Response<CacheBody<ResB>>, E>> + Send>>;

/// The state of a [`CacheFuture`].
enum FutureState<ResB, E> {
    /// A response that is ready. `None` after it was taken.
    Ready(Option<Response<CacheBody<ResB>>>),
    /// A request that has to wait.
    Boxed(Boxed<ResB, E>),
}

impl<ResB, E> CacheFuture<ResB, E> {
    /// Returns a future that is ready.
    fn ready(response: Response<CacheBody<ResB>>) -> Self {
        Self(FutureState::Ready(Some(response)))
    }

    /// Returns a future that has to wait for another one.
    fn boxed(future: impl Future<Output = Result<Response<CacheBody<ResB>>, E>> + Send + 'static) -> Self {
        Self(FutureState::Boxed(Box::pin(future)))
    }
}

// No field is structurally pinned: a ready response is moved out, and any other future is in a box.
impl<ResB, E> Unpin for CacheFuture<ResB, E> {}

impl<ResB, E> Future for CacheFuture<ResB, E> {
    type Output = Result<Response<CacheBody<ResB>>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            FutureState::Boxed(future) => future.as_mut().poll(cx),
            FutureState::Ready(response) => {
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
