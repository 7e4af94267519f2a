//! What is above the cache: requests are checked before it, failures become responses after it.
//!
//! Promises: a request that names no host is answered 400, CONNECT 501; an origin that fails is answered 502 or 504
//! unless the cache has something to serve; a hit costs no formatting and no allocation here.

use std::future::poll_fn;
use std::sync::Arc;

use http::header::HeaderValue;
use http::{Method, Request, StatusCode};
use http_body_util::Either;
use hyper::body::Incoming;
use tower::Service;
use tower_response_cache::storage::Storage;
use tower_response_cache::{Cache, CacheBody, CacheLayer};

use crate::answer::{Answer, plain};
use crate::fields;
use crate::host;
use crate::interim::{CLIENT, Interims};
use crate::origin::Origin;
use crate::server::Respond;
use crate::upload::Upload;

/// The cache with the settings of a proxy.
pub fn cache_layer<S: Storage>(storage: S, shared: bool) -> CacheLayer<S> {
    let builder = CacheLayer::builder(storage)
        .store_set_cookie()
        .stale_on_failure()
        .status_in_extensions(false)
        .status_field(fields::NAME);
    if shared { builder.shared().build() } else { builder.build() }
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

    fn check(&self, request: &mut Request<Incoming>) -> Result<(), (StatusCode, &'static str)> {
        if request.method() == Method::CONNECT {
            return Err((StatusCode::NOT_IMPLEMENTED, "there are no tunnels here"));
        }
        let (uri, version) = (request.uri().clone(), request.version());
        let headers = request.headers_mut();
        fields::strip_named(headers);
        host::settle(&uri, version, headers, &self.host).map_err(|reason| (StatusCode::BAD_REQUEST, reason))
    }
}

impl<S: Storage> Respond for Front<S> {
    type Body = CacheBody<Incoming>;

    async fn respond(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        interims: Arc<Interims>,
    ) -> Answer<CacheBody<Incoming>> {
        if let Err((status, reason)) = self.check(&mut request) {
            return plain(status, reason);
        }
        // A client of HTTP/1.0 does not know what an interim response is.
        let client = (request.version() == http::Version::HTTP_11).then(|| Arc::clone(&interims));
        let answered = self.cache.clone().call(request.map(Upload::of));
        let result = CLIENT.scope(client, answered).await;
        poll_fn(|cx| interims.poll_finish(cx)).await;
        match result {
            Ok(response) => response.map(Either::Left),
            Err(failure) => plain(failure.status(), failure.reason()),
        }
    }
}
