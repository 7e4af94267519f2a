//! Services and bodies that the cache takes by an adapter.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::task::noop_waker;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use tokio::sync::{Semaphore, oneshot};
use tower::limit::ConcurrencyLimitLayer;
use tower::util::BoxService;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_response_cache::adapt::{OptionalBody, OptionalBodyLayer, Share, ShareLayer};
use tower_response_cache::storage::MemoryStorage;
use tower_response_cache::{CacheLayer, Clock};

use crate::support::{Answer, Origin, ReqBody, get, has_tag, not_modified, response};

/// A service that takes one number at a time, and answers when a permit is added.
///
/// It is not `Clone`.
fn one_at_a_time(permits: &Arc<Semaphore>) -> BoxService<u32, u32, Infallible> {
    let permits = Arc::clone(permits);
    let answering = service_fn(move |number: u32| {
        let permits = Arc::clone(&permits);
        async move {
            permits.acquire().await.unwrap().forget();
            Ok(number)
        }
    });
    BoxService::new(ConcurrencyLimitLayer::new(1).layer(answering))
}

#[tokio::test]
async fn service_that_is_not_clone_is_cached_and_refreshed() {
    let (clock, mock) = Clock::mock();
    let origin = Origin::new(|request| {
        let fields = [("cache-control", "max-age=10, stale-while-revalidate=60"), ("etag", "\"1\"")];
        match has_tag(request, "\"1\"") {
            true => not_modified(&fields),
            false => response(&fields, "hello"),
        }
    });
    let layer = CacheLayer::builder(MemoryStorage::new()).clock(clock).build().unwrap();
    let service = ServiceBuilder::new()
        .layer(layer.clone())
        .layer(ShareLayer::new())
        .service(BoxService::new(origin.clone()));
    for word in ["miss", "hit", "stale", "hit"] {
        if word == "stale" {
            mock.advance(Duration::from_secs(20));
        }
        let answer = Answer::read(service.clone().oneshot(get("http://example.com/")).await.unwrap()).await;
        assert_eq!((answer.word(), &answer.body[..]), (word, &b"hello"[..]));
        layer.idle().await;
    }
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn every_call_of_a_shared_service_is_answered() {
    let permits = Arc::new(Semaphore::new(0));
    let service = Share::new(one_at_a_time(&permits));
    let calls = (0..100).map(|number| service.clone().oneshot(number));
    let calls = tokio::spawn(join_all(calls.collect::<Vec<_>>()));
    permits.add_permits(100);
    let answers: Vec<_> = calls.await.unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(answers, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn abandoned_call_delays_no_other() {
    let permits = Arc::new(Semaphore::new(0));
    let service = Share::new(one_at_a_time(&permits));
    let first = tokio::spawn(service.clone().oneshot(1));
    tokio::task::yield_now().await;
    // It waits for its turn, and then its task does something else.
    let mut abandoned = pin!(service.clone().oneshot(2));
    let waker = noop_waker();
    assert!(abandoned.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let third = tokio::spawn(service.clone().oneshot(3));
    tokio::task::yield_now().await;
    permits.add_permits(2);
    assert_eq!((first.await.unwrap().unwrap(), third.await.unwrap().unwrap()), (1, 3));
    permits.add_permits(1);
    assert_eq!(abandoned.await.unwrap(), 2);
}

#[tokio::test]
async fn dropped_call_leaves_its_turn_to_others() {
    let permits = Arc::new(Semaphore::new(0));
    let service = Share::new(one_at_a_time(&permits));
    let waker = noop_waker();
    let mut first = Box::pin(service.clone().oneshot(1));
    assert!(first.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let mut waiting = Box::pin(service.clone().oneshot(2));
    assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let third = tokio::spawn(service.clone().oneshot(3));
    tokio::task::yield_now().await;
    drop(waiting);
    drop(first);
    permits.add_permits(1);
    assert_eq!(third.await.unwrap().unwrap(), 3);
}

/// A service that becomes ready when the test says so, and keeps one waker, as most services do.
struct Gated(oneshot::Receiver<()>, bool);

impl Service<u32> for Gated {
    type Response = u32;
    type Error = Infallible;
    type Future = Ready<Result<u32, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if !self.1 {
            self.1 = pin!(&mut self.0).poll(cx).is_ready();
        }
        if self.1 { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn call(&mut self, number: u32) -> Self::Future {
        ready(Ok(number))
    }
}

#[tokio::test]
async fn readiness_wakes_every_waiting_call() {
    let (open, gate) = oneshot::channel();
    let service = Share::new(Gated(gate, false));
    let calls: Vec<_> = (0..10).map(|number| tokio::spawn(service.clone().oneshot(number))).collect();
    tokio::task::yield_now().await;
    open.send(()).unwrap();
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap().unwrap() as usize, number);
    }
}

/// A body that is not `Default`.
type Boxed = BoxBody<Bytes, Infallible>;

#[tokio::test]
async fn body_that_is_not_default_is_made_by_the_user() {
    let (clock, mock) = Clock::mock();
    let origin =
        Origin::new(|_| response(&[("cache-control", "max-age=10, stale-while-revalidate=60")], "hello"));
    let asked = origin.clone();
    let inner = service_fn(move |request: Request<Boxed>| {
        let mut origin = asked.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = Full::new(body.collect().await.unwrap().to_bytes());
            origin.call(Request::from_parts(parts, body)).await
        }
    });
    let layer = CacheLayer::builder(MemoryStorage::new()).clock(clock).build().unwrap();
    let layer = layer.empty_body(|| Empty::new().boxed());
    let service = layer.clone().layer(inner);
    for word in ["miss", "hit", "stale", "hit"] {
        if word == "stale" {
            mock.advance(Duration::from_secs(20));
        }
        let request = Request::get("http://example.com/").body(Empty::new().boxed()).unwrap();
        let answer = Answer::read(service.clone().oneshot(request).await.unwrap()).await;
        assert_eq!(answer.word(), word);
        layer.idle().await;
    }
    assert_eq!(origin.count(), 2);
}

/// A body that nothing can make but the server that received it.
struct Received(Full<Bytes>);

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        pin!(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0.size_hint()
    }
}

#[tokio::test]
async fn optional_body_passes_content_and_is_empty_for_refreshes() {
    let (clock, mock) = Clock::mock();
    let inner = service_fn(|request: Request<OptionalBody<Received>>| async {
        let (parts, body) = request.into_parts();
        let content = body.collect().await.unwrap().to_bytes();
        let mut response = Response::new(Full::new(content));
        if parts.method == "GET" {
            let lifetime = "max-age=10, stale-while-revalidate=60".parse().unwrap();
            response.headers_mut().insert("cache-control", lifetime);
        }
        Ok::<_, Infallible>(response)
    });
    let layer = CacheLayer::builder(MemoryStorage::new()).clock(clock).build().unwrap();
    let service = ServiceBuilder::new().layer(OptionalBodyLayer::new()).layer(layer.clone()).service(inner);
    let ask = async |method, content: &'static str| {
        let request = Request::builder().method(method).uri("http://example.com/");
        let request = request.body(Received(Full::new(Bytes::from(content)))).unwrap();
        Answer::read(service.clone().oneshot(request).await.unwrap()).await
    };
    assert_eq!(ask("POST", "content").await.body, "content");
    for word in ["miss", "hit", "stale", "hit"] {
        if word == "stale" {
            mock.advance(Duration::from_secs(20));
        }
        assert_eq!(ask("GET", "").await.word(), word);
        layer.idle().await;
    }
}

#[test]
fn absent_body_is_empty() {
    use http_body::Body as _;
    let absent = OptionalBody::<ReqBody>::default();
    assert!(absent.is_end_stream() && absent.size_hint().exact() == Some(0));
    assert!(absent.into_inner().is_none());
    let present = OptionalBody::from(Full::new(Bytes::from("four")));
    assert_eq!((present.is_end_stream(), present.size_hint().exact()), (false, Some(4)));
}
