//! What is above the cache: requests are checked before it, failures become responses after it.
//!
//! Promises: a request that names no host is answered 400, CONNECT 501; an origin that fails is answered 502 or 504
//! unless the cache has something to serve; a hit costs no formatting and no allocation here.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::HeaderValue;
use http::{Method, Request, StatusCode, Version, request};
use http_body_util::Either;
use hyper::body::Incoming;
use tower::Service;
use tower_response_cache::storage::Storage;
use tower_response_cache::{Cache, CacheBody, CacheFuture, CacheLayer};

use crate::answer::{Answer, plain};
use crate::fields;
use crate::host;
use crate::interim::{CLIENT, Interims};
use crate::origin::{Failure, Origin};
use crate::server::Respond;
use crate::upload::Upload;

/// The cache with the settings of a proxy.
pub fn cache_layer<S: Storage>(storage: S, shared: bool) -> tower_response_cache::Result<CacheLayer<S>> {
    let builder = CacheLayer::builder(storage)
        .stale_when_disconnected(true)
        .status_in_extensions(false)
        .status_field(fields::NAME);
    if shared { builder.shared(true).build() } else { builder.build() }
}

pub struct Front<S: Storage> {
    cache: Cache<Origin, S>,
    /// The Host of requests that name none.
    host: HeaderValue,
}

impl<S: Storage> Front<S> {
    pub fn new(cache: Cache<Origin, S>, host: HeaderValue) -> Self {
        Self { cache, host }
    }

    fn check(&self, parts: &mut request::Parts) -> Result<(), (StatusCode, &'static str)> {
        if parts.method == Method::CONNECT {
            return Err((StatusCode::NOT_IMPLEMENTED, "there are no tunnels here"));
        }
        fields::strip_named(&mut parts.headers);
        host::settle(&parts.uri, parts.version, &mut parts.headers, &self.host)
            .map_err(|reason| (StatusCode::BAD_REQUEST, reason))
    }
}

impl<S: Storage> Respond for Front<S> {
    type Body = CacheBody<Incoming>;
    type Future = Responding;

    fn respond(&self, request: Request<Incoming>, interims: &Arc<Interims>) -> Responding {
        let (mut parts, body) = request.into_parts();
        if let Err((status, reason)) = self.check(&mut parts) {
            return Responding::Answered(Some(plain(status, reason)));
        }
        // A client of HTTP/1.0 does not know what an interim response is.
        let client = (parts.version == Version::HTTP_11).then(|| Arc::clone(interims));
        let request = Request::from_parts(parts, Upload::of(body));
        Responding::Asked { cached: self.cache.clone().call(request), client }
    }
}

/// Written out, since hyper moves it with all that it might ever hold: a hit holds its response and no more.
pub enum Responding {
    Asked {
        cached: CacheFuture<Incoming, Failure>,
        client: Option<Arc<Interims>>,
    },
    /// The final head waits for interim ones to be written.
    Finishing {
        answer: Option<Answer<CacheBody<Incoming>>>,
        client: Arc<Interims>,
    },
    Answered(Option<Answer<CacheBody<Incoming>>>),
}

impl Future for Responding {
    type Output = Result<Answer<CacheBody<Incoming>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Self::Asked { cached, client } = &mut *self {
            let result = ready!(CLIENT.sync_scope(client.clone(), || Pin::new(cached).poll(cx)));
            let client = client.take();
            let answer = match result {
                Ok(response) => response.map(Either::Left),
                Err(failure) => plain(failure.status(), failure.reason()),
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
            Self::Answered(answer) => answer.take(),
            Self::Asked { .. } => None,
        };
        match answer {
            Some(answer) => Poll::Ready(Ok(answer)),
            None => Poll::Pending, // polled after it was ready: there is nothing more to come
        }
    }
}
