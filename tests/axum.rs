//! Before an axum server.
#![allow(unreachable_pub, dead_code, clippy::unwrap_used)]

#[path = "../examples/axum_server.rs"]
mod axum_server;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use tower::ServiceExt;
use tower_response_cache::storage::MemoryStorage;
use tower_response_cache::{CacheLayer, CacheStatus};

async fn ask(app: &axum::Router, request: http::request::Builder) -> (&'static str, String) {
    let request = request.header("host", "example.com").body(Body::empty()).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    let word = response.extensions().get::<CacheStatus>().unwrap().word();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (word, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn nested_routers_with_equal_inner_paths_never_share_an_entry() {
    let layer = CacheLayer::builder(MemoryStorage::new()).shared().build().unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    let app = axum_server::app(&layer, &runs);
    for word in ["miss", "hit"] {
        for (path, text) in [("/cats/list", "tom, felix"), ("/dogs/list", "rex, fido")] {
            assert_eq!(ask(&app, Request::get(path)).await, (word, text.to_owned()));
        }
    }
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    assert_eq!(ask(&app, Request::head("/cats/list")).await, ("hit", String::new()));
}

#[tokio::test]
async fn a_head_request_is_told_the_length_that_a_get_would_have() {
    // No length of its own: the handler streams.
    let body = || Body::from_stream(futures_util::stream::iter([Ok::<_, std::io::Error>("four")]));
    let handler = axum::routing::get(move || async move { ([("cache-control", "max-age=60")], body()) });
    let layer = CacheLayer::builder(MemoryStorage::new()).shared().build().unwrap();
    let app = axum::Router::new().route("/", handler).layer(layer);
    assert_eq!(ask(&app, Request::get("/")).await.0, "miss");
    let request = Request::head("/").header("host", "example.com").body(Body::empty()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    assert!(response.extensions().get::<CacheStatus>().unwrap().is_hit());
    assert_eq!(response.headers()["content-length"], "4");
}

#[tokio::test]
async fn all_services_of_one_layer_are_one_cache() {
    let layer = CacheLayer::builder(MemoryStorage::new()).shared().build().unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    let (one, other) = (axum_server::app(&layer, &runs), axum_server::app(&layer, &runs));
    assert_eq!(ask(&one, Request::get("/cats/list")).await.0, "miss");
    assert_eq!(ask(&other, Request::get("/cats/list")).await.0, "hit");
}
