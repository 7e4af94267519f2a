//! reqwest with tracing, cache and retries by reqwest-middleware.
//!
//! Tracing stands above the cache, so that hits are traced too. Retries stand below it, so that a response that was fetched
//! after a retry is stored like any other.
//!
//! ```toml
//! [dependencies]
//! reqwest = "0.13"
//! reqwest-middleware = "0.5"
//! reqwest-retry = "0.9"
//! reqwest-tracing = "0.7"
//! tower-response-cache = { version = "0.1", features = ["reqwest"] }
//! ```

use reqwest::header::HeaderMap;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_retry::RetryTransientMiddleware;
use reqwest_retry::policies::ExponentialBackoff;
use reqwest_tracing::TracingMiddleware;
use tower_response_cache::CacheLayer;
use tower_response_cache::reqwest::{CacheMiddleware, FollowRedirects};
use tower_response_cache::storage::Storage;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Returns a client that traces, follows redirects, caches and retries.
///
/// `headers` are added to each request.
pub fn client<S: Storage>(layer: &CacheLayer<S>, headers: HeaderMap) -> Result<ClientWithMiddleware, Error> {
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .default_headers(headers.clone())
        .build()?;
    let retries = ExponentialBackoff::builder().build_with_max_retries(3);
    Ok(ClientBuilder::new(client)
        .with(TracingMiddleware::default())
        .with(FollowRedirects::new())
        .with(CacheMiddleware::new(layer.clone()).client_headers(&headers))
        .with(RetryTransientMiddleware::new_with_policy(retries))
        .build())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tower_response_cache::storage::MemoryStorage;

    use super::*;
    use crate::server::{Server, response};

    #[tokio::test]
    async fn response_after_a_retry_and_a_redirect_is_stored() {
        let has_failed = Arc::new(AtomicBool::new(false));
        let server = Server::start(move |request| match request.uri().path() {
            "/a" => {
                let mut redirect = response(&[("location", "/b"), ("cache-control", "max-age=60")], "");
                *redirect.status_mut() = http::StatusCode::FOUND;
                redirect
            }
            _ if !has_failed.swap(true, Ordering::SeqCst) => {
                let mut failed = response(&[], "");
                *failed.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
                failed
            }
            _ => response(&[("cache-control", "max-age=60")], "hello"),
        })
        .await;
        let layer = CacheLayer::new(MemoryStorage::new());
        let client = client(&layer, HeaderMap::new()).unwrap();
        for _ in 0..3 {
            let response = client.get(format!("{}/a", server.url)).send().await.unwrap();
            assert_eq!(response.text().await.unwrap(), "hello");
        }
        assert_eq!(server.count(), 3); // the redirect, the failure, the response
        assert_eq!(layer.statistics().hits(), 4);
    }
}
