//! A cache with its administration service at an address of its own.
//!
//! `ADMIN_TOKEN=secret cargo run --example admin --features admin -- --listen 127.0.0.1:9200`
//!
//! It serves a cached site and, at the address, its administration: open it in a browser, with any user and the token as the
//! password. Without `--listen` it asks the service for the stored responses, prints them and ends.

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::http::Request;
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, HeaderName};
use axum::routing::get;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tower_response_cache::storage::MemoryStorage;
use tower_response_cache::{CacheLayer, admin};

/// The field with the tags of a response.
const TAGS: HeaderName = HeaderName::from_static("surrogate-key");

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let address = match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => None,
        (Some("--listen"), Some(address)) => Some(address),
        _ => return Err("usage: admin [--listen ADDR]".into()),
    };
    // From the environment, since every user of the machine can read the arguments of a program.
    let token = match (std::env::var("ADMIN_TOKEN"), &address) {
        (Ok(token), _) if !token.is_empty() => token,
        (_, None) => "only for this example".to_owned(),
        _ => return Err("ADMIN_TOKEN has to be set: it permits the administration".into()),
    };

    let layer =
        CacheLayer::builder(MemoryStorage::new()).shared(true).tag_fields(["surrogate-key"]).build()?;
    let handler = |Path(name): Path<String>| async move {
        tokio::time::sleep(Duration::from_millis(2)).await; // as if it asked a database
        ([(CACHE_CONTROL, "public, max-age=60"), (TAGS, "articles")], name)
    };
    let site = Router::new().route("/articles/{name}", get(handler)).layer(layer.clone());
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let site_url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, site).await });

    let administration = admin::router(layer.handle(), admin::token(&token));
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:0")).await?;
    let admin_url = format!("http://{}", listener.local_addr()?);
    println!("the site is at {site_url}/articles/NAME, its administration at {admin_url}");
    let serving = tokio::spawn(async move { axum::serve(listener, administration).await });

    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    for name in ["one", "two", "one"] {
        let response = client.get(format!("{site_url}/articles/{name}").parse()?).await?;
        response.into_body().collect().await?;
    }
    layer.idle().await;
    if address.is_some() {
        return Ok(serving.await??);
    }
    let request = Request::get(format!("{admin_url}/api/v1/entries?sort=url&tag=articles"))
        .header(AUTHORIZATION, format!("Bearer {token}"))
        .body(Empty::new())?;
    let body = client.request(request).await?.into_body().collect().await?.to_bytes();
    println!("{}", String::from_utf8_lossy(&body));
    Ok(())
}
