//! How the flow reaches the origin.

use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::sync::Arc;

use http::{Extensions, Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::control::Stored;

/// Sends requests to the origin. It need not be `'static`: only what runs in the background must be.
pub(crate) trait Fetcher: Send {
    type RequestBody: Default + Send + 'static;
    type Body: Body<Data: Send, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + 'static;
    type Error: Send + 'static;
    /// The same for a fetch that others may go on with.
    type Detached: Fetcher<RequestBody = Self::RequestBody, Body = Self::Body, Error = Self::Error> + 'static;
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

    /// `Err`: this one cannot leave its request, so that nobody else can go on with its fetch.
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
