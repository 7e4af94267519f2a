//! Tests of properties of the service that its public interface does not show.

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use tower_layer::Layer;
use tower_service::Service;

use super::config::Config;
use super::origin::ServiceFetcher;
use super::records::HeadKey;
use super::request::{look_then_run, run};
use super::shared::Shared;
use crate::CacheLayer;
use crate::adapt::DefaultBody;
use crate::control::Outcome;
use crate::policy::HeaderHints;
use crate::storage::{Key, MemoryStorage};

#[derive(Clone)]
struct Origin;

impl Service<Request<Empty<Bytes>>> for Origin {
    type Response = Response<Full<Bytes>>;
    type Error = std::io::Error;
    type Future = std::future::Ready<std::io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Empty<Bytes>>) -> Self::Future {
        let response = Response::builder().header("cache-control", "max-age=60");
        std::future::ready(Ok(response.body(Full::from("body")).unwrap()))
    }
}

#[test]
fn lookup_future_is_small() {
    let shared = Shared::new(MemoryStorage::new(), Config::default());
    let parts = Request::get("http://example.com/").body(()).unwrap().into_parts().0;
    let fetcher = ServiceFetcher::<_, _, Empty<Bytes>>::new(Origin, DefaultBody);
    let future = run(shared, fetcher, parts, Empty::new(), None, 0);
    let size = size_of_val(&future);
    assert!(size <= 3072, "{size} bytes");
}

#[test]
fn future_of_an_awaited_hit_is_small() {
    let shared = Shared::new(MemoryStorage::new(), Config::default());
    let parts = Request::get("http://example.com/").body(()).unwrap().into_parts().0;
    let fetcher = ServiceFetcher::<_, _, Empty<Bytes>>::new(Origin, DefaultBody);
    let head = HeadKey { key: Key::head([0; 16]), is_certain: false };
    let hints = HeaderHints::default();
    let future = look_then_run(shared, fetcher, parts, hints, Empty::new(), head, 0);
    let size = size_of_val(&future);
    // It was 1088 while it had room for what was found.
    assert!(size <= 1032, "{size} bytes");
}

/// The largest allocations of a miss are the futures of the request, of its fetch and of the write.
#[test]
fn futures_of_a_miss_are_small() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _within = runtime.enter();
    let mut cache = CacheLayer::new(MemoryStorage::new()).layer(Origin);
    let mut miss = |path: &str| {
        let request = Request::get(format!("http://example.com/{path}")).body(Empty::new()).unwrap();
        let response = cache.call(request).now_or_never().expect("the origin answers at once").unwrap();
        assert!(matches!(response.body().status().unwrap().outcome, Outcome::Miss(_)));
        response.into_body().collect().now_or_never().expect("the body is there").unwrap();
    };
    // The first miss also allocates what later ones share.
    miss("first");
    // The first of many that is small: a test in another thread that listens to events makes this one allocate for spans.
    let mut used = (0..20_000).map(|number| {
        let path = format!("{number:05}");
        allocation_counter::measure(|| miss(&path)).bytes_total
    });
    // It was three times as much while the futures held their arguments twice.
    assert!(used.any(|bytes| bytes <= 8 * 1024));
}

#[cfg(not(feature = "axum"))]
mod without_feature_axum {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;
    use crate::CacheStatus;

    #[tokio::test]
    async fn nested_axum_routers_bypass_without_the_feature() {
        let layer = CacheLayer::builder(MemoryStorage::new()).shared(true).build().unwrap();
        let list = |text: &'static str| {
            let handler = move || async move { ([("cache-control", "public, max-age=60")], text) };
            Router::new().route("/list", get(handler)).layer(layer.clone())
        };
        let app = Router::new().nest("/cats", list("cats")).nest("/dogs", list("dogs"));
        for (path, text) in [("/cats/list", "cats"), ("/dogs/list", "dogs"), ("/cats/list", "cats")] {
            let request = Request::get(path).header("host", "example.com").body(Body::empty()).unwrap();
            let response = app.clone().oneshot(request).await.unwrap();
            assert_eq!(response.extensions().get::<CacheStatus>().unwrap().word(), "bypass");
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), text);
        }
    }
}
