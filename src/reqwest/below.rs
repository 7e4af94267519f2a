//! How the cache reaches what stands below it: the rest of the chain, or a client of its own.
//!
//! Promises: a request goes out with the caller's URL, timeout and version; a response comes back with the URL that it
//! finally came from, and with a note where that, or what the client may have added, forbids to store it.

use std::sync::Once;

use ::reqwest::{Body, Request, Response, StatusCode, Url};
use ::reqwest_middleware::{ClientWithMiddleware, Error, Next};
use bytes::Bytes;
use http::{Extensions, HeaderMap, header};

use crate::policy;
use crate::policy::NotStored;
use crate::service::{Fetcher, Unstorable};

/// The URL that a response came from.
#[derive(Clone, Debug)]
pub(super) struct Source(pub(super) Url);

/// What is known of one request besides its parts.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// Without a fragment, which is never sent: so the client gives it back.
    pub(super) url: Url,
    /// The cache was not told which fields are added below.
    pub(super) untold: bool,
    /// What the request is told apart by, so that it can be sent again.
    pub(super) content: Option<Bytes>,
}

impl Question {
    fn again(&self) -> Option<Body> {
        self.content.clone().map(Body::from)
    }

    fn request(&self, request: http::Request<Option<Body>>) -> Result<Request, Error> {
        let (parts, body) = request.into_parts();
        let mut request = Request::try_from(http::Request::from_parts(parts, Body::default()))?;
        *request.body_mut() = body;
        *request.url_mut() = self.url.clone();
        Ok(request)
    }

    fn response(&self, response: Response) -> http::Response<Body> {
        let source = response.url().clone();
        let unstorable = if source != self.url {
            Some(NotStored::Redirected)
        } else if self.untold && !is_for_all(&response) {
            static WARNED: Once = Once::new();
            WARNED.call_once(|| {
                tracing::warn!(
                    "what is not public is not cached: CacheMiddleware::client_headers says what the client adds"
                );
            });
            Some(NotStored::ClientHeaders)
        } else {
            None
        };
        let mut response: http::Response<Body> = response.into();
        response.extensions_mut().insert(Source(source));
        if let Some(reason) = unstorable {
            response.extensions_mut().insert(Unstorable(reason));
        }
        response
    }
}

/// The rest of the chain of middlewares, for as long as the request lives.
pub(super) struct Chain<'a> {
    pub(super) next: Next<'a>,
    pub(super) extensions: &'a mut Extensions,
    pub(super) question: Question,
    pub(super) refresher: Option<ClientWithMiddleware>,
}

impl Fetcher for Chain<'_> {
    type RequestBody = Option<Body>;
    type Body = Body;
    type Error = Error;
    type Detached = Refresher;
    type Background = Refresher;

    async fn fetch(&mut self, request: http::Request<Option<Body>>) -> Result<http::Response<Body>, Error> {
        let request = self.question.request(request)?;
        let response = self.next.clone().run(request, self.extensions).await?;
        Ok(self.question.response(response))
    }

    fn again(&self) -> Option<Body> {
        self.question.again()
    }

    fn detach(self) -> Result<Refresher, Self> {
        Err(self) // the rest of the chain is the request's
    }

    fn background(&self) -> Option<Refresher> {
        let client = self.refresher.clone()?;
        Some(Refresher { client, question: self.question.clone() })
    }
}

/// A client that outlives the request.
pub(super) struct Refresher {
    client: ClientWithMiddleware,
    question: Question,
}

impl Fetcher for Refresher {
    type RequestBody = Option<Body>;
    type Body = Body;
    type Error = Error;
    type Detached = Self;
    type Background = Self;

    async fn fetch(&mut self, request: http::Request<Option<Body>>) -> Result<http::Response<Body>, Error> {
        let response = self.client.execute(self.question.request(request)?).await?;
        Ok(self.question.response(response))
    }

    fn again(&self) -> Option<Body> {
        self.question.again()
    }

    fn detach(self) -> Result<Self, Self> {
        Ok(self)
    }

    fn background(&self) -> Option<Self> {
        Some(Self { client: self.client.clone(), question: self.question.clone() })
    }
}

/// Whether a response is the same for the users of any client, as far as it says. A 304 without Cache-Control says nothing
/// new of what is stored.
fn is_for_all(response: &Response) -> bool {
    let headers = response.headers();
    let confirms =
        response.status() == StatusCode::NOT_MODIFIED && !headers.contains_key(header::CACHE_CONTROL);
    (confirms || policy::is_public(headers)) && !varies_on_credentials(headers)
}

fn varies_on_credentials(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::VARY).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).any(|member| {
        let member = member.trim_ascii();
        member.eq_ignore_ascii_case(b"cookie") || member.eq_ignore_ascii_case(b"authorization")
    })
}
