//! How a request reaches the origin: a tower service, or the rest of a chain of middlewares.

use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::sync::Arc;

use http::{Extensions, Request, Response};
use http_body::Body;
use tower_service::Service;

use super::super::shared::Shared;
use super::super::telemetry;
use crate::body::CacheBody;
use crate::control::Stored;
use crate::observe::Gauge;
use crate::storage::Storage;

/// The answer to a request that may have gone to the origin.
pub(crate) type Answered<F> = Result<Response<CacheBody<<F as Fetcher>::Body>>, <F as Fetcher>::Error>;

/// Sends requests to the origin. It need not be `'static`: only what runs in the background must be.
pub(crate) trait Fetcher: Send {
    type RequestBody: Default + Send + 'static;
    type Body: Body<Data: Send, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + 'static;
    type Error: Send + 'static;
    /// The same for a fetch that its followers may drive.
    type Detached: Fetcher<
            RequestBody = Self::RequestBody,
            Body = Self::Body,
            Error = Self::Error,
            Detached = Self::Detached,
        > + 'static;
    /// The same for work that outlives the request.
    type Background: Fetcher<RequestBody = Self::RequestBody, Body = Self::Body, Error = Self::Error>
        + 'static;

    fn fetch(
        &mut self,
        request: Request<Self::RequestBody>,
    ) -> impl Future<Output = Result<Response<Self::Body>, Self::Error>> + Send;

    /// The body of a request that is repeated.
    fn again(&self) -> Self::RequestBody {
        Self::RequestBody::default()
    }

    /// Detaches the fetcher from its request. Returns it as it is if it cannot leave: then only its caller drives it.
    fn detach(self) -> Result<Self::Detached, Self>
    where
        Self: Sized;

    /// `None`: this one cannot outlive its request. What would be refreshed in the background is then revalidated
    /// before it is served.
    fn background(&self) -> Option<Self::Background>;
}

/// Put by a fetcher into the extensions of a response that must not be stored, with the reason: only the fetcher knows
/// what happened below it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unstorable(pub(crate) Stored);

impl Unstorable {
    pub(crate) fn reason(extensions: &Extensions) -> Option<Stored> {
        extensions.get::<Self>().map(|Self(reason)| *reason)
    }
}

/// Sends a request to the origin.
pub(crate) async fn send<S: Storage, F: Fetcher>(
    shared: &Shared<S>,
    fetcher: &mut F,
    request: Request<F::RequestBody>,
) -> Result<Response<F::Body>, F::Error> {
    let _under_way = shared.observer.raise(Gauge::OriginRequests);
    let result = fetcher.fetch(request).await;
    if result.is_err() {
        telemetry::origin_failed(&shared.observer);
    }
    result
}

/// A tower service as a fetcher: a clone that nobody has polled, made ready for each request.
pub(crate) struct ServiceFetcher<T, B> {
    inner: T,
    again: Option<Again<B>>,
}

/// Makes the body of a request again.
type Again<B> = Arc<dyn Fn() -> B + Send + Sync>;

impl<T, B> ServiceFetcher<T, B> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, again: None }
    }

    /// For requests with content.
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
