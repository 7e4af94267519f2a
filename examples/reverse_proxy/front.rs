//! The part above the cache: checks requests before they reach it, and turns failures into responses.
//!
//! # Invariants
//! - A request that names no host is answered 400, and CONNECT 501.
//! - A failure of the origin is answered 502 or 504, unless the cache has a response to serve.
//! - A hit needs no formatting and no allocation here.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::HeaderValue;
use http::{Method, Request, Response, StatusCode, Version, request};
use http_body_util::Either;
use hyper::body::Incoming;
use tower::Service;
use tower_response_cache::storage::Storage;
use tower_response_cache::{Cache, CacheBody, CacheFuture, CacheLayer, Outcome};

use crate::answer::{Answer, plain};
use crate::backlog::FromOrigin;
use crate::download::Download;
use crate::fields;
use crate::host;
use crate::interim::{CLIENT, Interims};
use crate::meter;
use crate::origin::{Failure, Origin};
use crate::pace::Slowest;
use crate::server::Respond;
use crate::upload::Upload;

/// Settings for ranges of bodies, and for bodies that break off.
#[derive(Clone, Copy, Default)]
pub struct Ranges {
    pub fetches_whole: bool,
    pub stores_parts: bool,
    /// In bytes, or zero.
    pub slices: u64,
    /// In bytes. `None` for the default of the cache.
    pub max_body: Option<u64>,
    /// How often the rest of a body is asked for.
    pub resume: u32,
}

/// Builds the cache with the settings of a proxy.
///
/// The status goes into the Cache-Status field only: nothing here reads the extensions.
pub fn cache_layer<S: Storage>(
    storage: S,
    shared: bool,
    ranges: Ranges,
    tag_fields: &[String],
) -> tower_response_cache::Result<CacheLayer<S>> {
    let builder = CacheLayer::builder(storage);
    let builder = match ranges.max_body {
        Some(bytes) => builder.max_body_bytes(bytes),
        None => builder,
    };
    builder
        // The cache holds several chunks of each body that it is storing. Short chunks cost a server with many slow clients
        // less memory, and hits from SQLite are as fast.
        .chunk_bytes(32 * 1024)
        .shared(shared)
        .fetch_whole_for_range(ranges.fetches_whole)
        .store_parts(ranges.stores_parts)
        .slices(ranges.slices)
        .resume(ranges.resume)
        .tag_fields(tag_fields)
        .stale_when_disconnected(true)
        .status_in_extensions(false)
        .status_field(fields::NAME)
        .build()
}

pub struct Front<S: Storage> {
    cache: Cache<Origin, S>,
    /// The Host of requests that name none.
    host: HeaderValue,
    slowest: Slowest,
}

impl<S: Storage> Front<S> {
    pub fn new(cache: Cache<Origin, S>, host: HeaderValue, slowest: Slowest) -> Self {
        Self { cache, host, slowest }
    }

    /// Checks a request, or returns the status and the reason to answer with.
    fn check(&self, parts: &mut request::Parts) -> Result<(), (StatusCode, &'static str)> {
        if parts.method == Method::CONNECT {
            return Err((StatusCode::NOT_IMPLEMENTED, "this proxy opens no tunnels"));
        }
        fields::strip_named(&mut parts.headers);
        if parts.version == Version::HTTP_2 {
            fields::join_cookies(&mut parts.headers);
        }
        host::settle(&parts.uri, parts.version, &mut parts.headers, &self.host)
            .map_err(|reason| (StatusCode::BAD_REQUEST, reason))
    }
}

impl<S: Storage> Respond for Front<S> {
    type Body = CacheBody<Download>;
    type Future = Responding;

    fn respond(&self, request: Request<Incoming>, interims: &Arc<Interims>) -> Responding {
        let (mut parts, body) = request.into_parts();
        if let Err((status, reason)) = self.check(&mut parts) {
            return Responding::Ready(Some(refused(status, reason)));
        }
        // HTTP/1.0 has no interim responses (RFC 9110 §15.2).
        let client = (parts.version == Version::HTTP_11).then(|| Arc::clone(interims));
        let request = Request::from_parts(parts, Upload::of(body, self.slowest));
        Responding::Calling { call: self.cache.clone().call(request), client }
    }
}

/// Counts a response with the cache's body, and marks it if the body comes from the origin.
fn left(mut response: Response<CacheBody<Download>>) -> Answer<CacheBody<Download>> {
    match response.body().status().map(|status| status.outcome()) {
        Some(Outcome::Miss(_) | Outcome::Bypass(_)) => {
            meter::responded("origin");
            response.extensions_mut().insert(FromOrigin);
        }
        Some(Outcome::Revalidated(_)) => meter::responded("validated"),
        Some(Outcome::Hit | Outcome::Stale(_)) => meter::responded("cache"),
        _ => meter::responded("error"),
    }
    response.map(Either::Left)
}

/// Returns a response that says why there is none of the origin or the cache.
fn refused(status: StatusCode, reason: &'static str) -> Answer<CacheBody<Download>> {
    meter::responded("error");
    plain(status, reason)
}

/// The future of a response.
///
/// An enum instead of an async block: hyper moves the future with everything that it may ever hold, and for a hit this holds
/// the response only.
pub enum Responding {
    Calling {
        call: CacheFuture<Download, Failure>,
        client: Option<Arc<Interims>>,
    },
    /// The final head waits until the interim heads before it are written.
    Finishing {
        answer: Option<Answer<CacheBody<Download>>>,
        client: Arc<Interims>,
    },
    Ready(Option<Answer<CacheBody<Download>>>),
}

impl Future for Responding {
    type Output = Result<Answer<CacheBody<Download>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Self::Calling { call, client } = &mut *self {
            // The origin's service, polled inside, finds the client here.
            let result = ready!(CLIENT.sync_scope(client.clone(), || Pin::new(call).poll(cx)));
            let client = client.take();
            let answer = match result {
                Ok(response) => left(response),
                Err(failure) => refused(failure.status(), failure.reason()),
            };
            match client {
                Some(client) if client.poll_finish(cx).is_pending() => {
                    *self = Self::Finishing { answer: Some(answer), client };
                    return Poll::Pending;
                }
                _ => return Poll::Ready(Ok(answer)),
            }
        }
        let answer = match &mut *self {
            Self::Finishing { answer, client } => {
                ready!(client.poll_finish(cx));
                answer.take()
            }
            Self::Ready(answer) => answer.take(),
            Self::Calling { .. } => None,
        };
        match answer {
            Some(answer) => Poll::Ready(Ok(answer)),
            None => Poll::Pending, // polled again after it was ready, which hyper does not do
        }
    }
}
