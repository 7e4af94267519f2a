//! Following redirects above the cache.
//!
//! # Invariants
//! - No more redirects are followed than the limit.
//! - The request's credentials for one origin are never sent to another.
//! - The method changes only where RFC 9110 §15.4 permits it.
//! - A redirect that cannot be followed is returned to the caller as it is.

use std::fmt;
use std::time::Duration;

use ::reqwest::{Method, Request, Response, StatusCode, Url};
use ::reqwest_middleware::{Error, Middleware, Next, Result};
use http::{Extensions, header};

use crate::control::{CacheOptions, CacheStatus};

/// The most bytes of a redirect's body that are read, so that the redirect is stored.
///
/// Only a body that was read to its end is stored. The page that a server sends with a redirect is far shorter than
/// this, and reading more would cost more than asking for the redirect again.
const MAX_DRAINED_BYTES: usize = 64 * 1024;

/// The longest time for which the body of a redirect is read.
///
/// The caller waits for the next hop meanwhile.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// A middleware that follows redirects.
///
/// Above a [`CacheMiddleware`](super::CacheMiddleware) it lets the cache store each redirect by its own fields. The
/// client below must not follow redirects by itself (`redirect(Policy::none())`). There is an example at
/// [`CacheMiddleware`](super::CacheMiddleware).
///
/// - **Method**: 301 and 302 change POST to GET, 303 changes every method but GET and HEAD to GET, and 307 and 308
///   change nothing (RFC 9110 §15.4).
/// - **Body**: it is sent again where the method stays the same. A stream cannot be sent again, so that the redirect
///   itself is the response.
/// - **Location**: a redirect without a valid Location of http or https is the response as well.
/// - **Credentials**: a redirect to another origin removes Authorization, Cookie, Proxy-Authorization and Host.
///
/// The client below adds its own fields to each hop. Credentials among its default headers therefore go to every origin
/// that is redirected to. Put them into the requests instead (`reqwest_middleware::ClientBuilder::with_init`).
///
/// A [`CacheOptions::key`](crate::CacheOptions::key) names only the response to the first URL. All other
/// [`CacheOptions`](crate::CacheOptions) apply to each hop.
///
/// The extensions of the last response have the redirects that were followed, as [`Redirects`].
///
/// # Errors
/// Returns [`TooManyRedirects`], inside `reqwest_middleware::Error::Middleware`, if there are more redirects than the
/// limit.
#[derive(Clone, Debug)]
pub struct FollowRedirects {
    limit: usize,
}

/// The error of a request with more redirects than [`FollowRedirects`] follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyRedirects {
    limit: usize,
}

/// The redirects that [`FollowRedirects`] followed to a response, in their order.
///
/// They are in the extensions of the response, if there were any.
///
/// ```
/// use tower_response_cache::reqwest::{Redirects, reqwest_client::Response};
///
/// fn report(response: &Response) {
///     for redirect in response.extensions().get::<Redirects>().map_or(&[][..], Redirects::as_slice) {
///         println!("{} {} {:?}", redirect.status(), redirect.url(), redirect.cache().map(|cache| cache.word()));
///     }
/// }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Redirects(Vec<Redirect>);

/// One redirect that was followed.
#[derive(Clone, Debug)]
pub struct Redirect {
    url: Url,
    status: StatusCode,
    cache: Option<CacheStatus>,
}

impl FollowRedirects {
    /// Creates the middleware with the default limit.
    pub fn new() -> Self {
        Self { limit: 10 }
    }

    /// Sets how many redirects are followed for one request.
    ///
    /// One more is the error [`TooManyRedirects`].
    ///
    /// Default: 10, as with reqwest.
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
    /// Returns how many redirects were followed.
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

impl Redirects {
    /// Returns the redirects, the first one first.
    pub fn as_slice(&self) -> &[Redirect] {
        &self.0
    }

    fn add(&mut self, response: &Response) {
        let cache = response.extensions().get::<CacheStatus>().copied();
        self.0.push(Redirect { url: response.url().clone(), status: response.status(), cache });
    }
}

impl Redirect {
    /// Returns the URL that redirected.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Returns the status code of the redirect.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns what the cache below did for the response that redirected.
    ///
    /// `None` if there is no cache below.
    pub fn cache(&self) -> Option<&CacheStatus> {
        self.cache.as_ref()
    }
}

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
        // `follow` removes the key from the options. A middleware above that retries needs them as they were.
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
        let mut redirects = Redirects::default();
        loop {
            let copy = RequestCopy::of(&mut request);
            let mut response = next.clone().run(request, extensions).await?;
            let redirected = copy.and_then(|copy| copy.redirect(&response));
            let Some(redirected) = redirected else {
                if !redirects.as_slice().is_empty() {
                    response.extensions_mut().insert(redirects);
                }
                return Ok(response);
            };
            if redirects.as_slice().len() >= self.limit {
                return Err(Error::middleware(TooManyRedirects { limit: self.limit }));
            }
            redirects.add(&response);
            drain(response).await;
            request = redirected;
            // The first redirect is stored under the request's own key, and would be found there as the response of the
            // next hop.
            if let Some(options) = extensions.get_mut::<CacheOptions>() {
                *options = options.without_key();
            }
        }
    }
}

/// A copy of a request, from which the request to the next URL is made.
struct RequestCopy {
    request: Request,
    /// The copy has the body too, since it is not a stream.
    has_body: bool,
}

impl RequestCopy {
    /// Copies a request, without its body if that is a stream.
    fn of(request: &mut Request) -> Option<Self> {
        if let Some(request) = request.try_clone() {
            return Some(Self { request, has_body: true });
        }
        // `try_clone` fails because of a stream alone.
        let body = request.body_mut().take();
        let copy = request.try_clone();
        *request.body_mut() = body;
        Some(Self { request: copy?, has_body: false })
    }

    /// Returns the request that a redirect asks for (RFC 9110 §15.4).
    ///
    /// `None` if the response is not a redirect, or not one that can be followed.
    fn redirect(self, response: &Response) -> Option<Request> {
        let Self { mut request, has_body } = self;
        let becomes_get = match response.status() {
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => request.method() == Method::POST,
            StatusCode::SEE_OTHER => !matches!(*request.method(), Method::GET | Method::HEAD),
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => false,
            _ => return None,
        };
        let target = target(request.url(), response)?;
        if becomes_get {
            *request.method_mut() = Method::GET;
            *request.body_mut() = None;
            // The fields that describe the body, which is gone (RFC 9110 §15.4).
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
        } else if !has_body {
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

/// Returns the URL that a redirect leads to (RFC 9110 §10.2.2).
fn target(from: &Url, response: &Response) -> Option<Url> {
    let location = std::str::from_utf8(response.headers().get(header::LOCATION)?.as_bytes()).ok()?;
    let mut target = from.join(location).ok()?;
    if !matches!(target.scheme(), "http" | "https") {
        return None;
    }
    // An origin must not choose the credentials that are sent to another one.
    target.set_username("").ok()?;
    target.set_password(None).ok()?;
    Some(target)
}

/// Reads the body of a redirect to its end, if that is near.
///
/// The cache below stores only a response whose body was read.
async fn drain(mut response: Response) {
    let reading = async {
        let mut read = 0;
        while let Ok(Some(data)) = response.chunk().await {
            read += data.len();
            if read > MAX_DRAINED_BYTES {
                return;
            }
        }
    };
    // A body that takes longer is dropped. Then the redirect is not stored, but it is followed all the same.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, reading).await;
}
