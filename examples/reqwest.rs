//! A cached reqwest client that follows redirects above the cache, so that each hop is cached by its own rules.
//!
//! `cargo run --example reqwest --features reqwest`
//!
//! It sends requests to a local server of its own, and prints where each response came from.
//!
//! In a crate of your own it needs:
//!
//! ```toml
//! [dependencies]
//! bytes = "1"
//! http = "1"
//! http-body-util = "0.1"
//! hyper = { version = "1", features = ["http1", "server"] }
//! hyper-util = { version = "0.1", features = ["tokio"] }
//! tokio = { version = "1", features = ["full"] }
//! tower-response-cache = { version = "0.1", features = ["reqwest"] }
//! ```

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tower_response_cache::reqwest::reqwest_client::{Client, redirect};
use tower_response_cache::reqwest::reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use tower_response_cache::reqwest::{CacheMiddleware, FollowRedirects, Redirects};
use tower_response_cache::storage::MemoryStorage;
use tower_response_cache::{CacheLayer, CacheStatus};

type BoxError = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let origin = serve().await?;
    let layer = CacheLayer::new(MemoryStorage::new());

    // If the client followed redirects itself, the cache would get the last response for the first URL, and not store it.
    let client = Client::builder().redirect(redirect::Policy::none()).no_proxy();
    // No default headers. The cache cannot see what the client adds: without this call it stores public responses only.
    let cache = CacheMiddleware::new(layer.clone()).client_headers(&header::HeaderMap::new());
    let client = ClientBuilder::new(client.build()?).with(FollowRedirects::new()).with(cache).build();

    for path in ["/page", "/page", "/old", "/old", "/news", "/news"] {
        fetch(&client, &format!("{origin}{path}")).await?;
    }
    layer.idle().await;
    Ok(())
}

/// Fetches a URL and prints a line for each hop.
async fn fetch(client: &ClientWithMiddleware, url: &str) -> Result<(), BoxError> {
    let response = client.get(url).send().await?;
    for redirect in response.extensions().get::<Redirects>().map_or(&[][..], Redirects::as_slice) {
        print(redirect.url().path(), redirect.status(), redirect.cache());
    }
    print(response.url().path(), response.status(), response.extensions().get::<CacheStatus>());
    response.bytes().await?; // only a body that is read to its end is stored
    Ok(())
}

fn print(path: &str, code: StatusCode, status: Option<&CacheStatus>) {
    let (outcome, details) =
        status.map_or(("-", String::new()), |status| (status.word(), status.to_string()));
    println!("{:<24} {path:<8} {outcome:<12} {details}", code.to_string());
}

/// Starts a server whose `/old` and `/news` redirect to `/page`: the first redirect may be stored, the second may not.
async fn serve() -> std::io::Result<String> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let origin = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request| async move { respond(&request) });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(origin)
}

fn respond(request: &Request<Incoming>) -> http::Result<Response<Full<Bytes>>> {
    let (code, cache_control, location) = match request.uri().path() {
        "/page" => (StatusCode::OK, "max-age=60", None),
        "/old" => (StatusCode::MOVED_PERMANENTLY, "max-age=3600", Some("/page")),
        "/news" => (StatusCode::FOUND, "no-store", Some("/page")),
        _ => (StatusCode::NOT_FOUND, "no-store", None),
    };
    let mut response = Response::builder().status(code).header(header::CACHE_CONTROL, cache_control);
    if let Some(location) = location {
        response = response.header(header::LOCATION, location);
    }
    response.body(Full::from(if location.is_some() { "" } else { "hello\n" }))
}
