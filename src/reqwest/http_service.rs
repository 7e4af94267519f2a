//! A plain reqwest client as a tower service of `http` requests.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Once;
use std::task::{Context, Poll, ready};

use ::reqwest::{Body, Client, Error, Request, Url};
use bytes::Bytes;
use http_body::Body as HttpBody;
use tower_service::Service;

use super::fetcher::is_for_all_clients;
use crate::policy::NotStored;
use crate::service::Unstorable;

/// A [`reqwest::Client`](super::reqwest_client::Client) as a service of `http::Request` and `http::Response`.
///
/// With it a whole tower stack, and the cache in it, stands around a client, without reqwest-middleware.
///
/// ```
/// # #[cfg(feature = "memory")] {
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::Empty;
/// use tower::ServiceBuilder;
/// use tower_response_cache::reqwest::{HttpService, reqwest_client};
/// use tower_response_cache::{CacheLayer, storage::MemoryStorage};
///
/// // Redirects are responses of their own: a layer above the cache may follow them.
/// let client = reqwest_client::Client::builder()
///     .redirect(reqwest_client::redirect::Policy::none())
///     .build()
///     .expect("a client");
/// let service = ServiceBuilder::new()
///     .layer(CacheLayer::new(MemoryStorage::new()))
///     .service(HttpService::new(client).adds_no_fields());
/// # fn takes<S: tower::Service<Request<Empty<Bytes>>>>(_: S) {}
/// # takes(service);
/// # }
/// ```
///
/// A request needs an absolute URI. Its body is any `http_body::Body` that is `Send` and `Sync`. The version of the request
/// is passed on, as reqwest does. Each response has the body type of reqwest.
///
/// # Fields that the client adds
/// The cache does not see what the client adds below it: default headers, or the cookies of a jar. A response may depend on
/// them. Until [`adds_no_fields`](Self::adds_no_fields) is set, the cache therefore stores only responses that say `public`
/// and do not vary on Cookie or Authorization. The others are [`NotStored::ClientHeaders`](crate::NotStored::ClientHeaders),
/// and the first of them is logged as a warning.
///
/// Add default headers in a layer above the cache, for example with tower-http's `SetRequestHeaderLayer`, so that they select
/// the response. If a client has a cookie jar, give the cache a [`partition`](crate::CacheLayerBuilder::partition) for each
/// jar.
///
/// # Redirects
/// A client that follows redirects by itself returns the response of the last URL to the request for the first one. Such a
/// response is not stored ([`NotStored::Redirected`](crate::NotStored::Redirected)). Use a client that does not follow them,
/// and tower-http's `FollowRedirect` above the cache.
///
/// # Errors
/// Returns the errors of reqwest as they are. A URI without scheme and host is a builder error of reqwest.
#[derive(Clone)]
pub struct HttpService {
    client: Client,
    adds_no_fields: bool,
}

impl HttpService {
    /// Returns a service that sends requests by a client.
    pub fn new(client: Client) -> Self {
        Self { client, adds_no_fields: false }
    }

    /// Declares that the client adds no fields on which a response may depend.
    ///
    /// It is true for a client without default headers other than User-Agent, and without a cookie jar. Declare it as well
    /// for a client with such fields if the cache's [`partition`](crate::CacheLayerBuilder::partition) stands for them.
    ///
    /// Default: unknown. Only responses that say `public` are stored.
    #[must_use]
    pub fn adds_no_fields(mut self) -> Self {
        self.adds_no_fields = true;
        self
    }
}

impl fmt::Debug for HttpService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the client, which shows its default headers.
        f.debug_struct("HttpService").field("adds_no_fields", &self.adds_no_fields).finish_non_exhaustive()
    }
}

impl<B> Service<http::Request<B>> for HttpService
where
    B: HttpBody<Data: Into<Bytes>, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + Sync
        + 'static,
{
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = HttpServiceFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> HttpServiceFuture {
        let has_content = !request.body().is_end_stream();
        // A request without content has no body at all: reqwest can then repeat it by itself.
        let state = match Request::try_from(request.map(Body::wrap)) {
            Err(error) => State::Refused { error: Some(error) },
            Ok(mut request) => {
                if !has_content {
                    *request.body_mut() = None;
                }
                let mut requested = request.url().clone();
                // `Response::url()` has no fragment to compare with.
                requested.set_fragment(None);
                let has_hidden_fields = !self.adds_no_fields;
                State::Sent { pending: self.client.call(request), requested, has_hidden_fields }
            }
        };
        HttpServiceFuture { state }
    }
}

/// The future of a request that reqwest has taken. It has no name of its own.
type Pending = <Client as Service<Request>>::Future;

pin_project_lite::pin_project! {
    /// The response future of an [`HttpService`].
    pub struct HttpServiceFuture {
        #[pin]
        state: State,
    }
}

pin_project_lite::pin_project! {
    #[project = StateProjection]
    enum State {
        /// The request could not be converted. `None` after the error was taken.
        Refused { error: Option<Error> },
        Sent { #[pin] pending: Pending, requested: Url, has_hidden_fields: bool },
    }
}

impl Future for HttpServiceFuture {
    type Output = Result<http::Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Refused { error } => {
                Poll::Ready(Err(error.take().expect("`HttpServiceFuture` polled after completion")))
            }
            StateProjection::Sent { pending, requested, has_hidden_fields } => {
                let response = ready!(pending.poll(cx))?;
                let unstorable = if response.url() != requested {
                    Some(NotStored::Redirected)
                } else if *has_hidden_fields && !is_for_all_clients(&response) {
                    // Once for the program, since the cause is its setup and each response would repeat the warning.
                    static WARNED: Once = Once::new();
                    WARNED.call_once(|| {
                        tracing::warn!(
                            "responses that are not `public` are not cached, since the cache does not know which fields \
                             the client adds: set HttpService::adds_no_fields if it adds none"
                        );
                    });
                    Some(NotStored::ClientHeaders)
                } else {
                    None
                };
                let mut response: http::Response<Body> = response.into();
                if let Some(reason) = unstorable {
                    response.extensions_mut().insert(Unstorable(reason));
                }
                Poll::Ready(Ok(response))
            }
        }
    }
}

impl fmt::Debug for HttpServiceFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpServiceFuture").finish_non_exhaustive()
    }
}
