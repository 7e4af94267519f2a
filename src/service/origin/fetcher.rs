//! Sends requests to the origin.
//!
//! A request goes through a tower service, or through the rest of a chain of middlewares.
//!
//! # Invariants
//!
//! - Only [`send`] calls a fetcher, so that every request to the origin is counted.
//! - The fetcher's error is returned as it is.

use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Extensions, Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::adapt::EmptyBody;
use crate::body::CacheBody;
use crate::observe::{Gauge, GaugeGuard, Observer, Stopwatch};
use crate::policy::{self, NotStored};
use crate::service::shared::Shared;
use crate::service::telemetry;
use crate::storage::Storage;

/// The response to a request, or the origin's error.
pub(crate) type Answered<F> = Result<Response<CacheBody<<F as Fetcher>::Body>>, <F as Fetcher>::Error>;

/// Sends requests to the origin.
///
/// A fetcher need not be `'static`, since an adapter may borrow from its caller. [`detach`](Self::detach) and
/// [`background`](Self::background) return the fetchers for work that does not depend on the caller.
pub(crate) trait Fetcher: Send {
    type RequestBody: Send + 'static;
    type Body: Body<Data: Send, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + 'static;
    type Error: Send + 'static;
    /// The fetcher of a fetch that its followers may drive.
    type Detached: Fetcher<
            RequestBody = Self::RequestBody,
            Body = Self::Body,
            Error = Self::Error,
            Detached = Self::Detached,
        > + 'static;
    /// The fetcher of work that outlives the request.
    type Background: Fetcher<RequestBody = Self::RequestBody, Body = Self::Body, Error = Self::Error>
        + 'static;

    /// Sends one request.
    ///
    /// It may be called again after the first call has ended.
    fn fetch(
        &mut self,
        request: Request<Self::RequestBody>,
    ) -> impl Future<Output = Result<Response<Self::Body>, Self::Error>> + Send;

    /// Returns the body for sending the request again, after its first body has been consumed.
    fn repeated_body(&self) -> Self::RequestBody;

    /// Detaches the fetcher from its request.
    ///
    /// # Errors
    ///
    /// Returns the fetcher as it is if it cannot leave its request. Then only its caller can drive the fetch.
    fn detach(self) -> Result<Self::Detached, Self>
    where
        Self: Sized;

    /// Returns a fetcher for a background refresh.
    ///
    /// Returns `None` if this one cannot outlive its request. A response that would be refreshed in the background is then
    /// validated before it is served.
    fn background(&self) -> Option<Self::Background>;
}

/// Marks a response that must not be stored, with the reason.
///
/// A fetcher adds it to the extensions of the response, since only the fetcher knows what happened in the layers below it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unstorable(pub(crate) NotStored);

impl Unstorable {
    /// Returns the reason why a response with these extensions must not be stored.
    pub(crate) fn reason(extensions: &Extensions) -> Option<NotStored> {
        extensions.get::<Self>().map(|Self(reason)| *reason)
    }
}

/// Sends a request to the origin.
pub(crate) fn send<'a, S: Storage, F: Fetcher>(
    shared: &'a Shared<S>,
    fetcher: &'a mut F,
    mut request: Request<F::RequestBody>,
) -> impl Future<Output = Result<Response<F::Body>, F::Error>> + Send + 'a {
    if shared.config.make_etags {
        policy::remove_made_tags(request.headers_mut());
    }
    let observer = &*shared.observer;
    let (under_way, time) = (observer.raise(Gauge::OriginRequests), observer.time_origin());
    Sending { fetching: fetcher.fetch(request), observer, time, _under_way: under_way }
}

pin_project_lite::pin_project! {
    /// The future of [`send`].
    ///
    /// It is written by hand because an async function has room for its arguments twice, and the request is large.
    struct Sending<'a, F> {
        #[pin]
        fetching: F,
        observer: &'a Observer,
        time: Stopwatch<'a>,
        // A guard, so that the gauge also falls if the caller drops this future.
        _under_way: GaugeGuard,
    }
}

impl<B, E, F: Future<Output = Result<Response<B>, E>>> Future for Sending<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let sending = self.project();
        let result = ready!(sending.fetching.poll(cx));
        sending.time.stop();
        if result.is_err() {
            telemetry::origin_failed(sending.observer);
        }
        Poll::Ready(result)
    }
}

pin_project_lite::pin_project! {
    /// A call of a tower service, once it is ready.
    ///
    /// It is written by hand for the same reason as [`Sending`].
    #[project = CallingProjection]
    enum Calling<'a, T, R, F> {
        Readying { service: &'a mut T, request: Option<R> },
        Called { #[pin] response: F },
    }
}

impl<T: Service<R>, R> Future for Calling<'_, T, R, T::Future> {
    type Output = Result<T::Response, T::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match self.as_mut().project() {
                CallingProjection::Readying { service, request } => {
                    ready!(service.poll_ready(cx))?;
                    let request = request.take().expect("`Calling` is not polled after a panic");
                    let response = service.call(request);
                    self.set(Self::Called { response });
                }
                CallingProjection::Called { response } => return response.poll(cx),
            }
        }
    }
}

/// Sends requests through a tower service.
///
/// It owns a clone of the service and makes it ready for each request, because readiness belongs to the clone that was
/// polled.
pub(crate) struct ServiceFetcher<T, M, B> {
    inner: T,
    empty_body: M,
    /// Makes the body of a repeated request. `None` for an empty body.
    make_body: Option<MakeBody<B>>,
}

/// Makes the body of a request again. Shared, since a background refresh repeats the request too.
type MakeBody<B> = Arc<dyn Fn() -> B + Send + Sync>;

impl<T, M, B> ServiceFetcher<T, M, B> {
    /// Returns a fetcher for requests without content, whose bodies `empty_body` makes.
    pub(crate) fn new(inner: T, empty_body: M) -> Self {
        Self { inner, empty_body, make_body: None }
    }

    /// Sets how the body of a request with content is made.
    #[cfg(feature = "content-keys")]
    pub(crate) fn with_content(mut self, make_body: MakeBody<B>) -> Self {
        self.make_body = Some(make_body);
        self
    }
}

impl<T, M, ReqB, ResB> Fetcher for ServiceFetcher<T, M, ReqB>
where
    T: Service<Request<ReqB>, Response = Response<ResB>, Future: Send, Error: Send> + Clone + Send + 'static,
    M: EmptyBody<ReqB>,
    ReqB: Send + 'static,
    ResB: Body<Data: Send, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + 'static,
{
    type RequestBody = ReqB;
    type Body = ResB;
    type Error = T::Error;
    type Detached = Self;
    type Background = Self;

    fn fetch(
        &mut self,
        request: Request<ReqB>,
    ) -> impl Future<Output = Result<Response<ResB>, T::Error>> + Send {
        Calling::Readying { service: &mut self.inner, request: Some(request) }
    }

    fn repeated_body(&self) -> ReqB {
        self.make_body.as_ref().map_or_else(|| self.empty_body.make(), |make| make())
    }

    fn detach(self) -> Result<Self, Self> {
        Ok(self)
    }

    fn background(&self) -> Option<Self> {
        let (inner, empty_body) = (self.inner.clone(), self.empty_body.clone());
        Some(Self { inner, empty_body, make_body: self.make_body.clone() })
    }
}
