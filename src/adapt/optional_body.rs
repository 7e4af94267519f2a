//! Request bodies that may be absent.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::Request;
use http_body::{Body, Frame, SizeHint};
use tower_layer::Layer;
use tower_service::Service;

pin_project_lite::pin_project! {
    /// A request body that may be absent.
    ///
    /// It is `Default` whatever the body inside is, and an absent body is empty. Frames, trailers and errors are those of the
    /// body inside. [`OptionalBodyLayer`] makes it.
    #[derive(Clone, Debug)]
    pub struct OptionalBody<B> {
        #[pin]
        body: Option<B>,
    }
}

impl<B> OptionalBody<B> {
    /// Returns the body of a request that came with one.
    pub fn new(body: B) -> Self {
        Self { body: Some(body) }
    }

    /// Returns the body inside.
    ///
    /// `None` if the cache sent the request itself, without content.
    pub fn into_inner(self) -> Option<B> {
        self.body
    }
}

impl<B> Default for OptionalBody<B> {
    fn default() -> Self {
        Self { body: None }
    }
}

impl<B> From<B> for OptionalBody<B> {
    fn from(body: B) -> Self {
        Self::new(body)
    }
}

impl<B: Body> Body for OptionalBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match self.project().body.as_pin_mut() {
            Some(body) => body.poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// Makes the body of each request an [`OptionalBody`].
///
/// Put it above the cache of a server whose requests come from hyper, with the body `Incoming`. The services below then
/// take requests with an `OptionalBody<Incoming>`. It costs no allocation.
///
/// ```
/// # #[cfg(feature = "memory")] {
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use hyper::body::Incoming;
/// use hyper_util::service::TowerToHyperService;
/// use tower::ServiceBuilder;
/// use tower_response_cache::adapt::{OptionalBody, OptionalBodyLayer};
/// use tower_response_cache::{CacheLayer, storage::MemoryStorage};
///
/// let service = ServiceBuilder::new()
///     .layer(OptionalBodyLayer::new())
///     .layer(CacheLayer::new(MemoryStorage::new()))
///     .service_fn(|_: Request<OptionalBody<Incoming>>| async {
///         Ok::<_, std::io::Error>(Response::new(Full::new(Bytes::from("hello"))))
///     });
/// // For `hyper_util::server::conn::auto::Builder::serve_connection`.
/// let service = TowerToHyperService::new(service);
/// # fn takes<S: hyper::service::Service<Request<Incoming>>>(_: S) {}
/// # takes(service);
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct OptionalBodyLayer {}

impl OptionalBodyLayer {
    /// Returns the layer.
    pub fn new() -> Self {
        Self {}
    }
}

impl<T> Layer<T> for OptionalBodyLayer {
    type Service = OptionalBodyService<T>;

    fn layer(&self, inner: T) -> OptionalBodyService<T> {
        OptionalBodyService { inner }
    }
}

/// The service of an [`OptionalBodyLayer`].
#[derive(Clone, Debug)]
pub struct OptionalBodyService<T> {
    inner: T,
}

impl<T, B> Service<Request<B>> for OptionalBodyService<T>
where
    T: Service<Request<OptionalBody<B>>>,
{
    type Response = T::Response;
    type Error = T::Error;
    type Future = T::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), T::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> T::Future {
        self.inner.call(request.map(OptionalBody::new))
    }
}
