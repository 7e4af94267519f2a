//! A plain reqwest client as a tower service, over real sockets.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_response_cache::reqwest::HttpService;
use tower_response_cache::reqwest::reqwest_client::{self, Client, redirect};
use tower_response_cache::storage::MemoryStorage;
use tower_response_cache::{CacheLayer, CacheStatus, NotStored, Stored};

use crate::sockets::{Origin, answer, redirect_to, refusing};

fn layer() -> CacheLayer<MemoryStorage> {
    CacheLayer::new(MemoryStorage::new())
}

fn client() -> reqwest_client::ClientBuilder {
    Client::builder().redirect(redirect::Policy::none()).no_proxy()
}

fn get(url: &str) -> Request<Empty<Bytes>> {
    Request::get(url).body(Empty::new()).unwrap()
}

async fn ask<S, B, R>(service: &S, request: Request<B>) -> (CacheStatus, String)
where
    S: Service<Request<B>, Response = Response<R>, Error: std::fmt::Debug> + Clone,
    R: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    let response = service.clone().oneshot(request).await.unwrap();
    let status = *response.extensions().get::<CacheStatus>().expect("every response has a status");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn client_is_a_tower_service_below_the_cache() {
    let origin = Origin::start(|_| answer("hello").field("cache-control", "max-age=60")).await;
    let service = layer().layer(HttpService::new(client().build().unwrap()).adds_no_fields());
    for word in ["miss", "hit"] {
        let (status, body) = ask(&service, get(&origin.url("/"))).await;
        assert_eq!((status.word(), body.as_str()), (word, "hello"));
    }
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn content_is_sent_and_invalidates() {
    let origin =
        Origin::start(|request| answer(request.body().clone()).field("cache-control", "max-age=60")).await;
    let service = layer().layer(HttpService::new(client().build().unwrap()).adds_no_fields());
    let content = |method: &str, content: &'static str| {
        Request::builder().method(method).uri(origin.url("/")).body(Full::new(Bytes::from(content))).unwrap()
    };
    assert_eq!(ask(&service, content("GET", "")).await.0.word(), "miss");
    assert_eq!(ask(&service, content("PUT", "content")).await.1, "content");
    let asked = origin.last();
    assert_eq!((asked.headers["content-length"].to_str().unwrap(), &asked.body[..]), ("7", &b"content"[..]));
    assert_eq!(ask(&service, content("GET", "")).await.0.word(), "miss");
}

#[tokio::test]
async fn response_that_may_depend_on_client_fields_is_stored_only_if_public() {
    let origin = Origin::start(|request| match request.uri().path() {
        "/public" => answer("").field("cache-control", "public, max-age=60"),
        "/cookie" => answer("").field("cache-control", "public, max-age=60").field("vary", "Cookie"),
        _ => answer("").field("cache-control", "max-age=60"),
    })
    .await;
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_static("secret"));
    let client = client().default_headers(headers).build().unwrap();
    let service = HttpService::new(client);
    assert!(!format!("{service:?}").contains("secret"));
    let service = layer().layer(service);
    for (path, word, stored) in [
        ("/", "miss", Stored::No(NotStored::ClientHeaders)),
        ("/cookie", "miss", Stored::No(NotStored::ClientHeaders)),
        ("/public", "hit", Stored::Unchanged),
    ] {
        ask(&service, get(&origin.url(path))).await;
        let (status, _) = ask(&service, get(&origin.url(path))).await;
        assert_eq!((status.word(), status.stored()), (word, stored), "{path}");
    }
}

#[tokio::test]
async fn redirect_that_the_client_followed_is_not_stored() {
    let origin = Origin::start(|request| match request.uri().path() {
        "/a" => redirect_to(302, "/b").field("cache-control", "max-age=60"),
        _ => answer("the end").field("cache-control", "max-age=60"),
    })
    .await;
    let following = Client::builder().no_proxy().build().unwrap();
    let service = layer().layer(HttpService::new(following).adds_no_fields());
    for _ in 0..2 {
        let (status, body) = ask(&service, get(&origin.url("/a"))).await;
        assert_eq!((status.stored(), body.as_str()), (Stored::No(NotStored::Redirected), "the end"));
    }
    // Above the cache, each hop is an entry of its own.
    let service = ServiceBuilder::new()
        .layer(FollowRedirectLayer::new())
        .layer(layer())
        .service(HttpService::new(client().build().unwrap()).adds_no_fields());
    let before = origin.count();
    for word in ["miss", "hit"] {
        assert_eq!(ask(&service, get(&origin.url("/a"))).await.0.word(), word);
    }
    assert_eq!(origin.count(), before + 2);
}

#[tokio::test]
async fn errors_of_the_client_are_passed_on() {
    let cached = CacheLayer::builder(MemoryStorage::new()).default_authority("example.com").build().unwrap();
    let service = cached.layer(HttpService::new(client().build().unwrap()));
    let relative: reqwest_client::Error = service.clone().oneshot(get("/relative")).await.unwrap_err();
    assert!(relative.is_builder(), "{relative:?}");
    let refused = service.oneshot(get(&refusing().await)).await.unwrap_err();
    assert!(refused.is_connect(), "{refused:?}");
}
