//! The service below the cache: sends requests to the origin.
//!
//! # Invariants
//! - Every request goes to the one origin, with its path and query byte for byte and its own Host.
//! - Connections are pooled: HTTP/1 ones here, HTTP/2 ones in `multiplex`.
//! - An origin that cannot be reached, breaks off or is late is an error, so that the cache may serve a stale response.

use std::error::Error as StdError;
use std::fmt;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{HOST, HeaderValue};
use http::uri::{Authority, Parts, Scheme};
use http::{Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout_at};
use tower::Service;

use crate::connect::{self, Connector, HTTP1, HTTP2};
use crate::download::Download;
use crate::fields;
use crate::interim;
use crate::meter;
use crate::multiplex::{Multiplexer, Place, SendError, Sent};
use crate::pace::Slowest;
use crate::report::{Kind, causes, report};
use crate::upload::{Progress, Upload, UploadError};

/// How much is read from the origin at once, and the maximum length of a response's head.
///
/// Each frame of a body keeps a buffer of this length. hyper's default is 400 kB, so that a few frames that wait for a slow
/// client would hold more than a megabyte.
const MAX_READ: usize = 32 * 1024;

#[derive(Clone)]
pub struct Origin(Arc<Inner>);

/// The version of HTTP that is spoken to the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    Http1,
    /// HTTP/2, which the origin is known to speak.
    Http2,
    /// HTTP/2 if the origin chooses it in TLS (ALPN), HTTP/1 otherwise.
    Negotiated,
}

struct Inner {
    http1: Client<Connector, Upload>,
    http2: Option<Multiplexer>,
    scheme: Scheme,
    authority: Authority,
    host: HeaderValue,
    timeout: Duration,
}

/// Why the origin gave no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    Unreachable,
    InvalidResponse,
    Timeout,
    /// The client's Host cannot be sent by HTTP/2.
    Host,
    /// The client did not send its content to the end.
    Client(UploadError),
}

impl Failure {
    pub fn status(self) -> StatusCode {
        match self {
            Self::Unreachable | Self::InvalidResponse => StatusCode::BAD_GATEWAY,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Client(UploadError::Slow) => StatusCode::REQUEST_TIMEOUT,
            Self::Host | Self::Client(UploadError::BrokenOff) => StatusCode::BAD_REQUEST,
        }
    }

    pub fn reason(self) -> &'static str {
        match self {
            Self::Unreachable => "the origin cannot be reached",
            Self::InvalidResponse => "the origin sent no valid response",
            Self::Timeout => "the origin did not answer in time",
            Self::Host => "the request's Host field is malformed",
            Self::Client(UploadError::Slow) => "the content came too slowly",
            Self::Client(UploadError::BrokenOff) => "the content was broken off",
        }
    }

    /// Reports the failure, unless the client is to blame.
    fn report(self, cause: &dyn Fn() -> String) {
        let (kind, word) = match self {
            Self::Unreachable => (Kind::OriginUnreachable, "unreachable"),
            Self::InvalidResponse => (Kind::OriginInvalid, "invalid_response"),
            Self::Timeout => (Kind::OriginLate, "timeout"),
            Self::Host | Self::Client(_) => return,
        };
        meter::origin_failed(word);
        report(kind, cause);
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for Failure {}

impl Origin {
    /// Creates a client for the origin at this URL, which trusts the authorities in a PEM file, or public ones.
    ///
    /// The timeout is for the head of a response, and then for each wait for a part of its body.
    ///
    /// # Errors
    /// Returns a message if the URL has no scheme or no authority, or the file is not usable.
    pub fn new(
        url: &Uri,
        timeout: Duration,
        speaks: Speaks,
        authorities: Option<&Path>,
    ) -> Result<Self, String> {
        let (Some(scheme), Some(authority)) = (url.scheme(), url.authority()) else {
            return Err(format!("{url} is not an absolute URL"));
        };
        let host = HeaderValue::from_str(authority.as_str()).map_err(|error| format!("{url}: {error}"))?;
        let [plain, negotiating] = connect::connectors(authorities, [&[HTTP1], &[HTTP2, HTTP1]])?;
        let http1 = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .http1_max_buf_size(MAX_READ)
            .set_host(false) // the client's Host is forwarded
            .build(plain);
        let is_negotiated = speaks == Speaks::Negotiated;
        let http2 =
            (speaks != Speaks::Http1).then(|| Multiplexer::new(negotiating, url.clone(), is_negotiated));
        let (scheme, authority) = (scheme.clone(), authority.clone());
        Ok(Self(Arc::new(Inner { http1, http2, scheme, authority, host, timeout })))
    }

    /// Returns the Host for requests that name none.
    pub fn host(&self) -> HeaderValue {
        self.0.host.clone()
    }
}

impl Service<Request<Upload>> for Origin {
    type Response = Response<Download>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Download>, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Upload>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.send(request).await })
    }
}

impl Inner {
    async fn send(&self, mut request: Request<Upload>) -> Result<Response<Download>, Failure> {
        self.address(&mut request)?;
        if let Some(ticket) = interim::ticket().await {
            hyper::ext::on_informational(&mut request, move |interim| {
                ticket.send(interim.status(), interim.headers());
            });
        }
        let progress = request.body().progress();
        let (mut response, place) = self.within_timeout(progress, self.exchange(request)).await?;
        if response.status().is_informational() {
            // A 101, although Upgrade is never forwarded.
            Failure::InvalidResponse.report(&|| format!("it sent {}", response.status()));
            return Err(Failure::InvalidResponse);
        }
        let version = response.version();
        *response.version_mut() = Version::HTTP_11;
        fields::strip_response(response.headers_mut());
        fields::append_via(response.headers_mut(), version);
        let slowest = Slowest::new(self.timeout, 0);
        Ok(response.map(|body| Download::new(body, slowest, place)))
    }

    /// Sends a request by the version of HTTP that the origin speaks.
    async fn exchange(
        &self,
        mut request: Request<Upload>,
    ) -> Result<(Response<Incoming>, Option<Place>), ExchangeError> {
        if let Some(http2) = &self.http2 {
            request = match http2.send(request).await.map_err(ExchangeError::Http2)? {
                Sent::Response(response, place) => return Ok((response, Some(place))),
                Sent::Http1(request) => request,
            };
        }
        let response = self.http1.request(request).await.map_err(ExchangeError::Http1)?;
        Ok((response, None))
    }

    /// Addresses a client's request to the origin, in the form of HTTP/1.
    fn address(&self, request: &mut Request<Upload>) -> Result<(), Failure> {
        let mut parts = Parts::default();
        (parts.scheme, parts.authority) = (Some(self.scheme.clone()), Some(self.authority.clone()));
        parts.path_and_query = request.uri().path_and_query().cloned().or_else(|| "/".parse().ok());
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Failure::Unreachable)?;

        let version = std::mem::replace(request.version_mut(), Version::HTTP_11);
        let (empty, len) = (request.body().is_end_stream(), request.body().size_hint().exact());
        let headers = request.headers_mut();
        fields::strip_request(headers);
        fields::append_via(headers, version);
        fields::frame(headers, empty, len);
        headers.entry(HOST).or_insert_with(|| self.host.clone());
        Ok(())
    }

    /// Waits for the head of the response. The timeout starts anew with each piece of the request's content that is sent:
    /// an origin may wait for the last one before it answers.
    async fn within_timeout(
        &self,
        progress: Option<Progress>,
        response: impl Future<Output = Result<(Response<Incoming>, Option<Place>), ExchangeError>>,
    ) -> Result<(Response<Incoming>, Option<Place>), Failure> {
        let mut response = pin!(response);
        let mut since = Instant::now();
        loop {
            match timeout_at(since + self.timeout, response.as_mut()).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(error)) => {
                    let failure = match progress.as_ref().and_then(Progress::failed) {
                        Some(failed) => Failure::Client(failed),
                        None => error.failure(),
                    };
                    failure.report(&|| causes(error.cause()));
                    return Err(failure);
                }
                Err(_) => match progress.as_ref().map(Progress::latest) {
                    Some(latest) if latest > since => since = latest,
                    _ => {
                        Failure::Timeout.report(&String::new);
                        return Err(Failure::Timeout);
                    }
                },
            }
        }
    }
}

/// Why there is no response.
enum ExchangeError {
    Http1(ClientError),
    Http2(SendError),
}

impl ExchangeError {
    fn failure(&self) -> Failure {
        match self {
            Self::Http1(error) if error.is_connect() => Failure::Unreachable,
            Self::Http2(SendError::Unreachable(_)) => Failure::Unreachable,
            Self::Http2(SendError::Host) => Failure::Host,
            Self::Http1(_) | Self::Http2(SendError::Http(_)) => Failure::InvalidResponse,
        }
    }

    fn cause(&self) -> &(dyn StdError + 'static) {
        match self {
            Self::Http1(error) => error,
            Self::Http2(error) => error,
        }
    }
}
