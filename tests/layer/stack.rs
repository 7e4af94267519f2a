//! Stacks with other tower layers above and below the cache.

use std::convert::Infallible;
use std::future::{Future, Ready, pending, ready};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tower::limit::ConcurrencyLimitLayer;
use tower::retry::{Policy, RetryLayer};
use tower::timeout::TimeoutLayer;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_http::compression::CompressionLayer;
use tower_http::decompression::DecompressionLayer;
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_response_cache::storage::MemoryStorage;
use tower_response_cache::{CacheLayer, CacheStatus};

use crate::support::{Origin, ReqBody, get, get_with, response};

fn cache() -> CacheLayer<MemoryStorage> {
    CacheLayer::new(MemoryStorage::new())
}

/// Sends a request. Returns the status code, whether there is a Content-Encoding, the body, and the cache status.
async fn ask<S, B>(service: &S, request: Request<ReqBody>) -> (StatusCode, bool, Bytes, CacheStatus)
where
    S: Service<Request<ReqBody>, Response = Response<B>, Error: std::fmt::Debug> + Clone,
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    let response = service.clone().oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let status = *head.extensions.get::<CacheStatus>().unwrap();
    let encoded = head.headers.contains_key("content-encoding");
    (head.status, encoded, body.collect().await.unwrap().to_bytes(), status)
}

/// Returns an origin that compresses its response if Accept-Encoding permits it.
fn compressing() -> impl Service<
    Request<ReqBody>,
    Response = Response<impl http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static>,
    Error = Infallible,
    Future: Send,
> + Clone
+ Send {
    let text = "compressible ".repeat(100);
    CompressionLayer::new().layer(Origin::new(move |_| {
        response(&[("cache-control", "max-age=60"), ("content-type", "text/plain")], text.clone())
    }))
}

#[tokio::test]
async fn decompression_above_serves_plain_bodies() {
    let service =
        ServiceBuilder::new().layer(DecompressionLayer::new()).layer(cache()).service(compressing());
    for word in ["miss", "hit"] {
        let (_, encoded, body, status) = ask(&service, get("http://example.com/")).await;
        assert_eq!((status.word(), encoded), (word, false));
        assert_eq!(body, "compressible ".repeat(100));
    }
}

#[tokio::test]
async fn decompression_below_stores_plain_bodies() {
    let service =
        ServiceBuilder::new().layer(cache()).layer(DecompressionLayer::new()).service(compressing());
    for word in ["miss", "hit"] {
        let (_, encoded, body, status) = ask(&service, get("http://example.com/")).await;
        assert_eq!((status.word(), encoded), (word, false));
        assert_eq!(body, "compressible ".repeat(100));
    }
    // A request with its own Accept-Encoding selects another variant, which may be compressed.
    for word in ["miss", "hit"] {
        let request = get_with("http://example.com/", &[("accept-encoding", "gzip")]);
        let (_, encoded, body, status) = ask(&service, request).await;
        assert_eq!(status.word(), word);
        assert_eq!(encoded, body[..2] == [0x1f, 0x8b]);
    }
}

fn redirecting() -> Origin {
    Origin::new(|request| match request.uri().path() {
        "/old" => {
            let mut answer = response(&[("cache-control", "max-age=60"), ("location", "/new")], "");
            *answer.status_mut() = StatusCode::FOUND;
            answer
        }
        _ => response(&[("cache-control", "max-age=60")], "new"),
    })
}

#[tokio::test]
async fn redirects_followed_above_cache_each_hop() {
    let origin = redirecting();
    let service =
        ServiceBuilder::new().layer(FollowRedirectLayer::new()).layer(cache()).service(origin.clone());
    for word in ["miss", "hit"] {
        let (code, _, body, status) = ask(&service, get("http://example.com/old")).await;
        assert_eq!((code, &body[..], status.word()), (StatusCode::OK, &b"new"[..], word));
    }
    assert_eq!(ask(&service, get("http://example.com/new")).await.3.word(), "hit");
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
#[cfg(feature = "follow-redirect")]
async fn redirects_followed_below_are_not_stored() {
    let origin = redirecting();
    let service = ServiceBuilder::new().layer(cache()).layer(FollowRedirectLayer::new()).service(origin);
    for _ in 0..2 {
        let (_, _, body, status) = ask(&service, get("http://example.com/old")).await;
        assert_eq!(
            (&body[..], status.stored()),
            (&b"new"[..], tower_response_cache::Stored::No(tower_response_cache::NotStored::Redirected))
        );
    }
    ask(&service, get("http://example.com/new")).await;
    assert_eq!(ask(&service, get("http://example.com/new")).await.3.word(), "hit");
}

/// A policy that retries after an inner error or a 5xx response.
#[derive(Clone)]
struct RetryErrors(usize);

impl<B, E> Policy<Request<ReqBody>, Response<B>, E> for RetryErrors {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Request<ReqBody>, result: &mut Result<Response<B>, E>) -> Option<Ready<()>> {
        let failed = result.as_ref().map_or(true, |response| response.status().is_server_error());
        self.0 = self.0.checked_sub(1).filter(|_| failed)?;
        Some(ready(()))
    }

    fn clone_request(&mut self, request: &Request<ReqBody>) -> Option<Request<ReqBody>> {
        Some(request.clone())
    }
}

#[tokio::test]
async fn retries_above_and_below_store_final_response() {
    let failing_once = || {
        let mut asked = 0;
        Origin::new(move |_| {
            asked += 1;
            let mut answer = response(&[("cache-control", "max-age=60")], "good");
            if asked == 1 {
                answer = response(&[], "bad");
                *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            answer
        })
    };
    let above = failing_once();
    let service =
        ServiceBuilder::new().layer(RetryLayer::new(RetryErrors(2))).layer(cache()).service(above.clone());
    for word in ["miss", "hit"] {
        let (_, _, body, status) = ask(&service, get("http://example.com/")).await;
        assert_eq!((&body[..], status.word()), (&b"good"[..], word));
    }
    let below = failing_once();
    let service =
        ServiceBuilder::new().layer(cache()).layer(RetryLayer::new(RetryErrors(2))).service(below.clone());
    for word in ["miss", "hit"] {
        let (_, _, body, status) = ask(&service, get("http://example.com/")).await;
        assert_eq!((&body[..], status.word()), (&b"good"[..], word));
    }
    assert_eq!((above.count(), below.count()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn timeout_above_stores_nothing_and_blocks_nothing() {
    let mut asked = 0;
    let origin = service_fn(move |_: Request<ReqBody>| {
        asked += 1;
        async move {
            if asked == 1 {
                pending::<()>().await;
            }
            Ok::<_, Infallible>(response(&[("cache-control", "max-age=60")], "good"))
        }
    });
    let layer = cache();
    let shared = tower::buffer::Buffer::new(origin, 8); // all clones share one counter
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::new(Duration::from_secs(1)))
        .layer(layer.clone())
        .service(shared);
    assert!(service.clone().oneshot(get("http://example.com/")).await.is_err());
    layer.idle().await;
    for word in ["miss", "hit"] {
        assert_eq!(ask(&service, get("http://example.com/")).await.3.word(), word);
    }
}

#[tokio::test(start_paused = true)]
async fn timeout_below_is_returned_as_inner_error() {
    let origin = service_fn(|_: Request<ReqBody>| pending::<Result<Response<Full<Bytes>>, Infallible>>());
    let service =
        ServiceBuilder::new().layer(cache()).layer(TimeoutLayer::new(Duration::from_secs(1))).service(origin);
    let error: BoxError = service.oneshot(get("http://example.com/")).await.unwrap_err();
    assert!(error.is::<tower::timeout::error::Elapsed>());
}

#[tokio::test]
async fn concurrency_limit_below_never_deadlocks() {
    let origin = Origin::new(|_| response(&[("cache-control", "max-age=1")], "v"));
    let mut service =
        ServiceBuilder::new().layer(cache()).layer(ConcurrencyLimitLayer::new(1)).service(origin);
    for number in 0..5 {
        // A ready cache holds no inner permit, so a clone of it can use the only one.
        service.ready().await.unwrap();
        let other = service.clone();
        ask(&other, get(&format!("http://example.com/{number}"))).await;
        ask(&service.clone(), get(&format!("http://example.com/{number}"))).await;
    }
}

/// A service that is ready for its first request only.
#[derive(Clone)]
struct ReadyOnce {
    origin: Origin,
}

impl Service<Request<ReqBody>> for ReadyOnce {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.origin.count() == 0 { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        self.origin.call(request)
    }
}

#[tokio::test]
async fn hits_are_served_without_inner_readiness() {
    let origin = Origin::new(|_| response(&[("cache-control", "max-age=60")], "v"));
    let service = cache().layer(ReadyOnce { origin });
    assert_eq!(ask(&service, get("http://example.com/")).await.3.word(), "miss");
    assert_eq!(ask(&service, get("http://example.com/")).await.3.word(), "hit");
}
