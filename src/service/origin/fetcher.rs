//! Takes requests to the origin, through a tower service or the rest of a chain of middlewares.
//!
//! # Invariants
//!
//! - [`send`] alone calls a fetcher, so that every request to the origin is counted.
//! - The fetcher's error is handed on as it is.

use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::sync::Arc;

use http::{Extensions, Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::body::CacheBody;
use crate::observe::Gauge;
use crate::policy::NotStored;
use crate::service::shared::Shared;
use crate::service::telemetry;
use crate::storage::Storage;

/// Holds the answer to a request, or the origin's error.
pub(crate) type Answered<F> = Result<Response<CacheBody<<F as Fetcher>::Body>>, <F as Fetcher>::Error>;

/// Sends requests to the origin.
///
/// A fetcher need not be `'static`, since an adapter may borrow from its caller. What runs without the caller is made by
/// [`detach`](Self::detach) and [`background`](Self::background).
pub(crate) trait Fetcher: Send {
    type RequestBody: Default + Send + 'static;
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

    /// Sends one request. May be called again once the first call has ended.
    fn fetch(
        &mut self,
        request: Request<Self::RequestBody>,
    ) -> impl Future<Output = Result<Response<Self::Body>, Self::Error>> + Send;

    /// Returns the body of a request that is sent once more.
    ///
    /// The first body was consumed by then.
    fn again(&self) -> Self::RequestBody {
        Self::RequestBody::default()
    }

    /// Detaches the fetcher from its request.
    ///
    /// # Errors
    ///
    /// Returns the fetcher as it is if it cannot leave its request. Then its caller alone drives the fetch.
    fn detach(self) -> Result<Self::Detached, Self>
    where
        Self: Sized;

    /// Returns a fetcher for a background refresh. `None` if this one cannot outlive its request.
    ///
    /// A response that would be refreshed in the background is then revalidated before it is served.
    fn background(&self) -> Option<Self::Background>;
}

/// Marks a response that must not be stored, with the reason.
///
/// A fetcher puts it into the response's extensions, since only the fetcher knows what happened below it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unstorable(pub(crate) NotStored);

impl Unstorable {
    /// Returns the reason why a response with these extensions must not be stored.
    pub(crate) fn reason(extensions: &Extensions) -> Option<NotStored> {
        extensions.get::<Self>().map(|Self(reason)| *reason)
    }
}

/// Sends a request to the origin.
pub(crate) async fn send<S: Storage, F: Fetcher>(
    shared: &Shared<S>,
    fetcher: &mut F,
    request: Request<F::RequestBody>,
) -> Result<Response<F::Body>, F::Error> {
    // A guard, so that the gauge falls as well if the caller drops this future.
    let _under_way = shared.observer.raise(Gauge::OriginRequests);
    let result = fetcher.fetch(request).await;
    if result.is_err() {
        telemetry::origin_failed(&shared.observer);
    }
    result
}

/// Sends requests through a tower service.
///
/// It has a clone of the service of its own, which it makes ready for each request: readiness belongs to the clone that was
/// polled.
pub(crate) struct ServiceFetcher<T, B> {
    inner: T,
    /// `None`: repeated requests have an empty body.
    again: Option<Again<B>>,
}

/// Makes the body of a request once more. Shared, since a background refresh repeats the request too.
type Again<B> = Arc<dyn Fn() -> B + Send + Sync>;

impl<T, B> ServiceFetcher<T, B> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, again: None }
    }

    /// Returns a fetcher for requests with content, which `again` makes anew.
    #[cfg(feature = "content-keys")]
    pub(crate) fn again_with(inner: T, again: Again<B>) -> Self {
        Self { inner, again: Some(again) }
    }
}

impl<T, ReqB, ResB> Fetcher for ServiceFetcher<T, ReqB>
where
    T: Service<Request<ReqB>, Response = Response<ResB>, Future: Send, Error: Send> + Clone + Send + 'static,
    ReqB: Default + Send + 'static,
    ResB: Body<Data: Send, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + 'static,
{
    type RequestBody = ReqB;
    type Body = ResB;
    type Error = T::Error;
    type Detached = Self;
    type Background = Self;

    async fn fetch(&mut self, request: Request<ReqB>) -> Result<Response<ResB>, T::Error> {
        poll_fn(|cx| self.inner.poll_ready(cx)).await?;
        self.inner.call(request).await
    }

    fn again(&self) -> ReqB {
        self.again.as_ref().map_or_else(ReqB::default, |again| again())
    }

    fn detach(self) -> Result<Self, Self> {
        Ok(self)
    }

    fn background(&self) -> Option<Self> {
        Some(Self { inner: self.inner.clone(), again: self.again.clone() })
    }
}
