//! The layer in an axum server.

#[path = "../../examples/axum_server.rs"]
mod axum_server;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::extract::Path;
use http::Request;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::{Layer, ServiceExt};
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
async fn nested_routers_do_not_share_entries() {
    let layer = CacheLayer::builder(MemoryStorage::new()).shared(true).build().unwrap();
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
async fn head_of_streamed_body_has_content_length() {
    // The handler streams its body, so the response has no Content-Length.
    let body = || Body::from_stream(futures_util::stream::iter([Ok::<_, std::io::Error>("four")]));
    let handler = axum::routing::get(move || async move { ([("cache-control", "max-age=60")], body()) });
    let layer = CacheLayer::builder(MemoryStorage::new()).shared(true).build().unwrap();
    let app = axum::Router::new().route("/", handler).layer(layer);
    assert_eq!(ask(&app, Request::get("/")).await.0, "miss");
    let request = Request::head("/").header("host", "example.com").body(Body::empty()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    assert!(response.extensions().get::<CacheStatus>().unwrap().is_hit());
    assert_eq!(response.headers()["content-length"], "4");
}

#[tokio::test]
async fn services_of_one_layer_share_cache() {
    let layer = CacheLayer::builder(MemoryStorage::new()).shared(true).build().unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    let (one, other) = (axum_server::app(&layer, &runs), axum_server::app(&layer, &runs));
    assert_eq!(ask(&one, Request::get("/cats/list")).await.0, "miss");
    assert_eq!(ask(&other, Request::get("/cats/list")).await.0, "hit");
}

#[tokio::test]
async fn rewritten_uri_has_its_own_entry() {
    let page = |request: axum::extract::Request| async move {
        ([("cache-control", "max-age=60"), ("etag", "\"v1\"")], request.uri().to_string())
    };
    let layer = CacheLayer::builder(MemoryStorage::new()).shared(true).build().unwrap();
    let cached = layer.layer(axum::Router::new().fallback(page));
    // A layer above rewrites `/me` to the page of the requesting user.
    let rewritten = tower::util::MapRequestLayer::new(|mut request: axum::extract::Request| {
        if request.uri().path() == "/me" {
            let user = request.headers()["x-user"].to_str().unwrap();
            *request.uri_mut() = format!("/users/{user}").parse().unwrap();
        }
        request
    });
    let app = axum::Router::new().fallback_service(axum::routing::any_service(rewritten.layer(cached)));
    for word in ["miss", "hit"] {
        for user in ["alice", "bob"] {
            let answer = ask(&app, Request::get("/me").header("x-user", user)).await;
            assert_eq!(answer, (word, format!("/users/{user}")));
        }
    }
    assert_eq!(ask(&app, Request::put("/me").header("x-user", "bob")).await.0, "miss");
    assert_eq!(ask(&app, Request::get("/me").header("x-user", "alice")).await.0, "miss");
}

#[tokio::test]
async fn ignored_query_params_work_in_nested_routers() {
    let layer =
        CacheLayer::builder(MemoryStorage::new()).shared(true).ignore_query_params(["utm"]).build().unwrap();
    let item = |Path(item): Path<String>| async move { ([("cache-control", "max-age=60")], item) };
    let inner = axum::Router::new().route("/{item}", axum::routing::get(item)).layer(layer);
    let app = axum::Router::new().nest("/shop", inner.clone()).nest("/club", inner);
    assert_eq!(ask(&app, Request::get("/shop/cup?utm=1")).await, ("miss", "cup".to_owned()));
    assert_eq!(ask(&app, Request::get("/shop/cup?utm=2")).await, ("hit", "cup".to_owned()));
    assert_eq!(ask(&app, Request::get("/shop/cup")).await, ("hit", "cup".to_owned()));
    assert_eq!(ask(&app, Request::get("/club/cup")).await, ("miss", "cup".to_owned()));
    assert_eq!(ask(&app, Request::get("/shop/jug")).await, ("miss", "jug".to_owned()));
}

#[tokio::test]
async fn no_vary_search_works_in_nested_routers() {
    let (clock, mock) = tower_response_cache::Clock::mock();
    let layer = CacheLayer::builder(MemoryStorage::new()).shared(true).clock(clock).build().unwrap();
    let item = |Path(item): Path<String>| async move {
        ([("cache-control", "max-age=6000"), ("no-vary-search", "params=(\"utm\")")], item)
    };
    let inner = axum::Router::new().route("/{item}", axum::routing::get(item)).layer(layer);
    let app = axum::Router::new().nest("/shop", inner.clone()).nest("/club", inner);
    for word in ["hit", "miss"] {
        ask(&app, Request::get("/shop/cup?utm=1")).await;
        assert_eq!(ask(&app, Request::get("/shop/cup?utm=2")).await, (word, "cup".to_owned()));
        assert_eq!(ask(&app, Request::get("/shop/cup")).await, ("hit", "cup".to_owned()));
        assert_eq!(ask(&app, Request::get("/club/cup")).await.1, "cup");
        // The next response is stored for all equivalent URLs.
        mock.advance(std::time::Duration::from_secs(600));
    }
}

#[tokio::test]
async fn conflicting_host_header_poisons_no_entry() {
    let page = |headers: http::HeaderMap| async move {
        let host = headers["host"].to_str().unwrap().to_owned();
        ([("cache-control", "public, max-age=60")], format!("<script src=//{host}/x.js>"))
    };
    let layer = CacheLayer::builder(MemoryStorage::new()).shared(true).build().unwrap();
    let app = axum::Router::new().fallback(page).layer(layer);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let send = |request: &'static str| async move {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    send("GET http://victim.example/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").await;
    let victim = send("GET / HTTP/1.1\r\nHost: victim.example\r\nConnection: close\r\n\r\n").await;
    assert!(victim.contains("//victim.example/x.js"), "{victim}");
}

#[tokio::test]
async fn default_authority_makes_relative_requests_cacheable() {
    let app = |builder: tower_response_cache::CacheLayerBuilder<MemoryStorage>| {
        let page = || async { ([("cache-control", "max-age=60")], "page") };
        axum::Router::new().route("/x", axum::routing::get(page)).layer(builder.shared(true).build().unwrap())
    };
    let ask = async |app: &axum::Router, host: Option<&str>| {
        let request = Request::get("/x");
        let request = if let Some(host) = host { request.header("host", host) } else { request };
        let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = *response.extensions().get::<CacheStatus>().unwrap();
        response.into_body().collect().await.unwrap();
        (status.word(), status.to_string())
    };
    let without = app(CacheLayer::builder(MemoryStorage::new()));
    let bypassed = ("bypass", "fwd=bypass; fwd-status=200; detail=no-host".to_owned());
    assert_eq!(ask(&without, None).await, bypassed);
    let with = app(CacheLayer::builder(MemoryStorage::new()).default_authority("example.com"));
    assert_eq!(ask(&with, None).await.0, "miss");
    assert_eq!(ask(&with, None).await.0, "hit");
    assert_eq!(ask(&with, Some("example.com")).await.0, "hit", "the URI is the same");
    assert_eq!(ask(&with, Some("example.org")).await.0, "miss", "the request's own host takes precedence");
    // A malformed host is not replaced.
    assert!(ask(&with, Some("a/b")).await.1.ends_with("detail=malformed-host"));
}
