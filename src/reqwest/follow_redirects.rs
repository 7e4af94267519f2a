//! Follows redirects above the cache.
//!
//! Promises: never more hops than the limit; credentials of one origin are never sent to another; a method changes only
//! where RFC 9110 §15.4 lets it; a redirect that cannot be followed is given to the caller as it is.

use std::fmt;
use std::time::Duration;

use ::reqwest::{Method, Request, Response, StatusCode, Url};
use ::reqwest_middleware::{Error, Middleware, Next, Result};
use http::{Extensions, header};

use super::hops::Hops;
use crate::control::CacheOptions;

/// So much of a redirect's body is read, in bytes and time: only a body that was read to its end is stored.
const DRAINED: usize = 64 * 1024;
const DRAINING: Duration = Duration::from_secs(1);

/// Follows redirects as a middleware. Put above a [`CacheMiddleware`](super::CacheMiddleware) it lets each hop be cached
/// by its own rules; the client below must not follow any (`redirect(Policy::none())`).
///
/// 301 and 302 turn POST into GET, 303 turns everything but GET and HEAD into GET, 307 and 308 change nothing. Where the
/// method stays, the body is sent again: if it is a stream, which cannot be, the redirect itself is the response. So is
/// one without a valid Location of http or https. A redirect to another origin loses Authorization, Cookie,
/// Proxy-Authorization and Host.
///
/// A [key](crate::CacheOptions::key) of the request's own names the first response alone; all else of its
/// [`CacheOptions`](crate::CacheOptions) is for each hop.
///
/// What the client below adds, it adds to each hop: credentials among its default headers go to every origin that the
/// way leads to. Put them into requests instead (`reqwest_middleware::ClientBuilder::with_init`).
///
/// The last response has the hops in its extensions: [`Hops`]. An example is at
/// [`CacheMiddleware`](super::CacheMiddleware).
///
/// # Errors
/// [`TooManyRedirects`], inside of `reqwest_middleware::Error::Middleware`.
#[derive(Clone, Debug)]
pub struct FollowRedirects {
    limit: usize,
}

/// There were more redirects than [`FollowRedirects`] follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyRedirects {
    limit: usize,
}

impl FollowRedirects {
    /// A follower with the default limit.
    pub fn new() -> Self {
        Self { limit: 10 }
    }

    /// How many redirects are followed for one request; one more is an error. Default: 10.
    #[must_use]
    pub fn limit(mut self, most: usize) -> Self {
        self.limit = most;
        self
    }
}

impl Default for FollowRedirects {
    fn default() -> Self {
        Self::new()
    }
}

impl TooManyRedirects {
    /// How many were followed.
    pub fn limit(&self) -> usize {
        self.limit
    }
}

impl fmt::Display for TooManyRedirects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "more than {} redirects", self.limit)
    }
}

impl std::error::Error for TooManyRedirects {}

#[async_trait::async_trait]
impl Middleware for FollowRedirects {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let options = extensions.get::<CacheOptions>().cloned();
        let response = self.follow(request, extensions, next).await;
        // A middleware above may send the request once more.
        if let Some(options) = options {
            extensions.insert(options);
        }
        response
    }
}

impl FollowRedirects {
    async fn follow(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let mut hops = Hops::default();
        loop {
            let again = Repeatable::of(&mut request);
            let mut response = next.clone().run(request, extensions).await?;
            let following = again.and_then(|again| again.follow(&response));
            let Some(following) = following else {
                if !hops.as_slice().is_empty() {
                    response.extensions_mut().insert(hops);
                }
                return Ok(response);
            };
            if hops.as_slice().len() >= self.limit {
                return Err(Error::middleware(TooManyRedirects { limit: self.limit }));
            }
            hops.add(&response);
            drain(response).await;
            request = following;
            // A key of the request's own is its first URI's: under it the redirect is stored, which is no answer to where
            // it leads.
            if let Some(options) = extensions.get_mut::<CacheOptions>() {
                *options = options.without_key();
            }
        }
    }
}

/// A copy of a request, from which the next one is made.
struct Repeatable {
    request: Request,
    /// It has the body as well.
    whole: bool,
}

impl Repeatable {
    fn of(request: &mut Request) -> Option<Self> {
        if let Some(request) = request.try_clone() {
            return Some(Self { request, whole: true });
        }
        let body = request.body_mut().take();
        let copy = request.try_clone();
        *request.body_mut() = body;
        Some(Self { request: copy?, whole: false })
    }

    /// The request that this response asks for; `None`: it is no redirect, or none that can be followed.
    fn follow(self, response: &Response) -> Option<Request> {
        let Self { mut request, whole } = self;
        let to_get = match response.status() {
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => request.method() == Method::POST,
            StatusCode::SEE_OTHER => !matches!(*request.method(), Method::GET | Method::HEAD),
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => false,
            _ => return None,
        };
        let target = target(request.url(), response)?;
        if to_get {
            *request.method_mut() = Method::GET;
            *request.body_mut() = None;
            for name in [
                header::CONTENT_LENGTH,
                header::CONTENT_TYPE,
                header::CONTENT_ENCODING,
                header::CONTENT_LANGUAGE,
                header::CONTENT_LOCATION,
                header::TRANSFER_ENCODING,
                header::EXPECT,
            ] {
                request.headers_mut().remove(name);
            }
        } else if !whole {
            return None;
        }
        if target.origin() != request.url().origin() {
            for name in [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION, header::HOST] {
                request.headers_mut().remove(name);
            }
        }
        *request.url_mut() = target;
        Some(request)
    }
}

/// Where a redirect leads (RFC 9110 §10.2.2).
fn target(from: &Url, response: &Response) -> Option<Url> {
    let location = std::str::from_utf8(response.headers().get(header::LOCATION)?.as_bytes()).ok()?;
    let mut target = from.join(location).ok()?;
    if !matches!(target.scheme(), "http" | "https") {
        return None;
    }
    // An origin has no business to choose with whose credentials the next one is asked.
    target.set_username("").ok()?;
    target.set_password(None).ok()?;
    Some(target)
}

/// Reads the body of a redirect to its end, unless that is far.
async fn drain(mut response: Response) {
    let reading = async {
        let mut read = 0;
        while let Ok(Some(data)) = response.chunk().await {
            read += data.len();
            if read > DRAINED {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DRAINING, reading).await; // it is then not stored, and that is all
}
