//! tower-http's compression, above the cache or below it.
//!
//! Below, each coding is a variant of its own (`Vary: Accept-Encoding`): it is compressed once, and takes room for each coding.
//! Above, one plain variant is stored, and each hit is compressed anew.
//!
//! ```toml
//! [dependencies]
//! axum = "0.8"
//! tower-http = { version = "0.7", features = ["compression-gzip"] }
//! tower-response-cache = { version = "0.1", features = ["axum"] }
//! ```

use axum::Router;
use axum::http::header;
use axum::routing::get;
use tower_http::compression::CompressionLayer;
use tower_response_cache::storage::Storage;
use tower_response_cache::{CacheLayer, Error};

fn pages() -> Router {
    let page = async || {
        let fields = [(header::CACHE_CONTROL, "public, max-age=60"), (header::CONTENT_TYPE, "text/plain")];
        (fields, "compressible ".repeat(1000))
    };
    Router::new().route("/", get(page))
}

fn layer<S: Storage>(storage: S) -> Result<CacheLayer<S>, Error> {
    CacheLayer::builder(storage).shared(true).status_field("app").build()
}

/// Returns a server that compresses a page once.
pub fn below<S: Storage>(storage: S) -> Result<Router, Error> {
    Ok(pages().layer(CompressionLayer::new()).layer(layer(storage)?))
}

/// Returns a server that stores a page once, and compresses each response.
pub fn above<S: Storage>(storage: S) -> Result<Router, Error> {
    Ok(pages().layer(layer(storage)?).layer(CompressionLayer::new()))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;
    use tower_response_cache::storage::MemoryStorage;

    use super::*;

    /// Returns whether the response is a hit, and its length.
    async fn fetch(app: &Router, codings: &str) -> (bool, usize) {
        let request = Request::get("/").header("host", "example.com").header("accept-encoding", codings);
        let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let is_hit = response.headers()["cache-status"].to_str().unwrap().contains("hit");
        (is_hit, response.into_body().collect().await.unwrap().to_bytes().len())
    }

    #[tokio::test]
    async fn every_client_gets_the_coding_it_accepts() {
        for (app, shares_a_variant) in
            [(below(MemoryStorage::new()).unwrap(), false), (above(MemoryStorage::new()).unwrap(), true)]
        {
            let (is_hit, compressed) = fetch(&app, "gzip").await;
            assert!(!is_hit && compressed < 1000);
            assert!(fetch(&app, "gzip").await.0);
            assert_eq!(fetch(&app, "identity").await, (shares_a_variant, 13_000));
            assert_eq!(fetch(&app, "identity").await, (true, 13_000));
        }
    }
}
