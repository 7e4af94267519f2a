//! The cache in a stack of tower layers: redirects and decompression above it, retry and a timeout below.
//!
//! `cargo run --example stack`
//!
//! A layer above the cache handles every response, hits included. A layer below it handles only the requests to the origin.
//! So each hop of a redirect is cached by its own rules, bodies are stored compressed, and only the origin is retried and
//! timed.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use tower::retry::{Policy, RetryLayer};
use tower::timeout::TimeoutLayer;
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
use tower_http::decompression::DecompressionLayer;
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_response_cache::storage::MemoryStorage;
use tower_response_cache::{CacheLayer, CacheStatus};

/// Retries a few times after a server error.
#[derive(Clone, Debug)]
struct RetryServerErrors {
    retries_left: u8,
}

impl<B> Policy<Request<Empty<Bytes>>, Response<B>, BoxError> for RetryServerErrors {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<Empty<Bytes>>,
        result: &mut Result<Response<B>, BoxError>,
    ) -> Option<Self::Future> {
        let failed = result.as_ref().map_or(true, |response| response.status().is_server_error());
        self.retries_left = self.retries_left.checked_sub(1).filter(|_| failed)?;
        Some(ready(()))
    }

    fn clone_request(&mut self, request: &Request<Empty<Bytes>>) -> Option<Request<Empty<Bytes>>> {
        Some(request.clone())
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut requests = 0;
    let origin = service_fn(move |request: Request<Empty<Bytes>>| {
        // Each clone of this service has its own counter, and each fetch uses a clone: so the first attempt of every fetch of
        // /new fails.
        requests += 1;
        let mut response = Response::new(Full::new(Bytes::from("hello")));
        response.headers_mut().insert("cache-control", http::HeaderValue::from_static("max-age=60"));
        if requests == 1 && request.uri().path() == "/new" {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        if request.uri().path() == "/old" {
            *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
            response.headers_mut().insert("location", http::HeaderValue::from_static("/new"));
        }
        ready(Ok::<_, Infallible>(response))
    });
    let layer = CacheLayer::new(MemoryStorage::new());
    let service = ServiceBuilder::new()
        .layer(FollowRedirectLayer::new())
        .layer(DecompressionLayer::new())
        .layer(layer.clone())
        .layer(RetryLayer::new(RetryServerErrors { retries_left: 2 }))
        .layer(TimeoutLayer::new(Duration::from_secs(5)))
        .service(origin);
    for path in ["/new", "/old", "/old"] {
        let request = Request::get(format!("http://example.com{path}")).body(Empty::new())?;
        let response = service.clone().oneshot(request).await?;
        let status = response.extensions().get::<CacheStatus>().copied();
        let (code, outcome) = (response.status(), status.map_or("-", |status| status.word()));
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        println!("{path}  {}  {outcome}  {} bytes", code.as_u16(), body.len());
    }
    layer.idle().await;
    Ok(())
}
