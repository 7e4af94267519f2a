//! The fetchers of the middleware.
//!
//! One sends requests through the rest of a request's chain, the other through a client for background refreshes.
//!
//! # Invariants
//! - A request goes out with the caller's URL, timeout and version.
//! - A response carries the URL that it finally came from.
//! - A response is marked as [`Unstorable`] if it came from another URL, or if it may depend on fields that the client
//!   added and the cache does not know.

use std::sync::Once;

use ::reqwest::{Body, Request, Response, StatusCode, Url};
use ::reqwest_middleware::{ClientWithMiddleware, Error, Next};
use bytes::Bytes;
use http::{Extensions, HeaderMap, header};

use crate::policy;
use crate::policy::NotStored;
use crate::service::{Fetcher, Unstorable};

/// Carries the URL that a response came from, in the response's extensions.
#[derive(Clone, Debug)]
pub(super) struct FinalUrl(pub(super) Url);

/// The facts about a request that `http::request::Parts` cannot hold, from which it can be sent again.
#[derive(Clone, Debug)]
pub(super) struct RequestTemplate {
    /// The URL without its fragment.
    ///
    /// A fragment is never sent, so that the URL of a response has none to compare with.
    pub(super) url: Url,
    /// The cache does not know which fields the client adds below it.
    pub(super) has_hidden_fields: bool,
    /// The content, where it selects the response.
    pub(super) content: Option<Bytes>,
}

impl RequestTemplate {
    /// Returns the body of a request that is sent again.
    fn repeated_body(&self) -> Option<Body> {
        self.content.clone().map(Body::from)
    }

    /// Converts a request of the cache into one of reqwest.
    fn request(&self, request: http::Request<Option<Body>>) -> Result<Request, Error> {
        let (parts, body) = request.into_parts();
        let mut request = Request::try_from(http::Request::from_parts(parts, Body::default()))?;
        *request.body_mut() = body;
        *request.url_mut() = self.url.clone();
        Ok(request)
    }

    /// Converts a response of reqwest into one for the cache.
    ///
    /// It is marked as [`Unstorable`] if it must not be stored.
    fn response(&self, response: Response) -> http::Response<Body> {
        let final_url = response.url().clone();
        let unstorable = if final_url != self.url {
            Some(NotStored::Redirected)
        } else if self.has_hidden_fields && !is_for_all_clients(&response) {
            // Once for the program, since the cause is its setup and each response would repeat the warning.
            static WARNED: Once = Once::new();
            WARNED.call_once(|| {
                tracing::warn!(
                    "responses that are not `public` are not cached, since the cache does not know which fields the \
                     client adds: set CacheMiddleware::client_headers or CacheMiddleware::partition"
                );
            });
            Some(NotStored::ClientHeaders)
        } else {
            None
        };
        let mut response: http::Response<Body> = response.into();
        response.extensions_mut().insert(FinalUrl(final_url));
        if let Some(reason) = unstorable {
            response.extensions_mut().insert(Unstorable(reason));
        }
        response
    }
}

/// A fetcher that sends requests through the rest of the chain of middlewares.
///
/// The chain belongs to the request and ends with it.
pub(super) struct ChainFetcher<'a> {
    pub(super) next: Next<'a>,
    pub(super) extensions: &'a mut Extensions,
    pub(super) template: RequestTemplate,
    pub(super) refresh_client: Option<ClientWithMiddleware>,
}

impl Fetcher for ChainFetcher<'_> {
    type RequestBody = Option<Body>;
    type Body = Body;
    type Error = Error;
    type Detached = RefreshFetcher;
    type Background = RefreshFetcher;

    async fn fetch(&mut self, request: http::Request<Option<Body>>) -> Result<http::Response<Body>, Error> {
        let request = self.template.request(request)?;
        let response = self.next.clone().run(request, self.extensions).await?;
        Ok(self.template.response(response))
    }

    fn repeated_body(&self) -> Option<Body> {
        self.template.repeated_body()
    }

    fn detach(self) -> Result<RefreshFetcher, Self> {
        Err(self) // `Next` borrows from the request's caller
    }

    fn background(&self) -> Option<RefreshFetcher> {
        let client = self.refresh_client.clone()?;
        Some(RefreshFetcher { client, template: self.template.clone() })
    }
}

/// A fetcher that sends requests through a client of its own.
///
/// It can outlive the request.
pub(super) struct RefreshFetcher {
    client: ClientWithMiddleware,
    template: RequestTemplate,
}

impl Fetcher for RefreshFetcher {
    type RequestBody = Option<Body>;
    type Body = Body;
    type Error = Error;
    type Detached = Self;
    type Background = Self;

    async fn fetch(&mut self, request: http::Request<Option<Body>>) -> Result<http::Response<Body>, Error> {
        let response = self.client.execute(self.template.request(request)?).await?;
        Ok(self.template.response(response))
    }

    fn repeated_body(&self) -> Option<Body> {
        self.template.repeated_body()
    }

    fn detach(self) -> Result<Self, Self> {
        Ok(self)
    }

    fn background(&self) -> Option<Self> {
        Some(Self { client: self.client.clone(), template: self.template.clone() })
    }
}

/// Returns whether a response says that it is the same for every client.
///
/// A 304 without Cache-Control leaves the directives of the stored response as they are, and that response was stored
/// only because it passed this check.
pub(super) fn is_for_all_clients(response: &Response) -> bool {
    let headers = response.headers();
    let keeps_directives =
        response.status() == StatusCode::NOT_MODIFIED && !headers.contains_key(header::CACHE_CONTROL);
    (keeps_directives || policy::is_public(headers)) && !varies_on_credentials(headers)
}

/// Returns whether Vary names Cookie or Authorization.
fn varies_on_credentials(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::VARY).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).any(|member| {
        let member = member.trim_ascii();
        member.eq_ignore_ascii_case(b"cookie") || member.eq_ignore_ascii_case(b"authorization")
    })
}
